//! Sockets by sock_diag, the kernel's netlink interface to its socket tables.

use std::{io, net::SocketAddr, ops::ControlFlow};

use guard_common::frame::transport::Transport;
use netlink_packet_core::{NlaBuffer, NlasIterator, Parseable};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

use super::{HostSocket, PortFilter, SocketFamily, SocketState, canonical};
use crate::host::{features::Feature, netlink};

/// Length of `struct inet_diag_msg`, include/uapi/linux/inet_diag.h, which attributes follow.
const HEADER: usize = 72;

/// `INET_DIAG_SKV6ONLY`, of the same file.
const SKV6ONLY: u16 = 11;

/// `INET_DIAG_REQ_BYTECODE`, of the same file: a program that the kernel runs for each socket.
const REQUEST_BYTECODE: u16 = 1;

/// Appends every socket of one protocol and family that is in one of the states and has one of the
/// ports to `sockets`, or none when it fails.
pub(super) fn dump(
    transport: Transport,
    family: SocketFamily,
    (states, ends): (StateFlags, PortFilter<'_>),
    sockets: &mut Vec<HostSocket>,
) -> io::Result<()> {
    let kept = sockets.len();
    let dumped = netlink::dump(
        &open()?,
        &request(transport, family, states, ends),
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

/// Calls `visit` with the same sockets, some hundreds at a time, until it breaks off. Some may have
/// been visited when it fails.
pub(super) fn visit(
    transport: Transport,
    family: SocketFamily,
    (states, ends): (StateFlags, PortFilter<'_>),
    visit: &mut impl FnMut(&[HostSocket]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    const AT_ONCE: usize = 512;
    let mut sockets = Vec::with_capacity(AT_ONCE);
    let mut flow = ControlFlow::Continue(());
    let dumped = netlink::dump(
        &open()?,
        &request(transport, family, states, ends),
        |kind, payload| {
            sockets.extend(read(kind, payload, transport)?);
            if sockets.len() == AT_ONCE {
                flow = visit(&sockets);
                sockets.clear();
            }
            // The rest of what the kernel has to say is not read.
            match flow {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(io::ErrorKind::Interrupted.into()),
            }
        },
    );
    if flow.is_break() {
        return Ok(flow);
    }
    dumped?;

    Ok(visit(&sockets))
}

fn open() -> io::Result<Socket> {
    if !Feature::SockDiag.may_be_used() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }

    netlink::open(NETLINK_SOCK_DIAG)
}

/// Reads one message of a dump.
pub(crate) fn read(
    kind: u16,
    payload: &[u8],
    transport: Transport,
) -> io::Result<Option<HostSocket>> {
    if kind != SOCK_DIAG_BY_FAMILY {
        return Ok(None);
    }
    let header = InetResponseHeader::parse(payload).map_err(io::Error::other)?;
    let attributes = payload.get(HEADER..).unwrap_or_default();

    Ok(socket(&header, attributes, transport))
}

fn socket(
    header: &InetResponseHeader,
    attributes: &[u8],
    transport: Transport,
) -> Option<HostSocket> {
    let id = &header.socket_id;

    Some(HostSocket {
        transport,
        local: canonical(SocketAddr::new(id.source_address, id.source_port)),
        remote: canonical(SocketAddr::new(id.destination_address, id.destination_port)),
        state: SocketState::from_number(header.state)?,
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

fn request(
    transport: Transport,
    family: SocketFamily,
    states: StateFlags,
    ends: PortFilter<'_>,
) -> Vec<u8> {
    let (family, socket_id) = match family {
        SocketFamily::V4 => (AF_INET, SocketId::new_v4()),
        SocketFamily::V6 => (AF_INET6, SocketId::new_v6()),
    };

    let mut request = netlink::request(SockDiagMessage::InetRequest(InetRequest {
        family,
        protocol: transport.number(),
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }));
    let filter = filter(ends);
    if !filter.is_empty() {
        let length = (size_of::<u32>() + filter.len()) as u16;
        request.extend(length.to_ne_bytes());
        request.extend(REQUEST_BYTECODE.to_ne_bytes());
        request.extend(filter);
        // The length of the whole message comes first in it.
        let length = (request.len() as u32).to_ne_bytes();
        request[..length.len()].copy_from_slice(&length);
    }

    request
}

/// The program that lets pass what has one of the ports, or none where all are wanted.
///
/// What is bound to no device is refused first, where only those are wanted that are bound: a jump
/// behind the end means no.
///
/// Each range takes two comparisons. Where one of them fails the program goes on at the next range,
/// which for the last is behind the end, and that means no; the end itself means yes.
fn filter(ends: PortFilter<'_>) -> Vec<u8> {
    /// `INET_DIAG_BC_JMP`: go on elsewhere.
    const JUMP: u8 = 1;
    /// `INET_DIAG_BC_S_GE` and `INET_DIAG_BC_S_LE`: compare the local port.
    const LOCAL: (u8, u8) = (2, 3);
    /// `INET_DIAG_BC_D_GE` and `INET_DIAG_BC_D_LE`: compare the remote port.
    const REMOTE: (u8, u8) = (4, 5);
    /// Length of an instruction, `struct inet_diag_bc_op`. A comparison is two, of which the second
    /// holds the port.
    const STEP: usize = 4;
    /// Length of what compares with one range.
    const RANGE: usize = 4 * STEP;

    /// `INET_DIAG_BC_DEV_COND`: compare the device.
    const DEVICE: u8 = 9;
    /// Length of what refuses sockets without a device.
    const BOUND: usize = 3 * STEP;

    let local = ends.local.iter().map(|range| (LOCAL, range));
    let remote = ends.remote.iter().map(|range| (REMOTE, range));
    let ranges: Vec<_> = local.chain(remote).collect();
    let before = if ends.bound { BOUND } else { 0 };
    let length = before + (ranges.len() * (RANGE + STEP)).saturating_sub(STEP);
    let mut program = Vec::with_capacity(length);
    let step = |code: u8, yes: usize, no: usize| {
        let [first, second] = (no as u16).to_ne_bytes();
        [code, yes as u8, first, second]
    };
    if ends.bound {
        program.extend(step(DEVICE, 2 * STEP, BOUND));
        program.extend([0; STEP]);
        program.extend(step(JUMP, STEP, length - program.len() + STEP));
    }
    for ((at_least, at_most), range) in ranges {
        if program.len() > before {
            // The range before has let it pass.
            program.extend(step(JUMP, STEP, length - program.len()));
        }
        program.extend(step(at_least, 2 * STEP, RANGE + STEP));
        program.extend(step(0, 0, range.first().into()));
        program.extend(step(at_most, 2 * STEP, RANGE - STEP));
        program.extend(step(0, 0, range.last().into()));
    }

    program
}
