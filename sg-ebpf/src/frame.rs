//! Reads a frame's bytes from an XDP or a TC context.
//!
//! Bytes between `data` and `data_end` are read in place. What lies outside (the sender of an
//! AF_PACKET ring or the guest behind a tap chooses how much is linear, and XDP frames can be in
//! several buffers) is copied by a helper. `bpf_skb_pull_data` is never called.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::{TcContext, XdpContext};
use sg_common::packet::Packet;

/// Where headers may lie: far beyond what the parser's limits let any header reach, and small
/// enough for the verifier's bound on packet offsets.
const MAX_OFFSET: u32 = 0x7fff;

/// A kind of context.
pub(crate) trait Context {
    /// Copies `length` bytes at `offset` to `to`; 0 on success.
    ///
    /// # Safety
    /// `to` must be writable for `length` bytes.
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64;
    /// Bytes of the whole frame, from whoever knows.
    fn whole_length(&self) -> u32;
    fn tags_beside(&self) -> u32;
    fn segments(&self) -> u32;
    fn protocol_beside(&self) -> u16;
}

/// A frame, wherever its bytes are.
pub(crate) struct Frame<'a, C> {
    context: &'a C,
    start: usize,
    end: usize,
    /// Known without asking anybody.
    length: u32,
}

impl<'a> Frame<'a, XdpContext> {
    #[inline(always)]
    pub(crate) fn of_xdp(context: &'a XdpContext) -> Self {
        let (start, end) = (context.data(), context.data_end());
        Self { context, start, end, length: (end - start) as u32 }
    }
}

impl<'a> Frame<'a, TcContext> {
    #[inline(always)]
    pub(crate) fn of_skb(context: &'a TcContext) -> Self {
        let (start, end) = (context.data(), context.data_end());
        Self { context, start, end, length: context.len() }
    }
}

impl<C: Context> Packet for Frame<'_, C> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if offset > MAX_OFFSET {
            return None;
        }
        let at = self.start + offset as usize;
        if at + N <= self.end {
            // SAFETY: `at..at + N` lies before `data_end`, as just compared.
            return Some(unsafe { (at as *const [u8; N]).read_unaligned() });
        }
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the buffer is N bytes long, and read only when the helper has filled it.
        unsafe {
            if self.context.copy(offset, bytes.as_mut_ptr().cast(), N as u32) == 0 {
                Some(bytes.assume_init())
            } else {
                None
            }
        }
    }

    #[inline(always)]
    fn reaches(&self, end: u32) -> bool {
        end <= self.length || end <= self.context.whole_length()
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn tags_beside(&self) -> u32 {
        self.context.tags_beside()
    }

    #[inline(always)]
    fn segments(&self) -> u32 {
        self.context.segments()
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        self.context.protocol_beside()
    }
}

impl Context for XdpContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64 {
        // SAFETY: the caller vouches for `to`.
        unsafe { bpf_xdp_load_bytes(self.ctx, offset, to.cast(), length) }
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
    fn segments(&self) -> u32 {
        1
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        0
    }
}

impl Context for TcContext {
    #[inline(always)]
    unsafe fn copy(&self, offset: u32, to: *mut u8, length: u32) -> i64 {
        // SAFETY: the caller vouches for `to`.
        unsafe { bpf_skb_load_bytes(self.skb.skb.cast(), offset, to.cast(), length) }
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
    fn segments(&self) -> u32 {
        // SAFETY: the context lives as long as the program runs.
        unsafe { (*self.skb.skb).gso_segs }.max(1)
    }

    #[inline(always)]
    fn protocol_beside(&self) -> u16 {
        // SAFETY: the context lives as long as the program runs.
        u16::from_be(unsafe { (*self.skb.skb).protocol } as u16)
    }
}
