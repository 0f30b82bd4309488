//! A real Terraform makes groups, rules, prefix lists and networks, finds nothing to change afterwards,
//! changes them, and removes them without a trace.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tests::api::{Api, Clients, ENDPOINT, scripts};

struct Terraform<'a> {
    api: &'a Api,
    clients: &'a Clients,
    folder: &'a Path,
}

impl Terraform<'_> {
    fn run(&self, words: &[&str]) -> Result<String> {
        let chdir = format!("-chdir={}", self.folder.display());
        let settings = format!(
            "TF_CLI_CONFIG_FILE={}",
            self.folder.join("settings").display()
        );
        let program = self.clients.terraform().to_string_lossy().into_owned();
        // Nobody is asked for a newer version, and what is configured is all there is.
        let before = [
            "-u",
            "AWS_ENDPOINT_URL",
            "CHECKPOINT_DISABLE=1",
            &settings,
            &program,
            &chdir,
        ];
        let words = [&before[..], words].concat();
        self.api.run(Path::new("env"), &words)
    }
}

#[test]
fn apply_plan_change_and_destroy() -> Result<()> {
    let Some(clients) = Clients::find("Terraform is served") else {
        return Ok(());
    };
    let api = Api::serve()?;
    let before = api.sg.run(&["export"])?.succeeded()?.stdout;
    let folder = tempfile::tempdir()?;
    fs::copy(scripts().join("main.tf"), folder.path().join("main.tf"))?;
    let providers = clients
        .providers()
        .canonicalize()
        .context("the providers")?;
    let settings = format!(
        "provider_installation {{\n  filesystem_mirror {{\n    path = {providers:?}\n  }}\n}}\n"
    );
    fs::write(folder.path().join("settings"), settings)?;
    let terraform = Terraform {
        api: &api,
        clients: &clients,
        folder: folder.path(),
    };
    let endpoint = format!("-var=endpoint={ENDPOINT}");
    terraform.run(&["init", "-no-color"])?;
    for port in ["-var=port=80", "-var=port=81"] {
        let apply = ["apply", "-auto-approve", "-no-color", &endpoint, port];
        terraform.run(&apply)?;
        // Exit code 2 would say that something is to change.
        let plan = ["plan", "-detailed-exitcode", "-no-color", &endpoint, port];
        terraform.run(&plan)?;
    }
    let web = api.sg.run(&["group", "show", "tf-web"])?.succeeded()?;
    ensure!(web.stdout.contains("81"), "{web}");
    terraform.run(&[
        "destroy",
        "-auto-approve",
        "-no-color",
        &endpoint,
        "-var=port=81",
    ])?;
    let after = api.sg.run(&["export"])?.succeeded()?.stdout;
    ensure!(after == before, "{after}");
    Ok(())
}
