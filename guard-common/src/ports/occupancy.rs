//! Which ports are in use: the epoch of the last use of each.

use core::cell::UnsafeCell;

use crate::frame::transport::Transport;

/// The epoch in which one port, or what a hash stands for, was last known to be in use.
///
/// Epochs count up modulo 256 as the daemon's sweeps complete. What is marked while a sweep runs
/// carries the epoch before, which stays fresh until the next complete sweep. Nothing is ever
/// cleared, so no race can lose a mark; a wrap-around only makes a port look busy.
#[repr(transparent)]
pub struct Occupancy(UnsafeCell<u8>);

impl Occupancy {
    /// The epoch that a new guard starts in: bytes that were never written are not fresh in it.
    pub const FIRST_EPOCH: u8 = 3;

    /// A mark that is not in a map.
    pub const fn new(epoch: u8) -> Self {
        Self(UnsafeCell::new(epoch))
    }

    /// Whether the port was in use in this epoch, the one before, or the one that begins.
    #[inline(always)]
    pub fn fresh(&self, epoch: u8) -> bool {
        self.within(epoch, 2)
    }

    /// Whether the mark is so many epochs away, or less, from the one that begins.
    #[inline(always)]
    pub fn within(&self, epoch: u8, span: u32) -> bool {
        u32::from(self.load().wrapping_sub(epoch).wrapping_add(1)) <= span
    }

    /// Whether it was last in use in this epoch.
    #[inline(always)]
    pub fn is(&self, epoch: u8) -> bool {
        self.load() == epoch
    }

    /// Notes that the port is in use, and says whether that was news.
    #[inline(always)]
    pub fn mark(&self, epoch: u8) -> bool {
        let news = !self.is(epoch);
        if news {
            self.set(epoch);
        }

        news
    }

    /// Marks the port without reading it first, for rare callers.
    #[inline(always)]
    pub fn set(&self, epoch: u8) {
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a store of a whole byte
        // cannot disturb its neighbours.
        unsafe { self.0.get().write_volatile(epoch) }
    }

    #[inline(always)]
    fn load(&self) -> u8 {
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a volatile read
        // tolerates that another processor writes it.
        unsafe { self.0.get().read_volatile() }
    }
}

/// Which ports are in use, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Use {
    /// TCP flows.
    Tcp = 0,
    /// UDP flows, queries included.
    Udp = 1,
    /// UDP-Lite flows.
    UdpLite = 2,
    /// UDP queries to a group, which any neighbour may answer.
    Multicast = 3,
}

impl Use {
    /// Occupancy tables there are.
    pub const COUNT: usize = 4;

    /// What a flow of this transport uses a port for.
    #[inline(always)]
    pub const fn flow(transport: Transport) -> Self {
        match transport {
            Transport::Tcp => Self::Tcp,
            Transport::Udp => Self::Udp,
            Transport::UdpLite => Self::UdpLite,
        }
    }
}
