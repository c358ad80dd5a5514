//! Frames made by hand, valid unless asked otherwise.
//!
//! A frame has no family and no ends until it is built, so one description serves IPv4 and IPv6,
//! and what the host sends reads like what it receives.

mod ends;
mod ip;
mod payload;
mod protocols;

use std::ops::{Bound, RangeBounds};

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, TcpHeader, VlanId};
use guard_common::outcome::{Family, Protocol};

pub use ends::{EVERYBODY, End, FAR, G, G2, GATEWAYS, MDNS, N, NOBODY, P, SSDP, SUBNET};
pub use ip::Extension;
pub use payload::Error;
pub use protocols::{ethernet, icmp, icmp_error, protocol, raw, tcp, udp, udp_lite};

use ip::{Network, Piece};
use payload::Payload;

/// A VLAN tag type of IEEE 802.1Q.
pub const VLAN: u16 = 0x8100;
/// A VLAN tag type of IEEE 802.1ad.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// The Ethernet type of a PPPoE session.
pub const PPPOE: u16 = 0x8864;

/// A frame to be built.
#[derive(Clone, Debug)]
pub struct Frame {
    only: Option<Family>,
    source: Option<End>,
    destination: Option<End>,
    tags: Vec<(u16, u16)>,
    session: Option<Session>,
    carried: Carried,
    edits: Vec<Edit>,
    seen_as: Option<SeenAs>,
}

#[derive(Clone, Debug)]
enum Carried {
    Ip(Network, Payload, Vec<u8>),
    Other(u16, Vec<u8>),
    Raw(Vec<u8>),
}

/// How a PPPoE session says what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    TwoBytes,
    OneByte,
}

/// How far a frame is read, where that is not to the end of its headers.
#[derive(Clone, Copy, Debug)]
enum SeenAs {
    Nothing,
    Family,
    Protocol(Protocol),
}

/// A change of the finished bytes, behind the Ethernet header and the tags.
#[derive(Clone, Debug)]
enum Edit {
    Network(usize, Vec<u8>),
    Transport(usize, Vec<u8>),
    CutTransport(usize),
    Pad(usize),
}

impl Frame {
    fn ip(payload: Payload) -> Self {
        Self {
            only: None,
            source: None,
            destination: None,
            tags: Vec::new(),
            session: None,
            carried: Carried::Ip(Network::default(), payload, b"twenty bytes of data".into()),
            edits: Vec::new(),
            seen_as: None,
        }
    }

    /// Only as IPv4.
    #[must_use]
    pub fn v4(self) -> Self {
        Self {
            only: Some(Family::Ipv4),
            ..self
        }
    }

    /// Only as IPv6.
    #[must_use]
    pub fn v6(self) -> Self {
        Self {
            only: Some(Family::Ipv6),
            ..self
        }
    }

    /// From another end than usual.
    #[must_use]
    pub fn from(self, end: End) -> Self {
        Self {
            source: Some(end),
            ..self
        }
    }

    /// To another end than usual.
    #[must_use]
    pub fn to(self, end: End) -> Self {
        Self {
            destination: Some(end),
            ..self
        }
    }

    /// Behind one more VLAN tag of this type and id, inside those there are.
    #[must_use]
    pub fn tag(mut self, tag_type: u16, id: u16) -> Self {
        self.tags.push((tag_type, id));
        self
    }

    /// Behind `count` VLAN tags of id 0.
    #[must_use]
    pub fn tags(mut self, count: usize) -> Self {
        self.tags.resize(self.tags.len() + count, (VLAN, 0));
        self
    }

    /// In a PPPoE session, inside the tags there are.
    #[must_use]
    pub fn in_session(self) -> Self {
        Self {
            session: Some(Session::TwoBytes),
            ..self
        }
    }

    /// The same, with a protocol number of one byte.
    #[must_use]
    pub fn in_session_by_one_byte(self) -> Self {
        Self {
            session: Some(Session::OneByte),
            ..self
        }
    }

    /// With these IPv4 options.
    #[must_use]
    pub fn options(self, options: &[u8]) -> Self {
        let options = options.to_vec();
        self.v4().network(|network| network.options = options)
    }

    /// Behind one more IPv6 extension header, inside those there are.
    #[must_use]
    pub fn behind(self, extension: Extension) -> Self {
        self.v6().network(|network| match network.piece {
            None => network.outer.push(extension),
            Some(_) => network.inner.push(extension),
        })
    }

    /// Only these bytes of the datagram, from a multiple of 8 on, with this identification.
    /// Extension headers that are added later are part of the datagram.
    #[must_use]
    pub fn piece(self, id: u16, range: impl RangeBounds<usize>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(_) | Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Excluded(end) => Some(*end),
            Bound::Included(_) | Bound::Unbounded => None,
        };
        self.network(|network| {
            network.piece = Some(Piece {
                id,
                range: start..end.unwrap_or(usize::MAX),
                more: end.is_some(),
            });
        })
    }

    /// With other data than usual behind the transport header.
    #[must_use]
    pub fn data(mut self, data: &[u8]) -> Self {
        if let Carried::Ip(_, _, old) = &mut self.carried {
            *old = data.to_vec();
        }
        self
    }

    /// A TCP segment that opens a connection.
    #[must_use]
    pub fn syn(self) -> Self {
        self.flags(|header| (header.syn, header.ack) = (true, false))
    }

    /// A TCP segment that accepts a connection.
    #[must_use]
    pub fn syn_ack(self) -> Self {
        self.flags(|header| header.syn = true)
    }

    /// A TCP segment with FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.flags(|header| header.fin = true)
    }

    /// A TCP segment that resets a connection.
    #[must_use]
    pub fn rst(self) -> Self {
        self.flags(|header| header.rst = true)
    }

    /// A TCP segment with FIN, PSH and URG.
    #[must_use]
    pub fn christmas(self) -> Self {
        self.flags(|header| (header.fin, header.psh, header.urg) = (true, true, true))
    }

    /// A TCP segment without any flag.
    #[must_use]
    pub fn no_flags(self) -> Self {
        self.flags(|header| header.ack = false)
    }

    /// An ICMP error that quotes so many bytes from the transport header on.
    #[must_use]
    pub fn quoting(mut self, bytes: usize) -> Self {
        if let Carried::Ip(_, Payload::Error(_, quote), _) = &mut self.carried {
            quote.transport_bytes = bytes;
        }
        self
    }

    /// With these bytes written over the network header, from `offset` of it on.
    #[must_use]
    pub fn network_bytes(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.edits.push(Edit::Network(offset, bytes.to_vec()));
        self
    }

    /// With these bytes written over the transport header, from `offset` of it on.
    #[must_use]
    pub fn transport_bytes(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.edits.push(Edit::Transport(offset, bytes.to_vec()));
        self
    }

    /// Cut off after so many bytes of the transport header.
    #[must_use]
    pub fn cut_transport(mut self, bytes: usize) -> Self {
        self.edits.push(Edit::CutTransport(bytes));
        self
    }

    /// With so many zero bytes behind the packet.
    #[must_use]
    pub fn padded(mut self, bytes: usize) -> Self {
        self.edits.push(Edit::Pad(bytes));
        self
    }

    /// Counted under this protocol, because the frame says so.
    #[must_use]
    pub fn seen_as(mut self, protocol: Protocol) -> Self {
        self.seen_as = Some(SeenAs::Protocol(protocol));
        self
    }

    /// Expected under its family alone, because the frame is not read as far as its protocol.
    #[must_use]
    pub fn seen_without_protocol(mut self) -> Self {
        self.seen_as = Some(SeenAs::Family);
        self
    }

    /// Expected under no family, because the frame is not read as far.
    #[must_use]
    pub fn seen_as_no_ip(mut self) -> Self {
        self.seen_as = Some(SeenAs::Nothing);
        self
    }

    fn network(mut self, change: impl FnOnce(&mut Network)) -> Self {
        if let Carried::Ip(network, _, _) = &mut self.carried {
            change(network);
        }
        self
    }

    fn flags(mut self, change: impl FnOnce(&mut TcpHeader)) -> Self {
        if let Carried::Ip(_, Payload::Tcp(header), _) = &mut self.carried {
            change(header);
        }
        self
    }
}

impl Frame {
    /// Whether the frame exists in this family.
    pub fn exists_in(&self, family: Family) -> bool {
        self.only.is_none_or(|only| only == family)
    }

    /// The labels the frame is counted under.
    pub fn labels(&self, family: Family) -> (Family, Protocol) {
        let family = self.only.unwrap_or(family);
        match (&self.seen_as, &self.carried) {
            (Some(SeenAs::Nothing), _) => (Family::Other, Protocol::Other),
            (Some(SeenAs::Family), _) => (family, Protocol::Other),
            (Some(SeenAs::Protocol(protocol)), _) => (family, *protocol),
            (None, Carried::Ip(_, payload, _)) => (family, payload.label()),
            (None, Carried::Other(..) | Carried::Raw(_)) => (Family::Other, Protocol::Other),
        }
    }

    /// The bytes of the frame as the guarded host receives it: from [`P`] to [`G`].
    pub fn received(&self, family: Family) -> Vec<u8> {
        self.build(family, P, G)
    }

    /// The bytes of the frame as the guarded host sends it: from [`G`] to [`P`].
    pub fn sent(&self, family: Family) -> Vec<u8> {
        self.build(family, G, P)
    }

    fn build(&self, family: Family, source: End, destination: End) -> Vec<u8> {
        let family = self.only.unwrap_or(family);
        let source = self.source.unwrap_or(source);
        let destination = self.destination.unwrap_or(destination);
        if let Carried::Raw(bytes) = &self.carried {
            return bytes.clone();
        }
        let (ether_type, packet) = self.packet(family, &source, &destination);
        let (ether_type, packet) = match self.session {
            None => (ether_type, packet),
            Some(session) => (PPPOE, in_session(session, ether_type, &packet)),
        };

        let types: Vec<u16> = self
            .tags
            .iter()
            .map(|(tag_type, _)| *tag_type)
            .chain([ether_type])
            .collect();
        let mut frame = Ethernet2Header {
            source: source.mac,
            destination: destination.mac,
            ether_type: EtherType(types[0]),
        }
        .to_bytes()
        .to_vec();
        for ((_, id), next) in self.tags.iter().zip(&types[1..]) {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*id).expect("a VLAN id has 12 bits"),
                ether_type: EtherType(*next),
                ..SingleVlanHeader::default()
            };
            frame.extend(tag.to_bytes());
        }
        frame.extend(packet);
        frame
    }

    /// The Ethernet type and what follows the link headers.
    fn packet(&self, family: Family, source: &End, destination: &End) -> (u16, Vec<u8>) {
        let (network, payload, data) = match &self.carried {
            Carried::Ip(network, payload, data) => (network, payload, data),
            Carried::Other(ether_type, bytes) => return (*ether_type, bytes.clone()),
            Carried::Raw(bytes) => return (0, bytes.clone()),
        };
        let transport = payload.bytes(data, family, source, destination);
        let number = payload.number(family);
        let packet = network.wrap(family, (source, destination), number, transport);
        let (start, mut bytes) = (packet.transport, packet.bytes);
        for edit in &self.edits {
            match edit {
                Edit::Network(at, new) => bytes[*at..at + new.len()].copy_from_slice(new),
                Edit::Transport(at, new) => {
                    bytes[start + at..start + at + new.len()].copy_from_slice(new);
                }
                Edit::CutTransport(length) => bytes.truncate(start + length),
                Edit::Pad(length) => bytes.resize(bytes.len() + length, 0),
            }
        }

        match family {
            Family::Ipv6 => (EtherType::IPV6.0, bytes),
            Family::Ipv4 | Family::Other => (EtherType::IPV4.0, bytes),
        }
    }

    /// The packet as an error to `source` quotes it.
    pub(super) fn quoted(&self, family: Family, source: &End, transport_bytes: usize) -> Vec<u8> {
        let mut quoted = self.clone();
        quoted.edits.push(Edit::CutTransport(transport_bytes));
        let source = self.source.unwrap_or(*source);
        let destination = self.destination.unwrap_or(P);
        quoted.packet(family, &source, &destination).1
    }
}

/// A packet in a PPPoE session.
fn in_session(session: Session, ether_type: u16, packet: &[u8]) -> Vec<u8> {
    let number = if ether_type == EtherType::IPV6.0 {
        0x57
    } else {
        0x21
    };
    let number: &[u8] = match session {
        Session::TwoBytes => &[0, number],
        Session::OneByte => &[number],
    };
    let length = (number.len() + packet.len()) as u16;
    let [high, low] = length.to_be_bytes();
    [&[0x11, 0, 0, 1, high, low], number, packet].concat()
}
