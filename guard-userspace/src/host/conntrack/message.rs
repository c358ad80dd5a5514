//! Messages of ctnetlink, the kernel's netlink interface to its connection tracking. Constants
//! are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use anyhow::{Context, bail, ensure};
use guard_common::frame::transport::Transport;
use netlink_packet_core::{
    NlaBuffer, NlasIterator, parse_ip, parse_u8, parse_u16_be, parse_u32_be,
};

use super::{ConntrackState, ConntrackTcp, Tracked};
use crate::host::netlink::message;

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a message's type.
const CTNETLINK: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: one connection.
const CT_NEW: u16 = CTNETLINK;
/// `IPCTNL_MSG_CT_GET`: asks for connections.
const CT_GET: u16 = CTNETLINK | 1;

/// `struct nfgenmsg`: a family, a version and a resource, in front of the attributes.
const HEADER: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_PROTOINFO: u16 = 4;

const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;

const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;

const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

const CTA_PROTOINFO_TCP: u16 = 1;

const CTA_PROTOINFO_TCP_STATE: u16 = 1;
const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;

/// `IPS_SEEN_REPLY`, include/uapi/linux/netfilter/nf_conntrack_common.h.
const SEEN_REPLY: u32 = 2;

/// `IP_CT_TCP_FLAG_CLOSE_INIT`: this side has sent the first FIN.
const CLOSE_INIT: u8 = 4;

/// Asks for every connection of both families.
pub(super) fn request() -> Vec<u8> {
    message::request(CT_GET, &[0; HEADER])
}

/// The connection in a message of this type and payload, or `None` where there is none of TCP,
/// UDP or UDP-Lite.
///
/// # Errors
/// When the payload ends within an attribute, or lacks an address or a port.
pub fn read(kind: u16, payload: &[u8]) -> io::Result<Option<Tracked>> {
    if kind != CT_NEW {
        return Ok(None);
    }

    connection(payload)
        .context("conntrack: an entry cannot be read")
        .map_err(io::Error::other)
}

/// The protocol of an entry that nothing translates, told by the bytes of its two directions alone. `None`
/// where it is translated, or where these are not as the kernel writes them for protocols with ports.
pub fn untranslated(kind: u16, payload: &[u8]) -> Option<u8> {
    if kind != CT_NEW {
        return None;
    }
    let mut attributes = NlasIterator::new(payload.get(HEADER..)?);
    let mut next = || -> Option<NlaBuffer<&[u8]>> { attributes.next()?.ok() };
    let (original, reply) = (next()?, next()?);
    if (original.kind(), reply.kind()) != (CTA_TUPLE_ORIG, CTA_TUPLE_REPLY) {
        return None;
    }

    mirrored(original.value(), reply.value())
}

/// The protocol of two directions, one of which is the other reversed.
fn mirrored(one: &[u8], other: &[u8]) -> Option<u8> {
    // Both addresses and what they are nested in, and then the same of the protocol and its ports, each
    // behind a header of four bytes and padded to as many.
    const REST: usize = 40;

    let address = match one.len() {
        length if length == REST + 2 * 4 => 4,
        length if length == REST + 2 * 16 => 16,
        _ => return None,
    };
    let source = 8..8 + address;
    let destination = 12 + address..12 + 2 * address;
    let protocol = 20 + 2 * address;
    let source_port = protocol + 8..protocol + 10;
    let destination_port = protocol + 16..protocol + 18;
    let same = one.len() == other.len()
        && one[protocol] == other[protocol]
        && one[source.clone()] == other[destination.clone()]
        && one[destination] == other[source]
        && one[source_port.clone()] == other[destination_port.clone()]
        && one[destination_port] == other[source_port];

    same.then_some(one[protocol])
}

fn connection(payload: &[u8]) -> anyhow::Result<Option<Tracked>> {
    let mut original = ConntrackTuple::default();
    let mut reply = ConntrackTuple::default();
    let mut status = 0;
    let mut tcp = ConntrackTcp::default();
    let attributes = payload.get(HEADER..).context("it ends in its header")?;
    each(attributes, |kind, value| match kind {
        CTA_TUPLE_ORIG => original.read(value),
        CTA_TUPLE_REPLY => reply.read(value),
        CTA_STATUS => {
            status = parse_u32_be(value)?;
            Ok(())
        }
        CTA_PROTOINFO => each(value, |kind, value| match kind {
            CTA_PROTOINFO_TCP => read_tcp(value, &mut tcp),
            _ => Ok(()),
        }),
        _ => Ok(()),
    })?;

    let protocol = reply.protocol.context("it has no protocol")?;
    let Some(transport) = Transport::from_number(protocol) else {
        return Ok(None);
    };
    let (local, remote) = (reply.destination.end()?, reply.source.end()?);
    ensure!(
        local.is_ipv4() == remote.is_ipv4(),
        "{local} and {remote} are of two families"
    );

    Ok(Some(Tracked {
        transport,
        opener: original.source.end()?,
        asked: original.destination.end()?,
        local,
        remote,
        answered: status & SEEN_REPLY != 0,
        tcp,
    }))
}

/// Addresses and ports of one direction, as far as they were read.
#[derive(Default)]
struct ConntrackTuple {
    protocol: Option<u8>,
    source: TupleEnd,
    destination: TupleEnd,
}

#[derive(Default)]
struct TupleEnd {
    address: Option<IpAddr>,
    port: Option<u16>,
}

impl ConntrackTuple {
    fn read(&mut self, value: &[u8]) -> anyhow::Result<()> {
        each(value, |kind, value| match kind {
            CTA_TUPLE_IP => each(value, |kind, value| {
                match kind {
                    CTA_IP_V4_SRC => self.source.address = Some(address(value, 4)?),
                    CTA_IP_V4_DST => self.destination.address = Some(address(value, 4)?),
                    CTA_IP_V6_SRC => self.source.address = Some(address(value, 16)?),
                    CTA_IP_V6_DST => self.destination.address = Some(address(value, 16)?),
                    _ => {}
                }
                Ok(())
            }),
            CTA_TUPLE_PROTO => each(value, |kind, value| {
                match kind {
                    CTA_PROTO_NUM => self.protocol = Some(parse_u8(value)?),
                    CTA_PROTO_SRC_PORT => self.source.port = Some(parse_u16_be(value)?),
                    CTA_PROTO_DST_PORT => self.destination.port = Some(parse_u16_be(value)?),
                    _ => {}
                }
                Ok(())
            }),
            _ => Ok(()),
        })
    }
}

impl TupleEnd {
    fn end(&self) -> anyhow::Result<SocketAddr> {
        match (self.address, self.port) {
            (Some(address), Some(port)) => Ok(SocketAddr::new(address, port)),
            (None, _) => bail!("it lacks an address"),
            (Some(_), None) => bail!("it lacks a port"),
        }
    }
}

fn address(value: &[u8], length: usize) -> anyhow::Result<IpAddr> {
    ensure!(
        value.len() == length,
        "an address of {} bytes instead of {length}",
        value.len()
    );

    Ok(parse_ip(value)?)
}

fn read_tcp(value: &[u8], tcp: &mut ConntrackTcp) -> anyhow::Result<()> {
    each(value, |kind, value| {
        match kind {
            CTA_PROTOINFO_TCP_STATE => tcp.state = ConntrackState::from_number(parse_u8(value)?),
            CTA_PROTOINFO_TCP_FLAGS_ORIGINAL => tcp.closed_by_opener = has_closed(value)?,
            CTA_PROTOINFO_TCP_FLAGS_REPLY => tcp.closed_by_other = has_closed(value)?,
            _ => {}
        }
        Ok(())
    })
}

/// `struct nf_ct_tcp_flags`: flags, and a mask for those who set them.
fn has_closed(value: &[u8]) -> anyhow::Result<bool> {
    let [flags, _mask] = value else {
        bail!("TCP flags of {} bytes", value.len());
    };

    Ok(flags & CLOSE_INIT != 0)
}

/// Calls `read` with the type and the value of each attribute.
fn each(
    attributes: &[u8],
    mut read: impl FnMut(u16, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    NlasIterator::new(attributes).try_for_each(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        read(attribute.kind(), attribute.value())
    })
}
