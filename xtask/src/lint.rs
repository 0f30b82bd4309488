//! `cargo xtask lint`: format, lints and documentation of both halves, licences and sources.

use anyhow::Result;

use crate::{setup, workspace};

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    setup::for_linting()?;

    heading("format");
    workspace::run(workspace::command("cargo").args(["fmt", "--all", "--check"]))?;

    heading("lints of the host's half");
    workspace::run(workspace::command("cargo").args([
        "clippy",
        "--locked",
        "--all-targets",
        "--features=xtask/bench",
        "--",
        "-Dwarnings",
    ]))?;

    // Tests turn on features that no package has.
    heading("lints of what is shipped");
    workspace::run(workspace::command("cargo").args([
        "clippy",
        "--locked",
        "--package=sg-ctl",
        "--",
        "-Dwarnings",
    ]))?;

    heading("lints of the kernel's half");
    // The flags of the target are in .cargo/config.toml; a folder of its own keeps the host's
    // artifacts from being thrown away.
    // Each feature makes an object of its own.
    for feature in ["measure", "trace"] {
        workspace::run(
            workspace::command("cargo")
                .args(["clippy", "--locked", "--package", "sg-ebpf", "--release"])
                .args(["--features", feature])
                .args([
                    "--target",
                    "bpfel-unknown-none",
                    "-Zbuild-std=core",
                    "--target-dir",
                ])
                .arg(workspace::target().join("ebpf"))
                .args(["--", "-Dwarnings"])
                .env("RUSTC_BOOTSTRAP", "1")
                .env_remove("RUSTFLAGS"),
        )?;
    }

    heading("documentation");
    workspace::run(
        workspace::command("cargo")
            .args(["doc", "--locked", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;

    heading("licences and sources of the dependencies");
    workspace::run(workspace::command("cargo").args([
        "deny",
        "--offline",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))
}

fn heading(what: &str) {
    println!("── {what}");
}
