//! Reads a frame's bytes from an XDP or a TC context.
//!
//! Bytes between `data` and `data_end` are read in place. What lies outside (the sender of an
//! AF_PACKET ring or the guest behind a tap chooses how much is linear, and XDP frames can be in
//! several buffers) is copied by a helper. `bpf_skb_pull_data` is never called.

use core::arch::asm;
use core::ops::ControlFlow;

use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::packet::{Packet, Turns, WINDOW};

use crate::opaque::in_register;

/// Where headers may lie: far beyond what the parser's limits let any header reach, and small
/// enough for the verifier's bound on packet offsets.
const MAX_OFFSET: u32 = 0x7fff;

/// What `__sk_buff::pkt_type` says of a copy of the machine's own packet (`linux/if_packet.h`).
const PACKET_LOOPBACK: u32 = 5;

/// The VLAN's number in a tag.
const VLAN_NUMBER: u32 = 0x0fff;

/// Reads a word wherever it lies. The kernels this runs on allow that for packets, yet LLVM would
/// read it byte by byte.
///
/// # Safety
/// The verifier must know that four bytes are there.
#[inline(always)]
unsafe fn word_at<const OFFSET: usize>(address: usize) -> u32 {
    let word;
    // SAFETY: it only reads what the caller vouches for.
    unsafe {
        asm!(
            "{word} = *(u32 *)({address} + {offset})",
            word = out(wreg) word,
            address = in(reg) address,
            offset = const OFFSET,
            options(pure, readonly, nostack),
        );
    }
    word
}

/// Reads words that lie one after the other.
///
/// # Safety
/// As for [`word_at`], for all of them.
#[inline(always)]
unsafe fn words_at<const N: usize>(address: usize) -> [u32; N] {
    const { assert!(N <= 11) };
    let mut words = [0; N];
    macro_rules! read {
        ($($place:literal)*) => {$(
            if let Some(word) = words.get_mut($place) {
                // SAFETY: the caller vouches for it.
                *word = u32::from_be(unsafe { word_at::<{ $place * 4 }>(address) });
            }
        )*};
    }
    // The offset is a part of the instruction.
    read!(0 1 2 3 4 5 6 7 8 9 10);
    words
}

/// A kind of context.
pub(crate) trait HookContext {
    /// Copies `length` bytes at `offset` to `to`; 0 on success.
    ///
    /// # Safety
    /// `to` must be writable for `length` bytes.
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64;
    /// Where the linear part begins and ends.
    fn linear(&self) -> (usize, usize);
    /// Bytes of the frame, as far as the context tells.
    fn length(&self) -> u32;
    /// Bytes of the whole frame, for which a helper may be asked.
    fn whole_length(&self) -> u32;
    fn tags_beside(&self) -> u32;
    fn vlan_beside(&self) -> u16;
    fn segments(&self, headers: u32) -> u32;
    fn counted_segments(&self) -> Option<u32>;
    fn is_merged(&self) -> bool;
    fn is_own_copy(&self) -> bool;
    fn protocol_beside(&self) -> u16;
}

/// A place in a map, of whose bytes the verifier knows nothing.
#[repr(C)]
pub(crate) struct Buffer {
    /// What numbers pass through to be forgotten.
    pub(crate) word: u32,
    /// Where bytes are copied to; the stack is small.
    bytes: [u8; Self::BYTES],
}

impl Buffer {
    /// Room for what is read at once; a power of two, so that a place is within by a mask.
    const BYTES: usize = 64;
}

/// A frame, wherever its bytes are.
///
/// Where they are is read from the context for each access: it would be kept on the stack.
pub(crate) struct Frame<'a, C> {
    context: &'a C,
    buffer: *mut Buffer,
}

impl<'a, C: HookContext> Frame<'a, C> {
    #[inline(always)]
    pub(crate) fn of(context: &'a C, buffer: *mut Buffer) -> Self {
        Self { context, buffer }
    }
}

impl<C: HookContext> Frame<'_, C> {
    /// Words of the linear part.
    #[inline(always)]
    fn words_from<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        if offset > MAX_OFFSET as usize {
            return None;
        }
        let (start, end) = self.context.linear();
        let at = start + offset;
        if at + N * 4 > end {
            return None;
        }
        // SAFETY: the words lie before `data_end`, as just compared.
        Some(unsafe { words_at::<N>(at) })
    }

    /// Copies fewer than [`Buffer::BYTES`] bytes to where they can be read.
    #[inline(always)]
    fn copy(&self, offset: u32, length: u32) -> Option<*const u8> {
        if offset > MAX_OFFSET {
            return None;
        }
        // SAFETY: the buffer is this CPU's.
        unsafe {
            let bytes = (&raw mut (*self.buffer).bytes).cast::<u8>();
            (self.context.copy(offset, bytes, length) == 0).then_some(bytes.cast_const())
        }
    }
}

impl<C: HookContext> Packet for Frame<'_, C> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let held = in_register(offset);
        if held > MAX_OFFSET as usize {
            return None;
        }
        let (start, end) = self.context.linear();
        let at = start + held;
        if at + N <= end {
            // SAFETY: `at..at + N` lies before `data_end`, as just compared.
            return Some(unsafe { (at as *const [u8; N]).read_unaligned() });
        }
        let bytes = self.copy(offset, N as u32)?;
        // SAFETY: so many bytes are there.
        Some(unsafe { bytes.cast::<[u8; N]>().read() })
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        if let Some(words) = self.words_from(in_register(offset)) {
            return Some(words);
        }
        let bytes = self.copy(offset, N as u32 * 4)?;
        // SAFETY: so many bytes are there.
        Some(unsafe { words_at::<N>(bytes as usize) })
    }

    #[inline(always)]
    fn linear_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.words_from(offset as usize)
    }

    #[inline(always)]
    fn window(&self, offset: u32, length: u32) -> Option<impl Fn(u32) -> u8> {
        // Linux 6.1 learns from a comparison with 0 that a number is not 0, and not that it is at least 1.
        let beyond_one = in_register(length.wrapping_sub(1));
        if beyond_one >= WINDOW as usize {
            return None;
        }
        let bytes = self.copy(offset, beyond_one as u32 + 1)?;
        Some(move |place| {
            // SAFETY: the mask keeps the place within the buffer, which is this CPU's.
            unsafe {
                bytes
                    .add(place as usize & (Buffer::BYTES - 1))
                    .read_volatile()
            }
        })
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        end <= self.length() || end <= self.context.whole_length()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.context.length()
    }

    #[inline(always)]
    fn tags_beside(&self) -> u32 {
        self.context.tags_beside()
    }

    #[inline(always)]
    fn vlan_beside(&self) -> u16 {
        self.context.vlan_beside()
    }

    #[inline(always)]
    fn segments(&self, headers: u32) -> u32 {
        self.context.segments(headers)
    }

    #[inline(always)]
    fn counted_segments(&self) -> Option<u32> {
        self.context.counted_segments()
    }

    #[inline(always)]
    fn is_merged(&self) -> bool {
        self.context.is_merged()
    }

    #[inline(always)]
    fn is_own_copy(&self) -> bool {
        self.context.is_own_copy()
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        self.context.protocol_beside()
    }

    #[inline(always)]
    fn forget(&self, number: u32) -> u32 {
        // SAFETY: the word is in a map value, and this CPU's.
        unsafe {
            let word = &raw mut (*self.buffer).word;
            word.write_volatile(number);
            word.read_volatile()
        }
    }

    #[inline(always)]
    fn repeat<T: Turns>(&self, mut turns: T) -> T::Result {
        loop {
            if let ControlFlow::Break(result) = turns.turn() {
                return result;
            }
            // SAFETY: wherever it goes, the loop goes on.
            unsafe {
                asm!(
                    "if {zero} == 0 goto {again}",
                    zero = in(reg) 0_u64,
                    again = label { continue },
                    options(nomem, nostack),
                );
            }
        }
    }
}

impl HookContext for XdpContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64 {
        // SAFETY: the caller vouches for `to`.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.cast(), length) }
    }

    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    #[inline(always)]
    fn whole_length(&self) -> u32 {
        // SAFETY: the context lives as long as the program runs.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as u32 }
    }

    #[inline(always)]
    fn tags_beside(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn vlan_beside(&self) -> u16 {
        0
    }

    #[inline(always)]
    fn segments(&self, _headers: u32) -> u32 {
        1
    }

    #[inline(always)]
    fn counted_segments(&self) -> Option<u32> {
        Some(1)
    }

    #[inline(always)]
    fn is_merged(&self) -> bool {
        false
    }

    /// XDP in a driver never sees such a copy; generic XDP does, and is not told.
    #[inline(always)]
    fn is_own_copy(&self) -> bool {
        false
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        0
    }
}

impl HookContext for TcContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64 {
        // SAFETY: the caller vouches for `to`.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset, to.cast(), length) }
    }

    #[inline(always)]
    fn linear(&self) -> (usize, usize) {
        (self.data(), self.data_end())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn whole_length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn tags_beside(&self) -> u32 {
        // SAFETY: the context lives as long as the program runs.
        unsafe { (*self.skb.skb).vlan_present }
    }

    #[inline(always)]
    fn vlan_beside(&self) -> u16 {
        // SAFETY: the context lives as long as the program runs.
        (unsafe { (*self.skb.skb).vlan_tci } & VLAN_NUMBER) as u16
    }

    #[inline(always)]
    fn segments(&self, headers: u32) -> u32 {
        if let Some(counted) = self.counted_segments() {
            return counted;
        }
        // SAFETY: the context lives as long as the program runs.
        let size = unsafe { (*self.skb.skb).gso_size };
        // The kernel does not believe what a guest says of its frames (`SKB_GSO_DODGY`), and counts
        // their segments only when it cuts them.
        match self.len().saturating_sub(headers).checked_div(size) {
            None | Some(0) => 1,
            Some(whole) => whole + u32::from(whole * size + headers < self.len()),
        }
    }

    #[inline(always)]
    fn counted_segments(&self) -> Option<u32> {
        // SAFETY: the context lives as long as the program runs.
        let (size, counted) = unsafe { ((*self.skb.skb).gso_size, (*self.skb.skb).gso_segs) };
        match (size, counted) {
            (0, _) => Some(1),
            (_, 0) => None,
            _ => Some(counted),
        }
    }

    #[inline(always)]
    fn is_merged(&self) -> bool {
        // SAFETY: the context lives as long as the program runs.
        unsafe { (*self.skb.skb).gso_size != 0 }
    }

    /// Only `dev_loopback_xmit` makes such a packet: devices set what `eth_type_trans` finds, and
    /// `bpf_skb_change_type` refuses it.
    #[inline(always)]
    fn is_own_copy(&self) -> bool {
        // SAFETY: the context lives as long as the program runs.
        unsafe { (*self.skb.skb).pkt_type == PACKET_LOOPBACK }
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        // SAFETY: the context lives as long as the program runs.
        u16::from_be(unsafe { (*self.skb.skb).protocol } as u16)
    }
}
