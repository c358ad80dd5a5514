//! Many frames at a time, out of a packet socket and into others.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::wire::Wire;

/// How long a slow machine may take to make room for frames.
const PATIENCE: Duration = Duration::from_secs(5);

/// Frames or datagrams at a time.
const AT_A_TIME: usize = 64;

/// How often so many are taken before others have their turn.
const ROUNDS: usize = 1_000;

/// The longest datagram that is looked at.
const LONGEST: usize = 256;

/// Puts all frames on the wire, in this order.
pub fn send(wire: &Wire, frames: &[Vec<u8>]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut left = frames;
    while !left.is_empty() {
        let now = &left[..left.len().min(AT_A_TIME)];
        match send_some(wire, now) {
            Ok(sent) => left = &left[sent..],
            // The far end has no room yet, so it has not seen the first of them.
            Err(error)
                if error.raw_os_error() == Some(libc::ENOBUFS) && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).context("send frames"),
        }
    }
    Ok(())
}

fn send_some(wire: &Wire, frames: &[Vec<u8>]) -> io::Result<usize> {
    let mut parts: Vec<libc::iovec> = frames
        .iter()
        .map(|frame| libc::iovec {
            iov_base: frame.as_ptr().cast_mut().cast(),
            iov_len: frame.len(),
        })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
    // SAFETY: there are so many messages, and each has one part, which is as long as it says.
    let sent = unsafe {
        libc::sendmmsg(
            wire.as_raw_fd(),
            messages.as_mut_ptr(),
            messages.len() as u32,
            0,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What of a socket is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// What has come in.
    Data,
    /// What the socket has sent, and an ICMP error quotes.
    Errors,
}

/// Gives all that is in the queue to `each`.
pub fn receive(socket: BorrowedFd<'_>, queue: Queue, mut each: impl FnMut(&[u8])) {
    let flags = match queue {
        Queue::Data => libc::MSG_DONTWAIT,
        Queue::Errors => libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE,
    };
    let mut room = vec![[0u8; LONGEST]; AT_A_TIME];
    for _ in 0..ROUNDS {
        let mut parts: Vec<libc::iovec> = room
            .iter_mut()
            .map(|bytes| libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
        // SAFETY: there are so many messages, and each has one part, which is as long as it says
        // and may be written to.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                messages.len() as u32,
                flags,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else {
            if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock {
                return;
            }
            // An error that is pending is told once, and data may be behind it.
            continue;
        };
        let lengths: Vec<usize> = messages[..received]
            .iter()
            .map(|message| message.msg_len as usize)
            .collect();
        for (bytes, length) in room.iter().zip(lengths) {
            each(&bytes[..length.min(LONGEST)]);
        }
        if received < AT_A_TIME {
            return;
        }
    }
}

/// A message of one part.
fn message(part: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: all zero bytes are a message without parts.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

/// Sets an option of a socket to a number.
pub fn option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<()> {
    // SAFETY: the value is as long as the call is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if set != 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("socket option {name}"));
    }
    Ok(())
}
