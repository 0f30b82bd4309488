//! The decision compiled for the kernel: entry points, and what turns a decision into an action.
//!
//! This crate has adapters and no policy thinking: [`frame`] reads bytes from either kind of
//! context, [`maps`] answers the decision's questions, [`flows`] keeps flows in buckets,
//! [`counters`] counts, [`events`] tells who reads along, [`yardsticks`] are for measuring. A packet
//! whose interface has no entry is dropped.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(
    internal_features,
    reason = "the target has atomic instructions, but core offers none"
)]

mod context;
mod counters;
mod events;
mod flows;
mod frame;
mod globals;
mod maps;
mod opaque;
mod registers;
mod stages;
mod tables;
mod words;
mod yardsticks;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_load_bytes};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::abi::{Interface, InterfaceFlags};
use sg_common::decide::{AtOnce, at_once, by_arrival, direction_of, v4_at_once};
use sg_common::event::EventKind;
use sg_common::flow::{FlowKey, FlowKind};
use sg_common::ids::RuleSlot;
use sg_common::packet::{Framing, Packet};
use sg_common::parse::ReadPart;
use sg_common::report::{Reason, Verdict};
use sg_common::tables::Tables as _;

use crate::context::{Job, job};
use crate::frame::{Frame, Scratch};
use crate::tables::{ByJob, Maps};

/// `TCX_NEXT`: whoever is attached after this program decides further.
const TCX_NEXT: i32 = -1;

/// Received frames, before the kernel has made a socket buffer of them.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_xdp_receive(context: XdpContext) -> u32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*context.ctx).ingress_ifindex };
    receive(&context, ifindex)
}

#[inline(always)]
fn receive(context: &XdpContext, ifindex: u32) -> u32 {
    let frame = Frame::of(context, core::ptr::null_mut());
    match judge(&frame, ifindex, true, |job| sg_read_xdp(context.ctx, job)) {
        Ruling::Pass => xdp_action::XDP_PASS,
        Ruling::Drop { .. } => xdp_action::XDP_DROP,
    }
}

/// Received frames, where XDP is not wanted.
#[classifier]
#[inline(always)]
pub(crate) fn sg_tc_receive(context: TcContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    classify(&context, ifindex, true)
}

/// Frames on their way out of the interface.
#[classifier]
#[inline(always)]
pub(crate) fn sg_tc_send(context: TcContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    classify(&context, ifindex, false)
}

/// Lets every frame pass: what a new link runs until the policy that it is made for is in force.
#[classifier]
pub(crate) fn sg_pass(_context: TcContext) -> i32 {
    TCX_NEXT
}

#[inline(always)]
fn classify(context: &TcContext, ifindex: u32, received: bool) -> i32 {
    let frame = Frame::of(context, core::ptr::null_mut());
    match judge(&frame, ifindex, received, |job| {
        sg_read_skb(context.skb.skb, job)
    }) {
        Ruling::Pass => TCX_NEXT,
        Ruling::Drop { told: false } if !received => drop_silently(),
        Ruling::Drop { .. } => TC_ACT_SHOT,
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy)]
enum Ruling {
    Pass,
    Drop {
        /// Whether its sender hears of it, if it is on this machine.
        told: bool,
    },
}

impl Ruling {
    const REFUSED: Self = Self::Drop { told: true };

    #[inline(always)]
    fn of(verdict: Verdict, interface: &Interface) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Drop => Self::Drop {
                told: interface.flags.has(InterfaceFlags::TOLD),
            },
        }
    }
}

/// Drops a frame on its way out, and lets the kernel report that it was sent.
///
/// What `TC_ACT_SHOT` drops is congestion to the socket that sent it: a connection is given up within
/// seconds, and `sendto` fails with ENOBUFS. `TC_ACT_STOLEN` passes at TCX, which knows no such code.
/// A frame that is sent on to a device is freed when there is no such device, and counts as sent
/// (`skb_do_redirect`, <https://elixir.bootlin.com/linux/v6.6/source/net/core/filter.c#L2454>); no
/// device has number 0.
#[inline(always)]
fn drop_silently() -> i32 {
    const NO_DEVICE: u32 = 0;
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(NO_DEVICE, 0) as i32 }
}

/// Judges a frame: at once, or else by way of the desk, onto which `read` puts it.
#[inline(always)]
fn judge<P: Packet>(
    frame: &P,
    ifindex: u32,
    received: bool,
    read: impl FnOnce(*mut Job) -> u32,
) -> Ruling {
    let Some(job) = job() else {
        return Ruling::REFUSED;
    };
    let Some(maps) = Maps::open(job) else {
        return Ruling::REFUSED;
    };
    let Some((place, entry)) = maps.find_interface(ifindex) else {
        counters::count_stray();
        return Ruling::REFUSED;
    };
    let Some(interface) = maps::in_force(entry, maps.generation()) else {
        counters::count_stray();
        return Ruling::REFUSED;
    };
    let direction = direction_of(interface, received);
    job.generation = maps.generation();
    if received && let Some(decision) = by_arrival(frame) {
        counters::count_frame(interface.slot, direction, decision, frame);
        return Ruling::of(interface.enforce(decision.reason), interface);
    }
    let mut admitted = RuleSlot::NONE;
    match v4_at_once(frame, received, interface, &maps) {
        Some(AtOnce::Decided(decision)) => {
            let event = match decision.reason {
                Reason::Tracked => None,
                Reason::Untracked => Some(EventKind::NewFlow),
                _ => Some(EventKind::Drop),
            };
            // What is told is told with what else is read of it.
            if !event.is_some_and(events::are_wanted) {
                counters::count_frame(interface.slot, direction, decision, frame);
                return Ruling::of(interface.enforce(decision.reason), interface);
            }
        }
        Some(AtOnce::Admitted(rule)) => admitted = rule,
        None => {}
    }
    job.interface = place;
    if !admitted.is_some() {
        match at_once(frame, direction, interface, &maps, &mut job.desk) {
            Some(AtOnce::Decided(decision)) => {
                let verdict = stages::conclude(job, interface, direction, decision);
                return Ruling::of(verdict, interface);
            }
            Some(AtOnce::Admitted(rule)) => admitted = rule,
            None => {}
        }
    }
    job.admitted = admitted;
    job.bare = u32::from(interface.flags.has(InterfaceFlags::BARE));
    job.direction = direction.number();
    let refusal = read(job);
    job.refusal = refusal;
    let verdict = if stages::judge_desk(job) == 0 {
        Verdict::Drop
    } else {
        Verdict::Pass
    };
    Ruling::of(verdict, interface)
}

/// Leaves the kernel's `jiffies64` in a map, for readers of deadlines; run by the controller through
/// `BPF_PROG_TEST_RUN`, attached nowhere.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_clock(_context: XdpContext) -> u32 {
    globals::read_clock();
    xdp_action::XDP_ABORTED
}

/// Ends the flow whose key the frame is, as it lies in memory; run by the controller as [`sg_clock`]
/// is. Returns how many tables held it.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_end_flow(context: XdpContext) -> u32 {
    let Some(job) = job() else { return 0 };
    let key = &raw mut job.desk.key;
    // SAFETY: the key is in a map value and as long as what is copied, and every pattern of bytes is
    // a key.
    let copied =
        unsafe { bpf_xdp_load_bytes(context.ctx, 0, key.cast(), size_of::<FlowKey>() as u32) };
    if copied != 0 {
        return 0;
    }
    if Maps::open(job).is_none() {
        return 0;
    }
    let maps = Maps::of_job(job);
    end_flow(&maps, job, FlowKind::Assured) + end_flow(&maps, job, FlowKind::Embryonic)
}

#[inline(always)]
fn end_flow(maps: &Maps<ByJob>, job: &mut Job, table: FlowKind) -> u32 {
    let Some(flow) = maps.find_flow(table, &job.desk.key, &mut job.desk.state) else {
        return 0;
    };
    maps.remove_flow(flow, job.desk.state.owner);
    1
}

/// Carries flows between tables of two sizes, a bucket a run; run by the controller through
/// `BPF_PROG_TEST_RUN`, attached nowhere. No XDP program: to repeat one, the kernel waits for a grace
/// period each time.
#[classifier]
#[inline(always)]
pub(crate) fn sg_carry(_context: TcContext) -> i32 {
    flows::carry();
    TC_ACT_SHOT
}

/// Reads an XDP frame onto the desk. Global functions are checked by the verifier once and by
/// themselves, so that the ways through one don't multiply with those through the next.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_read_xdp(context: *mut xdp_md, job: *mut Job) -> u32 {
    read(job, |job, part| match part {
        ReadPart::Network => sg_read_network_xdp(context, job),
        ReadPart::Upper => sg_read_upper_xdp(context, job),
        ReadPart::Quoted => sg_read_quoted_xdp(context, job),
    })
}

/// The same for a socket buffer.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_read_skb(context: *mut __sk_buff, job: *mut Job) -> u32 {
    read(job, |job, part| match part {
        ReadPart::Network => sg_read_network_skb(context, job),
        ReadPart::Upper => sg_read_upper_skb(context, job),
        ReadPart::Quoted => sg_read_quoted_skb(context, job),
    })
}

#[inline(always)]
fn read(job: *mut Job, part: impl Fn(*mut Job, ReadPart) -> u32) -> u32 {
    if job.is_null() {
        return Reason::NoInterface.number();
    }
    // SAFETY: not null, and the verifier has checked its size at the call. The functions of the parts
    // use the desk in turn.
    let desk = unsafe { &mut (*job).desk };
    let refusal =
        desk.read_by(|_, of| Reason::from_number(part(job, of)).unwrap_or(Reason::NoInterface));
    refusal.number()
}

macro_rules! read_parts {
    ($($xdp:ident, $skb:ident = $part:ident;)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $xdp(context: *mut xdp_md, job: *mut Job) -> u32 {
            let context = XdpContext::new(context);
            read_part(job, ReadPart::$part, |scratch| Frame::of(&context, scratch))
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $skb(context: *mut __sk_buff, job: *mut Job) -> u32 {
            let context = TcContext::new(context);
            read_part(job, ReadPart::$part, |scratch| Frame::of(&context, scratch))
        }
    )*};
}

read_parts! {
    sg_read_network_xdp, sg_read_network_skb = Network;
    sg_read_upper_xdp, sg_read_upper_skb = Upper;
    sg_read_quoted_xdp, sg_read_quoted_skb = Quoted;
}

#[inline(always)]
fn read_part<P: Packet>(
    job: *mut Job,
    part: ReadPart,
    frame: impl FnOnce(*mut Scratch) -> P,
) -> u32 {
    if job.is_null() {
        return Reason::NoInterface.number();
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let job = unsafe { &mut *job };
    let framing = if job.bare == 0 {
        Framing::Ethernet
    } else {
        Framing::Bare
    };
    let packet = frame(&raw mut job.scratch);
    job.desk.read_part(part, &packet, framing).number()
}

/// The kernel lets only GPL-compatible programs call some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The core cannot panic; if it could, this loop would not pass the verifier.
    loop {}
}
