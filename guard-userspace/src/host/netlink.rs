//! Questions to the kernel over netlink: dumps, in which one question is answered by as many messages
//! as the kernel has to say, and questions with one answer each.

pub mod message;

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};

use crate::base::slow_answers::{self, Subject};

/// An answer of one message is far shorter.
const ANSWER_BYTES: usize = 8 * 1024;

/// The kernel fills at most 32 KiB at a time.
const RECEIVE_BYTES: usize = 64 * 1024;

/// Whether a dump goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More is to come.
    More,
    /// The kernel has said all.
    Done,
}

/// A socket of this netlink protocol in the calling thread's network namespace.
///
/// # Errors
/// When the kernel refuses.
pub fn open(protocol: isize) -> io::Result<Socket> {
    match protocol {
        NETLINK_SOCK_DIAG => slow_answers::wait(Subject::Sockets),
        NETLINK_NETFILTER => slow_answers::wait(Subject::Conntrack),
        NETLINK_ROUTE => slow_answers::wait(Subject::Interfaces),
        _ => {}
    }

    open_to_attach(protocol)
}

/// As [`open`], for what is part of putting programs on an interface and taking them off. No test keeps
/// back what the kernel answers to that.
///
/// # Errors
/// When the kernel refuses.
pub fn open_to_attach(protocol: isize) -> io::Result<Socket> {
    Socket::new(protocol)
}

/// The bytes of a message that asks the kernel for a dump.
pub fn request<M: NetlinkSerializable>(ask: M) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(ask));
    message.finalize();

    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Sends `request` to the kernel on `netlink`, and calls `message` with the type and the payload
/// of each message of the answer. Holds no more than one datagram of it at a time.
///
/// # Errors
/// When the kernel refuses, sends what is no netlink, or `message` fails.
pub fn dump(
    netlink: &Socket,
    request: &[u8],
    mut message: impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    ask(netlink, request)?;

    let mut bytes = vec![0; RECEIVE_BYTES];
    while next(netlink, &mut bytes, &mut message)? == Progress::More {}

    Ok(())
}

/// A dump that may be left for a while between two datagrams: the kernel goes on where it was.
pub struct Dump {
    netlink: Socket,
    bytes: Vec<u8>,
}

impl Dump {
    /// Sends `request` to the kernel on `netlink`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn begin(netlink: Socket, request: &[u8]) -> io::Result<Self> {
        ask(&netlink, request)?;

        Ok(Self {
            netlink,
            bytes: vec![0; RECEIVE_BYTES],
        })
    }

    /// Reads one datagram of the answer, and calls `message` as [`dump`] does.
    ///
    /// # Errors
    /// As those of [`dump`]; there is no more to read then.
    pub fn next(
        &mut self,
        mut message: impl FnMut(u16, &[u8]) -> io::Result<()>,
    ) -> io::Result<Progress> {
        next(&self.netlink, &mut self.bytes, &mut message)
    }
}

/// A netlink socket for questions that have one answer each.
pub struct Questions {
    netlink: Socket,
    bytes: Vec<u8>,
}

impl Questions {
    /// A socket of this netlink protocol in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let netlink = open(protocol)?;
        netlink.connect(&SocketAddr::new(0, 0))?;

        Ok(Self {
            netlink,
            bytes: vec![0; ANSWER_BYTES],
        })
    }

    /// Sends `request`, and returns what `read_answer` makes of the type and the payload of the answer.
    ///
    /// # Errors
    /// When the kernel refuses, answers nothing, or `read_answer` fails.
    pub fn ask<T>(
        &mut self,
        request: &[u8],
        mut read_answer: impl FnMut(u16, &[u8]) -> io::Result<T>,
    ) -> io::Result<T> {
        self.netlink.send(request, 0)?;
        let length = receive(&self.netlink, &mut self.bytes)?;
        let mut answer = None;
        read(&self.bytes[..length], &mut |kind, payload| {
            answer = Some(read_answer(kind, payload)?);
            Ok(())
        })?;

        answer.ok_or_else(|| io::Error::other("an empty answer"))
    }
}

fn ask(netlink: &Socket, request: &[u8]) -> io::Result<()> {
    netlink.connect(&SocketAddr::new(0, 0))?;
    netlink.send(request, 0)?;

    Ok(())
}

fn next(
    netlink: &Socket,
    bytes: &mut [u8],
    message: &mut impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<Progress> {
    let length = receive(netlink, bytes)?;

    read(&bytes[..length], message)
}

/// Reads one datagram of a dump.
///
/// # Errors
/// When the kernel says that it has failed, the datagram ends within a message, or `message`
/// fails.
pub fn read(
    mut bytes: &[u8],
    message: &mut impl FnMut(u16, &[u8]) -> io::Result<()>,
) -> io::Result<Progress> {
    while !bytes.is_empty() {
        let buffer = NetlinkBuffer::new_checked(bytes).map_err(io::Error::other)?;
        match buffer.message_type() {
            NLMSG_DONE => {
                return match error_number(buffer.payload()) {
                    0 => Ok(Progress::Done),
                    number => Err(io::Error::from_raw_os_error(number)),
                };
            }
            NLMSG_ERROR => {
                return Err(io::Error::from_raw_os_error(error_number(buffer.payload())));
            }
            kind => message(kind, buffer.payload())?,
        }
        // Messages start at multiples of four bytes.
        let length = (buffer.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
    }

    Ok(Progress::More)
}

/// The error number that starts a payload, which the kernel writes below zero.
fn error_number(payload: &[u8]) -> i32 {
    payload
        .first_chunk()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes).saturating_neg())
}

fn receive(netlink: &Socket, bytes: &mut [u8]) -> io::Result<usize> {
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
