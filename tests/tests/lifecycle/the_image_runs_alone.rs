//! The OCI image is what the specification of images asks for, and its program protects a machine from
//! inside, with the mounts and capabilities that `docs/install.md` names and nothing else.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::Lab;
use tests::package;
use tests::sg::sg_ctl;
use tests::sockets::Outcome::{Connected, TimedOut};
use tests::sockets::{TcpEcho, tcp_connects};

const POLICY: &str = "\
groups: {web: {ingress: [{protocol: tcp, ports: 80, from: [10.0.0.0/8]}]}}
interfaces: {eth0: {groups: [web]}}
";

/// A container by hand: the mounts, the root and the capabilities. It protects, waits for the end of
/// its input, and lets go.
const CONTAINER: &str = r#"
set -e
cd "$1"
mount -t tmpfs -o mode=0700 tmpfs run/sg
mount -t tmpfs -o mode=0700 tmpfs var/lib/sg
mount --rbind /sys sys
mount --rbind /dev dev
mount -t proc proc proc
inside() {
    # chroot(2) is not sg-ctl's.
    setpriv --inh-caps -all --bounding-set -all,+sys_chroot,CAPABILITIES chroot . "$@"
}
inside /usr/bin/sg-ctl apply /tmp/policy.yaml
inside /usr/bin/sg-ctl verify
inside /usr/bin/sg-ctl doctor || [ $? = 1 ]
echo ready
cat >/dev/null
inside /usr/bin/sg-ctl detach --all
"#;

/// The capabilities that the documents give a container, as setpriv writes them.
fn documented_capabilities() -> Result<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/install.md");
    let page = fs::read_to_string(page)?;
    let mut words = page.split_whitespace().peekable();
    let mut capabilities = Vec::new();
    while let Some(word) = words.next() {
        if word == "--cap-add" {
            let name = words.peek().context("a capability without a name")?;
            capabilities.push(format!("+{}", name.to_lowercase()));
        }
    }
    ensure!(!capabilities.is_empty(), "the page gives no capability");
    Ok(capabilities.join(","))
}

/// A blob of a layout, whose contents are what its descriptor says.
fn blob(layout: &Path, descriptor: &Value) -> Result<Vec<u8>> {
    let digest = descriptor["digest"].as_str().context("no digest")?;
    let sum = digest.strip_prefix("sha256:").context("another digest")?;
    let path = layout.join("blobs/sha256").join(sum);
    ensure!(sha256(&path)? == sum, "{digest} is something else");
    let content = fs::read(&path)?;
    ensure!(
        descriptor["size"].as_u64() == Some(content.len() as u64),
        "{descriptor}"
    );
    Ok(content)
}

fn sha256(path: &Path) -> Result<String> {
    let summed = Command::new("sha256sum")
        .stdin(File::open(path)?)
        .output()?;
    let line = String::from_utf8(summed.stdout)?;
    let sum = line.split_whitespace().next();
    Ok(sum.context("sha256sum printed nothing")?.to_owned())
}

fn unpack(archive: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let tar = Command::new("tar")
        .args(["-C".as_ref(), into.as_os_str(), "-xf".as_ref()])
        .arg(archive)
        .status()?;
    ensure!(tar.success(), "tar cannot unpack {}", archive.display());
    Ok(())
}

#[test]
fn an_image_is_whole_and_protects_with_what_the_documents_give_it() -> Result<()> {
    if !package::can_be_made() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let packages = package::pack(folder.path())?;
    let layout = folder.path().join("layout");
    unpack(package::named(&packages, ".oci.tar")?, &layout)?;

    let read = |name: &str| -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(layout.join(name))?)?)
    };
    ensure!(read("oci-layout")?["imageLayoutVersion"] == "1.0.0");
    let index = read("index.json")?;
    let manifest: Value = serde_json::from_slice(&blob(&layout, &index["manifests"][0])?)?;
    let config: Value = serde_json::from_slice(&blob(&layout, &manifest["config"])?)?;
    ensure!(
        config["config"]["Entrypoint"][0] == "/usr/bin/sg-ctl",
        "{config}"
    );
    let layers = manifest["layers"].as_array().context("no layers")?;
    ensure!(layers.len() == 1, "{manifest}");
    let layer = folder.path().join("layer.tar.gz");
    fs::write(&layer, blob(&layout, &layers[0])?)?;
    let gunzip = Command::new("gzip").arg("-d").arg(&layer).status()?;
    ensure!(gunzip.success(), "the layer is no gzip file");
    let layer = folder.path().join("layer.tar");
    let unpacked = format!("sha256:{}", sha256(&layer)?);
    ensure!(config["rootfs"]["diff_ids"][0] == unpacked, "{config}");

    let root = folder.path().join("root");
    unpack(&layer, &root)?;
    let version = |command: &mut Command| -> Result<String> {
        Ok(String::from_utf8(
            command.arg("--version").output()?.stdout,
        )?)
    };
    let inside = version(Command::new("chroot").arg(&root).arg("/usr/bin/sg-ctl"))?;
    ensure!(inside == version(&mut Command::new(sg_ctl()?))?, "{inside}");
    fs::write(root.join("tmp/policy.yaml"), POLICY)?;
    protects_from_inside(&root)
}

fn protects_from_inside(root: &Path) -> Result<()> {
    let pair = Lab::pair()?;
    let _listeners = [":80", ":81"].map(|port| TcpEcho::listen(&pair.host, port));
    let open = || tcp_connects(&pair.world, "10.0.0.10:80");
    let closed = || tcp_connects(&pair.world, "10.0.0.10:81");
    ensure!(closed()? == Connected, "before anything is protected");
    let script = CONTAINER.replace("CAPABILITIES", &documented_capabilities()?);
    let mut container = pair.host.enter(|| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", &script, "sh"])
            .arg(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command.spawn().context("starting a container")
    })?;
    let mut said = BufReader::new(container.stdout.take().context("no output")?).lines();
    let before = said
        .by_ref()
        .map_while(Result::ok)
        .take_while(|line| line != "ready");
    let before: Vec<String> = before.collect();
    let outcomes = (open()?, closed()?);
    drop(container.stdin.take());
    let after: Vec<String> = said.map_while(Result::ok).collect();
    let ended = container.wait()?;
    ensure!(ended.success(), "{before:#?}\n{after:#?}");
    ensure!(
        outcomes == (Connected, TimedOut),
        "{outcomes:?}: {before:#?}"
    );
    ensure!(closed()? == Connected, "it still protects: {after:#?}");
    Ok(())
}
