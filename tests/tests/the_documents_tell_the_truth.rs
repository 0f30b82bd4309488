//! Each section of the README and of `docs/` that shows commands is run from top to bottom, and
//! prints what it shows.
//!
//! The machines of every section are `web`, 198.51.100.10, where sg runs, and `laptop`, 198.51.100.7,
//! which is in no policy; something listens on port 22 of the one and on port 443 of both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Host, Lab};
use tests::pages::{Page, Step, headings, lasting, links, pages};
use tests::sg::Sg;
use tests::sockets::TcpEcho;

#[test]
fn every_command_prints_what_is_shown() -> Result<()> {
    let mut sections = 0;
    for document in documents()? {
        let text = fs::read_to_string(&document)?;
        let name = document.display();
        for page in pages(&text).with_context(|| format!("{name}"))? {
            run(&page).with_context(|| format!("{name}, section \"{}\"", page.title))?;
            sections += 1;
        }
    }
    ensure!(sections > 0, "no section has commands");
    Ok(())
}

#[test]
fn every_link_between_documents_leads_somewhere() -> Result<()> {
    for document in documents()? {
        let text = fs::read_to_string(&document)?;
        let folder = document.parent().context("a document without a folder")?;
        for target in links(&text) {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = match path {
                "" => document.clone(),
                path => folder.join(path),
            };
            ensure!(
                path.exists(),
                "{} links to {target}, which is not there",
                document.display()
            );
            ensure!(
                heading.is_empty() || headings(&fs::read_to_string(&path)?).contains(heading),
                "{} links to {target}, and {} has no such heading",
                document.display(),
                path.display()
            );
        }
    }
    Ok(())
}

/// The README and every page of `docs/`.
fn documents() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = Vec::new();
    for entry in fs::read_dir(root.join("docs")).context("reading docs")? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents.sort();
    documents.insert(0, root.join("README.md"));
    Ok(documents)
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

/// What the documents call the namespaces of the lab.
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
        "the document shows\n{shown}\nand this is printed\n{printed}\nby {line}"
    );
    Ok(())
}
