//! What the user, the daemon and the kernel have set up.

use std::net::{IpAddr, Ipv6Addr};

/// An address and how many of its bits count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prefix {
    /// The address, of which bits beyond `bits` mean nothing here.
    pub address: IpAddr,
    /// Bits that count.
    pub bits: u8,
}

impl Prefix {
    /// Whether `address` begins with the same bits.
    pub fn covers(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = u32::from(ours) ^ u32::from(theirs);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = u128::from(ours) ^ u128::from(theirs);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            _ => false,
        }
    }
}

/// How long things are kept, in ticks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timers {
    /// A TCP SYN without an answer.
    pub tcp_syn: u32,
    /// A TCP connection.
    pub tcp_established: u32,
    /// A TCP connection that was reset, or closed by both sides.
    pub tcp_transitory: u32,
    /// UDP and UDP-Lite.
    pub udp: u32,
    /// UDP to the port of DNS.
    pub udp_dns: u32,
    /// A UDP query to a group.
    pub multicast: u32,
    /// A refused first fragment.
    pub fragment: u32,
}

/// What the user has asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The first and the last port of the range.
    pub range: (u16, u16),
    /// Ports that the kernel gives to no socket by itself.
    pub reserved: Vec<u16>,
    /// Ports exposed for TCP.
    pub exposed_tcp: Vec<u16>,
    /// Ports exposed for UDP, and for UDP-Lite.
    pub exposed_udp: Vec<u16>,
    /// Addresses and UDP ports at which the kernel itself receives; an unspecified address stands
    /// for all of its family.
    pub kernel: Vec<(IpAddr, u16)>,
    /// Remote UDP ports whose answers never come back.
    pub unrecorded: Vec<u16>,
    /// `--udp-filter address`.
    pub by_address: bool,
    /// Without `--no-rescue`.
    pub rescue: bool,
    /// `--mode monitor`.
    pub monitor: bool,
    /// `--trust`.
    pub trusted: Vec<Prefix>,
    /// Timers.
    pub timers: Timers,
}

/// A socket of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Socket {
    /// The protocol: 6 or 17.
    pub protocol: u8,
    /// Where it is bound; the unspecified address receives for all of its family.
    pub local: (IpAddr, u16),
    /// The end it is connected to.
    pub peer: Option<(IpAddr, u16)>,
}

/// The host around the guard, as the daemon describes it and as the kernel knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Addresses of the interface, with the prefixes of its link.
    pub addresses: Vec<Prefix>,
    /// The host routes what this interface receives.
    pub router: bool,
    /// Frames for other MAC addresses are forwarded: by a bridge, or to devices on top of it.
    pub carries: bool,
    /// Others share this host's MAC address.
    pub shares: bool,
    /// The MAC addresses of this host.
    pub own_links: Vec<[u8; 6]>,
    /// Some interface of the guard forwards.
    pub some_forward: bool,
    /// The local table, as far as the daemon has written it.
    pub local_table: Vec<Prefix>,
    /// Prefixes of other hosts, packets to which the firewall may lead to sockets here.
    pub diverted: Vec<Prefix>,
    /// Whether the kernel routes IPv4 and IPv6 that come in here.
    pub routing: (bool, bool),
    /// Addresses that the kernel's routes deliver to this host.
    pub delivered: Vec<IpAddr>,
    /// Prefixes to which the kernel has a route elsewhere.
    pub routes: Vec<Prefix>,
    /// Sockets.
    pub sockets: Vec<Socket>,
    /// Whether the flow tables take anything.
    pub room: bool,
}

/// What the kernel has for a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taker {
    /// Nothing.
    Nobody,
    /// A socket that is connected to the sender.
    Connected,
    /// A socket that receives from every sender.
    Listener,
}

impl Host {
    /// Whether this interface forwards packets of other hosts.
    pub fn forwards(&self) -> bool {
        self.router || self.carries || self.shares || !self.diverted.is_empty()
    }

    /// Whether the kernel's routes clearly forward what goes from one address to another.
    pub fn sends_on(&self, from: IpAddr, address: IpAddr) -> bool {
        let (routing, of_link) = match (from, address) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                if from.is_loopback() || to.is_loopback() {
                    return false;
                }
                (self.routing.1, stays(from) || stays(to))
            }
            _ => (self.routing.0, false),
        };
        if of_link || !routing {
            return false;
        }
        !self.delivered.contains(&address) && self.routes.iter().any(|route| route.covers(address))
    }

    /// What the kernel has for a packet from `remote` to `local`.
    pub fn taker(&self, protocol: u8, local: (IpAddr, u16), remote: (IpAddr, u16)) -> Taker {
        let mut found = Taker::Nobody;
        for socket in &self.sockets {
            let (address, port) = socket.local;
            let bound = address == local.0 || address == unspecified(local.0);
            if socket.protocol != protocol || port != local.1 || !bound {
                continue;
            }
            match socket.peer {
                Some(peer) if peer == remote => return Taker::Connected,
                Some(_) => {}
                None => found = Taker::Listener,
            }
        }
        found
    }
}

/// Whether no router forwards what has this address.
fn stays(address: Ipv6Addr) -> bool {
    address.is_multicast() || address.is_unicast_link_local()
}

/// The unspecified address of the same family.
pub fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}
