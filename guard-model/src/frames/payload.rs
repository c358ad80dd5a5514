//! What an IP header is followed by.

use etherparse::{
    Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber, TcpHeader, UdpHeader,
    checksum::Sum16BitWords,
};
use guard_common::outcome::{Family, Protocol};

use super::{End, Frame};

/// The IANA number of UDP-Lite.
pub const UDP_LITE: u8 = 136;

/// A transport header and what it carries.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Tcp(Box<TcpHeader>),
    Udp { source: u16, destination: u16 },
    UdpLite { source: u16, destination: u16 },
    Error(Error, Box<Quote>),
    Icmp { types: [u8; 2], rest: [u8; 4] },
    Other(u8),
}

/// An ICMP error, as either family numbers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The packet was too big for a link.
    TooBig,
    /// No process has the port.
    PortUnreachable,
    /// The packet went too far.
    TimeExceeded,
    /// The header makes no sense.
    ParameterProblem,
}

/// The packet that an ICMP error is about, and how much of it is quoted.
#[derive(Clone, Debug)]
pub(super) struct Quote {
    pub frame: Frame,
    /// Bytes from the transport header on.
    pub transport_bytes: usize,
}

impl Error {
    const fn type_and_code(self, family: Family) -> [u8; 2] {
        match (self, family) {
            (Self::TooBig, Family::Ipv6) => [2, 0],
            (Self::PortUnreachable, Family::Ipv6) => [1, 4],
            (Self::TimeExceeded, Family::Ipv6) => [3, 0],
            (Self::ParameterProblem, Family::Ipv6) => [4, 0],
            (Self::TooBig, _) => [3, 4],
            (Self::PortUnreachable, _) => [3, 3],
            (Self::TimeExceeded, _) => [11, 0],
            (Self::ParameterProblem, _) => [12, 0],
        }
    }
}

impl Payload {
    /// The IANA number.
    pub fn number(&self, family: Family) -> u8 {
        match self {
            Self::Tcp(_) => IpNumber::TCP.0,
            Self::Udp { .. } => IpNumber::UDP.0,
            Self::UdpLite { .. } => UDP_LITE,
            Self::Error(..) | Self::Icmp { .. } => icmp(family),
            Self::Other(number) => *number,
        }
    }

    /// The metric label.
    pub fn label(&self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp { .. } => Protocol::Udp,
            Self::UdpLite { .. } => Protocol::UdpLite,
            Self::Error(..) | Self::Icmp { .. } => Protocol::Icmp,
            Self::Other(_) => Protocol::Other,
        }
    }

    /// The bytes, with the right checksum for a packet between these ends.
    pub fn bytes(&self, data: &[u8], family: Family, source: &End, destination: &End) -> Vec<u8> {
        let length = (8 + data.len()) as u16;
        let (mut bytes, checksum_at) = match self {
            Self::Tcp(header) => (header.to_bytes().to_vec(), Some(16)),
            Self::Udp {
                source,
                destination,
            } => {
                let header = UdpHeader {
                    source_port: *source,
                    destination_port: *destination,
                    length,
                    checksum: 0,
                };
                (header.to_bytes().to_vec(), Some(6))
            }
            // RFC 3828: the length is that of what the checksum covers, which is everything.
            Self::UdpLite {
                source,
                destination,
            } => {
                let words = [*source, *destination, length, 0];
                (
                    words.iter().flat_map(|word| word.to_be_bytes()).collect(),
                    Some(6),
                )
            }
            Self::Error(error, quote) => {
                let [kind, code] = error.type_and_code(family);
                let mtu = if *error == Error::TooBig { 1280u32 } else { 0 };
                let mut bytes = vec![kind, code, 0, 0];
                bytes.extend(mtu.to_be_bytes());
                bytes.extend(
                    quote
                        .frame
                        .quoted(family, destination, quote.transport_bytes),
                );
                (bytes, Some(2))
            }
            Self::Icmp { types, rest } => {
                let kind = types[usize::from(family == Family::Ipv6)];
                (icmp_header(family, kind, *rest), Some(2))
            }
            Self::Other(_) => (Vec::new(), None),
        };
        if !matches!(self, Self::Error(..)) {
            bytes.extend(data);
        }

        if let Some(at) = checksum_at {
            let pseudo =
                !(family == Family::Ipv4 && matches!(self, Self::Error(..) | Self::Icmp { .. }));
            let sum = if pseudo {
                pseudo_header(
                    family,
                    source,
                    destination,
                    self.number(family),
                    bytes.len(),
                )
            } else {
                Sum16BitWords::new()
            };
            let checksum = sum.add_slice(&bytes).ones_complement().to_be();
            // UDP says "no checksum" with zero.
            let checksum = if checksum == 0 { u16::MAX } else { checksum };
            bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

const fn icmp(family: Family) -> u8 {
    match family {
        Family::Ipv6 => IpNumber::IPV6_ICMP.0,
        Family::Ipv4 | Family::Other => IpNumber::ICMP.0,
    }
}

fn icmp_header(family: Family, icmp_type: u8, rest: [u8; 4]) -> Vec<u8> {
    let (type_u8, code_u8, bytes5to8) = (icmp_type, 0, rest);
    match family {
        Family::Ipv6 => Icmpv6Header::new(Icmpv6Type::Unknown {
            type_u8,
            code_u8,
            bytes5to8,
        })
        .to_bytes()
        .to_vec(),
        Family::Ipv4 | Family::Other => Icmpv4Header::new(Icmpv4Type::Unknown {
            type_u8,
            code_u8,
            bytes5to8,
        })
        .to_bytes()
        .to_vec(),
    }
}

fn pseudo_header(
    family: Family,
    source: &End,
    destination: &End,
    number: u8,
    length: usize,
) -> Sum16BitWords {
    let sum = match family {
        Family::Ipv6 => Sum16BitWords::new()
            .add_16bytes(source.ipv6.octets())
            .add_16bytes(destination.ipv6.octets()),
        Family::Ipv4 | Family::Other => Sum16BitWords::new()
            .add_4bytes(source.ipv4.octets())
            .add_4bytes(destination.ipv4.octets()),
    };
    sum.add_2bytes([0, number])
        .add_4bytes((length as u32).to_be_bytes())
}
