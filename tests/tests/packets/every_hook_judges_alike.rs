//! Every hook judges alike: each case of the corpus by the loaded programs at XDP and TC, replayed
//! and on real devices, with all of a frame linear and with no more than its Ethernet header.

use anyhow::{Result, ensure};
use sg_ctl::dataplane::measure::ReplayHook;
use tests::corpus::{Case, Corpus, Followed, follow, show_policies, tell};
use tests::evaluators::{Hooks, HostEvaluator, Kernel, Linear, Way, in_kernel};

/// Flows there is room for: few, because each packet's change of the table is looked at.
const CAPACITY: u32 = 512;
const LARGER_THAN_A_PAGE: usize = 5000;

#[derive(Debug, Default)]
struct Tally {
    judged: usize,
    not_shown: usize,
    failures: Vec<String>,
}

impl Tally {
    fn tell(&mut self, case: &Case, kernel: &mut Kernel) -> Result<()> {
        let heard = tell(case, kernel)?;
        self.judged += heard.judged;
        self.not_shown += heard.not_shown;
        self.failures.extend(heard.failure);
        Ok(())
    }
}

/// Cases that share a policy come together: to put one in force takes longest.
fn cases_for_kernel(corpus: &Corpus) -> Vec<&Case> {
    let mut cases: Vec<_> = corpus
        .cases()
        .map(|(_, case)| case)
        .filter(|case| why_not_in_kernel(case).is_none())
        .collect();
    cases.sort_by_key(|case| show_policies(case));
    cases
}

fn why_not_in_kernel(case: &Case) -> Option<&str> {
    if case.room.is_some() {
        return Some("its tables cannot be made that small");
    }
    case.not_in_kernel.as_deref()
}

/// Tells each case in each of the ways, and then once more with frames whose headers lie apart.
fn check(hooks: Hooks, ways: &[(&str, &'static [Way])]) -> Result<()> {
    let corpus = Corpus::read()?;
    in_kernel(hooks, CAPACITY, |mut kernel| {
        let mut tallies: Vec<Tally> = ways.iter().map(|_| Tally::default()).collect();
        let mut host = HostEvaluator::new();
        let mut apart = Followed::default();
        let mut failures = Vec::new();
        for case in cases_for_kernel(&corpus) {
            for ((_, way), tally) in ways.iter().zip(&mut tallies) {
                kernel.show_by(way);
                tally.tell(case, &mut kernel)?;
            }
            match follow_headers_apart(case, &mut host, &mut kernel) {
                Ok(followed) => apart += followed,
                Err(failure) => failures.push(format!("headers apart: {failure:#}\n")),
            }
        }
        for ((name, _), tally) in ways.iter().zip(tallies) {
            println!("{hooks:?}, {name}: {} packets judged", tally.judged);
            println!(
                "skipped: {} packets don't come to {hooks:?}, {name}",
                tally.not_shown
            );
            ensure!(tally.not_shown * 20 < tally.judged, "too few are shown");
            let told = tally.failures.iter();
            failures.extend(told.map(|failure| format!("{name}: {failure}")));
        }
        println!("{hooks:?}, headers apart: {apart:?}");
        ensure!(
            failures.is_empty(),
            "{} cases fail at {hooks:?}\n\n{}",
            failures.len(),
            failures.join("\n")
        );
        ensure!(
            apart.as_written * 100 > apart.compared * 95,
            "too few packets are still what they were"
        );
        Ok(())
    })
}

/// Tells each case to the programs of a trace, which are on no wire here.
fn check_traced(hooks: Hooks, way: &'static [Way]) -> Result<()> {
    let corpus = Corpus::read()?;
    in_kernel(hooks, CAPACITY, |mut kernel| {
        kernel.trace();
        kernel.show_by(way);
        let mut tally = Tally::default();
        for case in cases_for_kernel(&corpus) {
            tally.tell(case, &mut kernel)?;
        }
        println!("{hooks:?}, traced: {} packets judged", tally.judged);
        ensure!(tally.not_shown * 20 < tally.judged, "too few are shown");
        ensure!(
            tally.failures.is_empty(),
            "{} cases fail at {hooks:?}\n\n{}",
            tally.failures.len(),
            tally.failures.join("\n")
        );
        Ok(())
    })
}

#[test]
fn traced_programs_judge_as_the_ordinary_ones() -> Result<()> {
    check_traced(Hooks::XdpNative, &[Way::Replayed(ReplayHook::XdpReceive)])?;
    check_traced(Hooks::Tc, &[Way::Replayed(ReplayHook::TcReceive)])
}

/// The same frames with so many zeros behind the packet that they no longer fit a page, and no more
/// than the Ethernet header is linear. What only the frame's length decides is decided otherwise
/// then, so the host's tables say what is right.
fn follow_headers_apart(
    case: &Case,
    host: &mut HostEvaluator,
    kernel: &mut Kernel,
) -> Result<Followed> {
    kernel.show_by(&[Way::OnTheWire(Linear::EthernetHeader)]);
    follow(case, host, kernel, |packet| {
        let mut frame = packet.frame.clone();
        frame.resize(frame.len().max(LARGER_THAN_A_PAGE), 0);
        vec![frame]
    })
}

#[test]
fn native_xdp() -> Result<()> {
    check(
        Hooks::XdpNative,
        &[
            ("replayed", &[Way::Replayed(ReplayHook::XdpReceive)]),
            (
                "replayed in several buffers",
                &[Way::Replayed(ReplayHook::XdpReceiveSplit)],
            ),
            ("on the wire", &[Way::OnTheWire(Linear::Whole)]),
        ],
    )
}

#[test]
fn generic_xdp() -> Result<()> {
    check(
        Hooks::XdpGeneric,
        &[("on the wire", &[Way::OnTheWire(Linear::Whole)])],
    )
}

#[test]
fn tc() -> Result<()> {
    check(
        Hooks::Tc,
        &[
            ("replayed", &[Way::Replayed(ReplayHook::TcReceive)]),
            ("on the wire", &[Way::OnTheWire(Linear::Whole)]),
        ],
    )
}

#[test]
fn what_the_kernel_is_not_shown_is_told() -> Result<()> {
    let corpus = Corpus::read()?;
    let mut kept_from_it = 0;
    for (theme, case) in corpus.cases() {
        if let Some(why) = why_not_in_kernel(case) {
            println!("skipped in the kernel: {theme}: {}: {why}", case.fact);
            kept_from_it += 1;
        }
    }
    ensure!(kept_from_it * 20 < corpus.cases().count());
    Ok(())
}
