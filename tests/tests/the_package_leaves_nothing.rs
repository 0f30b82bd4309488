//! The Debian package installs, lets a machine stay protected through upgrade and removal, and is
//! purged without leaving anything.
//!
//! All of it happens on a copy of this machine that is never written back: an overlay over its
//! files, with processes and a `/run` of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::sg::sg_ctl;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

/// Makes the copy, and in it one step for each line it is given; `done` ends each.
const COPY: &str = r#"
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/copy
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/copy || {
    echo no overlay
    exit
}
mount --rbind /sys /mnt/copy/sys
mount --rbind /dev /mnt/copy/dev
mount -t tmpfs tmpfs /mnt/copy/run
cp "$1" /mnt/copy/run/sg-ctl.deb
unshare --pid --fork --kill-child --root=/mnt/copy --mount-proc sh -c '
    echo done
    while read -r step; do
        (eval "$step") </dev/null >/run/said 2>&1 || { cat /run/said; echo failed; exit 1; }
        echo done
    done
'
umount /mnt/copy/run
cd /mnt/upper
# What dpkg and the triggers of others write down is theirs.
find . -not -type d \
    -not -path "./var/lib/dpkg/*" -not -path "./var/cache/*" -not -path "./var/log/*"
find . -type d | while read -r folder; do [ -d "/$folder" ] || echo "$folder"; done
echo end
"#;

/// How long the kernel may take to detach.
const PATIENCE: Duration = Duration::from_secs(20);

const POLICY: &str = "\
groups: {web: {ingress: [{protocol: tcp, ports: 80, from: [10.0.0.0/8]}]}}
interfaces: {eth0: {groups: [web]}}
";

struct Copy {
    child: Child,
    steps: Option<ChildStdin>,
    said: BufReader<std::process::ChildStdout>,
}

impl Copy {
    fn step(&mut self, command: &str) -> Result<()> {
        let steps = self.steps.as_mut().context("it has ended")?;
        writeln!(steps, "{command}")?;
        let said = self.read_until("done")?;
        ensure!(said.is_empty(), "{command}: {said:?}");
        Ok(())
    }

    /// The lines before `end`, or before the end of all.
    fn read_until(&mut self, end: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let is_over = self.said.read_line(&mut line)? == 0;
            match line.trim_end() {
                line if line == end => return Ok(lines),
                _ if is_over => {
                    lines.push("it ended".to_owned());
                    return Ok(lines);
                }
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// Ends the copy and gives what is left in it.
    fn left(mut self) -> Result<Vec<String>> {
        drop(self.steps.take());
        let left = self.read_until("end")?;
        self.child.wait()?;
        Ok(left)
    }
}

/// Packs the program under test.
fn package(folder: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let packed = Command::new(cargo)
        .args(["xtask", "package", "--program"])
        .arg(sg_ctl()?)
        .arg("--output")
        .arg(folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    let said = String::from_utf8_lossy(&packed.stderr).into_owned();
    ensure!(packed.status.success(), "{said}");
    let path = String::from_utf8(packed.stdout)?;
    Ok(PathBuf::from(path.trim_end()))
}

#[test]
fn it_protects_until_it_is_purged_and_then_nothing_is_left() -> Result<()> {
    if !Path::new("/usr/bin/dpkg-deb").exists() {
        println!("skipped: this machine has no dpkg, so nothing was proven of the package");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let package = package(folder.path())?;
    let pair = Lab::pair()?;
    let _listeners = (
        TcpEcho::listen(&pair.host, ":80")?,
        TcpEcho::listen(&pair.host, ":81")?,
    );
    let outcomes = || -> Result<[Outcome; 2]> {
        Ok([
            tcp_connects(&pair.world, "10.0.0.10:80")?,
            tcp_connects(&pair.world, "10.0.0.10:81")?,
        ])
    };
    let (protected, free) = ([Connected, TimedOut], [Connected, Connected]);

    let mut child = pair.host.enter(|| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.args(["sh", "-c", COPY, "sh"]).arg(&package);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().context("starting a copy of the machine")
    })?;
    let mut copy = Copy {
        steps: child.stdin.take(),
        said: BufReader::new(child.stdout.take().context("no output")?),
        child,
    };
    let begun = copy.read_until("done")?;
    if begun.first().is_some_and(|line| line == "no overlay") {
        println!(
            "skipped: the kernel lays nothing over this root, so the package was not installed"
        );
        return Ok(());
    }
    ensure!(begun.is_empty(), "{begun:?}");

    copy.step("dpkg --install /run/sg-ctl.deb")?;
    copy.step("dpkg --listfiles sg-ctl | grep -q man1/sg-ctl-rule-add.1.gz")?;
    copy.step("test -e /etc/systemd/system/sysinit.target.wants/sg-restore.service")?;
    ensure!(outcomes()? == free, "installing it protects something");
    let policy = POLICY.replace('\n', "\\n");
    copy.step(&format!(
        "printf '{policy}' >/run/policy && sg-ctl apply /run/policy"
    ))?;
    ensure!(outcomes()? == protected, "it does not protect");

    for touched in ["dpkg --install /run/sg-ctl.deb", "dpkg --remove sg-ctl"] {
        copy.step(touched)?;
        ensure!(outcomes()? == protected, "{touched} opened the machine");
    }
    copy.step("test -e /var/lib/sg/policy.db")?;
    copy.step("dpkg --purge sg-ctl")?;
    // The kernel detaches what was pinned a moment after the pins have gone.
    let began = Instant::now();
    while outcomes()? != free {
        ensure!(began.elapsed() < PATIENCE, "it still protects");
    }
    copy.step("test ! -e /run/sg && test ! -e /var/lib/sg")?;
    let left = copy.left()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[test]
fn its_units_are_sound() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/package");
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        println!("skipped: this machine has no systemd-analyze, so the units were not looked at");
        return Ok(());
    }
    for unit in ["sg-restore.service", "sg-restore@.service"] {
        let text = fs::read_to_string(folder.join(unit))?;
        // The program and the manual are there when the package is.
        let here = text
            .replace("/usr/bin/sg-ctl", "/bin/true")
            .replace("Documentation=man:sg-ctl(1)\n", "");
        let copy = tempfile::tempdir()?;
        let path = copy.path().join(unit);
        fs::write(&path, here)?;
        let said = Command::new("systemd-analyze")
            .arg("verify")
            .arg(&path)
            .output()?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.is_empty(), "{unit}: {said}");
    }
    Ok(())
}

#[test]
fn a_device_of_any_name_starts_its_own_unit() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/package");
    let rules = fs::read_to_string(folder.join("90-sg.rules"))?;
    let unit = fs::read_to_string(folder.join("sg-restore@.service"))?;
    // `%I` is the name as it was before it was escaped.
    ensure!(unit.contains("restore --device %I\n"), "{unit}");
    let program = rules
        .split_once("PROGRAM=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(program, _)| program)
        .context("the rule escapes nothing")?;
    ensure!(rules.contains("ENV{SYSTEMD_WANTS}+=\"%c\""), "{rules}");
    if !Path::new("/usr/bin/systemd-escape").exists() {
        println!("skipped: this machine has no systemd-escape, so no name was escaped");
        return Ok(());
    }
    for name in ["eth0", "vnet-1", "br-0a1b2c", "-x", "a+b.c", "veth@x"] {
        let mut words = program.split(' ').map(|word| word.replace("$name", name));
        let escape = words.next().context("no program")?;
        let escaped = Command::new(escape).args(words).output()?;
        let escaped = String::from_utf8(escaped.stdout)?;
        let back = Command::new("systemd-escape")
            .args(["--unescape", "--instance", escaped.trim_end()])
            .output()?;
        let back = String::from_utf8(back.stdout)?;
        ensure!(
            back.trim_end() == name,
            "{name} became {escaped}, and that {back}"
        );
    }
    Ok(())
}
