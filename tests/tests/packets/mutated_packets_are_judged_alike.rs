//! Mutated packets are judged right: each packet of the corpus, cut short at every length and with
//! every bit of its headers flipped, in the midst of its story.
//!
//! Nothing passes that the specification refuses, and nothing is refused for want of a rule that
//! there is; and the loaded programs say what the host's tables say.

use anyhow::{Context, Result, ensure};
use sg_ctl::dataplane::measure::ReplayHook;
use tests::corpus::{
    Case, Corpus, Evaluator, Followed, PacketStep, Step, follow, read_policy, show_policies,
};
use tests::evaluators::{Hooks, HostEvaluator, Way, in_kernel};
use tests::random::seeded;
use tests::specification::Specified;

/// Every header of every packet of the corpus lies in so many bytes.
const HEADERS: usize = 150;
/// Mutations of one packet that the kernel is shown.
const IN_KERNEL: usize = 120;
/// Flows there is room for: all that one case's mutations may open.
const CAPACITY: u32 = 8192;

/// The packet cut short at every length, and with every bit of its headers flipped.
fn mutations(packet: &PacketStep) -> Vec<Vec<u8>> {
    let frame = &packet.frame;
    let mut mutations: Vec<Vec<u8>> = (0..frame.len())
        .take(HEADERS)
        .map(|length| frame[..length].to_vec())
        .collect();
    for at in 0..frame.len().min(HEADERS) {
        for bit in 0..8 {
            let mut flipped = frame.clone();
            flipped[at] ^= 1 << bit;
            mutations.push(flipped);
        }
    }
    mutations
}

/// Shows each packet's mutations to evaluators that go their own way from there.
fn tell_mutated(case: &Case) -> Result<usize> {
    let mut evaluator = Specified::over(HostEvaluator::new());
    let mut policy = Default::default();
    let mut judged = 0;
    evaluator.forget(case.room)?;
    for step in &case.steps {
        match step {
            Step::Under(text) => {
                policy = read_policy(text, &policy)?;
                evaluator.put_in_force(text, &policy)?;
            }
            Step::Wait(seconds) => evaluator.wait(*seconds)?,
            Step::Packet(packet) => {
                for frame in mutations(packet) {
                    evaluator
                        .clone()
                        .judge(&packet.interface, packet.direction, &frame)
                        .with_context(|| {
                            let policies = show_policies(case);
                            let words = &packet.written;
                            format!(
                                "## {}\n{policies}\nmutated {words}\n{frame:02x?}",
                                case.fact
                            )
                        })?;
                    judged += 1;
                }
                evaluator.judge(&packet.interface, packet.direction, &packet.frame)?;
            }
        }
    }
    Ok(judged)
}

#[test]
fn nothing_passes_that_the_specification_refuses() -> Result<()> {
    let corpus = Corpus::read()?;
    let mut judged = 0;
    for (_, case) in corpus.cases() {
        judged += tell_mutated(case)?;
    }
    println!("{judged} mutated packets over the host's tables");
    ensure!(judged > 300_000, "only {judged}");
    Ok(())
}

#[test]
fn host_tables_and_kernel_agree() -> Result<()> {
    let corpus = Corpus::read()?;
    let mut rng = seeded("host_tables_and_kernel_agree");
    let mut cases: Vec<&Case> = corpus.cases().map(|(_, case)| case).collect();
    cases.retain(|case| case.room.is_none() && case.not_in_kernel.is_none());
    cases.sort_by_key(|case| show_policies(case));
    let all = in_kernel(Hooks::XdpNative, CAPACITY, move |mut kernel| {
        let mut host = HostEvaluator::new();
        kernel.show_by(&[
            Way::Replayed(ReplayHook::XdpReceive),
            Way::Replayed(ReplayHook::TcReceive),
            Way::Replayed(ReplayHook::XdpReceiveSplit),
        ]);
        let mut all = Followed::default();
        for case in cases {
            all += follow(case, &mut host, &mut kernel, |packet| {
                let mut shown = mutations(packet);
                rng.shuffle(&mut shown);
                shown.truncate(IN_KERNEL);
                // The packet itself, so that the story goes on.
                shown.push(packet.frame.clone());
                shown
            })?;
        }
        Ok(all)
    })?;
    println!("{all:?}");
    ensure!(all.compared > 50_000, "only {} were compared", all.compared);
    ensure!(
        all.passed > all.compared / 20,
        "too few passed to mean anything"
    );
    Ok(())
}
