//! What the programs know about one interface. The daemon writes it.

use crate::frame::address::{Address, V4, V6};

/// Addresses of one family that the programs know of an interface at hand. Others are in the map
/// `local`.
pub const MAX_OWN_ADDRESSES: usize = 8;

/// What the programs know about one interface. Written by the daemon.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Device {
    /// The interface's name, padded with zeroes, for readers of the counters.
    pub name: [u8; 16],
    /// How the host sends on what comes in here: any of [`ROUTES`](Self::ROUTES),
    /// [`BRIDGES`](Self::BRIDGES), [`SHARES_MAC`](Self::SHARES_MAC) and [`DIVERTS`](Self::DIVERTS), or 0.
    pub forwards: u32,
    /// Zero.
    pub reserved: u32,
    /// The index of the interface that the kernel takes what comes in here to have come in by when
    /// it routes IPv4, and IPv6: this one, or the bridge or bond that it is a port of.
    pub routes_by: [u32; 2],
    /// Its own addresses of IPv4, and as many unspecified ones as there is room for.
    pub ipv4: [V4; MAX_OWN_ADDRESSES],
    /// Those of IPv6, likewise.
    pub ipv6: [V6; MAX_OWN_ADDRESSES],
    /// Zeroes. Counters are taken over from another layout by the name of an interface, as long as
    /// this is as long there.
    pub unused: [u64; 20],
}

const _: () = assert!(size_of::<Device>() == 352);

impl Device {
    /// In [`forwards`](Self::forwards): the host routes what comes in here by its own link
    /// addresses.
    pub const ROUTES: u32 = 1;
    /// In [`forwards`](Self::forwards): frames for other link addresses go on without being
    /// routed, because the interface is a port of a bridge, or takes those of containers or guests.
    pub const BRIDGES: u32 = 2;
    /// In [`forwards`](Self::forwards): others have the same link address as this host, so that
    /// nothing but the local table tells what is theirs.
    pub const SHARES_MAC: u32 = 4;
    /// In [`forwards`](Self::forwards): marks of the firewall lead packets for other hosts to
    /// sockets of this one, as transparent proxies need.
    pub const DIVERTS: u32 = 8;

    /// Whether `address` is one of the interface's own.
    #[inline(always)]
    pub fn is_own<A: Address>(&self, address: A) -> bool {
        address != A::UNSPECIFIED && address.is_among(&self.ipv4, &self.ipv6)
    }
}
