//! Frames that headers can be copied out of: the only place that touches packet memory.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    helpers::{bpf_skb_load_bytes, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use guard_common::packet::{Header, Packet};

use crate::verifier;

/// Headers end well before this: four VLAN tags, an IP header and eight extension headers of
/// the greatest length, twice (an ICMP error quotes a packet). The verifier wants a limit.
const MAX_OFFSET: usize = 0x3fff;

/// The part of a frame that can be read without a helper.
#[derive(Clone, Copy)]
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    /// Copies out the header at `offset`, or `None` when this part ends first.
    #[inline(always)]
    fn read<H: Header>(self, offset: usize) -> Option<H> {
        if offset > MAX_OFFSET {
            return None;
        }
        let header = (self.start as *const u8).wrapping_add(offset);
        if header.wrapping_add(size_of::<H>()) as usize > self.end {
            return None;
        }
        // SAFETY: the packet reaches from `start` to `end`, and so `header` and the `H` after it
        // lie in it.
        Some(unsafe { H::copy_from(header) })
    }
}

/// A received frame in one piece.
pub struct XdpFrame {
    linear: Linear,
    unknown: u32,
}

impl XdpFrame {
    /// The frame that an XDP program was called for.
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self {
            linear: Linear {
                start: ctx.data(),
                end: ctx.data_end(),
            },
            unknown: ctx.rx_queue_index(),
        }
    }
}

impl Packet for XdpFrame {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read(offset)
    }

    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        verifier::forget(offset, self.unknown) & MAX_OFFSET
    }
}

/// A received frame that may come in several pieces.
pub struct SplitFrame<'a> {
    whole: XdpFrame,
    ctx: &'a XdpContext,
}

impl<'a> SplitFrame<'a> {
    /// The frame that an XDP program was called for.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            whole: XdpFrame::new(ctx),
            ctx,
        }
    }
}

impl Packet for SplitFrame<'_> {
    /// Headers are nearly always in the first piece; a helper finds the rest.
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        if let Some(header) = self.whole.read(offset) {
            return Some(header);
        }

        let mut header = MaybeUninit::<H>::uninit();
        // SAFETY: the context is this program's own and `header` is as long as the helper is told.
        let copied = unsafe {
            bpf_xdp_load_bytes(
                self.ctx.ctx,
                offset as u32,
                header.as_mut_ptr().cast::<c_void>(),
                size_of::<H>() as u32,
            )
        };
        if copied != 0 {
            return None;
        }
        // SAFETY: the helper has written all of it.
        Some(unsafe { H::copy_from(header.as_ptr().cast::<u8>()) })
    }

    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        self.whole.rejoin(offset)
    }
}

/// A frame on its way out, of which as little as the Ethernet header may be directly readable.
pub struct TcFrame<'a> {
    linear: Linear,
    ctx: &'a TcContext,
}

impl<'a> TcFrame<'a> {
    /// The frame that a classifier was called for.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self {
            linear: Linear {
                start: ctx.data(),
                end: ctx.data_end(),
            },
            ctx,
        }
    }
}

impl Packet for TcFrame<'_> {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        if let Some(header) = self.linear.read(offset) {
            return Some(header);
        }

        let mut header = MaybeUninit::<H>::uninit();
        // SAFETY: the context is this program's own and `header` is as long as the helper is told.
        let copied = unsafe {
            bpf_skb_load_bytes(
                self.ctx.skb.skb.cast::<c_void>(),
                offset as u32,
                header.as_mut_ptr().cast::<c_void>(),
                size_of::<H>() as u32,
            )
        };
        if copied != 0 {
            return None;
        }
        // SAFETY: the helper has written all of it.
        Some(unsafe { H::copy_from(header.as_ptr().cast::<u8>()) })
    }

    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        // SAFETY: the context is this program's own.
        let unknown = unsafe { (*self.ctx.skb.skb).hash };
        verifier::forget(offset, unknown) & MAX_OFFSET
    }
}
