//! What IPv4 and IPv6 do differently: headers, address sizes and the numbers of ICMP.

use crate::{
    abi::device::{Device, is_among},
    flow::key::{FlowKey, FlowKeyV4, FlowKeyV6},
    frame::{
        bytes::{Header, Packet, Unreadable},
        headers::{Ipv4Header, Ipv6Header, ether_type, protocol},
        ip::{self, Ip},
    },
    outcome::Family,
};

/// An address of one family, and how packets of that family are read.
pub trait Address: Copy + Eq {
    /// The key of a flow between two such addresses.
    type FlowKey: FlowKey<Address = Self>;

    /// The network header without options.
    type Header: Header;

    /// The metric label.
    const FAMILY: Family;
    /// The Ethernet type, in network byte order.
    const ETHER_TYPE: u16;
    /// The protocol number of this family's ICMP.
    const ICMP: u8;
    /// The type of the ICMP message that this host gets no errors about, if there is one: Linux
    /// lets routers fragment it (`icmp_init`, net/ipv4/icmp.c), so no link is too narrow for it.
    const ICMP_UNREPORTED: Option<u8>;
    /// The absent address: all zero bits.
    const UNSPECIFIED: Self;

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

    /// Whether this is a multicast address, or the limited broadcast address.
    fn is_group(self) -> bool;

    /// Whether what goes to this address ends here, whatever the routes say: to a group, or over
    /// IPv4 to nobody, which is a broadcast where nobody sends it (`ip_route_input_slow`,
    /// net/ipv4/route.c).
    fn is_always_local(self) -> bool;

    /// Whether this is an address of the interface itself.
    fn is_own(self, device: &Device) -> bool;

    /// The address in the room of the larger family: IPv4 fills half of the first word.
    fn widened(self) -> V6;

    /// The sum of products of the address and both ports with numbers that are odd and secret. The
    /// highest bits are those that count.
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64;
}

/// An IPv4 address, in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(transparent)]
pub struct V4(pub u32);

/// An IPv6 address as two words in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct V6 {
    /// The first eight bytes.
    pub high: u64,
    /// The last eight bytes.
    pub low: u64,
}

impl Address for V4 {
    type FlowKey = FlowKeyV4;
    type Header = Ipv4Header;

    const FAMILY: Family = Family::Ipv4;
    const ETHER_TYPE: u16 = ether_type::IPV4;
    const ICMP: u8 = protocol::ICMP;
    /// The echo reply.
    const ICMP_UNREPORTED: Option<u8> = Some(0);
    const UNSPECIFIED: Self = Self(0);

    /// Version 4, and a header of five words.
    #[inline(always)]
    fn fast_protocol(header: Ipv4Header) -> Option<u8> {
        (header.version_and_length == 0x45
            && u32::from(header.fragment) & u32::from(ip::OFFSET_OR_MORE) == 0)
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

    #[inline(always)]
    fn read_ip(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Ip<Self>, Unreadable> {
        ip::ipv4(frame, offset)
    }

    /// Destination Unreachable, Source Quench, Redirect, Time Exceeded and Parameter Problem
    /// (RFC 792).
    #[inline(always)]
    fn icmp_quotes(icmp_type: u8) -> bool {
        matches!(icmp_type, 3 | 4 | 5 | 11 | 12)
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        let address = u32::from_be(self.0);
        address >> 28 == 0xe || address == u32::MAX
    }

    #[inline(always)]
    fn is_always_local(self) -> bool {
        let address = u32::from_be(self.0);
        // The last address and the first.
        address >> 28 == 0xe || address.wrapping_add(1) <= 1
    }

    #[inline(always)]
    fn is_own(self, device: &Device) -> bool {
        is_among(self, &device.ipv4)
    }

    #[inline(always)]
    fn widened(self) -> V6 {
        V6 {
            high: u64::from(self.0),
            low: 0,
        }
    }

    /// All of it fits into one word.
    #[inline(always)]
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64 {
        (u64::from(self.0) << 32 | u64::from(ports)).wrapping_mul(seeds[0])
    }
}

impl Address for V6 {
    type FlowKey = FlowKeyV6;
    type Header = Ipv6Header;

    const FAMILY: Family = Family::Ipv6;
    const ETHER_TYPE: u16 = ether_type::IPV6;
    const ICMP: u8 = protocol::ICMPV6;
    /// Only the sender fragments, so an echo reply may be too long for a link.
    const ICMP_UNREPORTED: Option<u8> = None;
    const UNSPECIFIED: Self = Self { high: 0, low: 0 };

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

    #[inline(always)]
    fn read_ip(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Ip<Self>, Unreadable> {
        ip::ipv6(frame, offset)
    }

    /// Types below 128 are errors (RFC 4443, section 2.1).
    #[inline(always)]
    fn icmp_quotes(icmp_type: u8) -> bool {
        icmp_type < 128
    }

    #[inline(always)]
    fn is_group(self) -> bool {
        u64::from_be(self.high) >> 56 == 0xff
    }

    #[inline(always)]
    fn is_always_local(self) -> bool {
        self.is_group()
    }

    #[inline(always)]
    fn is_own(self, device: &Device) -> bool {
        is_among(self, &device.ipv6)
    }

    #[inline(always)]
    fn widened(self) -> V6 {
        self
    }

    #[inline(always)]
    fn hash(self, ports: u32, seeds: &[u64; 3]) -> u64 {
        let ports = u64::from(ports).wrapping_mul(seeds[0]);
        let high = self.high.wrapping_mul(seeds[1]);

        self.low
            .wrapping_mul(seeds[2])
            .wrapping_add(high)
            .wrapping_add(ports)
    }
}

impl From<[u8; 4]> for V4 {
    #[inline(always)]
    fn from(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }
}

impl From<[u8; 16]> for V6 {
    #[inline(always)]
    fn from(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }
}

impl From<V4> for [u8; 4] {
    fn from(address: V4) -> Self {
        address.0.to_ne_bytes()
    }
}

impl From<V6> for [u8; 16] {
    fn from(address: V6) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.high.to_ne_bytes());
        bytes[8..].copy_from_slice(&address.low.to_ne_bytes());
        bytes
    }
}
