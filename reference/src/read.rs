//! How a frame is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{decision::Reason, rules::Rules};

/// Why a frame cannot be read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// It is cut off, or contradicts itself.
    Cut,
    /// It has too many tags.
    Tags,
    /// It has too many extension headers.
    Headers,
}

impl Broken {
    /// What ingress decides about it.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Cut => Reason::Malformed,
            Self::Tags => Reason::VlanDepth,
            Self::Headers => Reason::HeaderDepth,
        }
    }
}

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its beginning.
    First,
    /// Anything else.
    Later,
}

/// An IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The number of the protocol behind the headers.
    pub number: u8,
    /// Which part this is.
    pub part: Part,
    /// The identification of the datagram.
    pub id: u32,
    /// What follows the headers, up to the end of the frame.
    pub body: &'a [u8],
    /// Bytes in front of that.
    pub headers: usize,
    /// Bytes that a first piece says it has. The kernel believes it, and puts the next piece there.
    pub ends: Option<usize>,
}

impl Packet<'_> {
    /// Whether so many bytes of the body are the packet's own.
    pub fn owns(&self, bytes: usize) -> bool {
        self.ends.is_none_or(|ends| self.headers + bytes <= ends)
    }
}

/// What stands behind the Ethernet header and the tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carried<'a> {
    /// An IPv4 packet and all that follows.
    Ipv4(&'a [u8]),
    /// An IPv6 packet and all that follows.
    Ipv6(&'a [u8]),
    /// Anything else.
    Other,
}

/// Takes off the Ethernet header and the tags.
pub fn link<'a>(frame: &'a [u8], rules: &Rules) -> Result<Carried<'a>, Broken> {
    let mut kind = word(frame, 12)?;
    let mut rest = frame.get(14..).ok_or(Broken::Cut)?;
    let mut tags = 0;
    while rules.tag_types.contains(&kind) {
        tags += 1;
        if tags > rules.most_tags {
            return Err(Broken::Tags);
        }
        kind = word(rest, 2)?;
        rest = rest.get(rules.tag_length..).unwrap_or(&[]);
    }

    Ok(match kind {
        0x0800 => Carried::Ipv4(rest),
        0x86dd => Carried::Ipv6(rest),
        kind if kind == rules.session_type => session(rest, rules)?,
        _ => Carried::Other,
    })
}

/// Takes off the header of a PPPoE session, and the number of what it carries.
fn session<'a>(bytes: &'a [u8], rules: &Rules) -> Result<Carried<'a>, Broken> {
    let carried = bytes.get(rules.session_header..).ok_or(Broken::Cut)?;
    let (number, rest) = match carried {
        [0, number, rest @ ..] => (*number, rest),
        [0] | [] => return Err(Broken::Cut),
        [number, rest @ ..] if rules.short_numbers => (*number, rest),
        [..] => return Ok(Carried::Other),
    };
    Ok(if number == rules.session_numbers.0 {
        Carried::Ipv4(rest)
    } else if number == rules.session_numbers.1 {
        Carried::Ipv6(rest)
    } else {
        Carried::Other
    })
}

/// Whether a frame, of whose Ethernet header `carried` seems to follow, has none: it is a packet that
/// this host has sent to a group and receives itself, and its source address stands where the Ethernet type would.
pub fn comes_back(frame: &[u8], carried: Carried<'_>) -> bool {
    let contradicts = match carried {
        Carried::Ipv4([first, ..]) => first >> 4 != 4 || first & 15 < 5,
        Carried::Ipv6([first, ..]) => first >> 4 != 6,
        Carried::Ipv4([]) | Carried::Ipv6([]) | Carried::Other => false,
    };
    let half = |at| usize::from(word(frame, at).unwrap_or(0));
    let length = match frame.first().map(|first| first >> 4) {
        Some(4) => half(2),
        Some(6) => 40 + half(4),
        _ => 0,
    };
    contradicts && length >= 20 && length >= frame.len()
}

/// Reads an IPv4 header.
pub fn ipv4<'a>(bytes: &'a [u8], rules: &Rules) -> Result<Packet<'a>, Broken> {
    let header: &[u8; 20] = bytes.first_chunk().ok_or(Broken::Cut)?;
    let units = usize::from(header[0] & 15);
    if rules.version_counts && header[0] >> 4 != 4 || units < rules.ipv4_least_units {
        return Err(Broken::Cut);
    }

    let fragment = u16::from_be_bytes([header[6], header[7]]);
    let address = |at: usize| {
        IpAddr::V4(Ipv4Addr::new(
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
        ))
    };
    let is_first = fragment & (rules.ipv4_offset_bits | rules.ipv4_more) == rules.ipv4_more;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Ok(Packet {
        source: address(12),
        destination: address(16),
        number: header[9],
        part: if fragment & rules.ipv4_offset_bits != 0 {
            Part::Later
        } else if fragment & rules.ipv4_more != 0 {
            Part::First
        } else {
            Part::Whole
        },
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        body: bytes.get(units * rules.ipv4_unit..).unwrap_or(&[]),
        headers: units * rules.ipv4_unit,
        ends: (is_first && rules.first_piece_ends).then_some(length),
    })
}

/// Reads an IPv6 header and those that extend it.
pub fn ipv6<'a>(bytes: &'a [u8], rules: &Rules) -> Result<Packet<'a>, Broken> {
    let header: &[u8; 40] = bytes.first_chunk().ok_or(Broken::Cut)?;
    if rules.version_counts && header[0] >> 4 != 6 {
        return Err(Broken::Cut);
    }

    let address = |at: usize| {
        let octets: [u8; 16] = std::array::from_fn(|index| header[at + index]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut packet = Packet {
        source: address(8),
        destination: address(24),
        number: header[6],
        part: Part::Whole,
        id: 0,
        body: &bytes[40..],
        headers: 40,
        ends: None,
    };
    let ends = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let mut walked = 0;
    while packet.number == rules.fragment_header
        || packet.number == rules.authentication
        || rules.extensions.contains(&packet.number)
    {
        walked += 1;
        if walked > rules.most_extensions {
            return Err(Broken::Headers);
        }
        if extension(&mut packet, ends, rules)? {
            break;
        }
    }
    Ok(packet)
}

/// Takes off one extension header. Returns whether nothing behind it is a header.
fn extension(packet: &mut Packet<'_>, ends: usize, rules: &Rules) -> Result<bool, Broken> {
    let [next, length] = *packet.body.first_chunk().ok_or(Broken::Cut)?;
    let bytes = if packet.number == rules.fragment_header {
        let header: &[u8; 8] = packet.body.first_chunk().ok_or(Broken::Cut)?;
        let fragment = u16::from_be_bytes([header[2], header[3]]);
        packet.id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        if fragment & rules.ipv6_offset_bits != 0 {
            packet.part = Part::Later;
            packet.number = next;
            packet.headers += 8;
            return Ok(true);
        }
        if fragment & rules.ipv6_more != 0 || !rules.atomic_is_whole {
            packet.part = Part::First;
            packet.ends = rules.first_piece_ends.then_some(ends);
        }
        8
    } else if packet.number == rules.authentication {
        (usize::from(length) + rules.authentication_extra) * 4
    } else {
        (usize::from(length) + rules.extension_extra) * 8
    };
    packet.number = next;
    packet.headers += bytes;
    packet.body = packet.body.get(bytes..).unwrap_or(&[]);
    Ok(false)
}

/// Both ends of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Conversation {
    /// The protocol's number.
    pub protocol: u8,
    /// This host's end.
    pub local: (IpAddr, u16),
    /// The peer's end.
    pub remote: (IpAddr, u16),
    /// TCP flags, as far as they are there.
    pub flags: Flags,
}

/// TCP flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// The sender has no more to send.
    pub fin: bool,
    /// The sender opens.
    pub syn: bool,
    /// The sender resets.
    pub rst: bool,
    /// The sender acknowledges.
    pub ack: bool,
}

impl Conversation {
    /// The conversation that a packet belongs to; `local_is_source` where this host has sent it.
    pub fn of(packet: &Packet<'_>, local_is_source: bool, rules: &Rules) -> Result<Self, Broken> {
        if packet.body.len() < rules.ports_length {
            return Err(Broken::Cut);
        }
        let source = (packet.source, word(packet.body, rules.source_port_at)?);
        let destination = (
            packet.destination,
            word(packet.body, rules.source_port_at + 2)?,
        );
        let (local, remote) = if local_is_source {
            (source, destination)
        } else {
            (destination, source)
        };
        let bits = match packet.body.get(rules.flags_at) {
            Some(bits) if packet.number == rules.tcp => *bits,
            _ => 0,
        };
        Ok(Self {
            protocol: packet.number,
            local,
            remote,
            flags: Flags {
                fin: bits & 1 != 0,
                syn: bits & 2 != 0,
                rst: bits & 4 != 0,
                ack: bits & 16 != 0,
            },
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u16, Broken> {
    match bytes.get(at..at + 2) {
        Some(word) => Ok(u16::from_be_bytes([word[0], word[1]])),
        None => Err(Broken::Cut),
    }
}
