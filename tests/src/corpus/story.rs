//! Tells a case to whoever judges, and says what differs from what the file has.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use sg_common::flow::FlowKey;
use sg_common::packet::Direction;
use sg_common::report::Reason;
use sg_ctl::policy::file::PolicyFile;
use sg_ctl::policy::model::Policy;

use super::{Case, Change, FlowIs, PacketStep, PolicyText, Step};

/// The flows that are alive.
pub type Flows = BTreeMap<FlowKey, FlowIs>;

/// Somebody who judges packets: one way of running the decision.
pub trait Evaluator {
    /// Forgets all flows and fragments; each flow table has room for so many flows, where that can
    /// be chosen.
    fn forget(&mut self, room: Option<usize>) -> Result<()>;
    /// Puts a policy in force, which is what this text makes of the one before.
    fn put_in_force(&mut self, text: &PolicyText, policy: &Policy) -> Result<()>;
    /// Moves the clock on.
    fn wait(&mut self, seconds: u64) -> Result<()>;
    /// The reason a packet gets; `None` when it can't be shown to this evaluator.
    fn judge(
        &mut self,
        interface: &str,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Option<Reason>>;
    /// Says which reason the next packet is likely to get; only a hint where to look.
    fn expect(&mut self, _reason: Reason) {}
    /// The flows that are alive.
    fn flows(&mut self) -> Result<Flows>;
}

/// What came of a case.
#[derive(Debug, Default)]
pub struct Heard {
    /// The story with what was different, when anything was.
    pub failure: Option<String>,
    /// Packets that were judged.
    pub judged: usize,
    /// Packets that could not be shown.
    pub not_shown: usize,
    /// What each packet did to the flow table, by its line.
    pub changes: BTreeMap<usize, Vec<Change>>,
}

/// Tells a case from its beginning.
pub fn tell(case: &Case, evaluator: &mut dyn Evaluator) -> Result<Heard> {
    let mut heard = Heard::default();
    let mut told = String::new();
    let mut differs = false;
    let mut policy = Policy::default();
    let mut known = None;
    evaluator.forget(case.room)?;
    for step in &case.steps {
        match step {
            Step::Under(text) => {
                policy = read_policy(text, &policy)?;
                evaluator.put_in_force(text, &policy)?;
                known = None;
                let _ = writeln!(told, "  under {}", text.name);
            }
            Step::Wait(seconds) => {
                evaluator.wait(*seconds)?;
                known = None;
                let _ = writeln!(told, "  wait {seconds}");
            }
            Step::Packet(packet) => {
                let _ = write!(
                    told,
                    "  {} => {}",
                    packet.written,
                    outcome(packet.reason, &packet.changes)
                );
                let before = match known.take() {
                    Some(flows) => flows,
                    None => evaluator.flows()?,
                };
                evaluator.expect(packet.reason);
                let judged = evaluator.judge(&packet.interface, packet.direction, &packet.frame);
                let judged = match judged {
                    Ok(judged) => judged,
                    Err(error) => {
                        let _ = writeln!(told, "   <== {error:#}");
                        differs = true;
                        break;
                    }
                };
                let Some(reason) = judged else {
                    heard.not_shown += 1;
                    told.push_str("   (not shown)\n");
                    continue;
                };
                let after = evaluator.flows()?;
                let changes = changes(&before, &after);
                known = Some(after);
                if reason != packet.reason || changes != packet.changes {
                    differs = true;
                    let _ = write!(told, "   <== is {}", outcome(reason, &changes));
                }
                told.push('\n');
                heard.judged += 1;
                heard.changes.insert(packet.line, changes);
            }
        }
    }
    if differs {
        heard.failure = Some(format!("## {}\n{}\n{told}", case.fact, show_policies(case)));
    }
    Ok(heard)
}

fn outcome(reason: Reason, changes: &[Change]) -> String {
    let changes = changes.iter().map(|change| format!(", {change}"));
    format!("{}{}", reason.name(), changes.collect::<String>())
}

fn changes(before: &Flows, after: &Flows) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, is) in after {
        match before.get(key) {
            None => changes.push(Change::Opens(is.clone())),
            Some(was) if was != is => changes.push(Change::Becomes(is.clone())),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(key, _)| !after.contains_key(key));
    changes.extend(gone.map(|(_, was)| Change::Ends(was.clone())));
    changes.sort();
    changes
}

/// The policies of a case, as they are written.
pub fn show_policies(case: &Case) -> String {
    let policies = case.steps.iter().filter_map(|step| match step {
        Step::Under(policy) => Some(format!("{}:\n{}", policy.name, policy.yaml)),
        _ => None,
    });
    policies.collect()
}

/// The policy that a file makes of what is there.
pub fn read_policy(text: &PolicyText, existing: &Policy) -> Result<Policy> {
    let PolicyText { name, yaml } = text;
    let file = PolicyFile::parse(name, yaml).map_err(|findings| anyhow::anyhow!("{findings}"))?;
    file.to_policy(existing)
        .map_err(|findings| anyhow::anyhow!("{findings}"))
}

impl PacketStep {
    /// Whether words and bytes are the same packet.
    pub fn agrees_with_itself(&self) -> bool {
        self.frame == self.bytes
    }
}
