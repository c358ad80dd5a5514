//! Datagrams that the link takes.
//!
//! The ring between the two ends of a veth pair has 256 places, and is full where a flood comes
//! while the receiving processor does something else. What finds no place is lost before any guard
//! has seen it, and UDP says nothing of it unless the socket asks to hear of errors (`IP_RECVERR`,
//! ip(7)): then `ENOBUFS` says that nothing was sent.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::oracle::batch::option;

/// How long a full ring is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_micros(200);

/// Lets a socket hear of what could not be sent.
pub fn hear_of_losses(socket: &UdpSocket) -> Result<()> {
    if socket.local_addr()?.is_ipv6() {
        option(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    // A socket of IPv6 that speaks IPv4, too, has both.
    option(socket.as_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, 1)
}

/// Sends a datagram as often as it takes the link to take it. What is lost behind the link stays
/// lost.
pub fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match socket.send_to(datagram, to) {
            Err(error) if Instant::now() < deadline => match error.raw_os_error() {
                Some(libc::ENOBUFS) => thread::sleep(PAUSE),
                // What an earlier datagram has met is told once, instead of sending.
                Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::EACCES) => {}
                _ => return Err(error),
            },
            sent => return sent.map(drop),
        }
    }
}
