//! The Debian package installs, lets a machine stay protected through upgrade and removal, and is
//! purged without leaving anything: on this machine, and on a clean Debian 12 and 13.
//!
//! All of it happens on a copy that is never written back: an overlay over the files of this machine
//! or of a clean Debian, with processes and a `/run` of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::package;
use tests::pages::debian_blocks;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{Outcome, TcpEcho, tcp_connects};

/// Makes the copy, and in it one step for each line it is given; `done` ends each.
const COPY: &str = r#"
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/copy
mount -t overlay -o lowerdir="$2",upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/copy || {
    echo no overlay
    exit
}
mount --rbind /sys /mnt/copy/sys
mount --rbind /dev /mnt/copy/dev
mount -t tmpfs tmpfs /mnt/copy/run
mkdir -p /mnt/copy/run/packages
cp "$1"/*.deb /mnt/copy/run/packages
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
    -not -path "./var/lib/dpkg/*" -not -path "./var/lib/apt/*" \
    -not -path "./var/cache/*" -not -path "./var/log/*"
find . -type d -not -path "./var/lib/apt/*" -not -path "./var/cache/*" |
    while read -r folder; do [ -d "$2/$folder" ] || echo "$folder"; done
echo end
"#;

/// Has sg-ctl do as on a kernel without TCX links.
const CLSACT: &str = "SG_TC_HOOK=clsact";

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
        let is_failed = said
            .last()
            .is_some_and(|line| line == "failed" || line == "it ended");
        ensure!(!is_failed, "{command}: {said:?}");
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

/// Packs the program under test, and returns the path of the Debian package.
fn package(folder: &Path) -> Result<PathBuf> {
    let packages = package::pack(folder)?;
    Ok(package::named(&packages, ".deb")?.to_owned())
}

#[test]
fn it_protects_until_it_is_purged_and_then_nothing_is_left() -> Result<()> {
    if !package::can_be_made() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    package(folder.path())?;
    let name = deb(folder.path())?;
    let [install, remove, purge] = [
        format!("dpkg --install /run/packages/{name}"),
        "dpkg --remove sg-ctl".to_owned(),
        "dpkg --purge sg-ctl".to_owned(),
    ];
    let steps = [install.as_str(), &install, &remove, &purge];
    for hook in ["", CLSACT] {
        live_through(Path::new("/"), folder.path(), hook, &steps)?;
    }
    Ok(())
}

#[test]
fn the_commands_of_the_documents_work_in_a_clean_debian() -> Result<()> {
    if !package::can_be_made() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    package(folder.path())?;
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let [install, purge] = <[String; 2]>::try_from(debian_blocks(&fs::read_to_string(readme)?))
        .map_err(|blocks| anyhow::anyhow!("the README has other blocks: {blocks:?}"))?;
    // A tester's program may be packed on another architecture than the documents name.
    let install = install.replace("sg-ctl_0.1.0_amd64.deb", &deb(folder.path())?);
    let install = format!("cd /run/packages && {}", install.trim());
    let upgrade = format!("{install} --reinstall");
    for suite in ["bookworm", "trixie"] {
        let Some(root) = clean_debian(suite)? else {
            continue;
        };
        let steps = [
            install.as_str(),
            &upgrade,
            "apt remove sg-ctl",
            purge.trim(),
        ];
        live_through(&root, folder.path(), "", &steps).with_context(|| suite.to_owned())?;
    }
    Ok(())
}

#[test]
fn lintian_finds_no_error() -> Result<()> {
    if !package::can_be_made() || !Path::new("/usr/bin/lintian").exists() {
        println!("skipped: this machine has no lintian, so the package was not looked at");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let package = package(folder.path())?;
    let found = Command::new("lintian")
        .args([
            "--fail-on",
            "error",
            "--tag-display-limit",
            "0",
            "--allow-root",
        ])
        .arg(package)
        .output()?;
    let said = String::from_utf8_lossy(&found.stdout);
    ensure!(found.status.success(), "{said}");
    Ok(())
}

/// The file name of the Debian package of a folder.
fn deb(folder: &Path) -> Result<String> {
    let names =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut debs = names.filter(|name| name.ends_with(".deb"));
    debs.next().context("no Debian package")
}

/// The root of a clean Debian, made once; none where it cannot be made.
fn clean_debian(suite: &str) -> Result<Option<PathBuf>> {
    let roots = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/debian");
    let (root, draft) = (roots.join(suite), roots.join(format!("{suite}.draft")));
    if root.exists() {
        return Ok(Some(root.canonicalize()?));
    }
    if !Path::new("/usr/sbin/debootstrap").exists() {
        println!("skipped: without debootstrap there is no clean {suite} to try the package in");
        return Ok(None);
    }
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir_all(&draft)?;
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", suite])
        .arg(&draft)
        .output()?;
    if !made.status.success() {
        println!("skipped: debootstrap could not make a clean {suite}");
        return Ok(None);
    }
    fs::rename(&draft, &root)?;
    Ok(Some(root.canonicalize()?))
}

/// Installs, upgrades, removes and purges the package in a copy of a root, where sg-ctl runs with
/// this environment.
fn live_through(root: &Path, packages: &Path, hook: &str, steps: &[&str; 4]) -> Result<()> {
    let [install, upgrade, remove, purge] = steps;
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
        command
            .args(["sh", "-c", COPY, "sh"])
            .args([packages, root]);
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

    copy.step(&format!("{QUIET_APT}; {install}"))?;
    for path in [
        "/usr/share/man/man1/sg-ctl-rule-add.1.gz",
        "/usr/share/man/man5/sg-policy.5.gz",
        "/usr/share/sg-ctl/policy.schema.json",
        "/usr/share/doc/sg-ctl/examples/web-host.yaml",
        "/usr/share/doc/sg-ctl/changelog.gz",
        "/usr/share/doc/sg-ctl/docs/policy.md",
    ] {
        copy.step(&format!("dpkg --listfiles sg-ctl | grep -qx {path}"))?;
    }
    copy.step("test -z \"$(dpkg --verify sg-ctl)\"")?;
    copy.step("sg-ctl --version >/dev/null")?;
    copy.step(
        "! command -v systemctl >/dev/null || \
         test -e /etc/systemd/system/sysinit.target.wants/sg-restore.service",
    )?;
    ensure!(outcomes()? == free, "installing it protects something");
    let policy = POLICY.replace('\n', "\\n");
    copy.step(&format!(
        "printf '{policy}' >/run/policy && {hook} sg-ctl apply /run/policy"
    ))?;
    ensure!(outcomes()? == protected, "it does not protect");
    let disciplines = pair.host.run("tc", &["qdisc", "show"])?;
    ensure!(
        disciplines.contains("clsact") == (hook == CLSACT),
        "another hook than `{hook}`: {disciplines}"
    );

    for touched in [upgrade, remove] {
        copy.step(touched)?;
        ensure!(outcomes()? == protected, "{touched} opened the machine");
    }
    copy.step("test -e /var/lib/sg/policy.db")?;
    copy.step(purge)?;
    // The kernel detaches what was pinned a moment after the pins have gone.
    let began = Instant::now();
    while outcomes()? != free {
        ensure!(began.elapsed() < PATIENCE, "it still protects");
    }
    copy.step("test ! -e /run/sg && test ! -e /var/lib/sg")?;
    let disciplines = pair.host.run("tc", &["qdisc", "show"])?;
    ensure!(
        !disciplines.contains("clsact"),
        "left behind: {disciplines}"
    );
    copy.step("rm -f /etc/apt/apt.conf.d/zz-quiet")?;
    let left = copy.left()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Apt asks nothing, and fetches nothing.
const QUIET_APT: &str = "mkdir -p /etc/apt/apt.conf.d && \
    echo 'APT::Get::Assume-Yes \"true\"; quiet \"2\"; APT::Sandbox::User \"root\";' \
    >/etc/apt/apt.conf.d/zz-quiet";

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
