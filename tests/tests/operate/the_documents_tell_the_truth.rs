//! Each section of a document that shows commands is run from top to bottom, and prints what it
//! shows.
//!
//! The machines of every section are `web`, 198.51.100.10, where sg runs, and `laptop`, 198.51.100.7,
//! which is in no policy, unless the section makes its own; something listens on port 22 of the one and on port 443 of both.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Host, Lab};
use tests::pages::{Page, Step, headings, lasting, links, pages};
use tests::sg::{Sg, sg_ctl};
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

/// Every document: beside the README, in `docs/` and in `examples/`.
fn documents() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = Vec::new();
    for folder in [root.clone(), root.join("docs"), root.join("examples")] {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    Ok(documents)
}

fn run(page: &Page) -> Result<()> {
    if page
        .steps
        .iter()
        .any(|step| matches!(step, Step::Paste { .. }))
    {
        return paste(page);
    }
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
            Step::Paste { .. } => bail!("a section has `sh` blocks or `console` blocks, not both"),
        }
    }
    Ok(())
}

/// Pastes the blocks of a section into one shell, on a machine without anything else.
fn paste(page: &Page) -> Result<()> {
    const MACHINE: &str = "mount -t tmpfs tmpfs /run && exec timeout 120 bash -s 2>&1";
    let folder = tempfile::tempdir()?;
    let path = env::var("PATH").unwrap_or_default();
    let programs = sg_ctl()?.parent().context("a program without a folder")?;
    let mut shell = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--net"])
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["bash", "-c", MACHINE])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("SG_STATE_DIR", "/run/state")
        .env("SG_RUN_DIR", "/run/sg")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting a shell on a machine of its own")?;
    let mut blocks = Vec::new();
    let mut script = String::new();
    for step in &page.steps {
        let Step::Paste {
            script: block,
            output,
        } = step
        else {
            bail!("a section has `sh` blocks or `console` blocks, not both");
        };
        script.push_str(&format!("{block}\necho '{END_OF_BLOCK}'\n"));
        blocks.push((block, output));
    }
    let mut stdin = shell.stdin.take().context("no stdin")?;
    stdin.write_all(script.as_bytes())?;
    drop(stdin);
    let printed = shell.wait_with_output()?.stdout;
    let printed = String::from_utf8_lossy(&printed);
    let end = format!("{END_OF_BLOCK}\n");
    let mut parts = printed.split(&end);
    for (block, output) in blocks {
        let printed = parts.next().unwrap_or_default();
        let shown = output.as_ref().map(|lines| lines.join("\n"));
        ensure!(
            shown.is_none_or(|shown| lasting(printed) == lasting(&shown)),
            "this is printed\n{printed}\nby\n{block}"
        );
    }
    ensure!(
        parts.next() == Some(""),
        "the shell ended early:\n{printed}"
    );
    Ok(())
}

const END_OF_BLOCK: &str = "--- the end of a block ---";

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
