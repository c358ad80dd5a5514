//! From bytes to a tuple whose ends are named by whose they are.

use crate::{
    frame::{
        address::{Address, V4, V6},
        bytes::{Header, Packet, Unreadable},
        headers::{
            Extension, FragmentExtension, Ipv4Header, Ipv6Header, Ports, TcpFlags, extension,
            protocol,
        },
        transport::Transport,
    },
    outcome::{Direction, Protocol},
};

/// IPv6 extension headers that are walked.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragment {
    /// All of it. An IPv6 atomic fragment is a whole datagram (RFC 8200, section 4.5).
    Whole,
    /// The first of several.
    First,
    /// One without a transport header.
    Later,
}

/// A network header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ip<A> {
    /// Where the packet comes from.
    pub source: A,
    /// Where it goes.
    pub destination: A,
    /// The transport protocol's IANA number. In a later fragment, what the fragment claims.
    pub protocol: u8,
    /// Where the transport header starts in the frame, if there is one.
    pub transport: usize,
    /// Which part of a datagram this is.
    pub fragment: Fragment,
    /// What the fragments of a datagram share, in network byte order. Means nothing in a whole one.
    pub id: u32,
    /// Where a first fragment ends by its own word, which the kernel takes: it goes on with the
    /// next fragment there, and so must not be read further. `usize::MAX` for any other packet,
    /// whose lengths decide nothing.
    pub end: usize,
    /// What rules and routes may choose by beside ends and protocol, as
    /// [`RouteKey::class`](crate::policy::datapath::RouteKey::class) has it.
    pub class: u32,
}

/// A family of addresses whose packets can be read.
pub trait Network: Address {
    /// The network header without options.
    type Header: Header;

    /// The protocol number of this family's ICMP.
    const ICMP: u8;
    /// The type of the ICMP message that this host gets no errors about, if there is one: Linux
    /// lets routers fragment it (`icmp_init`, net/ipv4/icmp.c), so no link is too narrow for it.
    const ICMP_UNREPORTED: Option<u8>;

    /// What follows a network header that has neither options nor extensions, of a packet that is
    /// no fragment; `None` for any other header.
    fn fast_protocol(header: Self::Header) -> Option<u8>;

    /// What follows the header.
    fn protocol(header: Self::Header) -> u8;

    /// Source and destination.
    fn ends(header: Self::Header) -> (Self, Self);

    /// Whether a network header of this family may begin with this byte.
    fn begins_with(byte: u8) -> bool;

    /// Reads the network header at `offset`, down to where the transport header starts.
    fn read_ip(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Ip<Self>, Unreadable>;

    /// Whether an ICMP message of this type quotes the packet it is about.
    fn icmp_quotes(icmp_type: u8) -> bool;
}

/// Both ends of a conversation. Ports are in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuple<A> {
    /// The protocol that owns the ports.
    pub transport: Transport,
    /// This host's address.
    pub local: A,
    /// The peer's address.
    pub remote: A,
    /// This host's port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl<A> Tuple<A> {
    /// Names both ends of a packet that goes in `direction`, given its source and destination.
    #[inline(always)]
    pub fn new(
        transport: Transport,
        (source, destination): (A, A),
        ports: Ports,
        direction: Direction,
    ) -> Self {
        match direction {
            Direction::Ingress => Self {
                transport,
                local: destination,
                remote: source,
                local_port: ports.destination,
                remote_port: ports.source,
            },
            Direction::Egress => Self {
                transport,
                local: source,
                remote: destination,
                local_port: ports.source,
                remote_port: ports.destination,
            },
        }
    }
}

impl<A: Network> Ip<A> {
    /// The metric label of the transport protocol.
    #[inline(always)]
    pub fn protocol_label(&self) -> Protocol {
        if self.protocol == A::ICMP {
            return Protocol::Icmp;
        }
        match Transport::from_number(self.protocol) {
            Some(transport) => transport.label(),
            None => Protocol::Other,
        }
    }

    /// Whether the packet goes on for so many bytes from the transport header on.
    #[inline(always)]
    pub const fn has(&self, bytes: usize) -> bool {
        self.transport + bytes <= self.end
    }

    /// Reads the ports and names both ends, for a packet that goes in `direction`.
    #[inline(always)]
    pub fn tuple(
        &self,
        frame: &(impl Packet + ?Sized),
        transport: Transport,
        direction: Direction,
    ) -> Result<Tuple<A>, Unreadable> {
        let ports = frame
            .read::<Ports>(self.transport)
            .ok_or(Unreadable::Truncated)?;

        Ok(Tuple::new(
            transport,
            (self.source, self.destination),
            ports,
            direction,
        ))
    }

    /// The TCP flags. None are set for other protocols, nor where the frame ends before them: a
    /// first fragment may be as short as 8 bytes of TCP.
    #[inline(always)]
    pub fn tcp_flags(&self, frame: &(impl Packet + ?Sized), transport: Transport) -> TcpFlags {
        match transport {
            Transport::Tcp => frame
                .read::<u8>(self.transport + TcpFlags::OFFSET)
                .map(TcpFlags::new)
                .unwrap_or_default(),
            Transport::Udp | Transport::UdpLite => TcpFlags::default(),
        }
    }
}

/// The bits of an IPv4 fragment offset, in network byte order.
const OFFSET: u16 = 0x1fff_u16.to_be();
/// The same, and the flag that more fragments follow.
const OFFSET_OR_MORE: u16 = 0x3fff_u16.to_be();

impl Network for V4 {
    type Header = Ipv4Header;

    const ICMP: u8 = protocol::ICMP;
    /// The echo reply.
    const ICMP_UNREPORTED: Option<u8> = Some(0);

    /// Version 4, and a header of five words.
    #[inline(always)]
    fn fast_protocol(header: Ipv4Header) -> Option<u8> {
        (header.version_and_length == 0x45
            && u32::from(header.fragment) & u32::from(OFFSET_OR_MORE) == 0)
            .then_some(header.protocol)
    }

    #[inline(always)]
    fn protocol(header: Ipv4Header) -> u8 {
        header.protocol
    }

    #[inline(always)]
    fn ends(header: Ipv4Header) -> (Self, Self) {
        (header.source, header.destination)
    }

    #[inline(always)]
    fn begins_with(byte: u8) -> bool {
        byte >> 4 == 4 && usize::from(byte & 0xf) * 4 >= size_of::<Ipv4Header>()
    }

    /// Reads an IPv4 header with its options (RFC 791, section 3.1).
    #[inline(always)]
    fn read_ip(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Ip<V4>, Unreadable> {
        let header = frame
            .read::<Ipv4Header>(offset)
            .ok_or(Unreadable::Truncated)?;
        if !V4::begins_with(header.version_and_length) {
            return Err(Unreadable::Truncated);
        }
        let length = usize::from(header.version_and_length & 0xf) * 4;

        let fragment = if header.fragment & OFFSET_OR_MORE == 0 {
            Fragment::Whole
        } else if header.fragment & OFFSET == 0 {
            Fragment::First
        } else {
            Fragment::Later
        };
        let end = match fragment {
            Fragment::First => offset + usize::from(u16::from_be(header.total_length)),
            Fragment::Whole | Fragment::Later => usize::MAX,
        };

        Ok(Ip {
            source: header.source,
            destination: header.destination,
            protocol: header.protocol,
            transport: offset + length,
            fragment,
            id: u32::from(header.id),
            end,
            class: u32::from(header.service),
        })
    }

    /// Destination Unreachable, Source Quench, Redirect, Time Exceeded and Parameter Problem
    /// (RFC 792).
    #[inline(always)]
    fn icmp_quotes(icmp_type: u8) -> bool {
        matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
    }
}

impl Network for V6 {
    type Header = Ipv6Header;

    const ICMP: u8 = protocol::ICMPV6;
    /// Only the sender fragments, so an echo reply may be too long for a link.
    const ICMP_UNREPORTED: Option<u8> = None;

    #[inline(always)]
    fn fast_protocol(header: Ipv6Header) -> Option<u8> {
        header.has_its_version().then_some(header.next_header)
    }

    #[inline(always)]
    fn protocol(header: Ipv6Header) -> u8 {
        header.next_header
    }

    #[inline(always)]
    fn ends(header: Ipv6Header) -> (Self, Self) {
        (header.source, header.destination)
    }

    #[inline(always)]
    fn begins_with(byte: u8) -> bool {
        byte >> 4 == 6
    }

    /// Reads an IPv6 header and the extension headers behind it (RFC 8200, section 4).
    #[inline(always)]
    fn read_ip(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Ip<V6>, Unreadable> {
        let header = frame
            .read::<Ipv6Header>(offset)
            .ok_or(Unreadable::Truncated)?;
        if !header.has_its_version() {
            return Err(Unreadable::Truncated);
        }

        let mut ip = Ip {
            source: header.source,
            destination: header.destination,
            protocol: header.next_header,
            transport: offset + size_of::<Ipv6Header>(),
            fragment: Fragment::Whole,
            id: 0,
            end: usize::MAX,
            class: header.version_and_flow & 0x0fff_ffff_u32.to_be(),
        };
        if is_extension(ip.protocol) {
            let end = ip.transport + usize::from(u16::from_be(header.payload_length));
            walk_extensions(frame, &mut ip, end)?;
            ip.transport = frame.rejoin(ip.transport);
        }

        Ok(ip)
    }

    /// Types below 128 are errors (RFC 4443, section 2.1).
    #[inline(always)]
    fn icmp_quotes(icmp_type: u8) -> bool {
        icmp_type < 128
    }
}

/// Skips extension headers until something else follows, or until a later fragment's header,
/// behind which there is no header at all. The packet says that it ends at `end`.
#[inline(always)]
fn walk_extensions(
    frame: &(impl Packet + ?Sized),
    ip: &mut Ip<V6>,
    end: usize,
) -> Result<(), Unreadable> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        let head = frame
            .read::<Extension>(ip.transport)
            .ok_or(Unreadable::Truncated)?;
        let length = match ip.protocol {
            extension::FRAGMENT => {
                let head = frame
                    .read::<FragmentExtension>(ip.transport)
                    .ok_or(Unreadable::Truncated)?;
                let offset_and_more = u16::from_be(head.offset);
                ip.id = head.id;
                if offset_and_more & 0xfff8 != 0 {
                    ip.fragment = Fragment::Later;
                    ip.protocol = head.next_header;
                    ip.transport += size_of::<FragmentExtension>();
                    return Ok(());
                }
                if offset_and_more & 1 != 0 {
                    ip.fragment = Fragment::First;
                    ip.end = end;
                }
                size_of::<FragmentExtension>()
            }
            extension::AUTHENTICATION => (usize::from(head.length) + 2) * 4,
            _ => (usize::from(head.length) + 1) * 8,
        };
        ip.protocol = head.next_header;
        ip.transport += length;
        if !is_extension(ip.protocol) {
            return Ok(());
        }
    }

    Err(Unreadable::TooManyHeaders)
}

#[inline(always)]
fn is_extension(number: u8) -> bool {
    matches!(
        number,
        extension::HOP_BY_HOP
            | extension::ROUTING
            | extension::FRAGMENT
            | extension::AUTHENTICATION
            | extension::DESTINATION
    )
}
