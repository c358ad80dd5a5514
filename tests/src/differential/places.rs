//! The addresses, routes and sockets that there are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_reference::policy::{Host, Prefix, Socket};

/// An IPv4 address.
pub(super) const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

/// An IPv6 address of which four words are not 0.
pub(super) const fn v6(a: u16, b: u16, y: u16, z: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, y, z))
}

/// The guarded host's addresses, in both families.
pub const OWN: [[IpAddr; 2]; 2] = [
    [v4(10, 9, 0, 2), v4(10, 9, 0, 22)],
    [v6(0xfd09, 0, 0, 2), v6(0xfd09, 0, 0, 0x22)],
];

/// Where else packets go: to another host, to groups, to nobody.
pub const ELSEWHERE: [[IpAddr; 9]; 2] = [
    [
        v4(10, 9, 0, 3),
        v4(10, 9, 0, 255),
        v4(10, 20, 0, 9),
        v4(198, 51, 100, 1),
        v4(224, 0, 0, 251),
        v4(239, 255, 255, 250),
        v4(255, 255, 255, 255),
        v4(240, 0, 0, 1),
        v4(0, 0, 0, 0),
    ],
    [
        v6(0xfd09, 0, 0, 3),
        v6(0xfd20, 0, 0, 9),
        v6(0x2001, 0xdb8, 7, 1),
        v6(0xff02, 0, 0, 0xfb),
        v6(0xff05, 0, 0, 0xc),
        v6(0xff02, 0, 0, 1),
        v6(0xfe80, 0, 0, 1),
        v6(0xff02, 0, 0, 2),
        v6(0, 0, 0, 0),
    ],
];

/// Peers: on the link, behind a router, trusted now and then.
pub const PEERS: [[IpAddr; 7]; 2] = [
    [
        v4(10, 9, 0, 1),
        v4(10, 9, 0, 22),
        v4(10, 9, 1, 1),
        v4(10, 20, 0, 5),
        v4(192, 0, 2, 1),
        v4(192, 0, 3, 1),
        v4(0, 0, 0, 0),
    ],
    [
        v6(0xfd09, 0, 0, 1),
        v6(0xfd09, 0, 0, 0x22),
        v6(0xfd09, 1, 0, 1),
        v6(0xfd20, 0, 0, 5),
        v6(0x2001, 0xdb8, 0, 1),
        // ::ffff:10.9.0.1 must not pass for an IPv4 address.
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a09, 0x0001)),
        v6(0, 0, 0, 0),
    ],
];

pub(super) const fn prefix(address: IpAddr, bits: u8) -> Prefix {
    Prefix { address, bits }
}

/// Where the kernel has routes to.
pub const ROUTES: [Prefix; 6] = [
    prefix(v4(10, 9, 0, 0), 24),
    prefix(v4(10, 20, 0, 0), 16),
    prefix(v4(192, 0, 2, 0), 24),
    prefix(v6(0xfd09, 0, 0, 0), 64),
    prefix(v6(0xfd20, 0, 0, 0), 32),
    prefix(v6(0x2001, 0xdb8, 0, 0), 64),
];

/// What the kernel delivers to this host although a route covers it.
pub const DELIVERED: [IpAddr; 5] = [
    OWN[0][0],
    OWN[0][1],
    OWN[1][0],
    OWN[1][1],
    v4(10, 9, 0, 255),
];

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

const fn socket(protocol: u8, local: (IpAddr, u16), peer: Option<(IpAddr, u16)>) -> Socket {
    Socket {
        protocol,
        local,
        peer,
    }
}

/// An address and a port.
pub type End = (IpAddr, u16);

/// The ports that sockets of this host have.
pub const SOCKET_PORTS: [u16; 5] = [40_000, 40_001, 40_002, 40_003, 40_004];

/// Connections of this host: UDP to a peer, TCP to its own second address, of which both ends
/// are here.
pub const CONNECTED: [(u8, End, End); 6] = [
    (UDP, (OWN[0][0], 40_000), (PEERS[0][0], 53)),
    (UDP, (OWN[0][0], 40_003), (PEERS[0][4], 443)),
    (UDP, (OWN[1][0], 40_000), (PEERS[1][0], 53)),
    (UDP, (OWN[1][0], 40_003), (PEERS[1][4], 443)),
    (TCP, (OWN[0][0], 40_001), (OWN[0][1], 443)),
    (TCP, (OWN[1][0], 40_001), (OWN[1][1], 443)),
];

/// Sockets that hear everybody: by the unspecified address, or by one of this host.
pub const LISTENERS: [(u8, End); 7] = [
    (UDP, (v4(0, 0, 0, 0), 40_002)),
    (UDP, (v6(0, 0, 0, 0), 40_002)),
    (UDP, (OWN[0][0], 40_004)),
    (TCP, (v4(0, 0, 0, 0), 40_002)),
    (TCP, (OWN[1][0], 40_004)),
    (TCP, (OWN[0][1], 443)),
    (TCP, (OWN[1][1], 443)),
];

/// All sockets of this host.
pub fn sockets() -> Vec<Socket> {
    let connected = CONNECTED
        .iter()
        .map(|(protocol, local, peer)| socket(*protocol, *local, Some(*peer)));
    let accepted = CONNECTED
        .iter()
        .filter(|(protocol, _, _)| *protocol == TCP)
        .map(|(protocol, local, peer)| socket(*protocol, *peer, Some(*local)));
    let listeners = LISTENERS
        .iter()
        .map(|(protocol, local)| socket(*protocol, *local, None));
    connected.chain(accepted).chain(listeners).collect()
}

/// The link addresses of the guarded host.
pub const OWN_LINKS: [[u8; 6]; 1] = [[2, 0, 0, 0, 0, 2]];

/// How a host sends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Forwarding {
    /// As [`Host::routes`].
    pub routes: bool,
    /// As [`Host::carries`].
    pub carries: bool,
    /// As [`Host::shares`].
    pub shares: bool,
    /// As [`Host::routing`].
    pub routing: (bool, bool),
}

impl Forwarding {
    /// How this host does.
    pub const fn of(host: &Host) -> Self {
        Self {
            routes: host.router,
            carries: host.carries,
            shares: host.shares,
            routing: host.routing,
        }
    }
}

/// A host that sends on nothing.
pub const ENDS_HERE: Forwarding = Forwarding {
    routes: false,
    carries: false,
    shares: false,
    routing: (false, false),
};

/// What the kernel can be made to do, in the order of the interfaces that do it.
pub const FORWARDING: [Forwarding; 6] = [
    ENDS_HERE,
    Forwarding {
        routes: true,
        routing: (true, true),
        ..ENDS_HERE
    },
    Forwarding {
        routes: true,
        routing: (true, false),
        ..ENDS_HERE
    },
    Forwarding {
        carries: true,
        ..ENDS_HERE
    },
    Forwarding {
        routes: true,
        carries: true,
        routing: (true, true),
        ..ENDS_HERE
    },
    Forwarding {
        shares: true,
        routing: (true, true),
        ..ENDS_HERE
    },
];
