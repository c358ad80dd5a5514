//! Ethernet and VLAN tags.

use core::mem::offset_of;

use crate::frame::{
    bytes::{Packet, Unreadable},
    headers::{EthHdr, Ipv4Header, Ipv6Header, VlanTag, ether_type, ppp},
};

/// VLAN tags that are walked.
///
/// Linux strips a tag of VLAN id 0 as often as it finds one (`check_vlan_id` in
/// `__netif_receive_skb_core`, net/core/dev.c), so a frame with more tags than this may still be
/// delivered, and must not pass unread.
pub const MAX_VLAN_TAGS: usize = 4;

/// What an Ethernet frame carries, and at which offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// IPv4.
    Ipv4(usize),
    /// IPv6.
    Ipv6(usize),
    /// Anything else.
    NotIp,
}

/// An Ethernet address, as one word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(transparent)]
pub struct MacAddress(u64);

impl MacAddress {
    /// The address of these bytes, in the order in which they are sent.
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The bytes, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether it is multicast or broadcast (IEEE 802.3, section 3.2.3).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        self.0 & 1 != 0
    }

    #[inline(always)]
    fn read(frame: &(impl Packet + ?Sized), offset: usize) -> Option<Self> {
        // Two bytes more than it has, which are there in every Ethernet header.
        let word = u64::from_le(frame.read_anew(offset)?);

        Some(Self(word << 16 >> 16))
    }
}

/// The destination MAC address.
#[inline(always)]
pub fn destination(frame: &(impl Packet + ?Sized)) -> Option<MacAddress> {
    MacAddress::read(frame, 0)
}

/// The source MAC address.
#[inline(always)]
pub fn source(frame: &(impl Packet + ?Sized)) -> Option<MacAddress> {
    MacAddress::read(frame, size_of::<[u8; 6]>())
}

/// Whether the destination is the broadcast MAC address, as it is for the broadcast address of a subnet. Multicast does not count: clusters of gateways have a multicast MAC address, and a frame to it is for a single host.
#[inline(always)]
pub fn is_broadcast(frame: &(impl Packet + ?Sized)) -> bool {
    frame.read::<u32>(0) == Some(u32::MAX) && frame.read::<u16>(4) == Some(u16::MAX)
}

/// Finds what the frame carries behind its VLAN tags. The VLAN id plays no part in any decision.
#[inline(always)]
pub fn payload(frame: &(impl Packet + ?Sized)) -> Result<Payload, Unreadable> {
    let ethernet = frame.read::<EthHdr>(0).ok_or(Unreadable::Truncated)?;
    let mut carried = ethernet.ether_type;
    let mut offset = EthHdr::LEN;
    if is_tag(carried) {
        for _ in 0..MAX_VLAN_TAGS {
            let tag = frame.read::<VlanTag>(offset).ok_or(Unreadable::Truncated)?;
            carried = tag.ether_type;
            offset += size_of::<VlanTag>();
            if !is_tag(carried) {
                break;
            }
        }
        if is_tag(carried) {
            return Err(Unreadable::TooManyTags);
        }
        offset = frame.rejoin(offset);
    }

    Ok(match carried {
        ether_type::IPV4 => Payload::Ipv4(offset),
        ether_type::IPV6 => Payload::Ipv6(offset),
        ether_type::PPPOE_SESSION => return in_session(frame, offset),
        _ => Payload::NotIp,
    })
}

/// Bytes of a PPPoE header: version, type, code, session and length. Linux looks at the session alone
/// (`pppoe_rcv`, drivers/net/ppp/pppoe.c), and the length decides nothing here.
const PPPOE_HEADER: usize = 6;

/// Finds what a PPPoE session carries. The number of its protocol is two bytes, or one where it is
/// odd: Linux takes both (`ppp_decompress_proto`, drivers/net/ppp/ppp_generic.c).
#[inline(always)]
fn in_session(frame: &(impl Packet + ?Sized), offset: usize) -> Result<Payload, Unreadable> {
    let mut offset = offset + PPPOE_HEADER;
    let byte = |offset| frame.read::<u8>(offset).ok_or(Unreadable::Truncated);
    let mut protocol = byte(offset)?;
    offset += 1;
    if protocol == 0 {
        protocol = byte(offset)?;
        offset += 1;
    }
    let offset = frame.rejoin(offset);

    Ok(match protocol {
        ppp::IPV4 => Payload::Ipv4(offset),
        ppp::IPV6 => Payload::Ipv6(offset),
        _ => Payload::NotIp,
    })
}

/// Whether a frame is a packet without any Ethernet header, given that there is no network header at
/// `network`, where its Ethernet type promises one that `begins` so.
///
/// What this host sends to a group and is a member of comes back to it like this
/// (`dev_loopback_xmit`, net/core/dev.c), and meets XDP where that runs in the stack. Its own source
/// address is where an Ethernet type would be. Passing it opens nothing: the kernel discards a frame
/// from the wire whose network header is not of its Ethernet type.
#[inline(always)]
pub fn is_looped(
    frame: &(impl Packet + ?Sized),
    network: usize,
    begins: impl FnOnce(u8) -> bool,
) -> bool {
    if frame.read_anew::<u8>(network).is_none_or(begins) {
        return false;
    }
    let half = |offset| {
        let half: Option<u16> = frame.read_anew(offset);
        half.map_or(0, |half| usize::from(u16::from_be(half)))
    };
    let length = match frame.read_anew::<u8>(0).map(|byte| byte >> 4) {
        Some(4) => half(offset_of!(Ipv4Header, total_length)),
        Some(6) => size_of::<Ipv6Header>() + half(offset_of!(Ipv6Header, payload_length)),
        _ => return false,
    };

    // Nothing follows the packet that begins where the frame does.
    length >= size_of::<Ipv4Header>() && frame.read_anew::<u8>(length).is_none()
}

/// `carried` is in network byte order.
#[inline(always)]
fn is_tag(carried: u16) -> bool {
    carried == ether_type::VLAN || carried == ether_type::SERVICE_VLAN
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A datagram of 28 bytes from 8.0.0.2.
    const LOOPED: [u8; 28] = [
        0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0, 0, 8, 0, 0, 2, 239, 1, 2, 3, 0, 1, 0, 2, 0, 8, 0, 0,
    ];

    #[test]
    fn only_a_packet_that_fills_its_frame_is_looped() {
        let looped = |frame: &[u8], begins: fn(u8) -> bool| is_looped(frame, 14, begins);
        assert!(looped(&LOOPED, |_| false));
        assert!(!looped(&LOOPED, |_| true));
        let mut padded = [0; 29];
        padded[..28].copy_from_slice(&LOOPED);
        assert!(!looped(&padded, |_| false));
        let mut ethernet = LOOPED;
        ethernet[0] = 2;
        assert!(!looped(&ethernet, |_| false));
    }
}
