//! Every hook judges alike: each case of the corpus by the loaded programs at XDP and TC, replayed
//! and on real devices, with all of a frame linear and with no more than its Ethernet header.

use anyhow::{Result, ensure};
use sg_ctl::dataplane::ReplayHook;
use tests::corpus::{Case, Corpus, Evaluator, Followed, follow, show_policies, tell};
use tests::evaluators::{Devices, Hooks, HostEvaluator, Kernel, Linear, Replayed, in_kernel};

/// Flows there is room for: few, because each packet's change of the table is looked at.
const CAPACITY: u32 = 512;
const LARGER_THAN_A_PAGE: usize = 5000;

#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    judged: usize,
    not_shown: usize,
}

/// Tells every case that the kernel can be shown.
fn tell_all(name: &str, evaluator: &mut dyn Evaluator) -> Result<()> {
    let corpus = Corpus::read()?;
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for case in cases_for_kernel(&corpus) {
        let heard = tell(case, evaluator)?;
        tally.cases += 1;
        tally.judged += heard.judged;
        tally.not_shown += heard.not_shown;
        failures.extend(heard.failure);
    }
    println!("{name}: {tally:?}");
    if tally.not_shown > 0 {
        println!(
            "skipped: {} packets that never come to {name}",
            tally.not_shown
        );
    }
    ensure!(
        failures.is_empty(),
        "{} of {} cases fail at {name}\n\n{}",
        failures.len(),
        tally.cases,
        failures.join("\n")
    );
    Ok(())
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

/// The same frames with so many zeros behind the packet that they no longer fit a page, and no more
/// than the Ethernet header is linear. What only the frame's length decides is decided otherwise
/// then, so the host's tables say what is right.
fn follow_non_linear(name: &str, kernel: Kernel) -> Result<()> {
    let corpus = Corpus::read()?;
    let mut host = HostEvaluator::new();
    let mut devices = Devices::over(kernel, Linear::EthernetHeader);
    let mut all = Followed::default();
    for case in cases_for_kernel(&corpus) {
        all += follow(case, &mut host, &mut devices, |packet| {
            let mut frame = packet.frame.clone();
            frame.resize(frame.len().max(LARGER_THAN_A_PAGE), 0);
            vec![frame]
        })?;
    }
    println!("{name}: {all:?}");
    ensure!(
        all.as_written * 100 > all.compared * 95,
        "too few packets are still what they were"
    );
    Ok(())
}

#[test]
fn what_the_kernel_is_not_shown() -> Result<()> {
    for (theme, case) in Corpus::read()?.cases() {
        if let Some(why) = why_not_in_kernel(case) {
            println!("skipped in the kernel: {theme}: {}: {why}", case.fact);
        }
    }
    Ok(())
}

#[test]
fn replayed_at_xdp() -> Result<()> {
    in_kernel(Hooks::XdpNative, CAPACITY, |kernel| {
        tell_all(
            "xdp",
            &mut Replayed::over(kernel, &[ReplayHook::XdpReceive]),
        )
    })
}

#[test]
fn replayed_at_xdp_in_several_buffers() -> Result<()> {
    in_kernel(Hooks::XdpNative, CAPACITY, |kernel| {
        tell_all(
            "xdp, in several buffers",
            &mut Replayed::over(kernel, &[ReplayHook::XdpReceiveSplit]),
        )
    })
}

#[test]
fn replayed_at_tc() -> Result<()> {
    in_kernel(Hooks::Tc, CAPACITY, |kernel| {
        tell_all("tc", &mut Replayed::over(kernel, &[ReplayHook::TcReceive]))
    })
}

#[test]
fn on_devices_at_native_xdp() -> Result<()> {
    in_kernel(Hooks::XdpNative, CAPACITY, |kernel| {
        tell_all(
            "devices with native xdp",
            &mut Devices::over(kernel, Linear::Whole),
        )
    })
}

#[test]
fn on_devices_at_generic_xdp() -> Result<()> {
    in_kernel(Hooks::XdpGeneric, CAPACITY, |kernel| {
        tell_all(
            "devices with generic xdp",
            &mut Devices::over(kernel, Linear::Whole),
        )
    })
}

#[test]
fn on_devices_at_tc() -> Result<()> {
    in_kernel(Hooks::Tc, CAPACITY, |kernel| {
        tell_all("devices with tc", &mut Devices::over(kernel, Linear::Whole))
    })
}

#[test]
fn on_devices_at_native_xdp_with_headers_apart() -> Result<()> {
    in_kernel(Hooks::XdpNative, CAPACITY, |kernel| {
        follow_non_linear("devices with native xdp, headers apart", kernel)
    })
}

#[test]
fn on_devices_at_generic_xdp_with_headers_apart() -> Result<()> {
    in_kernel(Hooks::XdpGeneric, CAPACITY, |kernel| {
        follow_non_linear("devices with generic xdp, headers apart", kernel)
    })
}

#[test]
fn on_devices_at_tc_with_headers_apart() -> Result<()> {
    in_kernel(Hooks::Tc, CAPACITY, |kernel| {
        follow_non_linear("devices with tc, headers apart", kernel)
    })
}
