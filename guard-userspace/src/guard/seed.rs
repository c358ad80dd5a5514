//! Telling the maps about connections that are older than the guard.

pub mod conntrack;

use std::net::SocketAddr;

use anyhow::bail;
use guard_common::{
    flow::state::{Flow, Phase},
    frame::transport::Transport,
    ports::occupancy::Use,
};

use crate::{
    bpf::maps::{FlowEntry, FlowMap, StateMemory},
    host::{
        range::GuardedPorts,
        sockets::{HostSocket, SocketState},
    },
};

/// The port of DNS, whose flows have a timer of their own.
const DNS_PORT: u16 = 53;

/// What came of seeding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seeded {
    /// Flows that are in the maps from now on.
    pub new: usize,
    /// Connections whose ports are marked, although the maps had no room for them: their next
    /// packet is rescued.
    pub failed: usize,
}

/// The maps that are told, and how.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The flow maps.
    pub flows: &'a [FlowMap],
    /// Where ports are marked as in use.
    pub state: &'a StateMemory,
    /// The present, in ticks.
    pub now: u32,
    /// Whether a UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
}

impl Seeded {
    /// Adds what came of seeding more.
    pub fn add(&mut self, more: Self) {
        self.new += more.new;
        self.failed += more.failed;
    }
}

impl Target<'_> {
    /// Puts in a flow unless it is there and alive, and marks its port. Returns whether it was put
    /// in.
    ///
    /// # Errors
    /// When the map takes no more; the port is marked all the same.
    pub fn put(&self, entry: &FlowEntry) -> anyhow::Result<bool> {
        let map = self
            .flows
            .iter()
            .find(|map| map.holds(entry.transport, entry.local));
        let put = match map {
            Some(map) => map.restore(entry, self.now, &self.state.timeouts()),
            None => bail!("{}: no map for its family", entry.local),
        };
        let epoch = self.state.epoch() as u8;
        self.state
            .mark(Use::flow(entry.transport), entry.local.port(), epoch);

        put
    }
}

/// Puts every connected socket on a guarded port into the maps, and marks its port as in use.
pub fn seed(sockets: &[HostSocket], guarded: &GuardedPorts, target: Target<'_>) -> Seeded {
    let mut seeded = Seeded::default();
    for socket in sockets
        .iter()
        .filter(|socket| belongs(socket, |transport, port| guarded.guarded(transport, port)))
    {
        match target.put(&entry(socket, target.now, target.any_remote_port)) {
            Ok(true) => seeded.new += 1,
            Ok(false) => {}
            Err(_) => seeded.failed += 1,
        }
    }

    seeded
}

/// Whether a socket's flow belongs into the maps: it has a peer elsewhere, and its port is guarded.
pub(crate) fn belongs(socket: &HostSocket, guarded: impl FnOnce(Transport, u16) -> bool) -> bool {
    socket.connected() && !stays_here(socket) && guarded(socket.transport, socket.local.port())
}

/// Whether both ends are on this host: such packets go over loopback, which is never guarded.
fn stays_here(socket: &HostSocket) -> bool {
    socket.local.ip().is_loopback() || socket.local.ip() == socket.remote.ip()
}

/// The flow of a connected socket, as if a packet had been seen just now.
pub(crate) fn entry(socket: &HostSocket, now: u32, any_remote_port: bool) -> FlowEntry {
    let ends = (socket.local, socket.remote);

    between(
        socket.transport,
        ends,
        any_remote_port,
        now,
        tcp(socket.state, now),
    )
}

/// The flow between a local and a remote end; `tcp` is what is known of it where it is one of TCP.
pub(crate) fn between(
    transport: Transport,
    (local, remote): (SocketAddr, SocketAddr),
    any_remote_port: bool,
    now: u32,
    tcp: Flow,
) -> FlowEntry {
    let remote_port = match transport {
        Transport::Udp | Transport::UdpLite if any_remote_port => 0,
        Transport::Tcp | Transport::Udp | Transport::UdpLite => remote.port(),
    };

    FlowEntry {
        transport,
        local,
        remote: SocketAddr::new(remote.ip(), remote_port),
        flow: match transport {
            Transport::Tcp => tcp,
            Transport::Udp if remote_port == DNS_PORT => Flow::new(Phase::Dns, now),
            Transport::Udp | Transport::UdpLite => Flow::new(Phase::Datagram, now),
        },
    }
}

/// Which FINs a socket in this state has sent and heard.
fn tcp(state: SocketState, now: u32) -> Flow {
    let (phase, fin_out, fin_in) = match state {
        SocketState::SynSent => (Phase::Opening, 0, 0),
        SocketState::Established
        | SocketState::SynReceived
        | SocketState::Listen
        | SocketState::Close => (Phase::Established, 0, 0),
        SocketState::FinWait1 | SocketState::FinWait2 => (Phase::Established, 1, 0),
        SocketState::CloseWait => (Phase::Established, 0, 1),
        SocketState::LastAck | SocketState::Closing | SocketState::TimeWait => {
            (Phase::Established, 1, 1)
        }
    };

    Flow {
        fin_in,
        fin_out,
        ..Flow::new(phase, now)
    }
}

#[cfg(test)]
mod tests {
    use guard_common::flow::timer::Timer;

    use super::*;

    #[test]
    fn connections_within_the_host_need_no_flow() {
        let table = [
            ("127.0.0.1:40000", "127.0.0.1:80", true),
            ("[::1]:40000", "[::1]:80", true),
            ("10.9.0.2:40000", "10.9.0.2:80", true),
            ("10.9.0.2:40000", "10.9.0.1:80", false),
            ("[fd09::2]:40000", "[fd09::1]:80", false),
        ];
        for (local, remote, here) in table {
            let socket = HostSocket {
                transport: Transport::Tcp,
                local: local.parse().unwrap(),
                remote: remote.parse().unwrap(),
                state: SocketState::Established,
                device: 0,
                ipv6_only: false,
                inode: 1,
                uid: 0,
            };
            assert_eq!(stays_here(&socket), here, "{local} to {remote}");
        }
    }

    #[test]
    fn states_and_timers() {
        let table = [
            (SocketState::SynSent, Timer::TcpSyn),
            (SocketState::Established, Timer::TcpEstablished),
            (SocketState::SynReceived, Timer::TcpEstablished),
            (SocketState::FinWait1, Timer::TcpEstablished),
            (SocketState::FinWait2, Timer::TcpEstablished),
            (SocketState::CloseWait, Timer::TcpEstablished),
            (SocketState::LastAck, Timer::TcpTransitory),
            (SocketState::Closing, Timer::TcpTransitory),
            (SocketState::TimeWait, Timer::TcpTransitory),
        ];
        for (state, timer) in table {
            assert_eq!(tcp(state, 7).timer(), timer, "{state:?}");
        }
    }
}
