//! The OCI image: one layer with the program alone, and the folders that are mounted into it.
//!
//! The layout is that of the OCI image specification, in one tar as `podman load` and `skopeo` take it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{NAME, copy, date, tar, version, write};
use crate::arch::Arch;
use crate::workspace;

/// Folders for mounts, so that a read-only image can have them.
const MOUNT_POINTS: &[&str] = &[
    "run/sg",
    "run/netns",
    "var/lib/sg",
    "sys",
    "proc",
    "dev",
    "tmp",
];

/// Packs the program.
pub(super) fn pack(arch: Arch, root: &Path, output: &Path) -> Result<PathBuf> {
    let folder = tempfile::tempdir().context("making a folder")?;
    let (files, layout) = (folder.path().join("files"), folder.path().join("layout"));
    let program = root.join("usr/bin/sg-ctl");
    copy(&program, &files.join("usr/bin/sg-ctl"), 0o755)?;
    for library in libraries(&program)? {
        let inside = library
            .strip_prefix("/")
            .context("a library without a path")?;
        copy(&library, &files.join(inside), 0o755)?;
    }
    for folder in MOUNT_POINTS {
        fs::create_dir_all(files.join(folder))?;
    }
    super::set_modes(&files)?;
    // What the kernel of a merged system looks for is below usr.
    for name in ["lib", "lib64"] {
        if files.join("usr").join(name).exists() && !files.join(name).exists() {
            symlink(format!("usr/{name}"), files.join(name))?;
        }
    }

    let layer = folder.path().join("layer.tar");
    workspace::run(tar(&layer, &files)?.arg("."))?;
    let unpacked = sum(&layer)?;
    super::compress(&layer)?;
    let blobs = Blobs(layout.join("blobs/sha256"));
    let layer = blobs.add(&fs::read(layer.with_extension("tar.gz"))?)?;
    let config = serde_json::json!({
        "created": created()?,
        "architecture": arch.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/sg-ctl"],
            "Cmd": ["status"],
            "Env": ["PATH=/usr/bin"],
            "Labels": {
                "org.opencontainers.image.title": NAME,
                "org.opencontainers.image.version": version(),
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{unpacked}")]},
    });
    let config = blobs.add(config.to_string().as_bytes())?;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    });
    let mut manifest = blobs
        .add(manifest.to_string().as_bytes())?
        .descriptor("application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = serde_json::json!({
        "org.opencontainers.image.ref.name": format!("{NAME}:{}", version()),
    });
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    write(&layout.join("index.json"), index.to_string(), 0o644)?;
    write(
        &layout.join("oci-layout"),
        "{\"imageLayoutVersion\":\"1.0.0\"}",
        0o644,
    )?;

    let name = format!("{NAME}-{}-{}.oci.tar", version(), arch.debian());
    let image = output.join(name);
    workspace::run(tar(&image, &layout)?.args(["blobs", "index.json", "oci-layout"]))?;
    Ok(image)
}

/// The folder of what an image is made of, by the sums of its contents.
struct Blobs(PathBuf);

/// One file of that folder.
struct Blob {
    sum: String,
    size: usize,
}

impl Blobs {
    fn add(&self, content: &[u8]) -> Result<Blob> {
        let draft = self.0.join("draft");
        write(&draft, content, 0o644)?;
        let sum = sum(&draft)?;
        fs::rename(&draft, self.0.join(&sum)).context("naming a blob")?;
        Ok(Blob {
            sum,
            size: content.len(),
        })
    }
}

impl Blob {
    fn descriptor(&self, kind: &str) -> serde_json::Value {
        serde_json::json!({
            "mediaType": kind,
            "digest": format!("sha256:{}", self.sum),
            "size": self.size,
        })
    }
}

fn sum(file: &Path) -> Result<String> {
    let line = workspace::output(workspace::command("sha256sum").arg(file))?;
    let sum = line.split_whitespace().next();
    Ok(sum.context("sha256sum printed nothing")?.to_owned())
}

fn created() -> Result<String> {
    let mut command = workspace::command("date");
    command.args([
        "--utc",
        "+%Y-%m-%dT%H:%M:%SZ",
        "--date",
        &format!("@{}", date()?),
    ]);
    workspace::output(&mut command)
}

/// What a program loads at its start; a static one loads nothing.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let printed = Command::new("ldd")
        .arg(program)
        .output()
        .context("running ldd")?;
    let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
    let paths = printed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
