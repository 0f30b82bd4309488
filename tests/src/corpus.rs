//! The corpus: packets in words and in bytes, each with the reason it must get and what it does to
//! the flow table, as text files that an operator can read.
//!
//! ```text
//! name peer 198.51.100.7              `peer`, and `peer:80`, in the words of packets
//!
//! policy default                      the policy file below it, indented
//!     groups:
//!       g: {}
//!     interfaces:
//!       eth0: {groups: [g]}
//!
//! case a UDP request lets its answer in
//! under default                       this policy is put in force, at first and at any time later
//! out udp host:4000 > other:53 => rule, opens single
//!     020000000002 020000000001 0800 4500001c ...
//! wait 29                             the clock moves on by so many seconds
//! eth1 in udp other:53 > host:4000 => no-rule
//!     020000000002 020000000001 0800 4500001c ...
//! ```
//!
//! `in` is towards what is protected and `out` away from it; without another name the interface is
//! `eth0`. A device whose name begins with `tun` has no Ethernet header. The words are those of
//! [`crate::packets::words`], and the bytes are the same packet: either can be read. After the
//! reason stands each flow that the packet `opens`, moves on (`becomes`) or `ends`, in the words of
//! `sg-ctl flows list`, with `assured` before those that are never forgotten; nothing there means
//! that no flow changed.
//!
//! Before its first `under` a case may have `room N` (each flow table has room for N) and
//! `not-in-kernel WHY`, where the host's tables alone can show the fact.
//!
//! `world.txt` has what every other file may name. This module reads and writes the files; it
//! judges nothing.

mod bytes;
mod follow;
mod story;
mod write;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use sg_common::packet::Direction;
use sg_common::report::Reason;

pub use follow::{Followed, follow};
pub use story::{Evaluator, Flows, Heard, read_policy, show_policies, tell};
pub use write::write;

use crate::packets::words;

/// What every file may name.
const WORLD: &str = "world";
/// Bytes in front of the IP header that a device without Ethernet doesn't have.
const ETHERNET: usize = 14;

/// All files.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// One of each file that has cases.
    pub themes: Vec<Theme>,
}

/// The cases of one file.
#[derive(Clone, Debug)]
pub struct Theme {
    /// The file's name without its ending.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// In the order of the file.
    pub cases: Vec<Case>,
}

/// A fact, and the story that shows it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the case is named for.
    pub fact: String,
    /// How many flows each table has room for, where that matters.
    pub room: Option<usize>,
    /// Why the kernel cannot be shown it.
    pub not_in_kernel: Option<String>,
    /// The first of them puts a policy in force.
    pub steps: Vec<Step>,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// A policy is put in force.
    Under(PolicyText),
    /// The clock moves on by so many seconds.
    Wait(u64),
    /// A packet comes.
    Packet(PacketStep),
}

/// A policy as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyText {
    /// What the cases call it.
    pub name: String,
    /// The policy file.
    pub yaml: String,
}

/// A packet at an interface, and what is to become of it.
#[derive(Clone, Debug)]
pub struct PacketStep {
    /// The line of the file, counted from 1.
    pub line: usize,
    /// Where it is met.
    pub interface: String,
    /// Relative to what is protected.
    pub direction: Direction,
    /// Interface, direction and words as the file has them.
    pub written: String,
    /// What the words describe.
    pub frame: Vec<u8>,
    /// What the file's bytes are.
    pub bytes: Vec<u8>,
    /// The reason it must get.
    pub reason: Reason,
    /// What it must do to the flow table.
    pub changes: Vec<Change>,
}

/// What a packet does to one flow. Its text is that of the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was not there before.
    Opens(FlowIs),
    /// It is in another phase, or in the other table.
    Becomes(FlowIs),
    /// It is gone, and was this.
    Ends(FlowIs),
}

/// Where in its life a flow is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowIs {
    /// Whether it is never forgotten before its deadline.
    pub assured: bool,
    /// The name of its phase.
    pub phase: String,
}

impl Corpus {
    /// Reads the project's corpus.
    pub fn read() -> Result<Self> {
        Self::in_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"))
    }

    fn in_folder(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("{WORLD}.txt"));
        let mut world = Reader::default();
        world.file(&path)?;
        ensure!(world.cases.is_empty(), "{}: has cases", path.display());
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            let found = entry?.path();
            if found != path && found.extension().is_some_and(|ending| ending == "txt") {
                paths.push(found);
            }
        }
        paths.sort();
        let theme = |path: PathBuf| {
            let mut reader = world.clone();
            reader.file(&path)?;
            let name = path.file_stem().and_then(|name| name.to_str());
            Ok(Theme {
                name: name.context("a file name")?.to_owned(),
                cases: reader.cases,
                path,
            })
        };
        Ok(Self {
            themes: paths.into_iter().map(theme).collect::<Result<_>>()?,
        })
    }

    /// The theme of this name.
    pub fn theme(&self, name: &str) -> Result<&Theme> {
        let theme = self.themes.iter().find(|theme| theme.name == name);
        theme.with_context(|| format!("the corpus has no {name}.txt"))
    }

    /// Every case, with its theme's name.
    pub fn cases(&self) -> impl Iterator<Item = (&str, &Case)> {
        self.themes.iter().flat_map(|theme| {
            let name = theme.name.as_str();
            theme.cases.iter().map(move |case| (name, case))
        })
    }
}

impl Case {
    /// The packets of its story.
    pub fn packets(&self) -> impl Iterator<Item = &PacketStep> {
        self.steps.iter().filter_map(|step| match step {
            Step::Packet(packet) => Some(packet),
            _ => None,
        })
    }
}

/// Whether a device of this name has no Ethernet header.
pub fn is_bare(interface: &str) -> bool {
    interface.starts_with("tun")
}

/// What has been read so far.
#[derive(Clone, Debug, Default)]
struct Reader {
    names: BTreeMap<String, String>,
    policies: BTreeMap<String, PolicyText>,
    cases: Vec<Case>,
    /// Whose indented lines come next.
    open: Option<Open>,
}

#[derive(Clone, Debug)]
enum Open {
    Policy(String),
    Bytes,
}

impl Reader {
    fn file(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        for (line, number) in text.lines().zip(1..) {
            self.line(line, number)
                .with_context(|| format!("{}:{number}: `{line}`", path.display()))?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, number: usize) -> Result<()> {
        if let Some(content) = line.strip_prefix("    ") {
            return self.indented(content);
        }
        self.open = None;
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "" | "#" => Ok(()),
            "name" => self.name(rest),
            "policy" => {
                let policy = PolicyText {
                    name: rest.to_owned(),
                    yaml: String::new(),
                };
                let before = self.policies.insert(rest.to_owned(), policy);
                ensure!(before.is_none(), "there is another policy of that name");
                self.open = Some(Open::Policy(rest.to_owned()));
                Ok(())
            }
            "case" => {
                ensure!(!rest.is_empty(), "a case is named for the fact it shows");
                self.cases.push(Case {
                    fact: rest.to_owned(),
                    room: None,
                    not_in_kernel: None,
                    steps: Vec::new(),
                });
                Ok(())
            }
            _ => self.step(first, rest, line, number),
        }
    }

    fn indented(&mut self, content: &str) -> Result<()> {
        match &self.open {
            Some(Open::Policy(name)) => {
                let policy = self.policies.get_mut(name).context("no policy")?;
                policy.yaml.push_str(content);
                policy.yaml.push('\n');
                Ok(())
            }
            Some(Open::Bytes) => {
                let packet = self.cases.last_mut().and_then(|case| case.steps.last_mut());
                let Some(Step::Packet(packet)) = packet else {
                    bail!("bytes of no packet");
                };
                packet.bytes.extend(bytes::read(content)?);
                Ok(())
            }
            None => bail!("only a policy and the bytes of a packet are indented"),
        }
    }

    fn name(&mut self, rest: &str) -> Result<()> {
        let (name, address) = rest.split_once(' ').context("a name and its address")?;
        let before = self.names.insert(name.to_owned(), address.to_owned());
        ensure!(before.is_none(), "there is another address of that name");
        Ok(())
    }

    fn step(&mut self, first: &str, rest: &str, line: &str, number: usize) -> Result<()> {
        let step = match first {
            "under" => {
                let policy = self.policies.get(rest);
                Some(Step::Under(
                    policy
                        .with_context(|| format!("there is no policy {rest}"))?
                        .clone(),
                ))
            }
            "wait" => {
                Some(Step::Wait(rest.parse().ok().with_context(|| {
                    format!("`{rest}` is no number of seconds")
                })?))
            }
            "room" | "not-in-kernel" => None,
            _ => {
                self.open = Some(Open::Bytes);
                Some(Step::Packet(self.packet(line, number)?))
            }
        };
        let case = self.cases.last_mut().context("a step of no case")?;
        let Some(step) = step else {
            ensure!(case.steps.is_empty(), "`{first}` comes before every step");
            match first {
                "room" => case.room = Some(rest.parse().context("a number of flows")?),
                _ => case.not_in_kernel = Some(rest.to_owned()),
            }
            return Ok(());
        };
        ensure!(
            !case.steps.is_empty() || matches!(step, Step::Under(_)),
            "a case begins with `under` a policy"
        );
        case.steps.push(step);
        Ok(())
    }

    fn packet(&self, line: &str, number: usize) -> Result<PacketStep> {
        let (written, expected) = line.rsplit_once(" => ").context(
            "is no step: `in WORDS => REASON`, `out WORDS => REASON`, `under`, `wait`, or `case`",
        )?;
        let (place, words) = match written.split_once(' ') {
            Some((way @ ("in" | "out"), words)) => (("eth0", way), words),
            Some((interface, rest)) => {
                let (way, words) = rest.split_once(' ').context("`in` or `out` is missing")?;
                ((interface, way), words)
            }
            None => bail!("words of a packet are missing"),
        };
        let (interface, way) = place;
        let direction = match way {
            "in" => Direction::Ingress,
            "out" => Direction::Egress,
            _ => bail!("`{way}` is neither `in` nor `out`"),
        };
        let spelt_out: Vec<String> = words.split(' ').map(|word| self.spelt_out(word)).collect();
        let mut frame = words::frame(&spelt_out.join(" "))?;
        if is_bare(interface) {
            frame.drain(..ETHERNET.min(frame.len()));
        }
        let mut expected = expected.split(", ");
        let reason = expected.next().unwrap_or_default();
        let known = Reason::ALL.iter().find(|known| known.name() == reason);
        Ok(PacketStep {
            line: number,
            interface: interface.to_owned(),
            direction,
            written: written.to_owned(),
            frame,
            bytes: Vec::new(),
            reason: *known.with_context(|| format!("`{reason}` is no reason"))?,
            changes: expected.map(Change::from_str).collect::<Result<_>>()?,
        })
    }

    /// Replaces a name by its address.
    fn spelt_out(&self, word: &str) -> String {
        let (name, port) = match word.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (word, None),
        };
        match (self.names.get(name), port) {
            (None, _) => word.to_owned(),
            (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address.clone(),
        }
    }
}

impl fmt::Display for FlowIs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let assured = if self.assured { "assured " } else { "" };
        write!(out, "{assured}{}", self.phase)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opens(flow) => write!(out, "opens {flow}"),
            Self::Becomes(flow) => write!(out, "becomes {flow}"),
            Self::Ends(flow) => write!(out, "ends {flow}"),
        }
    }
}

impl FromStr for Change {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let (verb, flow) = match words.as_slice() {
            [verb, "assured", phase] => (*verb, (true, *phase)),
            [verb, phase] => (*verb, (false, *phase)),
            _ => bail!("`{text}` is not `opens`, `becomes` or `ends` a flow"),
        };
        let flow = FlowIs {
            assured: flow.0,
            phase: flow.1.to_owned(),
        };
        match verb {
            "opens" => Ok(Self::Opens(flow)),
            "becomes" => Ok(Self::Becomes(flow)),
            "ends" => Ok(Self::Ends(flow)),
            _ => bail!("`{verb}` is none of `opens`, `becomes` and `ends`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
name peer 198.51.100.7
policy p
    groups: {}
case a fact
room 2
under p
in udp peer:1 > 10.0.0.10:2 => rule, opens single, ends assured stream
    020000000002 020000000001
    0800
wait 3
";

    fn read(text: &str) -> Result<Reader> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("file.txt");
        fs::write(&path, text)?;
        let mut reader = Reader::default();
        reader.file(&path)?;
        Ok(reader)
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let reader = read(FILE).unwrap();
        let [case] = &reader.cases[..] else {
            panic!("{:?}", reader.cases)
        };
        assert_eq!((case.fact.as_str(), case.room), ("a fact", Some(2)));
        let [Step::Under(policy), Step::Packet(packet), Step::Wait(3)] = &case.steps[..] else {
            panic!("{:?}", case.steps)
        };
        assert_eq!(policy.yaml, "groups: {}\n");
        assert_eq!(packet.line, 7);
        assert_eq!(packet.bytes, packet.frame[..14]);
        assert_eq!(packet.reason, Reason::Rule);
        let changes: Vec<_> = packet.changes.iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["opens single", "ends assured stream"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (from, to, wanted) in [
            ("under p", "under q", "file.txt:6: `under q`"),
            ("under p", "wait 1", "begins with `under`"),
            ("=> rule", "=> rules", "`rules` is no reason"),
            ("opens single", "opened single", "`opened` is none of"),
            ("in udp", "inn udp", "`udp` is neither"),
            ("wait 3", "wait three", "no number of seconds"),
            ("wait 3", "room 3", "comes before every step"),
            ("name peer", "name pear", "`peer:1` is no endpoint"),
            ("case a fact", "case", "named for the fact"),
            ("    0800", "    080", "half a byte"),
            ("wait 3", "    0800\nwait 3\n    0800", "only a policy"),
        ] {
            let text = FILE.replacen(from, to, 1);
            let error = format!("{:#}", read(&text).unwrap_err());
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
