//! The two tables that stand in front of the flow maps: which ports are guarded, and which of
//! them are in use.

use core::cell::UnsafeCell;

use crate::parse::Transport;

/// Ports there are.
pub const PORTS: usize = 1 << 16;

/// Which local ports are guarded, one bit a port. The daemon fills the page that is not in use
/// and then flips [`Config::page`], so no packet ever sees half of a change.
///
/// [`Config::page`]: crate::config::Config::page
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GuardedPorts {
    /// The first port of the range, in host byte order.
    pub first: u32,
    /// The last port of the range, which is in it too.
    pub last: u32,
    /// Guarded TCP ports: bit `port % 32` of word `port / 32`.
    pub tcp: [u32; PORTS / 32],
    /// Guarded UDP and UDP-Lite ports.
    pub udp: [u32; PORTS / 32],
    /// Remote UDP ports whose answers never come back to the source port: tunnels, which choose
    /// it to spread load.
    pub unrecorded: [u32; PORTS / 32],
    /// Zeroes, which make a page a power of two: finding it takes no multiplication.
    pub padding: [u32; 2046],
}

const _: () = assert!(size_of::<GuardedPorts>() == 1 << 15);

impl GuardedPorts {
    /// Whether packets to this port, by its index, need a flow.
    #[inline(always)]
    pub fn guards(&self, transport: Transport, port: usize) -> bool {
        match transport {
            Transport::Tcp => contains(&self.tcp, port),
            Transport::Udp | Transport::UdpLite => contains(&self.udp, port),
        }
    }

    /// Whether flows to this remote port, by its index, are left unrecorded.
    #[inline(always)]
    pub fn leaves_unrecorded(&self, transport: Transport, remote_port: usize) -> bool {
        match transport {
            Transport::Udp => contains(&self.unrecorded, remote_port),
            Transport::Tcp | Transport::UdpLite => false,
        }
    }

    /// Whether this port, by its index, lies in the range, guarded or not.
    #[inline(always)]
    pub fn in_range(&self, port: usize) -> bool {
        (self.first as usize..=self.last as usize).contains(&port)
    }
}

#[inline(always)]
fn contains(ports: &[u32; PORTS / 32], port: usize) -> bool {
    let port = port & (PORTS - 1);

    (ports[port / 32] >> (port % 32)) & 1 != 0
}

/// The epoch in which one port was last known to be in use.
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
        self.load().wrapping_sub(epoch).wrapping_add(1) <= 2
    }

    /// Notes that the port is in use.
    #[inline(always)]
    pub fn mark(&self, epoch: u8) {
        if self.load() != epoch {
            // SAFETY: the cell is a valid byte for as long as `self` lives, and a store of a whole
            // byte cannot disturb its neighbours.
            unsafe { self.0.get().write_volatile(epoch) }
        }
    }

    #[inline(always)]
    fn load(&self) -> u8 {
        // SAFETY: the cell is a valid byte for as long as `self` lives, and a volatile read
        // tolerates that somebody else writes it.
        unsafe { self.0.get().read_volatile() }
    }
}
