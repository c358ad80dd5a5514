//! Sockets by sock_diag, the kernel's netlink interface to its socket tables.

use std::{io, net::SocketAddr};

use guard_common::parse::Transport;
use netlink_packet_core::{NlaBuffer, NlasIterator, Parseable};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket as NetlinkSocket, protocols::NETLINK_SOCK_DIAG};

use super::{Family, Socket, State, canonical};
use crate::dump;

/// Length of `struct inet_diag_msg`, include/uapi/linux/inet_diag.h, which attributes follow.
const HEADER: usize = 72;

/// `INET_DIAG_SKV6ONLY`, of the same file.
const SKV6ONLY: u16 = 11;

/// Appends every socket of one protocol and family that is in one of the states to `sockets`, or
/// none when it fails.
pub(super) fn dump(
    transport: Transport,
    family: Family,
    states: StateFlags,
    sockets: &mut Vec<Socket>,
) -> io::Result<()> {
    let kept = sockets.len();
    let dumped = dump::dump(
        &NetlinkSocket::new(NETLINK_SOCK_DIAG)?,
        &request(transport, family, states),
        |kind, payload| {
            sockets.extend(read(kind, payload, transport)?);
            Ok(())
        },
    );
    if dumped.is_err() {
        sockets.truncate(kept);
    }

    dumped
}

/// Reads one message of a dump.
pub(crate) fn read(kind: u16, payload: &[u8], transport: Transport) -> io::Result<Option<Socket>> {
    if kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let header = InetResponseHeader::parse(payload).map_err(io::Error::other)?;
    let attributes = payload.get(HEADER..).unwrap_or_default();

    Ok(socket(&header, attributes, transport))
}

fn socket(header: &InetResponseHeader, attributes: &[u8], transport: Transport) -> Option<Socket> {
    let id = &header.socket_id;

    Some(Socket {
        transport,
        local: canonical(SocketAddr::new(id.source_address, id.source_port)),
        remote: canonical(SocketAddr::new(id.destination_address, id.destination_port)),
        state: State::from_number(header.state)?,
        device: id.interface_id,
        ipv6_only: header.family == AF_INET6 && ipv6_only(attributes),
        inode: header.inode,
        uid: header.uid,
    })
}

/// What the kernel says of sockets that wait, and of no others. Other attributes differ by kernel and
/// are of no use here, so that one that cannot be read is left out like one that is not there.
fn ipv6_only(attributes: &[u8]) -> bool {
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == SKV6ONLY)
        .is_some_and(|attribute| attribute.value() == [1])
}

fn request(transport: Transport, family: Family, states: StateFlags) -> Vec<u8> {
    let (family, socket_id) = match family {
        Family::V4 => (AF_INET, SocketId::new_v4()),
        Family::V6 => (AF_INET6, SocketId::new_v6()),
    };

    dump::request(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: transport.number(),
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }))
}
