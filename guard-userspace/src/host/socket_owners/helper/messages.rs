//! The messages between the daemon and its helper.

use std::{
    io::{self, ErrorKind},
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv, send},
};
use serde::{Deserialize, Serialize};

use super::super::{
    SocketOwner,
    walk::{OpenSocket, WalkResult},
};

/// The longest message.
const LONGEST: usize = 48 * 1024;
/// Sockets in one message.
const AT_ONCE: usize = 256;

/// Part of a question: the sockets whose owners are wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Part {
    /// It is the first one of the question.
    pub(super) first: bool,
    /// It is the last one.
    pub(super) last: bool,
    /// Inodes, with the users who have opened them.
    pub(super) sockets: Vec<(u32, u32)>,
}

/// An answer, of which there may be many to a question.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnersFound {
    /// The process has begun, and knows of no question.
    Begun,
    /// These are open in these processes.
    Owners(Vec<(u32, SocketOwner)>),
    /// These are open in no process.
    Nobodys(Vec<u32>),
}

/// Asks who has these sockets open, and no longer about any others.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] when the process has not read what it was asked before, and others when
/// it is gone.
pub fn ask(channel: BorrowedFd<'_>, sockets: &[OpenSocket]) -> io::Result<()> {
    let parts = sockets.len().div_ceil(AT_ONCE).max(1);
    for number in 0..parts {
        let sockets = sockets.iter().skip(number * AT_ONCE).take(AT_ONCE);
        let part = Part {
            first: number == 0,
            last: number + 1 == parts,
            sockets: sockets.map(|socket| (socket.inode, socket.uid)).collect(),
        };
        send(
            channel.as_raw_fd(),
            &serde_json::to_vec(&part)?,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        )?;
    }

    Ok(())
}

/// An answer that has come, if one has.
///
/// # Errors
/// When the processes are gone.
pub fn answer(channel: BorrowedFd<'_>) -> io::Result<OwnersFound> {
    let message = receive(channel, MsgFlags::MSG_DONTWAIT)?;

    Ok(serde_json::from_slice(&message)?)
}

/// The next message.
pub(super) fn receive(channel: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<Vec<u8>> {
    let mut message = vec![0; LONGEST];
    let length = loop {
        match recv(channel.as_raw_fd(), &mut message, flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    message.truncate(length);

    Ok(message)
}

/// Tells what was found, and returns whether the daemon is there to read it.
pub(super) fn report(channel: BorrowedFd<'_>, found: WalkResult) -> anyhow::Result<bool> {
    for owners in found.owners.chunks(AT_ONCE) {
        if !tell(channel, &OwnersFound::Owners(owners.to_vec()))? {
            return Ok(false);
        }
    }
    for inodes in found.nobodys.chunks(AT_ONCE) {
        if !tell(channel, &OwnersFound::Nobodys(inodes.to_vec()))? {
            return Ok(false);
        }
    }

    Ok(true)
}

/// Likewise of one answer.
pub(super) fn tell(channel: BorrowedFd<'_>, answer: &OwnersFound) -> anyhow::Result<bool> {
    let message = serde_json::to_vec(answer)?;
    loop {
        match send(channel.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_answered_fits_into_messages() {
        let name = "\u{1}".repeat(15);
        let process = SocketOwner::Process {
            pid: i32::MAX,
            name,
        };
        let owners = vec![(u32::MAX, process); AT_ONCE];
        let answer = OwnersFound::Owners(owners);
        let text = serde_json::to_vec(&answer).expect("JSON");
        assert!(text.len() <= LONGEST, "{}", text.len());
        let back: OwnersFound = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(back, answer);

        let part = Part {
            first: true,
            last: true,
            sockets: vec![(u32::MAX, u32::MAX); AT_ONCE],
        };
        let text = serde_json::to_vec(&part).expect("JSON");
        assert!(text.len() <= LONGEST, "{}", text.len());
    }
}
