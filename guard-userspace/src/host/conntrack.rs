//! What the kernel's connection tracking knows of flows that no look-up by a packet's ends finds a
//! socket for: those that NAT translates, of this host's sockets and of others behind it, and those of
//! UDP sockets that are not connected.

mod message;

use std::{
    fs,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr},
};

use guard_common::{
    flow::state::{Flow, Phase},
    frame::transport::Transport,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

pub use self::message::{read, untranslated};
use crate::host::{
    features::Feature,
    interfaces::LocalAddresses,
    netlink::{self, Dump},
};

/// How many connections the kernel tracks in this network namespace. It has no such file while
/// nothing has asked it to track.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// A tracked connection, by its answers as they look on the wire: after the translation of what
/// is sent, and before that of what comes in.
///
/// Who has opened it is who sends what these answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tracked {
    /// Its transport protocol.
    pub transport: Transport,
    /// Who has sent its first packet, before anything of that was translated.
    pub opener: SocketAddr,
    /// Where the opener has sent it to.
    pub asked: SocketAddr,
    /// Where the answers go.
    pub local: SocketAddr,
    /// Where the answers come from.
    pub remote: SocketAddr,
    /// Whether an answer was seen.
    pub answered: bool,
    /// How far it has come; of use for TCP alone.
    pub tcp: ConntrackTcp,
}

/// A TCP connection as conntrack sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ConntrackTcp {
    /// Its state.
    pub state: ConntrackState,
    /// Whether the first FIN came from the side that has opened the connection.
    pub closed_by_opener: bool,
    /// Whether the first FIN came from the other side.
    pub closed_by_other: bool,
}

/// States that make a difference here, of `enum tcp_conntrack`,
/// include/uapi/linux/netfilter/nf_conntrack_tcp.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ConntrackState {
    /// A SYN was sent, and nothing has come back.
    SynSent,
    /// Both sides have sent, and neither has said that it ends. Also what a flow table has taken
    /// over: the kernel says nothing of its state.
    #[default]
    Open,
    /// One side has sent a FIN.
    HalfClosed,
    /// Both sides have, or one of them has twice.
    Closed,
    /// One side has reset it.
    Reset,
}

impl ConntrackState {
    /// The state with the kernel's number. One that is not known is an open one: what is kept too
    /// long expires, and what is not kept is cut.
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::SynSent,
            // FIN_WAIT, CLOSE_WAIT.
            4 | 5 => Self::HalfClosed,
            // LAST_ACK, TIME_WAIT.
            6 | 7 => Self::Closed,
            8 => Self::Reset,
            // SYN_RECV, ESTABLISHED, and SYN_SENT2: both have sent a SYN.
            _ => Self::Open,
        }
    }
}

impl ConntrackTcp {
    /// The flow of a connection that this side has opened.
    pub fn flow(self, now: u32) -> Flow {
        let (phase, fin_out, fin_in, reset) = match self.state {
            ConntrackState::SynSent => (Phase::Opening, false, false, false),
            ConntrackState::Open => (Phase::Established, false, false, false),
            ConntrackState::HalfClosed => (
                Phase::Established,
                self.closed_by_opener,
                self.closed_by_other,
                false,
            ),
            ConntrackState::Closed => (Phase::Established, true, true, false),
            ConntrackState::Reset => (Phase::Established, false, false, true),
        };

        Flow {
            fin_in: fin_in.into(),
            fin_out: fin_out.into(),
            reset: reset.into(),
            ..Flow::new(phase, now)
        }
    }
}

impl Tracked {
    /// Whether what answers it comes to this host from another one, because this host has sent what
    /// is answered: it comes to one of our addresses, to one that our own packets were translated to,
    /// or to one that others' packets were translated to and that is not `forwarded`. Such an address
    /// is nobody's but this host's, which routes what comes to it once it is translated back.
    ///
    /// What others open to this host is answered to them.
    pub fn opened_here(
        &self,
        addresses: &LocalAddresses,
        forwarded: impl FnOnce(IpAddr) -> bool,
    ) -> bool {
        let (local, remote, opener) = (self.local.ip(), self.remote.ip(), self.opener.ip());

        !addresses.contains(remote)
            && !remote.is_multicast()
            && !is_limited_broadcast(self.remote)
            && (addresses.contains(local)
                || addresses.contains(opener)
                || local != opener && !forwarded(local))
    }

    /// Whether the packets that it answers were this host's own, or those of a host behind this one
    /// that were for others. What others have sent to an address of this host, which has handed it on
    /// in its own name, was opened from outside.
    pub fn opened_inside(
        &self,
        addresses: &LocalAddresses,
        forwarded: impl FnOnce(IpAddr) -> bool,
    ) -> bool {
        (addresses.contains(self.opener.ip()) || !addresses.contains(self.asked.ip()))
            && self.opened_here(addresses, forwarded)
    }

    /// Whether its ends on the wire differ from those of the host that opened it.
    pub fn is_translated(&self) -> bool {
        (self.opener, self.asked) != (self.local, self.remote)
    }

    /// Whether its ends have more to say to each other, as far as is known.
    pub fn goes_on(&self) -> bool {
        match self.tcp.state {
            ConntrackState::SynSent | ConntrackState::Open | ConntrackState::HalfClosed => true,
            ConntrackState::Closed | ConntrackState::Reset => false,
        }
    }
}

fn is_limited_broadcast(end: SocketAddr) -> bool {
    match end {
        SocketAddr::V4(end) => end.ip().is_broadcast(),
        SocketAddr::V6(_) => false,
    }
}

/// Calls `visit` with every TCP, UDP and UDP-Lite connection that is tracked in the calling
/// thread's network namespace, but for those of TCP that nothing translates: their sockets tell more.
/// Returns whether the kernel tracks any there at all. Connections that come or go meanwhile may be
/// visited or not.
///
/// Blocks for about two microseconds a connection, and holds a datagram of them at a time.
///
/// # Errors
/// When the kernel refuses, or has no ctnetlink.
pub fn walk(mut visit: impl FnMut(&Tracked)) -> io::Result<bool> {
    // To ask for the table would have the kernel load the module, whether it is needed or not.
    if !tracks_any()? {
        return Ok(false);
    }
    let netlink = open()?;
    netlink::dump(&netlink, &message::request(), |kind, payload| {
        let plain = untranslated(kind, payload);
        if plain != Some(Transport::Tcp.number())
            && let Some(tracked) = read(kind, payload)?
        {
            visit(&tracked);
        }
        Ok(())
    })?;

    Ok(true)
}

/// Asks for every connection as [`walk`] does, to be read a datagram at a time. `None` where the kernel
/// tracks none.
///
/// # Errors
/// As those of [`walk`].
pub fn begin() -> io::Result<Option<Dump>> {
    if !tracks_any()? {
        return Ok(None);
    }

    Dump::begin(open()?, &message::request()).map(Some)
}

fn open() -> io::Result<Socket> {
    if !Feature::Ctnetlink.may_be_used() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }

    netlink::open(NETLINK_NETFILTER)
}

/// Whether the kernel tracks any connection in the calling thread's network namespace.
///
/// # Errors
/// When the kernel does not tell.
pub fn tracks_any() -> io::Result<bool> {
    match fs::read_to_string(COUNT) {
        Ok(count) => Ok(count.trim() != "0"),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
