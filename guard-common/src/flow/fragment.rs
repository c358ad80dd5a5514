//! First fragments that were refused, so that their later fragments can be refused too.
//!
//! Later fragments carry no port. Passing those whose first fragment was dropped would leave
//! orphans in the kernel's reassembly queue for 30 s each and starve the host's own answers.

use core::cell::UnsafeCell;

use crate::{
    frame::{
        address::{Address, V6},
        ip::Ip,
    },
    outcome::Family,
};

/// What the fragments of one datagram have in common. Everything is in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C, align(8))]
pub struct FragmentKey {
    /// Where the datagram comes from; IPv4 fills half of the first word.
    pub source: V6,
    /// Where it goes, likewise.
    pub destination: V6,
    /// The identification field.
    pub id: u32,
    /// The transport protocol's IANA number for IPv4; 256 for IPv6, whose later fragments need
    /// not agree on it (RFC 8200, section 4.5).
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// What stands for the protocol of every IPv6 datagram.
const IPV6: u32 = 256;

impl FragmentKey {
    /// The datagram that this packet is a fragment of.
    #[inline(always)]
    pub fn new<A: Address>(ip: &Ip<A>) -> Self {
        Self {
            source: ip.source.widened(),
            destination: ip.destination.widened(),
            id: ip.id,
            protocol: match A::FAMILY {
                Family::Ipv4 | Family::Other => u32::from(ip.protocol),
                Family::Ipv6 => IPV6,
            },
        }
    }
}

/// When the first fragment was refused, in ticks; 0 when one was accepted since.
#[repr(transparent)]
pub struct RefusedAt(UnsafeCell<u32>);

impl RefusedAt {
    /// A mark that is not in a map.
    pub const fn new(now: u32) -> Self {
        Self(UnsafeCell::new(now))
    }

    /// Whether later fragments are to be refused at `now`.
    #[inline(always)]
    pub fn holds(&self, now: u32, timeout: u32) -> bool {
        // SAFETY: the cell is a valid, aligned word for as long as `self` lives.
        let refused_at = unsafe { self.0.get().read_volatile() };
        refused_at != 0 && now.saturating_sub(refused_at) <= timeout
    }

    /// Refuses later fragments from `now` on.
    #[inline(always)]
    pub fn refuse(&self, now: u32) {
        // SAFETY: as in `holds`; the whole word is stored at once.
        unsafe { self.0.get().write_volatile(now) }
    }

    /// Lets later fragments pass again.
    #[inline(always)]
    pub fn accept(&self) {
        self.refuse(0);
    }
}
