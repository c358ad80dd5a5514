//! Frames that headers can be copied out of: the only place that touches packet memory.

use core::{
    ffi::c_void,
    mem::{MaybeUninit, offset_of},
};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::bpf_skb_load_bytes,
    programs::{TcContext, XdpContext},
};
use guard_common::frame::bytes::{Header, Packet};

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

impl Linear {
    /// Reads as [`read`](Self::read) does, from a place that the compiler does not recognize.
    #[inline(always)]
    fn read_again<H: Header>(self, offset: usize) -> Option<H> {
        Self {
            start: verifier::opaque(self.start),
            ..self
        }
        .read(offset)
    }
}

/// The first piece of a received frame. Drivers fill a buffer of at least 1.5 kB before they begin
/// another, so whatever has its headers elsewhere has more of them than anybody sends, and ends
/// too early for us.
pub struct XdpFrame<'a> {
    linear: Linear,
    ctx: &'a XdpContext,
}

impl<'a> XdpFrame<'a> {
    /// The frame that an XDP program was called for.
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self {
            linear: Linear {
                start: ctx.data(),
                end: ctx.data_end(),
            },
            ctx,
        }
    }
}

impl Packet for XdpFrame<'_> {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read(offset)
    }

    #[inline(always)]
    fn read_again<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read_again(offset)
    }

    #[inline(always)]
    fn read_anew<H: Header>(&self, offset: usize) -> Option<H> {
        let ctx = self.ctx.ctx.cast();
        Linear {
            start: verifier::context_pointer::<{ offset_of!(xdp_md, data) }>(ctx),
            end: verifier::context_pointer::<{ offset_of!(xdp_md, data_end) }>(ctx),
        }
        .read(offset)
    }

    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        verifier::forget(offset, queue(self.ctx)).min(MAX_OFFSET + 1)
    }
}

/// The directly readable part of a frame on its way out.
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
        self.linear.read(offset)
    }

    #[inline(always)]
    fn read_again<H: Header>(&self, offset: usize) -> Option<H> {
        self.linear.read_again(offset)
    }

    #[inline(always)]
    fn read_anew<H: Header>(&self, offset: usize) -> Option<H> {
        let ctx = self.ctx.skb.skb.cast();
        Linear {
            start: verifier::context_pointer::<{ offset_of!(__sk_buff, data) }>(ctx),
            end: verifier::context_pointer::<{ offset_of!(__sk_buff, data_end) }>(ctx),
        }
        .read(offset)
    }

    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        verifier::forget(offset, hash(self.ctx)).min(MAX_OFFSET + 1)
    }
}

/// All of a frame on its way out. A packet socket may leave no more than the Ethernet header in
/// the directly readable part.
pub struct PagedFrame<'a> {
    ctx: &'a TcContext,
}

impl<'a> PagedFrame<'a> {
    /// The frame that a classifier was called for.
    #[inline(always)]
    pub fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }
}

impl Packet for PagedFrame<'_> {
    #[inline(always)]
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
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
        verifier::forget(offset, hash(self.ctx)).min(MAX_OFFSET + 1)
    }
}

/// A word that the verifier knows nothing about.
#[inline(always)]
fn queue(ctx: &XdpContext) -> u32 {
    verifier::context_word::<{ offset_of!(xdp_md, rx_queue_index) }>(ctx.ctx.cast())
}

/// A word that the verifier knows nothing about.
#[inline(always)]
fn hash(ctx: &TcContext) -> u32 {
    verifier::context_word::<{ offset_of!(__sk_buff, hash) }>(ctx.skb.skb.cast())
}
