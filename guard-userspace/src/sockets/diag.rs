//! Sockets by sock_diag, the kernel's netlink interface to its socket tables.

use std::{io, net::SocketAddr};

use guard_common::parse::Transport;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, Parseable,
};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{
    Socket as NetlinkSocket, SocketAddr as NetlinkAddr, protocols::NETLINK_SOCK_DIAG,
};

use super::{Family, Socket, State, canonical};

/// The kernel fills at most 32 KiB at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Appends every socket of one protocol and family to `sockets`, or none when it fails.
pub(super) fn dump(
    transport: Transport,
    family: Family,
    sockets: &mut Vec<Socket>,
) -> io::Result<()> {
    let netlink = NetlinkSocket::new(NETLINK_SOCK_DIAG)?;
    netlink.connect(&NetlinkAddr::new(0, 0))?;
    netlink.send(&request(transport, family), 0)?;

    let kept = sockets.len();
    let mut bytes = vec![0; RECEIVE_BYTES];
    loop {
        let outcome = receive(&netlink, &mut bytes)
            .and_then(|length| read(&bytes[..length], transport, sockets));
        match outcome {
            Ok(Progress::More) => {}
            Ok(Progress::Done) => return Ok(()),
            Err(error) => {
                sockets.truncate(kept);
                return Err(error);
            }
        }
    }
}

/// Whether a dump goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// Reads one datagram of a dump.
pub(super) fn read(
    mut bytes: &[u8],
    transport: Transport,
    sockets: &mut Vec<Socket>,
) -> io::Result<Progress> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(io::Error::other)?;
        match message.message_type() {
            NLMSG_DONE => {
                return match error_number(message.payload()) {
                    0 => Ok(Progress::Done),
                    number => Err(io::Error::from_raw_os_error(number)),
                };
            }
            NLMSG_ERROR => {
                return Err(io::Error::from_raw_os_error(error_number(
                    message.payload(),
                )));
            }
            SOCK_DIAG_BY_FAMILY => {
                // The attributes behind the header differ by kernel and are of no use here.
                let header =
                    InetResponseHeader::parse(message.payload()).map_err(io::Error::other)?;
                sockets.extend(socket(&header, transport));
            }
            _ => {}
        }
        // Messages start at multiples of four bytes.
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }

    Ok(Progress::More)
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

/// The error number that starts a payload, which the kernel writes below zero.
fn error_number(payload: &[u8]) -> i32 {
    payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
}

fn receive(netlink: &NetlinkSocket, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        // With MSG_TRUNC the kernel returns the length of the whole datagram.
        match netlink.recv(&mut &mut *bytes, libc::MSG_TRUNC) {
            Ok(length) if length > bytes.len() => {
                return Err(io::Error::other(format!(
                    "answer of {length} bytes is too long"
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn request(transport: Transport, family: Family) -> Vec<u8> {
    let (family, socket_id) = match family {
        Family::V4 => (AF_INET, SocketId::new_v4()),
        Family::V6 => (AF_INET6, SocketId::new_v6()),
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: transport.number(),
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id,
        })
        .into(),
    );
    message.finalize();

    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
