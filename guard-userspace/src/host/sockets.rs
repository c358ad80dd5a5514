//! The TCP, UDP and UDP-Lite sockets of a network namespace.

mod diag;
mod proc_net;

use std::{io, net::SocketAddr, ops::ControlFlow};

use anyhow::Context;
use guard_common::frame::transport::Transport;
use netlink_packet_sock_diag::inet::StateFlags;
use nix::errno::Errno;

use crate::host::range::PortRange;

/// The transport protocols of sockets.
pub const ALL: [Transport; 3] = [Transport::Tcp, Transport::Udp, Transport::UdpLite];

/// One socket as the kernel shows it.
///
/// Addresses of IPv6 sockets that stand for IPv4 ones (`::ffff:192.0.2.1`) are IPv4 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSocket {
    /// Its transport protocol.
    pub transport: Transport,
    /// Its own end; the unspecified address when it is bound to all.
    pub local: SocketAddr,
    /// The peer's end; the unspecified address and port 0 when there is none.
    pub remote: SocketAddr,
    /// Its state.
    pub state: SocketState,
    /// The index of the interface it is bound to, or 0 where it is not, or /proc/net does not say.
    pub device: u32,
    /// Whether it is bound to IPv6 addresses and takes no IPv4. Known of sockets that wait; false
    /// where /proc/net has to be read, which does not say.
    pub ipv6_only: bool,
    /// The inode that file descriptors show, or 0 when no file stands for it.
    pub inode: u32,
    /// The user it belongs to.
    pub uid: u32,
}

impl HostSocket {
    /// Whether it has one peer and can exchange packets with that alone.
    pub fn connected(&self) -> bool {
        match self.transport {
            Transport::Tcp => !matches!(self.state, SocketState::Listen | SocketState::Close),
            Transport::Udp | Transport::UdpLite => self.state == SocketState::Established,
        }
    }

    /// Whether it waits for packets of any peer.
    pub fn waits(&self) -> bool {
        match self.transport {
            Transport::Tcp => self.state == SocketState::Listen,
            Transport::Udp | Transport::UdpLite => !self.connected(),
        }
    }
}

/// State of a socket, as the kernel numbers those of TCP.
///
/// A connected UDP socket is `Established`, any other UDP socket `Close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// Open.
    Established,
    /// A SYN is sent.
    SynSent,
    /// A SYN has come in, whether or not a full socket exists.
    SynReceived,
    /// This end is closed, the peer has not confirmed.
    FinWait1,
    /// This end is closed, the peer may still send.
    FinWait2,
    /// Closed by both, and waiting for stray packets.
    TimeWait,
    /// Not connected.
    Close,
    /// The peer has closed its end.
    CloseWait,
    /// The peer has closed its end, and this one is being closed.
    LastAck,
    /// Waiting for connections.
    Listen,
    /// Both ends are being closed.
    Closing,
}

impl SocketState {
    /// The state with the kernel's number, or `None` for one that holds no connection.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Established,
            2 => Self::SynSent,
            // `TCP_NEW_SYN_RECV` is a request without a full socket.
            3 | 12 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            _ => return None,
        })
    }
}

/// Every TCP, UDP and UDP-Lite socket of the calling thread's network namespace.
///
/// Asks sock_diag, and reads /proc/net where the kernel has no sock_diag for a protocol.
/// Blocks for as long as the kernel takes, about a microsecond a socket.
///
/// # Errors
/// When neither can be read.
pub fn list() -> anyhow::Result<Vec<HostSocket>> {
    list_in(&ALL, |_| StateFlags::all(), PortFilter::ALL)
}

/// Those of the same sockets that wait for packets of any peer: TCP listeners, and UDP sockets without a
/// peer. May list more where /proc/net has to be read.
///
/// # Errors
/// As [`list`].
pub fn waiting() -> anyhow::Result<Vec<HostSocket>> {
    list_in(&ALL, waits, PortFilter::ALL)
}

/// The TCP listeners among the same sockets, which are few: the kernel keeps them in a table of their own.
///
/// # Errors
/// As [`list`].
pub fn listening() -> anyhow::Result<Vec<HostSocket>> {
    list_in(&[Transport::Tcp], |_| StateFlags::LISTEN, PortFilter::ALL)
}

/// As [`waiting`], on these local ports.
///
/// # Errors
/// As [`list`].
pub fn waiting_on(ports: &[PortRange]) -> anyhow::Result<Vec<HostSocket>> {
    let ends = PortFilter {
        local: ports,
        ..PortFilter::ALL
    };

    list_in(&ALL, waits, ends)
}

/// Calls `visit` with those of some transports that have a peer, on these local ports, some hundreds at a
/// time and while the kernel lists the others, until it breaks off. May visit more where /proc/net has
/// to be read, and some twice.
///
/// # Errors
/// As [`list`].
pub fn visit_connected_on(
    ports: &[PortRange],
    transports: &[Transport],
    visit: impl FnMut(&[HostSocket]) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    visit_connected(ports, transports, |_| false, visit)
}

/// As [`visit_connected_on`], of those sockets that no look-up by a packet's ends finds: those that are
/// bound to a device, and those of UDP-Lite.
///
/// # Errors
/// As [`list`].
pub fn visit_unfindable_on(
    ports: &[PortRange],
    visit: impl FnMut(&[HostSocket]) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let bound = |transport| transport != Transport::UdpLite;

    visit_connected(ports, &ALL, bound, visit)
}

fn visit_connected(
    ports: &[PortRange],
    transports: &[Transport],
    bound: fn(Transport) -> bool,
    mut visit: impl FnMut(&[HostSocket]) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let states = |transport| match transport {
        Transport::Tcp => StateFlags::all() - StateFlags::LISTEN - StateFlags::CLOSE,
        Transport::Udp | Transport::UdpLite => StateFlags::ESTABLISHED,
    };
    for &transport in transports {
        let ends = PortFilter {
            local: ports,
            bound: bound(transport),
            ..PortFilter::ALL
        };
        for family in [SocketFamily::V4, SocketFamily::V6] {
            let wanted = (states(transport), ends);
            let flow = match diag::visit(transport, family, wanted, &mut visit) {
                Ok(flow) => flow,
                Err(error) => {
                    let mut sockets = Vec::new();
                    read_instead(transport, family, error, &mut sockets)?;
                    visit(&sockets)
                }
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    Ok(())
}

/// Open TCP connections with one of these ports at either end. May list more where /proc/net has to be
/// read.
///
/// # Errors
/// As [`list`].
pub fn connections_at(ports: &[PortRange]) -> anyhow::Result<Vec<HostSocket>> {
    let states = |_| StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT;
    let ends = PortFilter {
        local: ports,
        remote: ports,
        ..PortFilter::ALL
    };

    list_in(&[Transport::Tcp], states, ends)
}

fn waits(transport: Transport) -> StateFlags {
    match transport {
        Transport::Tcp => StateFlags::LISTEN,
        Transport::Udp | Transport::UdpLite => StateFlags::CLOSE,
    }
}

/// Which sockets are wanted by their ports: one of these at this end, or one of those at the other.
/// All are where there are none of either.
#[derive(Clone, Copy, Debug)]
struct PortFilter<'a> {
    local: &'a [PortRange],
    remote: &'a [PortRange],
    /// Whether only those are wanted that are bound to a device.
    bound: bool,
}

impl PortFilter<'_> {
    const ALL: Self = Self {
        local: &[],
        remote: &[],
        bound: false,
    };
}

fn list_in(
    transports: &[Transport],
    states: fn(Transport) -> StateFlags,
    ends: PortFilter<'_>,
) -> anyhow::Result<Vec<HostSocket>> {
    let mut sockets = Vec::new();
    for &transport in transports {
        for family in [SocketFamily::V4, SocketFamily::V6] {
            match diag::dump(transport, family, (states(transport), ends), &mut sockets) {
                Ok(()) => {}
                Err(error) => read_instead(transport, family, error, &mut sockets)?,
            }
        }
    }

    Ok(sockets)
}

/// Reads /proc/net where the kernel has no sock_diag for this.
fn read_instead(
    transport: Transport,
    family: SocketFamily,
    error: io::Error,
    sockets: &mut Vec<HostSocket>,
) -> anyhow::Result<()> {
    if !lacking(&error) {
        return Err(error).context("sock_diag: list the sockets");
    }

    proc_net::read(transport, family, sockets)
        .with_context(|| format!("sock_diag: {error}, and so"))
}

#[cfg(any(test, fuzzing))]
pub(crate) use self::{diag::read as read_diag, proc_net::parse as read_proc_net};

/// The family of a socket. One of IPv6 may carry IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketFamily {
    V4,
    V6,
}

/// The end of a socket with an IPv4-mapped address turned into IPv4.
fn canonical(end: SocketAddr) -> SocketAddr {
    SocketAddr::new(end.ip().to_canonical(), end.port())
}

/// Whether the kernel has no sock_diag for what was asked, as far as the caller may see.
fn lacking(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(
            Errno::ENOENT
                | Errno::EPROTONOSUPPORT
                | Errno::EAFNOSUPPORT
                | Errno::EINVAL
                | Errno::EOPNOTSUPP
                | Errno::EPERM
                | Errno::EACCES
        )
    )
}

#[cfg(test)]
mod tests;
