//! What happens to interfaces behind sg's back must not take their protection away.

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Lab, Pair};
use tests::sg::Sg;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

const CLOSED: &str = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g], hook: xdp}
";

/// The states of an interface's devices, as `status` has them.
fn states(sg: &Sg) -> Result<Vec<String>> {
    let status = sg.json(&["status"])?;
    let interfaces = status["interfaces"].as_array().context("no interfaces")?;
    let states = interfaces
        .iter()
        .filter_map(|found| found["state"].as_str());
    Ok(states.map(str::to_owned).collect())
}

fn rename(pair: &Pair, from: &str, to: &str) -> Result<()> {
    pair.host.ip(&format!("link set {from} down"))?;
    pair.host.ip(&format!("link set {from} name {to}"))?;
    pair.host.ip(&format!("link set {to} up")).map(drop)
}

#[test]
fn a_renamed_interface_stays_protected_and_follows_its_policy() -> Result<()> {
    let (pair, sg) = Sg::protecting(CLOSED)?;
    let _listener = TcpEcho::listen(&pair.host, "10.0.0.10:80")?;
    rename(&pair, "eth0", "lan0")?;
    let connects = || tcp_connects(&pair.world, "10.0.0.10:80");
    ensure!(states(&sg)? == ["renamed"], "{:?}", states(&sg)?);
    sg.run(&["verify"])?.succeeded()?;
    let created = sg.run(&["group", "create", "other"])?.succeeded()?;
    ensure!(created.stderr.contains("is called lan0 now"), "{created}");
    ensure!(connects()? == TimedOut, "it is open");
    let words = "rule add g --ingress --protocol tcp --ports 80 --from 10.0.0.0/8";
    let words: Vec<&str> = words.split(' ').collect();
    sg.run(&words)?.succeeded()?;
    ensure!(connects()? == Connected, "its policy is the old one");
    sg.run(&["restore"])?.succeeded()?;
    sg.run(&["verify"])?.succeeded()?;
    ensure!(states(&sg)? == ["renamed"], "{:?}", states(&sg)?);
    rename(&pair, "lan0", "eth0")?;
    ensure!(states(&sg)? == ["protected"], "{:?}", states(&sg)?);
    rename(&pair, "eth0", "lan0")?;

    sg.run(&["detach", "eth0"])?.succeeded()?;
    let _other = TcpEcho::listen(&pair.host, "10.0.0.10:81")?;
    let free = tcp_connects(&pair.world, "10.0.0.10:81")?;
    ensure!(free == Connected, "it is not free");
    Ok(())
}

#[test]
fn where_another_device_takes_the_name_both_are_protected() -> Result<()> {
    let (pair, sg) = Sg::protecting(&CLOSED.replace("xdp", "tc"))?;
    let _listener = TcpEcho::listen(&pair.host, ":80")?;
    rename(&pair, "eth0", "lan0")?;
    pair.lab.join((&pair.world, "eth1"), (&pair.host, "eth0"))?;
    pair.world.add_addresses("eth1", &["10.0.1.1/24"])?;
    pair.host.add_addresses("eth0", &["10.0.1.10/24"])?;
    let old = || tcp_connects(&pair.world, "10.0.0.10:80");
    let new = || tcp_connects(&pair.world, "10.0.1.10:80");
    ensure!((old()?, new()?) == (TimedOut, Connected));
    let told = states(&sg)?;
    ensure!(told == ["not-attached", "renamed"], "{told:?}");
    let verified = sg.run(&["verify"])?;
    ensure!(verified.code == Some(1), "{verified}");
    ensure!(
        verified.stdout.contains("interface eth0 is not protected"),
        "{verified}"
    );
    sg.run(&["restore"])?.succeeded()?;
    ensure!((old()?, new()?) == (TimedOut, TimedOut));
    let told = states(&sg)?;
    ensure!(told == ["protected", "renamed"], "{told:?}");
    sg.run(&["verify"])?.succeeded()?;
    sg.run(&["group", "create", "other"])?.succeeded()?;
    ensure!((old()?, new()?) == (TimedOut, TimedOut));
    sg.run(&["detach", "eth0"])?.succeeded()?;
    ensure!((old()?, new()?) == (Connected, Connected));
    Ok(())
}

#[test]
fn an_interface_that_moves_to_another_namespace_stays_protected() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let pair = Lab::pair()?;
        let sg = Sg::on(&pair.host)?;
        let policy = "{groups: {g: {ingress: [{protocol: tcp, ports: 80, from: 0.0.0.0/0}]}}, \
                      interfaces: {eth0: {groups: [g], hook: HOOK}}}";
        sg.apply(&policy.replace("HOOK", hook))?;
        // ARP is dropped too while the device is astray, and must not fail before a connection does.
        let mac = pair
            .host
            .mac("eth0")?
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        pair.world.ip(&format!(
            "neighbor replace 10.0.0.10 lladdr {mac} dev eth0 nud permanent"
        ))?;
        let other = pair.lab.host("other")?;
        // Its number is taken there, so that it gets another one.
        let number = sg.json(&["status"])?["interfaces"][0]["ifindex"].clone();
        other.ip(&format!("link add taken index {number} type bridge"))?;
        let namespace = other.namespace();
        pair.host.ip(&format!("link set eth0 netns {namespace}"))?;
        other.add_addresses("eth0", &["10.0.0.10/24"])?;
        other.ip("link set eth0 up")?;
        let _listeners = [
            TcpEcho::listen(&other, ":80")?,
            TcpEcho::listen(&other, ":81")?,
        ];
        let outcomes = || -> Result<[Outcome; 2]> {
            Ok([
                tcp_connects(&pair.world, "10.0.0.10:80")?,
                tcp_connects(&pair.world, "10.0.0.10:81")?,
            ])
        };
        ensure!(outcomes()? == [TimedOut, TimedOut], "{hook}: it is open");
        let told = states(&sg)?;
        ensure!(told == ["astray"], "{hook}: {told:?}");
        let verified = sg.json(&["verify"])?;
        let differences = verified["differences"].as_array().context("no list")?;
        let kinds: Vec<_> = differences.iter().map(|found| &found["kind"]).collect();
        ensure!(kinds == ["moved"], "{hook}: {verified}");

        let restored = sg.run(&["restore"])?.succeeded()?;
        ensure!(restored.stderr.contains(namespace), "{hook}: {restored}");
        ensure!(
            outcomes()? == [Connected, TimedOut],
            "{hook}: {:?}",
            outcomes()?
        );
        let told = states(&sg)?;
        ensure!(told == ["moved"], "{hook}: {told:?}");
        sg.run(&["verify"])?.succeeded()?;
        sg.run(&["group", "create", "more"])?.succeeded()?;
        ensure!(
            outcomes()? == [Connected, TimedOut],
            "{hook}: {:?}",
            outcomes()?
        );

        other.ip(&format!("link set eth0 netns {}", pair.host.namespace()))?;
        sg.run(&["restore"])?.succeeded()?;
        ensure!(states(&sg)? == ["protected"], "{hook}: {:?}", states(&sg)?);
        sg.run(&["verify"])?.succeeded()?;
    }
    Ok(())
}

#[test]
fn an_absent_interface_waits_and_keeps_nothing_from_being_done() -> Result<()> {
    let pair = Lab::pair()?;
    let sg = Sg::on(&pair.host)?;
    let policy = "
groups:
  g: {}
interfaces:
  eth0: {groups: [g]}
  vnet-1: {groups: [g], side: guest, addresses: [10.0.5.2]}
  a0: {groups: [g], netns: not-there-yet}
";
    let applied = sg.apply(policy)?;
    for name in ["vnet-1", "not-there-yet"] {
        let line = applied.stderr.lines().find(|line| line.contains(name));
        ensure!(
            line.is_some_and(|line| line.contains("waiting")),
            "{applied}"
        );
    }
    let told = states(&sg)?;
    ensure!(told == ["waiting", "protected", "waiting"], "{told:?}");
    let status = sg.run(&["status"])?.succeeded()?;
    ensure!(status.stdout.contains("waiting"), "{status}");
    ensure!(sg.apply(policy)?.stdout.contains("nothing to change"));
    sg.run(&[
        "attach",
        "vnet-1",
        "--group",
        "default",
        "--side",
        "guest",
        "--address",
        "10.0.5.2",
    ])?
    .succeeded()?;
    // A name that is new may be a mistake.
    let mistake = sg.run(&["attach", "eht0"])?;
    ensure!(mistake.code == Some(2), "{mistake}");
    ensure!(mistake.stderr.contains("did you mean `eth0`"), "{mistake}");

    pair.host.ip("tuntap add dev vnet-1 mode tap")?;
    ensure!(states(&sg)? == ["waiting", "protected", "not-attached"]);
    sg.run(&["restore", "--device", "vnet-1"])?.succeeded()?;
    ensure!(states(&sg)? == ["waiting", "protected", "protected"]);
    pair.host.ip("link del vnet-1")?;
    ensure!(states(&sg)? == ["waiting", "protected", "waiting"]);
    sg.run(&["group", "create", "more"])?.succeeded()?;
    sg.run(&["verify"])?.succeeded()?;
    Ok(())
}

#[test]
fn an_interface_changes_its_side_and_hook_without_replacing_anything() -> Result<()> {
    let (pair, sg) = Sg::protecting(CLOSED)?;
    let _listener = TcpEcho::listen(&pair.host, "10.0.0.10:80")?;
    for hook in ["tc", "xdp", "auto", "xdp"] {
        sg.run(&["attach", "eth0", "--group", "g", "--hook", hook])?
            .succeeded()?;
        let got = tcp_connects(&pair.world, "10.0.0.10:80")?;
        ensure!(got == TimedOut, "{hook}: {got:?}");
    }
    Ok(())
}

#[test]
fn another_xdp_program_is_not_replaced_unasked() -> Result<()> {
    let pair = Lab::pair()?;
    let (first, second) = (Sg::on(&pair.host)?, Sg::on(&pair.host)?);
    first.apply(CLOSED)?;
    let refused = second.run(&["apply", &second.write_policy(CLOSED)?])?;
    ensure!(refused.code == Some(2), "{refused}");
    ensure!(refused.stderr.contains("another XDP program"), "{refused}");
    second.apply(&CLOSED.replace("xdp", "tc"))?;
    Ok(())
}
