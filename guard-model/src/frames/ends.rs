//! The ends of conversations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::outcome::Family;

/// One end of a conversation: where its frames go, and its address in either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The Ethernet address.
    pub mac: [u8; 6],
    /// The IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The IPv6 address.
    pub ipv6: Ipv6Addr,
}

impl End {
    /// The address in a family.
    pub const fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::Ipv6 => IpAddr::V6(self.ipv6),
            Family::Ipv4 | Family::Other => IpAddr::V4(self.ipv4),
        }
    }
}

/// The guarded host.
pub const G: End = neighbour(2);
/// The peer, or a host that forges its address.
pub const P: End = neighbour(1);
/// Another neighbour.
pub const N: End = neighbour(3);
/// A second address of the guarded host.
pub const G2: End = End {
    ipv4: Ipv4Addr::new(10, 9, 0, 22),
    ipv6: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x22),
    ..G
};
/// A host behind a router, whose frames come from the peer's MAC address.
pub const FAR: End = End {
    mac: P.mac,
    ipv4: Ipv4Addr::new(192, 0, 2, 1),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
};
/// Behind gateways that share a multicast MAC address, as clusters do.
pub const GATEWAYS: End = End {
    mac: [0x03, 0xbf, 0x0a, 0x09, 0x00, 0x01],
    ..FAR
};
/// The unspecified addresses.
pub const NOBODY: End = End {
    mac: P.mac,
    ipv4: Ipv4Addr::UNSPECIFIED,
    ipv6: Ipv6Addr::UNSPECIFIED,
};

/// The group that multicast DNS queries go to.
pub const MDNS: End = End {
    mac: [0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb],
    ipv4: Ipv4Addr::new(224, 0, 0, 251),
    ipv6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
};
/// The group that SSDP searches go to.
pub const SSDP: End = End {
    mac: [0x01, 0x00, 0x5e, 0x7f, 0xff, 0xfa],
    ipv4: Ipv4Addr::new(239, 255, 255, 250),
    ipv6: Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xc),
};
/// Broadcast on the link.
pub const EVERYBODY: End = End {
    mac: [0xff; 6],
    ipv4: Ipv4Addr::BROADCAST,
    ipv6: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
};
/// The broadcast address of the guarded host's prefix, which cannot be told by the address alone.
pub const SUBNET: End = End {
    ipv4: Ipv4Addr::new(10, 9, 0, 255),
    ..EVERYBODY
};

const fn neighbour(number: u8) -> End {
    End {
        mac: [2, 0, 0, 0, 0, number],
        ipv4: Ipv4Addr::new(10, 9, 0, number),
        ipv6: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, number as u16),
    }
}
