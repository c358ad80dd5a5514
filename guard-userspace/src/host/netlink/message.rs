//! Netlink messages of protocols that no crate knows: requests, and the values of attributes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, ensure};
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlaBuffer, NlasIterator};

/// Length of a netlink header.
const HEADER: usize = 16;

/// Length of the header of an attribute.
const ATTRIBUTE_HEADER: usize = 4;

/// A message that asks for a dump.
pub fn request(kind: u16, payload: &[u8]) -> Vec<u8> {
    message(kind, NLM_F_REQUEST | NLM_F_DUMP, payload)
}

/// A message that asks for one answer.
pub fn question(kind: u16, payload: &[u8]) -> Vec<u8> {
    message(kind, NLM_F_REQUEST, payload)
}

/// An attribute of a request.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (ATTRIBUTE_HEADER + value.len()) as u16;
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    // Attributes start at multiples of four bytes.
    bytes.resize(bytes.len().next_multiple_of(4), 0);

    bytes
}

fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(payload);
    let length = bytes.len() as u32;
    let mut buffer = NetlinkBuffer::new(&mut bytes);
    buffer.set_length(length);
    buffer.set_message_type(kind);
    buffer.set_flags(flags);

    bytes
}

/// Calls `read` with the type and the value of each attribute. Flags beside the type are left out.
pub fn each(
    attributes: &[u8],
    mut read: impl FnMut(u16, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    NlasIterator::new(attributes).try_for_each(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        read(attribute.kind(), attribute.value())
    })
}

/// What follows a header of so many bytes.
pub fn behind(payload: &[u8], header: usize) -> anyhow::Result<&[u8]> {
    payload.get(header..).context("it ends in its header")
}

fn array<const N: usize>(value: &[u8]) -> anyhow::Result<[u8; N]> {
    ensure!(
        value.len() >= N,
        "a value of {} bytes instead of {N}",
        value.len()
    );

    value.first_chunk().copied().context("a short value")
}

/// A byte.
pub fn u8(value: &[u8]) -> anyhow::Result<u8> {
    Ok(array::<1>(value)?[0])
}

/// A number of this processor's byte order.
pub fn u16(value: &[u8]) -> anyhow::Result<u16> {
    Ok(u16::from_ne_bytes(array(value)?))
}

/// A number of network byte order.
pub fn u16_be(value: &[u8]) -> anyhow::Result<u16> {
    Ok(u16::from_be_bytes(array(value)?))
}

/// A number of this processor's byte order.
pub fn u32(value: &[u8]) -> anyhow::Result<u32> {
    Ok(u32::from_ne_bytes(array(value)?))
}

/// A number of this processor's byte order.
pub fn u64(value: &[u8]) -> anyhow::Result<u64> {
    Ok(u64::from_ne_bytes(array(value)?))
}

/// An address of IPv4.
pub fn ipv4(value: &[u8]) -> anyhow::Result<IpAddr> {
    Ok(Ipv4Addr::from(array::<4>(value)?).into())
}

/// An address of IPv6.
pub fn ipv6(value: &[u8]) -> anyhow::Result<IpAddr> {
    Ok(Ipv6Addr::from(array::<16>(value)?).into())
}
