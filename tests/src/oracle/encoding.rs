//! A packet, and everything that is unusual about how it is written down.

use guard_common::outcome::Family;

use super::ends::Sender;

/// What is carried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried {
    /// A datagram that carries its number.
    Udp,
    /// The same, of UDP-Lite.
    UdpLite,
    /// A segment that opens a connection; its sequence number is its number.
    Syn,
    /// A segment with these flags and one that acknowledges; what it acknowledges is its number.
    Ack(u8),
    /// An ICMP error about a datagram that goes the other way, and carries the number.
    Error(Problem, Datagram),
    /// An ICMP echo request; its identifier and its sequence number are its number.
    Echo,
}

/// What an ICMP error complains of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Problem {
    /// Nobody has the port.
    Unreachable,
    /// It does not fit through.
    TooBig,
    /// It has met too many routers.
    TimeExceeded,
    /// Something in a header.
    Parameter,
}

/// A protocol of datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagram {
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
}

impl Carried {
    /// The protocol's number.
    pub const fn protocol(self, family: Family) -> u8 {
        match self {
            Self::Udp => Datagram::Udp.protocol(),
            Self::UdpLite => Datagram::UdpLite.protocol(),
            Self::Syn | Self::Ack(_) => 6,
            Self::Error(..) | Self::Echo => match family {
                Family::Ipv6 => 58,
                Family::Ipv4 | Family::Other => 1,
            },
        }
    }
}

impl Datagram {
    /// The protocol's number.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::UdpLite => 136,
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
    /// Whether a sender has forged it: another port of the sender, another number.
    pub forged: bool,
}

/// Headers of a packet that is quoted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quote {
    /// IPv4 options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// The flags and the offset of an IPv4 fragment.
    pub fragment: u16,
    /// IPv6 extension headers.
    pub extensions: Vec<Extension>,
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
    /// What an ICMP error quotes in front of the ports.
    pub quote: Quote,
    /// Bytes behind the transport header, or behind the one that is quoted.
    pub data: usize,
    /// What the length in the network header is off by.
    pub length_off: i32,
    /// What UDP says about its length, UDP-Lite about how much the checksum covers, TCP in words
    /// about its header, or an ICMP error about what it quotes, if not the truth.
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
            quote: Quote {
                options: Vec::new(),
                fragment: 0,
                extensions: Vec::new(),
            },
            data: 16,
            length_off: 0,
            transport_length: None,
            checksum: Checksum::Right,
            padding: 0,
            missing: 0,
        }
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
        let plain = Self::plain(self.id);
        let mut extensions = self.outer.iter().chain(&self.inner);
        let all = [
            (
                matches!(self.carried, Carried::Syn | Carried::Ack(_)),
                "TCP",
            ),
            (self.carried == Carried::UdpLite, "UDP-Lite"),
            (self.carried == Carried::Echo, "echo"),
            (
                matches!(self.carried, Carried::Error(_, Datagram::Udp)),
                "error about UDP",
            ),
            (
                matches!(self.carried, Carried::Error(_, Datagram::UdpLite)),
                "error about UDP-Lite",
            ),
            (self.quote != plain.quote, "quoted headers"),
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
}
