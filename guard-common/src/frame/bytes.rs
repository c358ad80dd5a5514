//! Bytes that headers can be copied out of.

use crate::outcome::Outcome;

/// A type that can be copied out of any bytes.
pub trait Header: Copy {
    /// Copies the value that starts at `bytes`, field by field: copied as one, a structure would
    /// go through the stack of a BPF program a byte at a time.
    ///
    /// # Safety
    ///
    /// `size_of::<Self>()` bytes from `bytes` on must be readable. They need not be aligned.
    unsafe fn copy_from(bytes: *const u8) -> Self;
}

/// Implements [`Header`] for structures of integers without padding.
macro_rules! headers {
    ($($header:ident { $($field:ident),+ })+) => {
        $(impl $crate::frame::bytes::Header for $header {
            #[inline(always)]
            unsafe fn copy_from(bytes: *const u8) -> Self {
                let header = bytes.cast::<Self>();
                // SAFETY: the caller vouches for every byte of the structure, any bytes are an
                // integer, and nothing is assumed about their alignment.
                unsafe {
                    Self { $($field: (&raw const (*header).$field).read_unaligned()),+ }
                }
            }
        })+
    };
}
pub(crate) use headers;

impl Header for () {
    #[inline(always)]
    unsafe fn copy_from(_: *const u8) -> Self {}
}

/// Implements [`Header`] for integers as they are in memory.
macro_rules! words {
    ($($word:ty)+) => {
        $(impl Header for $word {
            #[inline(always)]
            unsafe fn copy_from(bytes: *const u8) -> Self {
                // SAFETY: the caller vouches for every byte, and nothing is assumed about their
                // alignment.
                unsafe { bytes.cast::<Self>().read_unaligned() }
            }
        })+
    };
}
words!(u8 u16 u32 u64);

/// A frame, from its Ethernet header on.
pub trait Packet {
    /// Copies out the header at `offset`, or `None` when the frame ends first.
    fn read<H: Header>(&self, offset: usize) -> Option<H>;

    /// Copies out a header that was read before. If the compiler could tell, it would keep the first copy, and there are no free registers to keep it in.
    #[inline(always)]
    fn read_again<H: Header>(&self, offset: usize) -> Option<H> {
        self.read(offset)
    }

    /// Copies out a header, and forgets how much of the frame was read before: the verifier then follows one path from here on, and not one for each amount.
    #[inline(always)]
    fn read_anew<H: Header>(&self, offset: usize) -> Option<H> {
        self.read(offset)
    }

    /// Returns `offset`.
    ///
    /// Paths that differ only in how the offset was computed become one here: the verifier, which follows each path, may forget the difference.
    #[inline(always)]
    fn rejoin(&self, offset: usize) -> usize {
        offset
    }
}

impl Packet for [u8] {
    fn read<H: Header>(&self, offset: usize) -> Option<H> {
        let bytes = self.get(offset..offset.checked_add(size_of::<H>())?)?;
        // SAFETY: `bytes` is exactly as long as `H`.
        Some(unsafe { H::copy_from(bytes.as_ptr()) })
    }
}

/// Why a frame cannot be read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// The frame ends inside a header, or a header contradicts itself.
    Truncated,
    /// More VLAN tags than are walked.
    TooManyTags,
    /// More IPv6 extension headers than are walked.
    TooManyHeaders,
}

impl Unreadable {
    /// What ingress does with such a frame.
    #[inline(always)]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Truncated => Outcome::DropMalformed,
            Self::TooManyTags => Outcome::DropVlanDepth,
            Self::TooManyHeaders => Outcome::DropHeaderDepth,
        }
    }
}
