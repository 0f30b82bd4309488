//! Each policy of `examples/` is applied as it is, draws no warning, and judges packets as its
//! comments say.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use tests::lab::Lab;
use tests::sg::Sg;

/// What an example is about: its file, the interfaces of its machine, and packets with what becomes
/// of them.
struct Example {
    file: &'static str,
    interfaces: &'static [(&'static str, &'static str)],
    packets: &'static [(&'static str, Verdict)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Drop,
}

use Verdict::{Drop, Pass};

const EXAMPLES: &[Example] = &[
    Example {
        file: "web-host.yaml",
        interfaces: &[("eth0", "192.0.2.10/24")],
        packets: &[
            ("eth0 ingress tcp 198.51.100.7:40000 192.0.2.10:443", Pass),
            ("eth0 ingress udp 198.51.100.7:40000 192.0.2.10:443", Pass),
            ("eth0 ingress icmp:8 198.51.100.7 192.0.2.10", Pass),
            ("eth0 ingress tcp 203.0.113.7:40000 192.0.2.10:22", Pass),
            ("eth0 ingress tcp 198.51.100.7:40000 192.0.2.10:22", Drop),
            ("eth0 egress tcp 198.51.100.7:25 192.0.2.10:40000", Pass),
        ],
    },
    Example {
        file: "bastion.yaml",
        interfaces: &[("eth0", "10.0.0.9/24")],
        packets: &[
            ("eth0 ingress tcp 203.0.113.7:40000 10.0.0.9:22", Pass),
            ("eth0 ingress tcp 10.0.0.20:40000 10.0.0.9:22", Drop),
            ("eth0 egress tcp 10.0.0.20:22 10.0.0.9:40000", Pass),
            ("eth0 egress udp 10.0.0.2:53 10.0.0.9:40000", Pass),
            ("eth0 egress tcp 10.0.0.20:5432 10.0.0.9:40000", Drop),
        ],
    },
    Example {
        file: "database/app-host.yaml",
        interfaces: &[("eth0", "10.0.0.11/24")],
        packets: &[
            ("eth0 ingress tcp 10.0.0.5:40000 10.0.0.11:8080", Pass),
            ("eth0 ingress tcp 10.0.0.20:40000 10.0.0.11:8080", Drop),
            ("eth0 egress tcp 10.0.0.20:5432 10.0.0.11:40000", Pass),
        ],
    },
    Example {
        file: "database/database-host.yaml",
        interfaces: &[("eth0", "10.0.0.20/24")],
        packets: &[
            ("eth0 ingress tcp 10.0.0.11:40000 10.0.0.20:5432", Pass),
            ("eth0 ingress tcp 10.0.0.5:40000 10.0.0.20:5432", Drop),
            ("eth0 ingress tcp 10.0.0.5:40000 10.0.0.20:22", Pass),
            ("eth0 egress udp 10.0.0.2:53 10.0.0.20:40000", Pass),
            ("eth0 egress tcp 198.51.100.7:443 10.0.0.20:40000", Drop),
        ],
    },
    Example {
        file: "hypervisor.yaml",
        interfaces: &[("br0", "10.0.3.1/24"), ("vnet0", ""), ("vnet1", "")],
        packets: &[
            ("br0 ingress tcp 10.0.3.50:40000 10.0.3.1:22", Pass),
            ("br0 ingress tcp 198.51.100.7:40000 10.0.3.1:22", Drop),
            ("vnet0 ingress tcp 198.51.100.7:40000 10.0.3.7:443", Pass),
            ("vnet1 ingress tcp 10.0.3.7:40000 10.0.3.8:3306", Pass),
            ("vnet1 ingress tcp 10.0.3.50:40000 10.0.3.8:3306", Drop),
            ("vnet1 egress tcp 198.51.100.7:443 10.0.3.8:40000", Drop),
            ("vnet0 egress tcp 198.51.100.7:443 10.0.3.8:40000", Drop),
        ],
    },
    Example {
        file: "guests.yaml",
        interfaces: &[
            ("br0", "10.0.3.1/24"),
            ("vnet4=web", ""),
            ("vnet0=database", ""),
            ("vnet7", ""),
        ],
        packets: &[
            ("br0 ingress tcp 198.51.100.7:40000 10.0.3.1:22", Drop),
            ("web ingress tcp 198.51.100.7:40000 10.0.3.7:443", Pass),
            ("vnet4 ingress tcp 198.51.100.7:40000 10.0.3.7:22", Drop),
            (
                "database/vnet0 ingress tcp 10.0.3.7:40000 10.0.3.8:3306",
                Pass,
            ),
            ("strangers ingress tcp 10.0.3.7:40000 192.0.2.254:443", Drop),
            ("vnet7 egress tcp 10.0.3.7:443 192.0.2.254:40000", Drop),
        ],
    },
    Example {
        file: "router.yaml",
        interfaces: &[("wan0", "192.0.2.10/24"), ("lan0", "192.168.1.1/24")],
        packets: &[
            ("lan0 ingress tcp 192.168.1.20:40000 198.51.100.7:25", Pass),
            ("lan0 ingress tcp 192.168.2.20:40000 198.51.100.7:25", Drop),
            ("wan0 egress tcp 198.51.100.7:25 192.0.2.10:40000", Pass),
            ("wan0 ingress tcp 198.51.100.7:40000 192.0.2.10:443", Pass),
            ("lan0 egress tcp 192.168.1.10:443 198.51.100.7:40000", Pass),
            ("wan0 ingress tcp 198.51.100.7:40000 192.0.2.10:22", Drop),
            ("lan0 egress tcp 192.168.1.20:22 198.51.100.7:40000", Drop),
        ],
    },
    Example {
        file: "audit-first.yaml",
        interfaces: &[("eth0", "10.0.0.10/24")],
        packets: &[
            ("eth0 ingress tcp 10.0.0.5:40000 10.0.0.10:22", Pass),
            ("eth0 ingress tcp 198.51.100.7:40000 10.0.0.10:22", Drop),
        ],
    },
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

#[test]
fn every_example_judges_packets_as_it_says() -> Result<()> {
    for example in EXAMPLES {
        judge(example).context(example.file)?;
    }
    Ok(())
}

fn judge(example: &Example) -> Result<()> {
    let lab = Lab::new()?;
    let (machine, world) = (lab.host("machine")?, lab.host("world")?);
    for (name, address) in example.interfaces {
        // A name with the alias that the device has, if it has one.
        let (name, alias) = name.split_once('=').unwrap_or((name, ""));
        lab.join((&machine, name), (&world, name))?;
        if !alias.is_empty() {
            machine.run("ip", &["link", "set", name, "alias", alias])?;
        }
        if !address.is_empty() {
            machine.add_addresses(name, &[address])?;
        }
    }
    let sg = Sg::on(&machine)?;
    let path = folder().join(example.file);
    let path = path.to_str().context("a path that is no text")?;
    let advice = sg.run(&["check", path, "--level", "warning"])?;
    ensure!(advice.code == Some(0), "{advice}");
    sg.run(&["apply", path])?.succeeded()?;
    for (words, verdict) in example.packets {
        let words: Vec<_> = ["explain"].into_iter().chain(words.split(' ')).collect();
        let ran = sg.run(&words)?;
        let explained = match ran.code {
            Some(0) => Pass,
            Some(1) => Drop,
            _ => anyhow::bail!("{ran}"),
        };
        ensure!(explained == *verdict, "it should {verdict:?}, but\n{ran}");
    }
    let again = sg.run(&["diff", path])?;
    ensure!(again.code == Some(0), "{again}");
    Ok(())
}

#[test]
fn every_policy_of_the_folder_is_tried() -> Result<()> {
    let mut found = Vec::new();
    collect(&folder(), &mut found)?;
    for path in found {
        let name = path.strip_prefix(folder())?;
        ensure!(
            EXAMPLES
                .iter()
                .any(|example| Path::new(example.file) == name),
            "{} is tried by no test",
            name.display()
        );
    }
    Ok(())
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            found.push(path);
        }
    }
    Ok(())
}
