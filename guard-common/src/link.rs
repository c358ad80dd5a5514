//! Ethernet and VLAN tags.

use crate::{
    packet::Packet,
    parse::Unreadable,
    wire::{EthHdr, VlanTag, ether_type},
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
pub struct LinkAddress(u64);

impl LinkAddress {
    /// The address of these bytes, in the order in which they are sent.
    pub const fn new([a, b, c, d, e, f]: [u8; 6]) -> Self {
        Self(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    /// The bytes, in the order in which they are sent.
    pub const fn octets(self) -> [u8; 6] {
        let [a, b, c, d, e, f, _, _] = self.0.to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether it is a group's: multicast or broadcast (IEEE 802.3, section 3.2.3).
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

/// Whom a frame is for on the link.
#[inline(always)]
pub fn destination(frame: &(impl Packet + ?Sized)) -> Option<LinkAddress> {
    LinkAddress::read(frame, 0)
}

/// Who sends a frame on the link.
#[inline(always)]
pub fn source(frame: &(impl Packet + ?Sized)) -> Option<LinkAddress> {
    LinkAddress::read(frame, size_of::<[u8; 6]>())
}

/// Whether a frame is addressed to everybody on the link, as what is sent to a subnet's own
/// broadcast address is. Clusters of gateways have multicast link addresses, and what goes by one
/// of these goes to a single host.
#[inline(always)]
pub fn to_everybody(frame: &(impl Packet + ?Sized)) -> bool {
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
        _ => Payload::NotIp,
    })
}

/// `carried` is in network byte order.
#[inline(always)]
fn is_tag(carried: u16) -> bool {
    carried == ether_type::VLAN || carried == ether_type::SERVICE_VLAN
}
