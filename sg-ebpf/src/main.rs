//! The decision compiled for the kernel: entry points, and what turns a decision into an action.
//!
//! This crate has adapters and no policy thinking: [`frame`] reads bytes from either kind of
//! context, [`maps`] answers the decision's questions, [`flows`] keeps flows in buckets,
//! [`counters`] counts. A packet whose interface has no entry is dropped.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "the target has atomic instructions, but core offers none")]

mod counters;
mod flows;
mod frame;
mod maps;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::decide::{decide, direction_of};
use sg_common::packet::{Direction, Packet};
use sg_common::parse::Headers;
use sg_common::report::{Decision, Reason, Verdict};

use crate::frame::Frame;
use crate::maps::Maps;

/// `TCX_NEXT`: whoever is attached after this program decides further.
const TCX_NEXT: i32 = -1;

/// Received frames, before the kernel has made a socket buffer of them.
#[xdp(frags)]
pub fn sg_xdp_receive(context: XdpContext) -> u32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*context.ctx).ingress_ifindex };
    match judge(&Frame::of_xdp(&context), ifindex, true) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
    }
}

/// Received frames, where XDP is not wanted.
#[classifier]
pub fn sg_tc_receive(context: TcContext) -> i32 {
    classify(&context, true)
}

/// Frames on their way out of the interface.
#[classifier]
pub fn sg_tc_send(context: TcContext) -> i32 {
    classify(&context, false)
}

#[inline(always)]
fn classify(context: &TcContext, received: bool) -> i32 {
    // SAFETY: the context lives as long as the program runs.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    match judge(&Frame::of_skb(context), ifindex, received) {
        Verdict::Pass => TCX_NEXT,
        Verdict::Drop => TC_ACT_SHOT,
    }
}

/// Decides, and counts the decision.
#[inline(always)]
fn judge<P: Packet>(packet: &P, ifindex: u32, received: bool) -> Verdict {
    let Some(maps) = Maps::open() else { return Verdict::Drop };
    let Some(interface) = maps.interface(ifindex) else {
        counters::count_stray(packet);
        return Verdict::Drop;
    };
    let direction = direction_of(interface, received);
    let mut headers = Headers::default();
    let decision = decide(packet, direction, interface, &maps, &mut headers, &mut ());
    report(packet, direction, interface.slot, &headers, decision);
    decision.reason.verdict()
}

#[inline(always)]
fn report<P: Packet>(
    packet: &P,
    direction: Direction,
    interface_slot: u32,
    headers: &Headers,
    decision: Decision,
) {
    let packets = u64::from(packet.segments());
    let bytes = u64::from(headers.bytes(packet));
    counters::count_reason(interface_slot, direction, decision.reason, packets, bytes);
    if decision.rule.is_some() {
        let opened = decision.reason == Reason::Rule;
        counters::count_rule(decision.rule, packets, bytes, opened);
    }
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
