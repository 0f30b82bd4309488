//! Compiles `sg-ebpf` for the kernel and leaves each of its objects as `$OUT_DIR/NAME`, ready to embed.
//!
//! It fetches nothing: what it needs, `cargo xtask setup` puts in place. The compiler's flags for
//! the BPF targets live in `.cargo/config.toml`, so that lints and builds see the same program.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use thiserror::Error;

const PACKAGE: &str = "sg-ebpf";

/// A build of the kernel's half.
struct Object {
    /// The name of its file.
    name: &'static str,
    /// The feature of `sg-ebpf` that it has, if any.
    feature: Option<&'static str>,
    /// The variable that cargo sets for the feature of this package that embeds it; none where every
    /// build does.
    wanted_by: Option<&'static str>,
}

/// All of them.
const OBJECTS: &[Object] = &[
    Object {
        name: "sg-ebpf",
        feature: None,
        wanted_by: None,
    },
    Object {
        name: "sg-ebpf-traced",
        feature: Some("trace"),
        wanted_by: None,
    },
    Object {
        name: "sg-ebpf-measure",
        feature: Some("measure"),
        wanted_by: Some("CARGO_FEATURE_MEASURE"),
    },
];

#[derive(Debug, Error)]
enum Error {
    #[error("cargo did not set {0}; run this build script through cargo")]
    Unset(&'static str),
    #[error("bpf-linker is not installed: run `cargo xtask setup`")]
    NoLinker,
    #[error("rust-src is not installed: run `cargo xtask setup`")]
    NoRustSrc,
    #[error("cannot run {program}: {source}")]
    Spawn {
        program: String,
        source: std::io::Error,
    },
    #[error("sg-ebpf does not compile for {target}; its messages are above")]
    Compile { target: String },
    #[error("cannot copy {}: {source}", path.display())]
    Copy {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write {}: {source}", path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read {} as an object: {source}", path.display())]
    Object {
        path: PathBuf,
        source: object::build::Error,
    },
}

fn main() -> ExitCode {
    println!("cargo::rustc-env=SG_VERSION={}", version());
    match build_objects() {
        Ok(()) => ExitCode::SUCCESS,
        // Cargo shows what the compiler wrote only when the script itself fails.
        Err(error @ Error::Compile { .. }) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::SUCCESS
        }
    }
}

fn build_objects() -> Result<(), Error> {
    let manifest_dir = PathBuf::from(cargo_var("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(cargo_var("OUT_DIR")?);
    if env::var_os("CARGO_FEATURE_PROGRAMS").is_none() {
        return leave_out_objects(&out_dir);
    }
    let workspace = manifest_dir
        .parent()
        .ok_or(Error::Unset("CARGO_MANIFEST_DIR inside a workspace"))?;

    for source in [
        "sg-ebpf",
        "sg-common",
        ".cargo/config.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }

    let path = path_with_tools(workspace);
    let linker = find_program("bpf-linker", &path).ok_or(Error::NoLinker)?;
    println!("cargo::rerun-if-changed={}", linker.display());
    require_rust_src()?;

    let wanted = OBJECTS.iter().filter(|object| {
        object
            .wanted_by
            .is_none_or(|feature| env::var_os(feature).is_some())
    });
    for object in wanted {
        build(object, workspace, &out_dir, &path)?;
    }
    Ok(())
}

/// A build that loads no program has nothing in their places.
fn leave_out_objects(out_dir: &Path) -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    for object in OBJECTS {
        let path = out_dir.join(object.name);
        std::fs::write(&path, []).map_err(|source| Error::Write { path, source })?;
    }
    Ok(())
}

/// Compiles one object. Those after the first find compiled what the feature does not change.
fn build(object: &Object, workspace: &Path, out_dir: &Path, path: &OsString) -> Result<(), Error> {
    let target = match cargo_var("CARGO_CFG_TARGET_ENDIAN")?.to_str() {
        Some("big") => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let cargo = cargo_var("CARGO")?;
    // A folder of its own: cargo holds the lock of the outer one while this script runs.
    let target_dir = out_dir.join("ebpf");
    let status = Command::new(&cargo)
        .current_dir(workspace)
        .args(["build", "--package", PACKAGE, "--bin", PACKAGE, "--release"])
        .args(["--target", target, "-Zbuild-std=core"])
        .args(
            object
                .feature
                .map(|feature| format!("--features={feature}")),
        )
        .arg("--target-dir")
        .arg(&target_dir)
        .env("PATH", path)
        // build-std is unstable; the toolchain is pinned, so what it does is too.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("AYA_BPF_TARGET_ARCH", cargo_var("CARGO_CFG_TARGET_ARCH")?)
        // Flags and wrappers meant for the host would replace those of .cargo/config.toml.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .map_err(|source| Error::Spawn {
            program: cargo.display().to_string(),
            source,
        })?;
    if !status.success() {
        return Err(Error::Compile {
            target: target.to_owned(),
        });
    }

    let built = target_dir.join(target).join("release").join(PACKAGE);
    let copy = |source| Error::Copy {
        path: built.clone(),
        source,
    };
    let whole = std::fs::read(&built).map_err(copy)?;
    let kept = without_dwarf(&whole).map_err(|source| Error::Object {
        path: built.clone(),
        source,
    })?;
    std::fs::write(out_dir.join(object.name), kept).map_err(copy)
}

/// The kernel reads BTF alone, and the DWARF that BTF was made of is four fifths of an object. The
/// relocations of BTF go too: the linker has already written the offsets that they stand for.
fn without_dwarf(whole: &[u8]) -> Result<Vec<u8>, object::build::Error> {
    let mut object = object::build::elf::Builder::read(whole)?;
    for section in &mut object.sections {
        let name = section.name.to_string();
        section.delete = [".debug_", ".rel.debug_", ".rel.BTF"]
            .iter()
            .any(|unread| name.starts_with(unread));
    }
    object.delete_orphans();
    // The linker writes the names of sections and of symbols as one table, the library as two.
    let names = object.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.data = object::build::elf::SectionData::SectionString;
    let mut kept = Vec::new();
    object.write(&mut kept)?;
    Ok(kept)
}

/// The version, with the commit where it can be known: in a release, from git or `SG_COMMIT`.
///
/// Other builds leave it out, so that a commit does not compile the whole program again.
fn version() -> String {
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo::rerun-if-env-changed=SG_COMMIT");
    let given = env::var("SG_COMMIT").ok();
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| is_release.then(commit).flatten());
    match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    }
}

/// The commit of this checkout; a source without git has none.
fn commit() -> Option<String> {
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir.parent()?;
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let output = command
            .current_dir(workspace)
            .args(arguments)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        output.status.success().then_some(text)
    };
    // A source that was unpacked inside another repository is not of its commit.
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    // It has a line for each commit and each checkout.
    let log = git(&[
        "rev-parse",
        "--path-format=absolute",
        "--git-path",
        "logs/HEAD",
    ])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn cargo_var(name: &'static str) -> Result<OsString, Error> {
    env::var_os(name).ok_or(Error::Unset(name))
}

/// The project's own tools come first: their versions are the tried ones.
fn path_with_tools(workspace: &Path) -> OsString {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let tools = workspace.join(".tools/bin");
    env::join_paths(std::iter::once(tools).chain(env::split_paths(&inherited))).unwrap_or(inherited)
}

fn find_program(name: &str, path: &OsString) -> Option<PathBuf> {
    env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// Without this check cargo's own message would send the reader to another toolchain.
fn require_rust_src() -> Result<(), Error> {
    let rustc = cargo_var("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|source| Error::Spawn {
            program: rustc.display().to_string(),
            source,
        })?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let core = Path::new(sysroot.trim_end()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if core.is_file() {
        Ok(())
    } else {
        Err(Error::NoRustSrc)
    }
}
