//! `cargo xtask build`: sg-ctl for release, with the kernel's half inside; and the programs that other
//! tasks run elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::arch::Arch;
use crate::{setup, workspace};

/// What a program can do without.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Strip {
    /// Debug information; a backtrace has names of functions still.
    Debug,
    /// The names of functions too.
    All,
}

/// Builds for an architecture and returns where the program is.
pub(crate) fn release(arch: Arch) -> Result<PathBuf> {
    setup::for_building()?;
    setup::for_target(arch)?;
    let built = programs(
        arch,
        &["build", "--release", "--package=sg-ctl", "--bin=sg-ctl"],
    )?;
    let mut sg_ctl = built.into_iter().filter(|(name, _)| name == "sg-ctl");
    let (_, path) = sg_ctl.next().context("cargo built no sg-ctl")?;
    Ok(path)
}

/// Builds the program that packages hold, linked statically, and returns where it is.
pub(crate) fn shipped(arch: Arch) -> Result<PathBuf> {
    setup::for_building()?;
    setup::for_target(arch)?;
    let target = arch.target();
    let flags = format!("target.{target}.rustflags=[\"-Ctarget-feature=+crt-static\"]");
    let build = [
        "build",
        "--profile=shipped",
        "--package=sg-ctl",
        "--bin=sg-ctl",
    ];
    let mut arguments = [build.as_slice(), &["--config", &flags]].concat();
    if arch == Arch::native() {
        // Flags for a named target leave build scripts alone.
        arguments.extend(["--target", target]);
    }
    let built = programs(arch, &arguments)?;
    let mut sg_ctl = built.into_iter().filter(|(name, _)| name == "sg-ctl");
    let (_, path) = sg_ctl.next().context("cargo built no sg-ctl")?;
    Ok(path)
}

/// Runs cargo for an architecture and returns the programs that it names.
pub(crate) fn programs(arch: Arch, arguments: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = workspace::command("cargo");
    cargo
        .args(arguments)
        .args([
            "--locked",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ])
        .stderr(Stdio::inherit());
    for_target(&mut cargo, arch);
    let output = cargo
        .output()
        .with_context(|| format!("cannot run {}", workspace::shown(&cargo)))?;
    ensure!(
        output.status.success(),
        "{} failed",
        workspace::shown(&cargo)
    );
    Ok(executables(&String::from_utf8_lossy(&output.stdout)))
}

/// Takes debug information away, or names too, which are for those who build and most of a program.
pub(crate) fn strip(arch: Arch, program: &Path, what: Strip) -> Result<()> {
    let mut names = vec![format!("{}-strip", arch.gnu())];
    if arch == Arch::native() {
        names.push("strip".to_owned());
    }
    let mut there = names
        .iter()
        .filter(|name| workspace::find_program(name).is_some());
    let option = match what {
        Strip::Debug => "--strip-debug",
        Strip::All => "--strip-all",
    };
    match there.next() {
        Some(name) => workspace::run(workspace::command(name).arg(option).arg(program)),
        // The program is larger, and nothing else.
        None => Ok(()),
    }
}

/// Another architecture is built by Debian's cross compiler.
fn for_target(cargo: &mut Command, arch: Arch) {
    if arch == Arch::native() {
        return;
    }
    let compiler = format!("{}-gcc", arch.gnu());
    let target = arch.target().replace('-', "_");
    cargo
        .args(["--target", arch.target()])
        .env(format!("CC_{target}"), &compiler)
        .env(
            format!("CARGO_TARGET_{}_LINKER", target.to_uppercase()),
            compiler,
        );
}

/// The programs in what cargo says, a JSON object a line.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let programs = messages.filter_map(|message| {
        let path = message["executable"].as_str()?;
        let name = message["target"]["name"].as_str()?;
        Some((name.to_owned(), PathBuf::from(path)))
    });
    programs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_from_libraries() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"sg_common"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"sg-ctl"},"executable":"/there/sg-ctl"}
not json
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executables(messages),
            [("sg-ctl".to_owned(), PathBuf::from("/there/sg-ctl"))]
        );
    }
}
