//! Each page of the README that shows commands is run from top to bottom, and prints what it shows.
//!
//! The machines of every page are `web`, 198.51.100.10, where sg runs, and `laptop`, 198.51.100.7,
//! which is in no policy; something listens on port 22 of the one and on port 443 of both.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Host, Lab};
use tests::pages::{Page, Step, lasting, pages};
use tests::sg::Sg;
use tests::sockets::TcpEcho;

#[test]
fn every_command_prints_what_is_shown() -> Result<()> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme)?;
    let pages = pages(&readme)?;
    ensure!(!pages.is_empty(), "no page has commands");
    for page in pages {
        run(&page).with_context(|| format!("page \"{}\"", page.title))?;
    }
    Ok(())
}

fn run(page: &Page) -> Result<()> {
    let lab = Lab::new()?;
    let (web, laptop) = (lab.host("web")?, lab.host("laptop")?);
    lab.join((&web, "eth0"), (&laptop, "eth0"))?;
    web.add_addresses("eth0", &["198.51.100.10/24"])?;
    laptop.add_addresses("eth0", &["198.51.100.7/24"])?;
    let _listeners = (
        TcpEcho::listen(&web, ":22")?,
        TcpEcho::listen(&web, ":443")?,
        TcpEcho::listen(&laptop, ":443")?,
    );
    let sg = Sg::on(&web)?;
    for step in &page.steps {
        match step {
            Step::File { name, text } => sg.write(name, text).map(drop)?,
            Step::Command { host, line, output } => {
                let host = match host.as_str() {
                    "web" => &web,
                    "laptop" => &laptop,
                    other => bail!("no machine is called {other}"),
                };
                command(&sg, &lab_names(&web, &laptop), host, line, output)?;
            }
        }
    }
    Ok(())
}

/// What the README calls the namespaces of the lab.
fn lab_names<'a>(web: &'a Host, laptop: &'a Host) -> [(&'a str, &'static str); 2] {
    [(web.namespace(), "web"), (laptop.namespace(), "laptop")]
}

fn command(
    sg: &Sg,
    names: &[(&str, &str)],
    host: &Host,
    line: &str,
    output: &[String],
) -> Result<()> {
    let ran = sg.shell(host, line)?;
    let mut printed = ran.stdout.clone() + &ran.stderr;
    for (namespace, name) in names {
        printed = printed.replace(namespace, name);
    }
    let shown = output.join("\n");
    ensure!(
        lasting(&printed) == lasting(&shown),
        "the README shows\n{shown}\nand this is printed\n{printed}\nby {line}"
    );
    Ok(())
}
