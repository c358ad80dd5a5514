//! Sockets by sock_diag, the kernel's netlink interface to its socket tables.

use std::{io, net::SocketAddr};

use guard_common::parse::Transport;
use netlink_packet_core::Parseable;
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket as NetlinkSocket, protocols::NETLINK_SOCK_DIAG};

use super::{Family, Socket, State, canonical};
use crate::dump;

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
    // The attributes behind the header differ by kernel and are of no use here.
    let header = InetResponseHeader::parse(payload).map_err(io::Error::other)?;

    Ok(socket(&header, transport))
}

fn socket(header: &InetResponseHeader, transport: Transport) -> Option<Socket> {
    let id = &header.socket_id;

    Some(Socket {
        transport,
        local: canonical(SocketAddr::new(id.source_address, id.source_port)),
        remote: canonical(SocketAddr::new(id.destination_address, id.destination_port)),
        state: State::from_number(header.state)?,
        device: id.interface_id,
        inode: header.inode,
        uid: header.uid,
    })
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
