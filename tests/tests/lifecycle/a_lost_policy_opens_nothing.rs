//! A state folder that is lost, or another one, never opens a machine: that takes a command that
//! says so.

use std::fs;

use anyhow::{Result, ensure};
use sg_ctl::store::{SqliteStore, Store as _};
use tests::lab::Pair;
use tests::sg::{Ran, Sg};
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const POLICY: &str = "{groups: {web: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [web]}}}";

struct Machine {
    pair: Pair,
    sg: Sg,
    _listeners: [TcpEcho; 2],
}

impl Machine {
    fn protected() -> Result<Self> {
        let (pair, sg) = Sg::protecting(POLICY)?;
        let _listeners = [
            TcpEcho::listen(&pair.host, ":80")?,
            TcpEcho::listen(&pair.host, ":81")?,
        ];
        Ok(Self {
            pair,
            sg,
            _listeners,
        })
    }

    fn lose_the_store(&self) -> Result<()> {
        Ok(fs::rename(
            self.sg.state_dir(),
            self.sg.state_dir().with_extension("lost"),
        )?)
    }

    fn bring_it_back(&self) -> Result<()> {
        let state = self.sg.state_dir();
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        Ok(fs::rename(state.with_extension("lost"), &state)?)
    }

    fn is_protected(&self) -> Result<bool> {
        let open = tcp_connects(&self.pair.world, "10.0.0.10:80")?;
        let closed = tcp_connects(&self.pair.world, "10.0.0.10:81")?;
        Ok((open, closed) == (Connected, TimedOut))
    }

    /// A command that must be refused with these words, and leave everything as it is.
    fn refuses(&self, ran: &Ran, wanted: &str) -> Result<()> {
        ensure!(ran.code == Some(2), "{ran}");
        ensure!(ran.stderr.contains(wanted), "wanted {wanted:?}: {ran}");
        ensure!(ran.stderr.trim().lines().count() == 1, "{ran}");
        ensure!(self.is_protected()?, "it is open after {ran}");
        Ok(())
    }
}

#[test]
fn no_command_but_one_that_says_so_opens_a_machine_whose_policy_is_gone() -> Result<()> {
    let machine = Machine::protected()?;
    let sg = &machine.sg;
    machine.lose_the_store()?;
    for words in [
        &["restore"][..],
        &["group", "create", "other"],
        &[
            "rule",
            "add",
            "default",
            "--ingress",
            "--service",
            "ssh",
            "--from",
            "10.0.0.0/8",
        ],
        &["detach", "eth0"],
        &["limits", "set", "rules=2000000"],
        &["verify"],
    ] {
        machine.refuses(&sg.run(words)?, "policy.db is gone")?;
    }
    let path = sg.write_policy(POLICY)?;
    machine.refuses(&sg.run(&["apply", &path])?, "apply FILE --take-over")?;
    ensure!(
        !sg.state_dir().join("policy.db").exists(),
        "a refused command makes a store"
    );

    let status = sg.run(&["status"])?.succeeded()?;
    ensure!(
        status.stdout.contains("protected by another policy"),
        "{status}"
    );
    ensure!(status.stdout.contains("policy.db is gone"), "{status}");
    ensure!(
        !status.stdout.contains("`sg-ctl restore` makes"),
        "{status}"
    );
    let doctor = sg.run(&["doctor"])?;
    ensure!(doctor.code == Some(1), "{doctor}");
    ensure!(doctor.stdout.contains("policy.db is gone"), "{doctor}");

    let nothing = sg.run(&["restore", "--take-over"])?;
    machine.refuses(&nothing, "no policy to take over with")?;
    // A file that would leave the interface open takes over nothing.
    let other = sg.write("other.yaml", "{groups: {web: {}}, interfaces: {}}")?;
    let opens = sg.run(&["apply", &other, "--take-over"])?;
    machine.refuses(&opens, "eth0 would not be protected any more")?;

    sg.run(&["apply", &path, "--take-over"])?.succeeded()?;
    ensure!(machine.is_protected()?);
    sg.run(&["verify"])?.succeeded()?;
    sg.run(&["group", "create", "other"])?.succeeded()?;
    ensure!(machine.is_protected()?);
    Ok(())
}

#[test]
fn another_state_folder_changes_nothing_that_is_in_force() -> Result<()> {
    let machine = Machine::protected()?;
    let sg = &machine.sg;
    let other = sg.state_dir().with_extension("other");
    let other = other.display().to_string();
    let run = |words: &[&str]| sg.run(&[&["--state-dir", &other], words].concat());
    machine.refuses(&run(&["group", "create", "foo"])?, "was installed from")?;

    // A store that was made for another machine is no better.
    let elsewhere = Sg::on(&machine.pair.world)?;
    elsewhere.run(&["group", "create", "foo"])?.succeeded()?;
    let theirs = elsewhere.state_dir().display().to_string();
    let run = |words: &[&str]| sg.run(&[&["--state-dir", &theirs], words].concat());
    for words in [
        &["group", "create", "bar"][..],
        &["restore"],
        &["group", "delete", "foo"],
        &["verify"],
    ] {
        machine.refuses(&run(words)?, "was installed from")?;
    }
    let opens = run(&["restore", "--take-over"])?;
    machine.refuses(&opens, "eth0 would not be protected any more")?;
    sg.run(&["verify"])?.succeeded()?;
    Ok(())
}

#[test]
fn one_command_opens_everything_whatever_is_lost() -> Result<()> {
    let machine = Machine::protected()?;
    let sg = &machine.sg;
    let is_open =
        || -> Result<bool> { Ok(tcp_connects(&machine.pair.world, "10.0.0.10:81")? == Connected) };
    let detached = sg.run(&["detach", "--all"])?.succeeded()?;
    ensure!(detached.stdout.contains("- interface eth0"), "{detached}");
    ensure!(is_open()?);
    sg.run(&["restore"])?.succeeded()?;
    ensure!(is_open()?, "what was detached comes back");

    sg.apply(POLICY)?;
    machine.lose_the_store()?;
    let detached = sg.run(&["detach", "--all"])?.succeeded()?;
    ensure!(detached.stdout.contains("eth0"), "{detached}");
    ensure!(is_open()?);
    ensure!(!sg.run_dir().join("bpf").exists(), "pins are left");
    machine.bring_it_back()?;
    sg.run(&["restore"])?.succeeded()?;
    ensure!(machine.is_protected()?, "the stored policy has changed");

    fs::write(sg.run_dir().join("installed"), "damaged")?;
    sg.run(&["detach", "--all"])?.succeeded()?;
    ensure!(is_open()?);
    Ok(())
}

/// As the version before this promise left them: without an owner, and without an identity.
fn forget_whose_it_is(sg: &Sg) -> Result<()> {
    fs::remove_file(sg.run_dir().join("owner"))?;
    let mut store = SqliteStore::open(&sg.state_dir())?;
    Ok(store.set_setting("identity", None)?)
}

#[test]
fn what_an_earlier_version_has_installed_is_adopted_once() -> Result<()> {
    let machine = Machine::protected()?;
    let sg = &machine.sg;
    forget_whose_it_is(sg)?;
    sg.run(&["verify"])?.succeeded()?;
    let words = [
        "rule",
        "add",
        "web",
        "--ingress",
        "--service",
        "ssh",
        "--from",
        "10.0.0.0/8",
    ];
    sg.run(&words)?.succeeded()?;
    ensure!(machine.is_protected()?);
    let other = sg.state_dir().with_extension("other").display().to_string();
    let refused = sg.run(&["--state-dir", &other, "group", "create", "foo"])?;
    machine.refuses(&refused, "was installed from")?;

    // An empty store is not the one that it was installed from.
    forget_whose_it_is(sg)?;
    machine.lose_the_store()?;
    machine.refuses(&sg.run(&["restore"])?, "policy.db is gone")?;
    Ok(())
}
