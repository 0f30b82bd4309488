//! Tells a case to the host's tables and to another evaluator side by side, each packet in other
//! shapes than the file's: what becomes of those no file says, and both must say the same.

use std::ops::AddAssign;

use anyhow::{Context, Result, ensure};
use sg_common::report::Reason;
use sg_ctl::policy::model::Policy;

use super::{Case, Evaluator, PacketStep, Step, read_policy, show_policies};

/// What came of a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Followed {
    /// Frames that both judged.
    pub compared: usize,
    /// Those of them that passed.
    pub passed: usize,
    /// Those of them that got the reason that the file has for the packet.
    pub as_written: usize,
    /// Frames that the other evaluator could not be shown.
    pub not_shown: usize,
}

impl AddAssign for Followed {
    fn add_assign(&mut self, more: Self) {
        self.compared += more.compared;
        self.passed += more.passed;
        self.as_written += more.as_written;
        self.not_shown += more.not_shown;
    }
}

/// Tells a case; `shapes` makes frames of each packet.
pub fn follow<E: Evaluator + Clone>(
    case: &Case,
    host: &mut E,
    other: &mut dyn Evaluator,
    mut shapes: impl FnMut(&PacketStep) -> Vec<Vec<u8>>,
) -> Result<Followed> {
    let mut followed = Followed::default();
    let mut policy = Policy::default();
    host.forget(case.room)?;
    other.forget(case.room)?;
    for step in &case.steps {
        match step {
            Step::Under(text) => {
                policy = read_policy(text, &policy)?;
                host.put_in_force(text, &policy)?;
                other.put_in_force(text, &policy)?;
            }
            Step::Wait(seconds) => {
                host.wait(*seconds)?;
                other.wait(*seconds)?;
            }
            Step::Packet(packet) => {
                for frame in shapes(packet) {
                    compare(packet, &frame, host, other, &mut followed)
                        .with_context(|| show(case, packet, &frame))?;
                }
            }
        }
    }
    let (here, there) = (host.flows()?, other.flows()?);
    let mut here: Vec<_> = here.into_values().collect();
    let mut there: Vec<_> = there.into_values().collect();
    here.sort();
    there.sort();
    ensure!(
        here == there,
        "## {}\nother flows are left: {here:?} and {there:?}",
        case.fact
    );
    Ok(followed)
}

fn compare<E: Evaluator + Clone>(
    packet: &PacketStep,
    frame: &[u8],
    host: &mut E,
    other: &mut dyn Evaluator,
    followed: &mut Followed,
) -> Result<()> {
    let PacketStep {
        interface,
        direction,
        ..
    } = packet;
    let before = host.clone();
    let expected = host
        .judge(interface, *direction, frame)?
        .context("the host's tables judge every frame")?;
    other.expect(expected);
    let Some(reason) = other.judge(interface, *direction, frame)? else {
        followed.not_shown += 1;
        *host = before;
        return Ok(());
    };
    ensure!(
        reason == expected,
        "the host's tables say {}, and here it is {}",
        expected.name(),
        reason.name()
    );
    followed.compared += 1;
    followed.as_written += usize::from(reason == packet.reason);
    followed.passed += usize::from(passes(reason));
    Ok(())
}

fn passes(reason: Reason) -> bool {
    reason.verdict() == sg_common::report::Verdict::Pass
}

fn show(case: &Case, packet: &PacketStep, frame: &[u8]) -> String {
    format!(
        "## {}\n{}\n  as {}\n{}",
        case.fact,
        show_policies(case),
        packet.written,
        super::bytes::lines(frame, super::is_bare(&packet.interface)).join("\n")
    )
}
