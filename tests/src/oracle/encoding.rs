//! A packet, and everything that is unusual about how it is written down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::outcome::Family;

/// How many peers the guarded hosts ask, over each family and each transport.
pub const PEERS: u32 = 16;
/// The port of each peer.
pub const PEER_PORT: u16 = 4_000;
/// The UDP port of the host that asks every peer.
pub const ASKING: u16 = 40_000;
/// The UDP port of the host that asks nobody.
pub const QUIET: u16 = 40_001;
/// The TCP port that asks the first peer; the next asks the next.
pub const CONNECTING: u16 = 40_100;
/// The TCP port on which somebody listens.
pub const LISTENING: u16 = 40_002;
/// The first of some TCP ports that nobody uses, which an unguarded host answers with a reset.
pub const UNUSED: u16 = 41_000;

/// What everything is tried over.
pub const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Who sends it, to which socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sender {
    /// A peer, to the socket that has asked it. Everybody else is a stranger.
    Peer,
    /// Another port of that peer.
    OtherPort,
    /// Somebody else, from the peer's port.
    OtherAddress,
    /// The peer, to a port from which it was not asked.
    OtherSocket,
    /// The peer, to a group that the host is a member of.
    Group(Group),
}

/// An address of everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// On the link: 255.255.255.255, ff02::1.
    Link,
    /// In the prefix; of IPv6, the group of the link again.
    Prefix,
    /// 224.0.0.1, ff02::1.
    Hosts,
}

/// What is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// A datagram that carries its number.
    Udp,
    /// A segment that opens a connection; its sequence number is its number.
    Syn,
    /// A segment with these flags and one that acknowledges; what it acknowledges is its number.
    Ack(u8),
}

impl Carried {
    /// The protocol's number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Syn | Self::Ack(_) => 6,
        }
    }
}

/// The Ethernet address it goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkAddress {
    /// The host's, or the group's.
    Right,
    /// That of all.
    Broadcast,
    /// That of a group.
    Multicast,
    /// Somebody else's.
    Other,
}

/// A transport checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checksum {
    /// True.
    Right,
    /// Off by one.
    Wrong,
    /// Zero, which for UDP says that there is none.
    Absent,
}

/// An IPv6 extension header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// Its number.
    pub kind: u8,
    /// Its bytes; the first is to say what follows.
    pub bytes: Vec<u8>,
}

/// A piece of the packet behind its unfragmented headers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The first byte, a multiple of 8.
    pub start: usize,
    /// Behind the last byte.
    pub end: usize,
    /// Whether it says that more follow.
    pub more: bool,
    /// Whether a stranger has forged it: another port of the sender, another number.
    pub forged: bool,
}

/// One packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// Tells its packet from all others.
    pub id: u32,
    /// Who sends it.
    pub sender: Sender,
    /// IPv4 or IPv6.
    pub family: Family,
    /// What is carried.
    pub carried: Carried,
    /// Types and ids of VLAN tags.
    pub tags: Vec<(u16, u16)>,
    /// Where the link takes it.
    pub link_address: LinkAddress,
    /// The first byte behind the version and the header's length: type of service, traffic class.
    pub service: u8,
    /// Time to live, hop limit.
    pub hops: u8,
    /// The reserved bit and that against fragmentation, of IPv4.
    pub flags: u16,
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in front of a fragment header.
    pub outer: Vec<Extension>,
    /// Those behind it, which are cut with the rest.
    pub inner: Vec<Extension>,
    /// The pieces in which it is sent, in that order; none for a whole.
    pub pieces: Vec<Piece>,
    /// Bytes behind the transport header.
    pub data: usize,
    /// What the length in the network header is off by.
    pub length_off: i32,
    /// What UDP says about its length, or TCP in words about its header, if not the truth.
    pub transport_length: Option<u16>,
    /// The transport checksum.
    pub checksum: Checksum,
    /// Bytes behind each packet.
    pub padding: usize,
    /// Bytes missing at the end of each frame.
    pub missing: usize,
}

impl Encoding {
    /// A datagram of a peer without anything unusual.
    pub const fn plain(id: u32) -> Self {
        Self {
            id,
            sender: Sender::Peer,
            family: Family::Ipv4,
            carried: Carried::Udp,
            tags: Vec::new(),
            link_address: LinkAddress::Right,
            service: 0,
            hops: 64,
            flags: 0,
            options: Vec::new(),
            outer: Vec::new(),
            inner: Vec::new(),
            pieces: Vec::new(),
            data: 16,
            length_off: 0,
            transport_length: None,
            checksum: Checksum::Right,
            padding: 0,
            missing: 0,
        }
    }

    /// Which of the peers it has to do with.
    pub const fn peer(&self) -> u32 {
        self.id % PEERS
    }

    /// Whether the host has asked whom it comes from.
    pub fn is_answer(&self) -> bool {
        self.sender == Sender::Peer
    }

    /// What is unusual about it, in words.
    pub fn features(&self) -> Vec<&'static str> {
        let overlap = |pieces: &[Piece]| {
            pieces.iter().enumerate().any(|(at, one)| {
                pieces[..at]
                    .iter()
                    .any(|other| one.start < other.end && other.start < one.end)
            })
        };
        let mut extensions = self.outer.iter().chain(&self.inner);
        let all = [
            (self.carried != Carried::Udp, "TCP"),
            (!self.tags.is_empty(), "tags"),
            (self.link_address != LinkAddress::Right, "link address"),
            (matches!(self.sender, Sender::Group(_)), "group"),
            (!self.options.is_empty(), "options"),
            (extensions.clone().next().is_some(), "extension headers"),
            (extensions.any(|it| it.kind == 44), "atomic fragment"),
            (!self.pieces.is_empty(), "pieces"),
            (overlap(&self.pieces), "pieces that overlap"),
            (self.length_off != 0, "network length"),
            (self.transport_length.is_some(), "transport length"),
            (self.checksum != Checksum::Right, "checksum"),
            (self.padding > 0, "padding"),
            (self.missing > 0, "cut"),
            (
                self.service | self.hops != 64 || self.flags != 0,
                "other fields",
            ),
        ];
        let unusual = all.into_iter().filter(|(unusual, _)| *unusual);
        let mut found: Vec<_> = unusual.map(|(_, name)| name).collect();
        if found.is_empty() {
            found.push("nothing");
        }
        found
    }

    /// The sender's end.
    pub fn remote(&self) -> (IpAddr, u16) {
        let peer = peer_address(self.family, self.peer());
        match self.sender {
            Sender::Peer | Sender::OtherSocket | Sender::Group(_) => (peer, PEER_PORT),
            Sender::OtherPort => (peer, 5_000 + (self.id % 50_000) as u16),
            Sender::OtherAddress => {
                let host = self.id / PEERS;
                (
                    address(self.family, 1 + (host / 250) % 250, 1 + host % 250),
                    PEER_PORT,
                )
            }
        }
    }

    /// The host's end.
    pub fn local(&self) -> (IpAddr, u16) {
        let asking = match self.carried {
            Carried::Udp => ASKING,
            Carried::Syn | Carried::Ack(_) => CONNECTING + self.peer() as u16,
        };
        let port = match (self.sender, self.carried) {
            (Sender::Peer | Sender::Group(_), _) => asking,
            (Sender::OtherSocket, Carried::Udp) => QUIET,
            (Sender::OtherSocket, Carried::Syn | Carried::Ack(_)) if self.id.is_multiple_of(2) => {
                LISTENING
            }
            (Sender::OtherSocket, Carried::Syn | Carried::Ack(_)) => {
                UNUSED + (self.id / 2 % 4_000) as u16
            }
            (Sender::OtherPort | Sender::OtherAddress, _) => asking,
        };
        let group = match self.sender {
            Sender::Group(group) => Some(group),
            Sender::Peer | Sender::OtherPort | Sender::OtherAddress | Sender::OtherSocket => None,
        };
        (destination(self.family, group), port)
    }
}

/// The address of a peer.
pub fn peer_address(family: Family, peer: u32) -> IpAddr {
    address(family, 0, 1 + peer)
}

/// An address behind the link's other end, whose host neither has it nor forwards to it.
fn address(family: Family, net: u32, host: u32) -> IpAddr {
    match family {
        Family::Ipv6 => Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, net as u16, host as u16).into(),
        Family::Ipv4 | Family::Other => Ipv4Addr::new(10, 10, net as u8, host as u8).into(),
    }
}

fn destination(family: Family, group: Option<Group>) -> IpAddr {
    match (family, group) {
        (Family::Ipv6, None) => crate::frames::G.ipv6.into(),
        (Family::Ipv6, Some(_)) => crate::frames::EVERYBODY.ipv6.into(),
        (_, None) => crate::frames::G.ipv4.into(),
        (_, Some(Group::Link)) => crate::frames::EVERYBODY.ipv4.into(),
        (_, Some(Group::Prefix)) => crate::frames::SUBNET.ipv4.into(),
        (_, Some(Group::Hosts)) => Ipv4Addr::new(224, 0, 0, 1).into(),
    }
}
