//! Sockets that forbid a change of the range.

use std::{collections::BTreeSet, fmt};

use guard_common::frame::transport::Transport;

use super::{Change, ports::handed_out};
use crate::{
    base::failure::Failure,
    host::sockets::{HostSocket, SocketState},
};

/// Sockets that are named in one refusal.
const MOST_NAMED: usize = 5;

/// Why the change must not be made while these sockets live, if it must not.
pub fn refusal(change: &Change, sockets: &[HostSocket]) -> Option<Failure> {
    let (before, after) = (handed_out(&change.from), handed_out(&change.to));
    let used: BTreeSet<_> = sockets
        .iter()
        .map(|socket| socket.local.port())
        .filter(|port| before.contains(*port))
        .collect();
    let left = after.count() as usize;
    if left <= used.len() {
        return Some(
            Failure::bad_configuration(format!(
                "{left} ports are left for the kernel to hand out, and {} are in use: this host could \
                 open no connection any more",
                used.len()
            ))
            .remedy("choose a larger range, reserve fewer ports, or add --force"),
        );
    }
    let mut found = Vec::new();
    for socket in sockets.iter().filter(|socket| concerned(socket)) {
        let port = socket.local.port();
        let what = Described(socket);
        match (before.contains(port), after.contains(port)) {
            (true, false) => found.push(format!("{what} would no longer be guarded")),
            (false, true) if socket.waits() => {
                found.push(format!("others could not reach {what}"));
            }
            _ => {}
        }
    }
    if found.is_empty() {
        return None;
    }

    let more = found.len().saturating_sub(MOST_NAMED);
    found.truncate(MOST_NAMED);
    let mut text = found.join(", ");
    if more > 0 {
        text.push_str(&format!(", and {more} more"));
    }
    Some(Failure::bad_configuration(text).remedy(
        "stop what uses these ports, choose another range, or add --force: sockets that are open \
         go on, unguarded until they are closed",
    ))
}

/// Whether somebody on another host could meet the socket.
fn concerned(socket: &HostSocket) -> bool {
    socket.local.port() != 0
        && socket.state != SocketState::TimeWait
        && !socket.local.ip().is_loopback()
        && !(socket.connected() && socket.remote.ip() == socket.local.ip())
}

struct Described<'a>(&'a HostSocket);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.0.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::UdpLite => "udplite",
        };
        let local = self.0.local;
        if self.0.connected() {
            write!(f, "{protocol} {local} to {}", self.0.remote)
        } else if self.0.transport == Transport::Tcp {
            write!(f, "{protocol} port {} (listens)", local.port())
        } else {
            write!(f, "{protocol} port {}", local.port())
        }
    }
}
