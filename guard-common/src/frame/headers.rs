//! Headers as they are on the wire, and the numbers in them.
//!
//! Fields are words in network byte order. The IP headers are not those of `network-types`, whose
//! fields are arrays of bytes: on BPF each byte of them would be a load of its own.

use crate::frame::{
    address::{V4, V6},
    bytes::headers,
};
pub use network_types::eth::EthHdr;
use network_types::{eth::EtherType, ip::IpProto};

/// Ethernet types, in network byte order.
pub mod ether_type {
    use super::EtherType;

    /// IPv4.
    pub const IPV4: u16 = EtherType::Ipv4 as u16;
    /// IPv6.
    pub const IPV6: u16 = EtherType::Ipv6 as u16;
    /// IEEE 802.1Q customer tag.
    pub const VLAN: u16 = EtherType::Ieee8021q as u16;
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = EtherType::Ieee8021ad as u16;
    /// A PPPoE session (RFC 2516, section 4).
    pub const PPPOE_SESSION: u16 = 0x8864_u16.to_be();
}

/// Numbers of the protocols that PPP carries, in the order of their bytes.
pub mod ppp {
    /// IPv4 (RFC 1332, section 2).
    pub const IPV4: u8 = 0x21;
    /// IPv6 (RFC 5072, section 3).
    pub const IPV6: u8 = 0x57;
}

/// IANA protocol numbers.
pub mod protocol {
    use super::IpProto;

    /// Internet Control Message.
    pub const ICMP: u8 = IpProto::Icmp as u8;
    /// Transmission Control.
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// User Datagram.
    pub const UDP: u8 = IpProto::Udp as u8;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
    /// Lightweight User Datagram Protocol.
    pub const UDP_LITE: u8 = IpProto::UdpLite as u8;
}

/// IANA IPv6 extension header types, those of `ipv6_ext_hdr` in net/ipv6/exthdrs_core.c that
/// another header follows.
pub mod extension {
    /// Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing, of any type.
    pub const ROUTING: u8 = 43;
    /// Fragment.
    pub const FRAGMENT: u8 = 44;
    /// Authentication Header.
    pub const AUTHENTICATION: u8 = 51;
    /// Destination Options.
    pub const DESTINATION: u8 = 60;
}

/// The IPv4 header without its options (RFC 791, section 3.1).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version in the upper half, length in words in the lower.
    pub version_and_length: u8,
    /// Type of service.
    pub service: u8,
    /// Length of the packet in bytes. Decides nothing but where a first fragment ends.
    pub total_length: u16,
    /// Identification.
    pub id: u16,
    /// Flags in the upper 3 bits, fragment offset in units of 8 bytes in the rest.
    pub fragment: u16,
    /// Time to live.
    pub hops: u8,
    /// What follows.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: u16,
    /// Source address.
    pub source: V4,
    /// Destination address.
    pub destination: V4,
}

/// The IPv6 header (RFC 8200, section 3).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version in the upper 4 bits, traffic class in the next 8, flow label in the rest.
    pub version_and_flow: u32,
    /// Length of what follows in bytes. Decides nothing but where a first fragment ends.
    pub payload_length: u16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hops: u8,
    /// Source address.
    pub source: V6,
    /// Destination address.
    pub destination: V6,
}

impl Ipv6Header {
    /// Whether the version is 6.
    #[inline(always)]
    pub const fn has_its_version(&self) -> bool {
        self.version_and_flow & 0xf000_0000_u32.to_be() == 0x6000_0000_u32.to_be()
    }
}

/// What follows the addresses in an Ethernet header, or the tag control in a VLAN tag.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct VlanTag {
    /// Priority and VLAN id.
    pub control: u16,
    /// The type of what follows.
    pub ether_type: u16,
}

/// The head that IPv6 extension headers share (RFC 8200, section 4).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Extension {
    /// The type of what follows.
    pub next_header: u8,
    /// Units of 8 bytes beyond the first 8; units of 4 beyond the first 8 in an
    /// Authentication Header (RFC 4302, section 2.2).
    pub length: u8,
}

/// The IPv6 Fragment header (RFC 8200, section 4.5).
#[derive(Clone, Copy)]
#[repr(C)]
pub struct FragmentExtension {
    /// The type of what follows.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in units of 8 bytes, in the upper 13 bits, and the M flag in the lowest.
    pub offset: u16,
    /// Identification.
    pub id: u32,
}

/// The first four bytes of TCP, UDP and UDP-Lite.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
}

headers! {
    EthHdr { dst_addr, src_addr, ether_type }
    Ipv4Header {
        version_and_length, service, total_length, id, fragment, hops, protocol, checksum, source,
        destination
    }
    Ipv6Header { version_and_flow, payload_length, next_header, hops, source, destination }
    VlanTag { control, ether_type }
    Extension { next_header, length }
    FragmentExtension { next_header, reserved, offset, id }
    Ports { source, destination }
}

const _: () = assert!(size_of::<EthHdr>() == 14);
const _: () = assert!(size_of::<Ipv4Header>() == 20);
const _: () = assert!(size_of::<Ipv6Header>() == 40);
const _: () = assert!(size_of::<FragmentExtension>() == 8);

/// The control bits of a TCP header (RFC 9293, section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpFlags(u8);

impl TcpFlags {
    /// Where the byte of flags stands in a TCP header.
    pub const OFFSET: usize = 13;

    /// The flags in byte 13 of a TCP header.
    #[inline(always)]
    pub const fn new(byte: u8) -> Self {
        Self(byte)
    }

    /// None of FIN, SYN and RST is set, which are the flags that change the state of a flow.
    #[inline(always)]
    pub const fn keeps_state(self) -> bool {
        self.0 & 0x07 == 0
    }

    /// FIN is set.
    #[inline(always)]
    pub const fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    /// SYN is set, ACK and RST are not: an attempt to open. In a segment with RST, the receiver looks at no other flag (RFC 9293, section 3.10.7).
    #[inline(always)]
    pub const fn is_syn(self) -> bool {
        self.0 & 0x16 == 0x02
    }

    /// SYN and ACK are both set: an answer to an attempt to open.
    #[inline(always)]
    pub const fn is_syn_ack(self) -> bool {
        self.0 & 0x12 == 0x12
    }

    /// RST is set.
    #[inline(always)]
    pub const fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }
}
