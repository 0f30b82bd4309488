//! Any bytes as a story: one of the corpus' policies is in force, and frames come one after the
//! other.
//!
//! The first byte picks the policy. Then each step begins with a byte that says what happens, and
//! two that are a number: a frame of so many bytes follows, or so many seconds pass.

use anyhow::{Context as _, Result, anyhow, bail};
use sg_common::packet::Direction;

use crate::corpus::{Case, Corpus, Evaluator, PacketStep, PolicyText, Step, read_policy};
use crate::evaluators::HostEvaluator;
use crate::specification::Specified;

/// In a step's first byte: time passes, instead of a frame.
const WAIT: u8 = 0x80;
/// In a step's first byte: the frame leaves.
const EGRESS: u8 = 0x01;
/// How far a step's first byte is shifted to number the interface.
const INTERFACE: u32 = 1;

/// A policy in force, and what it protects.
struct World {
    evaluator: Specified<HostEvaluator>,
    interfaces: Vec<String>,
}

thread_local! {
    static WORLDS: Result<Vec<World>> = worlds();
}

fn worlds() -> Result<Vec<World>> {
    let corpus = Corpus::read()?;
    policies(&corpus).into_iter().map(World::of).collect()
}

/// The corpus' policies, each once, in the order of their names.
fn policies(corpus: &Corpus) -> Vec<&PolicyText> {
    let steps = corpus.cases().flat_map(|(_, case)| &case.steps);
    let mut policies: Vec<&PolicyText> = steps
        .filter_map(|step| match step {
            Step::Under(policy) => Some(policy),
            _ => None,
        })
        .collect();
    policies.sort();
    policies.dedup();
    policies
}

impl World {
    fn of(text: &PolicyText) -> Result<Self> {
        let policy = read_policy(text, &Default::default())?;
        let mut evaluator = Specified::over(HostEvaluator::new());
        evaluator.put_in_force(text, &policy)?;
        let interfaces = policy.vpcs.values().flat_map(|vpc| vpc.interfaces.keys());
        Ok(Self {
            evaluator,
            interfaces: interfaces.map(ToString::to_string).collect(),
        })
    }
}

pub(super) fn hold(story: &[u8]) -> Result<()> {
    WORLDS.with(|worlds| {
        let worlds = worlds.as_ref().map_err(|error| anyhow!("{error:#}"))?;
        let Some((policy, mut rest)) = story.split_first() else {
            return Ok(());
        };
        let world = &worlds[usize::from(*policy) % worlds.len()];
        let mut evaluator = world.evaluator.clone();
        while let Some(([what, high, low], following)) = rest.split_first_chunk() {
            let number = u16::from_be_bytes([*high, *low]);
            rest = following;
            if what & WAIT != 0 {
                evaluator.wait(u64::from(number))?;
                continue;
            }
            let (frame, following) = rest.split_at(rest.len().min(usize::from(number)));
            rest = following;
            let interface = usize::from(what >> INTERFACE) % world.interfaces.len();
            let interface = &world.interfaces[interface];
            let direction = match what & EGRESS {
                0 => Direction::Ingress,
                _ => Direction::Egress,
            };
            evaluator
                .judge(interface, direction, frame)
                .with_context(|| format!("{} {interface}: {frame:02x?}", direction.name()))?;
        }
        Ok(())
    })
}

/// Each case up to its second policy.
pub(super) fn seeds(corpus: &Corpus) -> Result<Vec<Vec<u8>>> {
    let policies = policies(corpus);
    corpus
        .cases()
        .map(|(_, case)| seed(case, &policies))
        .collect()
}

fn seed(case: &Case, policies: &[&PolicyText]) -> Result<Vec<u8>> {
    let (first, steps) = case.steps.split_first().context("an empty case")?;
    let Step::Under(text) = first else {
        bail!("{}: begins without a policy", case.fact);
    };
    let policy = policies.binary_search(&text).ok().context("a policy")?;
    let interfaces = World::of(text)?.interfaces;
    let mut story = vec![u8::try_from(policy)?];
    for step in steps {
        match step {
            Step::Under(_) => break,
            Step::Wait(seconds) => {
                let seconds = u16::try_from(*seconds).unwrap_or(u16::MAX);
                story.push(WAIT);
                story.extend(seconds.to_be_bytes());
            }
            Step::Packet(packet) => story.extend(packet_step(packet, &interfaces)?),
        }
    }
    Ok(story)
}

fn packet_step(packet: &PacketStep, interfaces: &[String]) -> Result<Vec<u8>> {
    let number = interfaces.iter().position(|name| *name == packet.interface);
    let number = u8::try_from(number.context("no such interface")?)?;
    let direction = match packet.direction {
        Direction::Ingress => 0,
        Direction::Egress => EGRESS,
    };
    let length = u16::try_from(packet.frame.len())?.to_be_bytes();
    let mut step = vec![number << INTERFACE | direction];
    step.extend(length);
    step.extend(&packet.frame);
    Ok(step)
}
