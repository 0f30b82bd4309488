//! The decision compiled for the kernel: entry points, and what turns a decision into an action.
//!
//! This crate has adapters and no policy thinking: [`frame`] reads bytes from either kind of
//! hook, [`maps`] answers the decision's questions, [`flows`] keeps flows in buckets,
//! [`counters`] counts, [`events`] tells who reads along. A packet whose interface has no entry is
//! dropped. The feature `measure` adds programs to measure by.
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
#[cfg(feature = "measure")]
mod measure;
mod opaque;
mod registers;
mod stages;
mod tables;
#[cfg_attr(not(feature = "trace"), path = "untraced.rs")]
mod trace;
mod words;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_redirect, bpf_xdp_load_bytes};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::abi::{Interface, InterfaceFlags};
use sg_common::decide::{FastDecision, by_arrival, decide_fast, decide_fast_v4, direction_of};
use sg_common::event::EventKind;
use sg_common::flow::FlowKey;
use sg_common::ids::RuleSlot;
use sg_common::packet::{Framing, Packet};
use sg_common::parse::ReadPart;
use sg_common::report::{Reason, Verdict};
use sg_common::tables::{Flows as _, Policies as _};

use crate::context::Context;
use crate::frame::{Buffer, Frame};
use crate::tables::{ByContext, Maps};

/// `TCX_NEXT`: whoever is attached after this program decides further.
const TCX_NEXT: i32 = -1;

/// Received frames, before the kernel has made a socket buffer of them.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_xdp_receive(hook: XdpContext) -> u32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*hook.ctx).ingress_ifindex };
    receive(&hook, ifindex)
}

#[inline(always)]
fn receive(hook: &XdpContext, ifindex: u32) -> u32 {
    let frame = Frame::of(hook, core::ptr::null_mut());
    match judge(&frame, ifindex, true, |context| {
        sg_read_xdp(hook.ctx, context)
    }) {
        Ruling::Pass => xdp_action::XDP_PASS,
        Ruling::Drop { .. } => xdp_action::XDP_DROP,
    }
}

/// Received frames, where XDP is not wanted.
#[classifier]
#[inline(always)]
pub(crate) fn sg_tc_receive(hook: TcContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*hook.skb.skb).ifindex };
    classify(&hook, ifindex, true)
}

/// Frames on their way out of the interface.
#[classifier]
#[inline(always)]
pub(crate) fn sg_tc_send(hook: TcContext) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*hook.skb.skb).ifindex };
    classify(&hook, ifindex, false)
}

/// Lets every frame pass: what a new link runs until the policy that it is made for is in force.
#[classifier]
pub(crate) fn sg_pass(_hook: TcContext) -> i32 {
    TCX_NEXT
}

#[inline(always)]
fn classify(hook: &TcContext, ifindex: u32, received: bool) -> i32 {
    let frame = Frame::of(hook, core::ptr::null_mut());
    match judge(&frame, ifindex, received, |context| {
        sg_read_skb(hook.skb.skb, context)
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

/// Judges a frame: by the fast path, or else by reading all of it with `read`.
#[inline(always)]
fn judge<P: Packet>(
    frame: &P,
    ifindex: u32,
    received: bool,
    read: impl FnOnce(*mut Context) -> u32,
) -> Ruling {
    let Some(context) = context::current() else {
        return Ruling::REFUSED;
    };
    let Some(maps) = Maps::open(context) else {
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
    context.generation = maps.generation();
    if received && let Some(decision) = by_arrival(frame) {
        counters::count_frame(interface.slot, direction, decision, frame);
        return Ruling::of(interface.enforce(decision.reason), interface);
    }
    let mut admitted = RuleSlot::NONE;
    // A trace tells of each step, which the fast ways leave out.
    if !trace::IS_ON {
        match decide_fast_v4(frame, received, interface, &maps) {
            Some(FastDecision::Decided(decision)) => {
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
            Some(FastDecision::Admitted(rule)) => admitted = rule,
            None => {}
        }
    }
    context.interface = place;
    if !trace::IS_ON && !admitted.is_some() {
        match decide_fast(frame, direction, interface, &maps, &mut context.scratch) {
            Some(FastDecision::Decided(decision)) => {
                let verdict = stages::conclude(context, interface, direction, decision);
                return Ruling::of(verdict, interface);
            }
            Some(FastDecision::Admitted(rule)) => admitted = rule,
            None => {}
        }
    }
    trace::begin();
    context.admitted = admitted;
    context.bare = u32::from(interface.flags.has(InterfaceFlags::BARE));
    context.direction = direction.number();
    let refusal = read(context);
    context.refusal = refusal;
    let verdict = if stages::judge_read(context) == 0 {
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
pub(crate) fn sg_clock(_hook: XdpContext) -> u32 {
    globals::read_clock();
    xdp_action::XDP_ABORTED
}

/// Ends the flow whose key the frame is, as it lies in memory; run by the controller as [`sg_clock`]
/// is. Returns in how many places it was: two CPUs may have placed it at the same time.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_end_flow(hook: XdpContext) -> u32 {
    let Some(context) = context::current() else {
        return 0;
    };
    let key = &raw mut context.scratch.key;
    // SAFETY: the key is in a map value and as long as what is copied, and every pattern of bytes is
    // a key.
    let copied =
        unsafe { bpf_xdp_load_bytes(hook.ctx, 0, key.cast(), size_of::<FlowKey>() as u32) };
    if copied != 0 {
        return 0;
    }
    if Maps::open(context).is_none() {
        return 0;
    }
    let maps = Maps::of_context(context);
    end_flow(&maps, context) + end_flow(&maps, context)
}

#[inline(always)]
fn end_flow(maps: &Maps<ByContext>, context: &mut Context) -> u32 {
    let scratch = &mut context.scratch;
    let Some((_, flow)) = maps.find_flow(&scratch.key, &mut scratch.state) else {
        return 0;
    };
    maps.remove_flow(flow, context.scratch.state.owner);
    1
}

/// Migrates flows between tables of two sizes, a bucket a run; run by the controller through
/// `BPF_PROG_TEST_RUN`, attached nowhere. No XDP program: to repeat one, the kernel waits for a grace
/// period each time.
#[classifier]
#[inline(always)]
pub(crate) fn sg_migrate(_hook: TcContext) -> i32 {
    flows::migrate();
    TC_ACT_SHOT
}

/// Reads an XDP frame onto the scratch. Global functions are checked by the verifier once and by
/// themselves, so that the ways through one don't multiply with those through the next.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_read_xdp(hook: *mut xdp_md, context: *mut Context) -> u32 {
    read(context, |context, part| match part {
        ReadPart::Network => sg_read_network_xdp(hook, context),
        ReadPart::Upper => sg_read_upper_xdp(hook, context),
        ReadPart::Quoted => sg_read_quoted_xdp(hook, context),
    })
}

/// The same for a socket buffer.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sg_read_skb(hook: *mut __sk_buff, context: *mut Context) -> u32 {
    read(context, |context, part| match part {
        ReadPart::Network => sg_read_network_skb(hook, context),
        ReadPart::Upper => sg_read_upper_skb(hook, context),
        ReadPart::Quoted => sg_read_quoted_skb(hook, context),
    })
}

#[inline(always)]
fn read(context: *mut Context, part: impl Fn(*mut Context, ReadPart) -> u32) -> u32 {
    if context.is_null() {
        return Reason::NoInterface.number();
    }
    // SAFETY: not null, and the verifier has checked its size at the call. The functions of the parts
    // use the scratch in turn.
    let scratch = unsafe { &mut (*context).scratch };
    let refusal = scratch
        .read_by(|_, of| Reason::from_number(part(context, of)).unwrap_or(Reason::NoInterface));
    refusal.number()
}

macro_rules! read_parts {
    ($($xdp:ident, $skb:ident = $part:ident;)*) => {$(
        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $xdp(hook: *mut xdp_md, context: *mut Context) -> u32 {
            let hook = XdpContext::new(hook);
            read_part(context, ReadPart::$part, |buffer| Frame::of(&hook, buffer))
        }

        #[inline(never)]
        #[unsafe(no_mangle)]
        extern "C" fn $skb(hook: *mut __sk_buff, context: *mut Context) -> u32 {
            let hook = TcContext::new(hook);
            read_part(context, ReadPart::$part, |buffer| Frame::of(&hook, buffer))
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
    context: *mut Context,
    part: ReadPart,
    frame: impl FnOnce(*mut Buffer) -> P,
) -> u32 {
    if context.is_null() {
        return Reason::NoInterface.number();
    }
    // SAFETY: not null, and the verifier has checked its size at the call.
    let context = unsafe { &mut *context };
    let framing = if context.bare == 0 {
        Framing::Ethernet
    } else {
        Framing::Bare
    };
    let packet = frame(&raw mut context.buffer);
    context.scratch.read_part(part, &packet, framing).number()
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
