//! Puts in place what the other tasks need.
//!
//! Each step looks first, and says what it fetches and why before it does; when nothing is missing
//! nothing is printed and no network is touched. What can't be had ends in one sentence that says
//! what to do.

mod clients;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};

use crate::arch::Arch;
use crate::workspace;

/// A program that cargo builds into the project's own folder.
struct Tool {
    name: &'static str,
    version: &'static str,
    options: &'static [&'static str],
    why: &'static str,
}

/// It uses the LLVM of the pinned toolchain, so the two versions move together.
const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.10.3",
    options: &[],
    why: "it links the kernel's half; about two minutes, once",
};

/// It runs for a second, so an optimised build is not worth its minutes; its network half serves
/// advisories, which are not asked for.
const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    options: &["--debug", "--no-default-features"],
    why: "it checks licences and sources of dependencies; about two minutes, once",
};

/// A program that a Debian package brings.
struct Program {
    name: &'static str,
    package: &'static str,
    why: &'static str,
}

const LIVE: &[Program] = &[
    Program {
        name: "ip",
        package: "iproute2",
        why: "namespaces and veth pairs",
    },
    ETHTOOL,
    NFT,
    Program {
        name: "bpftool",
        package: "bpftool",
        why: "somebody else who detaches programs and changes maps",
    },
];

/// What packages are tried with, where packages are made.
const PACKAGES: &[Program] = &[
    Program {
        name: "debootstrap",
        package: "debootstrap",
        why: "clean systems that the package is installed in",
    },
    Program {
        name: "lintian",
        package: "lintian",
        why: "what is wrong with a package",
    },
];

const ETHTOOL: Program = Program {
    name: "ethtool",
    package: "ethtool",
    why: "veths that refuse XDP, and veths that poll",
};

const NFT: Program = Program {
    name: "nft",
    package: "nftables",
    why: "the rule set that sg is compared with",
};

const BENCH: &[Program] = &[NFT, ETHTOOL];

/// What boots a kernel of an architecture in an emulator.
const fn emulator(arch: Arch) -> Program {
    let (name, package) = match arch {
        Arch::X86_64 => ("qemu-system-x86_64", "qemu-system-x86"),
        Arch::Aarch64 => ("qemu-system-aarch64", "qemu-system-arm"),
    };
    Program {
        name,
        package,
        why: "the emulator that boots other kernels",
    }
}

const IMAGES: &[Program] = &[
    Program {
        name: "cpio",
        package: "cpio",
        why: "what a kernel boots into",
    },
    Program {
        name: "depmod",
        package: "kmod",
        why: "which module a booted kernel loads for what",
    },
];

/// What signs Debian's package lists.
pub(crate) const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What every task may need.
pub(crate) fn everything(bench: bool) -> Result<()> {
    for_linting()?;
    programs(LIVE)?;
    for_packages()?;
    clients::install();
    if bench {
        for_measuring();
    }
    println!("everything is in place");
    Ok(())
}

/// What compiling sg-ctl and the kernel's half needs.
pub(crate) fn for_building() -> Result<()> {
    components(&["rust-src"], "core is compiled for the kernel's target")?;
    crates()?;
    tool(&BPF_LINKER)
}

/// What the lints need besides a build.
pub(crate) fn for_linting() -> Result<()> {
    for_building()?;
    components(&["clippy", "rustfmt"], "lints and format")?;
    tool(&CARGO_DENY)
}

/// What real interfaces need: root and the programs that lay them out.
pub(crate) fn for_live_traffic() -> Result<()> {
    ensure!(
        is_root(),
        "needs root, to make network namespaces and load programs into the kernel: \
         run it again as root, or with `sudo -E env PATH=\"$PATH\"` before it"
    );
    programs(LIVE)
}

/// The clients of the API. Where they can't be had, tests say what they have not proven.
pub(crate) fn for_clients() {
    clients::install();
}

/// What trying a package needs. Where there is no apt there are no packages to try.
pub(crate) fn for_packages() -> Result<()> {
    match workspace::find_program("apt-get") {
        Some(_) => programs(PACKAGES),
        None => Ok(()),
    }
}

/// What booting kernels of an architecture needs.
pub(crate) fn for_kernels(arch: Arch) -> Result<()> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(
            workspace::find_program(program).is_some(),
            "{program} is not installed: kernels are fetched on Debian and its kin"
        );
    }
    programs(&[emulator(arch)])?;
    programs(IMAGES)?;
    if !Path::new(DEBIAN_KEYS).is_file() {
        packages(&[("debian-archive-keyring", "Debian signs its kernels")])?;
    }
    for_target(arch)
}

/// What building for another architecture needs.
pub(crate) fn for_target(arch: Arch) -> Result<()> {
    if arch == Arch::native() {
        return Ok(());
    }
    let target = arch.target();
    if !sysroot()?.join("lib/rustlib").join(target).is_dir() {
        ensure!(
            workspace::find_program("rustup").is_some(),
            "the Rust toolchain lacks the target {target}, and there is no rustup to add it: \
             install rustup from https://rustup.rs"
        );
        announce(&format!("rustup target add {target}"), "programs for it");
        workspace::run(workspace::command("rustup").args(["target", "add", target]))
            .with_context(|| format!("{target} can't be had; check the network"))?;
    }
    if workspace::find_program(&format!("{}-gcc", arch.gnu())).is_none() {
        let compiler = format!("gcc-{}", arch.gnu().replace('_', "-"));
        let library = format!("libc6-dev-{}-cross", arch.debian());
        packages(&[
            (&compiler, "it links programs for the other architecture"),
            (&library, "the C library of the other architecture"),
        ])?;
    }
    Ok(())
}

/// Looks at the sources of the machine's packages.
pub(crate) fn package_lists() -> Result<()> {
    announce("apt-get update", "where Debian's packages are");
    apt_get(&["update"], &[])
}

/// Where a program is, the administrator's folders included.
pub(crate) fn path_of(program: &str) -> Result<String> {
    let path = workspace::find_program(program);
    let path = path.with_context(|| format!("{program} is not installed"))?;
    Ok(path.to_string_lossy().into_owned())
}

/// What Miri needs besides a nightly toolchain, whose name is returned: a whole toolchain for one
/// task is the user's to choose.
pub(crate) fn for_miri() -> Result<&'static str> {
    const TOOLCHAIN: &str = "nightly";
    ensure!(
        workspace::find_program("rustup").is_some(),
        "Miri comes with nightly toolchains alone, and there is no rustup to run one: install \
         rustup from https://rustup.rs"
    );
    let mut list = workspace::command("rustup");
    list.args(["component", "list", "--installed", "--toolchain", TOOLCHAIN]);
    let present = workspace::output(&mut list).context(
        "Miri comes with nightly toolchains alone, and there is none: run `rustup toolchain \
         install nightly --profile minimal --component miri,rust-src`",
    )?;
    for name in ["miri", "rust-src"] {
        if present.lines().any(|line| line.starts_with(name)) {
            continue;
        }
        let add = ["component", "add", name, "--toolchain", TOOLCHAIN];
        announce(
            &format!("rustup {}", add.join(" ")),
            "Miri runs the tests of sg-common",
        );
        workspace::run(workspace::command("rustup").args(add)).with_context(|| {
            format!(
                "the nightly toolchain can't have {name}: install one that has it, by `rustup \
                 toolchain install nightly --component miri,rust-src`"
            )
        })?;
    }
    Ok(TOOLCHAIN)
}

/// What sg is compared with. A contestant that can't be had is reported by the benchmark, so that
/// is no failure here.
pub(crate) fn for_measuring() {
    if let Err(error) = programs(BENCH) {
        eprintln!("setup: going on without: {error:#}");
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Components of the pinned toolchain, which a toolchain installed by hand may lack.
fn components(names: &[&str], why: &str) -> Result<()> {
    let sysroot = sysroot()?;
    for name in names {
        let proof = match *name {
            "rust-src" => "lib/rustlib/src/rust/library/core/Cargo.toml",
            "clippy" => "bin/cargo-clippy",
            _ => "bin/rustfmt",
        };
        if sysroot.join(proof).is_file() {
            continue;
        }
        ensure!(
            workspace::find_program("rustup").is_some(),
            "the Rust toolchain in {} lacks {name} ({why}), and there is no rustup to add it: \
             install rustup from https://rustup.rs",
            sysroot.display()
        );
        announce(&format!("rustup component add {name}"), why);
        // RUSTUP_TOOLCHAIN, set by rustup's cargo, makes this the toolchain that builds.
        workspace::run(workspace::command("rustup").args(["component", "add", name]))
            .with_context(|| format!("{name} can't be had; check the network"))?;
    }
    Ok(())
}

/// Where the pinned toolchain is.
fn sysroot() -> Result<PathBuf> {
    let path = workspace::output(workspace::command("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(path))
}

/// The crates of the workspace and those that compiling core asks for.
fn crates() -> Result<()> {
    let fetch = || {
        let mut cargo = workspace::command("cargo");
        cargo
            .args(["fetch", "--quiet", "-Zbuild-std=core"])
            .env("RUSTC_BOOTSTRAP", "1");
        cargo
    };
    let mut look = fetch();
    look.args(["--offline", "--locked"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if look.status().context("cannot run cargo")?.success() {
        return Ok(());
    }
    announce(
        "cargo fetch",
        "the crates that Cargo.lock names, so that later steps work offline",
    );
    workspace::run(&mut fetch()).context("the crates can't be had; check the network")
}

fn tool(wanted: &Tool) -> Result<()> {
    let Tool {
        name,
        version,
        options,
        why,
    } = wanted;
    if let Some(present) = workspace::find_program(name)
        && let Ok(printed) =
            workspace::output(workspace::command(&present.to_string_lossy()).arg("--version"))
        && printed.split_whitespace().last() == Some(version)
    {
        return Ok(());
    }
    let folder = workspace::tools();
    announce(
        &format!("cargo install {name}@{version} --root {}", folder.display()),
        why,
    );
    let mut install = workspace::command("cargo");
    install
        .args(["install", "--quiet", "--locked", "--force"])
        .arg(format!("{name}@{version}"))
        .args(*options)
        .arg("--root")
        .arg(&folder);
    workspace::run(&mut install)
        .with_context(|| format!("{name} can't be built; check the network"))
}

fn programs(wanted: &[Program]) -> Result<()> {
    let missing: Vec<&Program> = wanted
        .iter()
        .filter(|program| workspace::find_program(program.name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if workspace::find_program("apt-get").is_none() {
        let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
        bail!(
            "{} not found: install the packages that bring them",
            names.join(", ")
        );
    }
    let wanted = missing.iter().map(|program| (program.package, program.why));
    packages(&wanted.collect::<Vec<_>>())
}

/// Installs Debian packages, each with why.
fn packages(wanted: &[(&str, &str)]) -> Result<()> {
    let packages: Vec<&str> = wanted.iter().map(|(package, _)| *package).collect();
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    );
    ensure!(
        is_root(),
        "a Debian package is missing: run `{install}` as root"
    );
    for (package, why) in wanted {
        announce(&format!("apt-get install {package}"), why);
    }
    if apt_get(&["install", "-y", "--no-install-recommends"], &packages).is_ok() {
        return Ok(());
    }
    // A fresh image has no package lists yet.
    apt_get(&["update"], &[])
        .and_then(|()| apt_get(&["install", "-y", "--no-install-recommends"], &packages))
        .with_context(|| format!("the packages can't be had: run `{install}` yourself"))
}

fn apt_get(arguments: &[&str], packages: &[&str]) -> Result<()> {
    workspace::output(
        workspace::command("apt-get")
            .args(["-qq"])
            .args(arguments)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
    .map(drop)
}

/// Says what is fetched and why.
pub(crate) fn announce(what: &str, why: &str) {
    eprintln!("setup: {what} ({why})");
}
