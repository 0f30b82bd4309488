//! Programs to measure the judgement by; the controller attaches none of them.
//!
//! Two do the least that a program can do at their hook, two read the headers that every firewall
//! reads, one sends, one loads from random places of memory, and the others are the judgement itself,
//! or its bounds, over frames that [`Scatter`] makes differ from run to run.

use core::ptr;

use aya_ebpf::Global;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::scatter::{Scatter, Scattered};

#[btf_map]
static SCATTER: Array<Scatter, 1> = Array::new();

/// As large as a bucket of the flow table has slots for one flow.
type Line = [u64; 16];

#[btf_map]
static LINES: Array<Line, 1> = Array::new();

/// One less than the number of lines, a power of two.
#[unsafe(no_mangle)]
static LAST_LINE: Global<u32> = Global::new(0);

/// How many lines a run loads from, each found by what the one before holds.
#[unsafe(no_mangle)]
static LOADS: Global<u32> = Global::new(0);

const MOST_LOADS: u32 = 8;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
/// Where an IPv4 header has its addresses, behind an untagged Ethernet header.
const SOURCE: usize = ETHERNET + 12;
const DESTINATION: usize = ETHERNET + 16;

/// Drops.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_drop_xdp(_context: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Drops.
#[classifier]
#[inline(always)]
pub(crate) fn sg_drop_tc(_context: TcContext) -> i32 {
    TC_ACT_SHOT
}

/// Finds the ports of TCP over IPv4, and drops.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_parse_xdp(context: XdpContext) -> u32 {
    parse_xdp(&context)
}

/// Finds the ports of TCP over IPv4, and drops.
#[classifier]
#[inline(always)]
pub(crate) fn sg_parse_tc(context: TcContext) -> i32 {
    match parse(context.data(), context.data_end()) {
        Some(()) => TC_ACT_SHOT,
        None => TC_ACT_UNSPEC,
    }
}

/// The first, over scattered frames: what scattering takes.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_scattered_drop_xdp(context: XdpContext) -> u32 {
    match scatter(context.data(), context.data_end(), SOURCE) {
        Some(_) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

/// The third, over scattered frames.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_scattered_parse_xdp(context: XdpContext) -> u32 {
    match scatter(context.data(), context.data_end(), SOURCE) {
        Some(_) => parse_xdp(&context),
        None => xdp_action::XDP_ABORTED,
    }
}

/// Loads from as many random lines as [`LOADS`] says, and drops: what memory takes.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_scattered_loads_xdp(context: XdpContext) -> u32 {
    let Some(_) = scatter(context.data(), context.data_end(), SOURCE) else {
        return xdp_action::XDP_ABORTED;
    };
    let at = context.data() + SOURCE;
    if at + size_of::<u32>() > context.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: the four bytes lie before the end, as just compared.
    let mut place = unsafe { (at as *const u32).read_unaligned() };
    for _ in 0..MOST_LOADS.min(LOADS.load()) {
        // Neighbouring numbers lead far apart (Knuth's multiplicative hashing).
        place = u32::from_be(place).wrapping_mul(0x9e37_79b1).swap_bytes();
        let Some(line) = LINES.get_ptr(place & LAST_LINE.load()) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: array elements live as long as the program. Read whatever the compiler thinks of it.
        place = place.wrapping_add(unsafe { line.cast::<u32>().read_volatile() });
    }
    xdp_action::XDP_DROP
}

/// The judgement of what is received, over scattered frames.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_scattered_xdp(context: XdpContext) -> u32 {
    match scatter(context.data(), context.data_end(), SOURCE) {
        Some(interface) => crate::receive(&context, interface),
        None => xdp_action::XDP_ABORTED,
    }
}

/// The judgement of what is sent, over scattered frames.
#[classifier]
#[inline(always)]
pub(crate) fn sg_scattered_tc(context: TcContext) -> i32 {
    match scatter(context.data(), context.data_end(), DESTINATION) {
        Some(interface) => crate::classify(&context, interface, false),
        None => TC_ACT_SHOT,
    }
}

/// Sends scattered frames: where the kernel runs it on live frames, out of their device.
#[xdp(frags)]
#[inline(always)]
pub(crate) fn sg_flood(context: XdpContext) -> u32 {
    match scatter(context.data(), context.data_end(), SOURCE) {
        Some(_) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// No number of an interface.
const NOWHERE: u64 = u64::MAX;

/// Puts the next address into the frame, and returns the number of its interface.
#[inline(always)]
fn scatter(start: usize, end: usize, offset: usize) -> Option<u32> {
    match put_next(start, end, offset) {
        NOWHERE => None,
        interface => Some(interface as u32),
    }
}

/// A function of its own: its stack is then free for the judgement.
#[inline(never)]
fn put_next(start: usize, end: usize, offset: usize) -> u64 {
    let Some(scatter) = SCATTER.get_ptr_mut(0) else {
        return NOWHERE;
    };
    // SAFETY: array elements live as long as the program. Measurements run one at a time, and two
    // at once would only repeat frames.
    let scatter = unsafe { &mut *scatter };
    let Scattered { address, interface } = scatter.next();
    if scatter.mask != 0 {
        let at = start + offset;
        if at + size_of::<u32>() > end {
            return NOWHERE;
        }
        // SAFETY: the four bytes lie before the end, as just compared.
        unsafe { (at as *mut u32).write_unaligned(address.to_be()) };
    }
    u64::from(interface)
}

#[inline(always)]
fn parse_xdp(context: &XdpContext) -> u32 {
    match parse(context.data(), context.data_end()) {
        Some(()) => xdp_action::XDP_DROP,
        None => xdp_action::XDP_ABORTED,
    }
}

#[inline(always)]
fn parse(start: usize, end: usize) -> Option<()> {
    const IPV4_ETHERTYPE: u16 = 0x0800;
    const TCP_PROTOCOL: u8 = 6;
    if start + ETHERNET + IPV4 > end {
        return None;
    }
    // SAFETY: both headers lie before the end, as just compared.
    let (ethertype, version, protocol) = unsafe {
        (
            u16::from_be(((start + 12) as *const u16).read_unaligned()),
            ((start + ETHERNET) as *const u8).read(),
            ((start + ETHERNET + 9) as *const u8).read(),
        )
    };
    let l4 = start + ETHERNET + usize::from(version & 0xf) * 4;
    if ethertype != IPV4_ETHERTYPE
        || version >> 4 != 4
        || protocol != TCP_PROTOCOL
        || l4 + TCP > end
    {
        return None;
    }
    // SAFETY: the whole TCP header lies before the end, as just compared. The reads are volatile
    // because nobody asks what they read.
    unsafe {
        ptr::read_volatile((start + SOURCE) as *const u32);
        ptr::read_volatile((start + DESTINATION) as *const u32);
        ptr::read_volatile(l4 as *const u32);
    }
    Some(())
}
