//! The network header, its options and extension headers, and fragments.

use std::ops::Range;

use etherparse::{
    IpAuthHeader, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader,
};
use guard_common::outcome::Family;

use super::End;

/// An IPv6 extension header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extension {
    /// Hop-by-Hop Options, of 8 bytes and so many more units of 8.
    HopByHop(u8),
    /// Destination Options, likewise.
    Destination(u8),
    /// Routing of this type, without segments left.
    Routing(u8),
    /// An Authentication Header with so many words of check value.
    Authentication(u8),
    /// A Fragment header of a whole datagram.
    Atomic,
}

/// Which bytes of a datagram a fragment carries.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub id: u16,
    pub range: Range<usize>,
    /// Bytes that the datagram has beyond `range`.
    pub more: bool,
}

/// What stands between the link header and the transport header.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    /// IPv4 options.
    pub options: Vec<u8>,
    /// Extension headers in front of any Fragment header.
    pub outer: Vec<Extension>,
    /// Extension headers behind it: part of what is cut into pieces.
    pub inner: Vec<Extension>,
    pub piece: Option<Piece>,
}

/// A packet, and where its transport header starts if it has one.
pub(super) struct Packet {
    pub bytes: Vec<u8>,
    pub transport: usize,
}

impl Network {
    /// Puts the network header in front of a transport header with this IANA number.
    pub fn wrap(
        &self,
        family: Family,
        (source, destination): (&End, &End),
        number: u8,
        transport: Vec<u8>,
    ) -> Packet {
        let (inner, number) = chain(&self.inner, number);
        let mut whole = inner;
        let inner_length = whole.len();
        whole.extend(transport);
        let payload = match &self.piece {
            Some(piece) => whole[piece.range.start..piece.range.end.min(whole.len())].to_vec(),
            None => whole,
        };

        let mut bytes = match family {
            Family::Ipv6 => self.ipv6(source, destination, number, payload.len()),
            Family::Ipv4 | Family::Other => self.ipv4(source, destination, number, payload.len()),
        };
        let transport = bytes.len() + inner_length;
        bytes.extend(payload);
        Packet { bytes, transport }
    }

    fn ipv4(&self, source: &End, destination: &End, number: u8, payload: usize) -> Vec<u8> {
        let mut header = Ipv4Header {
            source: source.ipv4.octets(),
            destination: destination.ipv4.octets(),
            protocol: IpNumber(number),
            time_to_live: 64,
            ..Ipv4Header::default()
        };
        header.options =
            Ipv4Options::try_from(&self.options[..]).expect("options are whole words, at most ten");
        header
            .set_payload_len(payload)
            .expect("the packet is at most 64 KiB long");
        header.dont_fragment = self.piece.is_none();
        if let Some(piece) = &self.piece {
            header.identification = piece.id;
            header.fragment_offset = offset(piece);
            header.more_fragments = piece.more;
        }
        header.header_checksum = header.calc_header_checksum();
        header.to_bytes().to_vec()
    }

    fn ipv6(&self, source: &End, destination: &End, number: u8, payload: usize) -> Vec<u8> {
        let fragment = self.piece.as_ref().map(|piece| {
            Ipv6FragmentHeader::new(
                IpNumber(number),
                offset(piece),
                piece.more,
                u32::from(piece.id),
            )
        });
        let number = match fragment {
            Some(_) => IpNumber::IPV6_FRAGMENTATION_HEADER.0,
            None => number,
        };
        let (mut extensions, number) = chain(&self.outer, number);
        extensions.extend(fragment.iter().flat_map(|header| header.to_bytes()));

        let header = Ipv6Header {
            source: source.ipv6.octets(),
            destination: destination.ipv6.octets(),
            next_header: IpNumber(number),
            hop_limit: 255,
            // A jumbogram says 0 here; no such packet is made.
            payload_length: u16::try_from(extensions.len() + payload)
                .expect("the packet is at most 64 KiB long"),
            ..Ipv6Header::default()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend(extensions);
        bytes
    }
}

fn offset(piece: &Piece) -> IpFragOffset {
    let units = u16::try_from(piece.range.start / 8).expect("an offset is below 64 KiB");
    IpFragOffset::try_new(units).expect("an offset is below 64 KiB")
}

/// The bytes of the headers in front of what has this number, and the number of the first.
fn chain(extensions: &[Extension], number: u8) -> (Vec<u8>, u8) {
    let mut next = number;
    let mut bytes = Vec::new();
    for extension in extensions.iter().rev() {
        let mut header = extension.bytes(next);
        header.extend(bytes);
        bytes = header;
        next = extension.number();
    }
    (bytes, next)
}

impl Extension {
    const fn number(self) -> u8 {
        match self {
            Self::HopByHop(_) => IpNumber::IPV6_HEADER_HOP_BY_HOP.0,
            Self::Destination(_) => IpNumber::IPV6_DESTINATION_OPTIONS.0,
            Self::Routing(_) => IpNumber::IPV6_ROUTE_HEADER.0,
            Self::Authentication(_) => IpNumber::AUTHENTICATION_HEADER.0,
            Self::Atomic => IpNumber::IPV6_FRAGMENTATION_HEADER.0,
        }
    }

    fn bytes(self, next: u8) -> Vec<u8> {
        let next = IpNumber(next);
        match self {
            Self::HopByHop(units) | Self::Destination(units) => options(next, units),
            Self::Routing(kind) => Ipv6RawExtHeader::new_raw(next, &[kind, 0, 0, 0, 0, 0])
                .expect("six bytes make one unit")
                .to_bytes()
                .to_vec(),
            Self::Authentication(words) => {
                IpAuthHeader::new(next, 1, 1, &vec![0; usize::from(words) * 4])
                    .expect("a check value is whole words")
                    .to_bytes()
                    .to_vec()
            }
            Self::Atomic => Ipv6FragmentHeader::new(next, IpFragOffset::ZERO, false, 0x77)
                .to_bytes()
                .to_vec(),
        }
    }
}

/// Options of an experimental type that a host skips (RFC 4727): Linux refuses more than 7 bytes
/// of padding.
fn options(next: IpNumber, units: u8) -> Vec<u8> {
    const SKIPPED: u8 = 0x1e;

    let length = 6 + usize::from(units) * 8;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        match length - bytes.len() {
            1 => bytes.push(0),
            left => {
                let value = left.min(257) - 2;
                bytes.extend([SKIPPED, value as u8]);
                bytes.resize(bytes.len() + value, 0);
            }
        }
    }
    Ipv6RawExtHeader::new_raw(next, &bytes)
        .expect("the options fill whole units")
        .to_bytes()
        .to_vec()
}
