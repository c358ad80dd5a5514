//! Sockets that listen on guarded ports, where unsolicited packets no longer reach them.

mod decision;
mod messages;
mod names;
mod programs;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context;
use guard_common::frame::transport::Transport;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

pub use self::{
    decision::{ListenerDecision, Moment, decide, decide_at_start},
    messages::{ListenerWarning, kernel_port},
    names::OwnerNames,
    programs::ListeningPrograms,
};
use crate::{
    config::{Exposed, ListenersPolicy, Mode},
    host::{
        interfaces::Apart,
        range::{GuardedPorts, PortBitmap, PortRange},
        socket_owners::{DescriptorWalk, OpenSocket, SocketOwner},
        sockets::{self, HostSocket, SocketState},
        tunnels::{self, TunnelPort},
    },
};

/// Ranges of ports in one question about connections.
const PORTS_AT_ONCE: usize = 256;

/// How long a look goes on between two looks at the clock.
const PIECE: Duration = Duration::from_millis(20);

/// A guarded port on which this host waits for packets of any peer, or for UDP seems to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its transport protocol.
    #[serde(rename = "protocol", serialize_with = "label")]
    pub transport: Transport,
    /// Its port.
    pub port: u16,
    /// The addresses it listens on, each once and in order; unspecified ones stand for all.
    pub addresses: Vec<IpAddr>,
    /// Who has it open.
    pub owner: SocketOwner,
    /// A remote peer it has a TCP connection with at this moment.
    pub serves: Option<SocketAddr>,
    /// What helps, where exposing the port does not.
    #[serde(skip)]
    pub advice: Option<String>,
    /// Its sockets.
    #[serde(skip)]
    sockets: Vec<OpenSocket>,
}

impl Listener {
    /// Whether it is one of UDP that sends by itself, as far as `has_flows` knows: a client, which
    /// waits only for the peers it has asked.
    pub fn is_client(&self, has_flows: impl FnOnce(Transport, u16) -> bool) -> bool {
        match self.transport {
            Transport::Tcp => false,
            Transport::Udp | Transport::UdpLite => has_flows(self.transport, self.port),
        }
    }

    /// The exposure that would let unsolicited packets reach it.
    pub fn exposure(&self) -> Option<Exposed> {
        let ports = PortRange::new(self.port, self.port).ok()?;

        Some(Exposed {
            transport: self.transport,
            ports,
        })
    }

    /// The flag that would let unsolicited packets reach it, such as `--expose 2222/tcp`.
    pub fn flag(&self) -> String {
        self.exposure()
            .map_or_else(String::new, |exposed| format!("--expose {exposed}"))
    }
}

impl fmt::Display for Listener {
    /// Such as `tcp port 2222 (sshd, pid 812)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} port {} ({})",
            self.transport.label().label(),
            self.port,
            self.owner
        )
    }
}

/// What decides about listeners.
#[derive(Clone, Copy, Debug)]
pub struct ListenerTerms<'a> {
    /// What the user wants done about them.
    pub policy: ListenersPolicy,
    /// Whether would-be drops pass.
    pub mode: Mode,
    /// The range that the kernel takes ports from.
    pub range: PortRange,
    /// What earlier surveys have shown.
    pub programs: &'a ListeningPrograms,
}

/// What one survey has found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Listeners, in order.
    pub listeners: Vec<Listener>,
    /// Ports on which the kernel itself receives, whether guarded or not.
    pub kernel: BTreeSet<TunnelPort>,
}

/// Lists the sockets of the calling thread's namespace, and says which listen on guarded ports, and
/// which serve a peer that is not in `trusted`, nor a neighbour on an interface that has nothing to do with those that
/// are to be guarded, the `interfaces`. Who owns them is for [`OwnerNames`] to say.
///
/// Blocks for as long as the kernel takes to list them.
///
/// # Errors
/// When the sockets or the kernel's tunnels cannot be listed.
pub fn survey(
    guarded: &GuardedPorts,
    trusted: &[IpNet],
    interfaces: &[String],
) -> anyhow::Result<Survey> {
    let kernel = tunnels::list()?;
    let mut sockets = sockets::waiting_on(&guarded.ranges())?;
    let listening: PortBitmap = sockets
        .iter()
        .filter(|socket| socket.transport == Transport::Tcp && listens(socket, guarded))
        .map(|socket| socket.local.port())
        .collect();
    // In pieces, because the kernel takes no question of any length.
    for ports in listening.runs().chunks(PORTS_AT_ONCE) {
        sockets.extend(sockets::connections_at(ports)?);
    }
    leave_out_apart(&mut sockets, interfaces)?;
    let listeners = find(&sockets, guarded, trusted, &kernel);

    Ok(Survey { listeners, kernel })
}

/// Leaves out connections with peers that no guarded interface has anything to do with.
fn leave_out_apart(sockets: &mut Vec<HostSocket>, interfaces: &[String]) -> anyhow::Result<()> {
    if interfaces.is_empty() || !sockets.iter().any(serves) {
        return Ok(());
    }
    let mut apart = Apart::from(interfaces).context("rtnetlink: list links")?;
    sockets.retain(|socket| {
        let (local, remote) = (socket.local.ip(), socket.remote.ip());
        !(serves(socket) && apart.reaches(local, remote, socket.device))
    });

    Ok(())
}

/// The guarded TCP ports on which something listens at this moment.
///
/// # Errors
/// When the sockets cannot be listed.
pub fn listening(guarded: &GuardedPorts) -> anyhow::Result<BTreeSet<u16>> {
    let sockets = sockets::listening()?;

    Ok(sockets
        .iter()
        .filter(|socket| listens(socket, guarded))
        .map(|socket| socket.local.port())
        .collect())
}

/// Names the owners of listeners by looks of this process's own, for as long as `time`.
pub fn name_here(listeners: &mut [Listener], time: Duration) {
    let mut walk = DescriptorWalk::default();
    let mut names = OwnerNames::of_nobody();
    let sockets = listeners
        .iter()
        .flat_map(|listener| listener.sockets.iter().copied());
    walk.ask(sockets.filter(|socket| socket.inode != 0));
    let deadline = Instant::now() + time;
    while !walk.is_idle() && Instant::now() < deadline {
        names.note_found(walk.go_on(time.min(PIECE)));
    }
    names.name(listeners);
}

/// The sockets that listen on guarded ports: listening TCP sockets, and UDP sockets without a
/// peer, each port once. Those on loopback addresses are left out, as no remote host reaches them
/// anyway, and those of the `kernel`. Owners are not known yet.
///
/// A UDP socket without a peer may as well be a client: the kernel does not tell.
pub fn find(
    sockets: &[HostSocket],
    guarded: &GuardedPorts,
    trusted: &[IpNet],
    kernel: &BTreeSet<TunnelPort>,
) -> Vec<Listener> {
    let mut listeners = BTreeMap::<(u8, u16), Listener>::new();
    let ours = |socket: &&HostSocket| !is_kernels(socket, kernel);
    for socket in sockets
        .iter()
        .filter(|socket| listens(socket, guarded))
        .filter(ours)
    {
        let listener = listeners
            .entry((socket.transport as u8, socket.local.port()))
            .or_insert_with(|| Listener {
                transport: socket.transport,
                port: socket.local.port(),
                addresses: Vec::new(),
                owner: SocketOwner::Unknown,
                serves: None,
                advice: None,
                sockets: Vec::new(),
            });
        listener.addresses.push(socket.local.ip());
        listener.sockets.push(OpenSocket {
            inode: socket.inode,
            uid: socket.uid,
        });
    }

    let ends: HashSet<_> = sockets
        .iter()
        .filter(|socket| socket.transport == Transport::Tcp && socket.connected())
        .map(|socket| (socket.local, socket.remote))
        .collect();
    for socket in sockets.iter().filter(|socket| serves(socket)) {
        let remote = socket.remote.ip();
        let own = remote.is_loopback() || ends.contains(&(socket.remote, socket.local));
        let at_home = trusted.iter().any(|prefix| prefix.contains(&remote));
        if let Some(listener) = listeners.get_mut(&(socket.transport as u8, socket.local.port()))
            && !own
            && !at_home
        {
            listener.serves = Some(socket.remote);
        }
    }

    listeners
        .into_values()
        .map(|mut listener| {
            listener.addresses.sort_unstable();
            listener.addresses.dedup();
            listener
        })
        .collect()
}

/// Whether a socket is one of the kernel's own: no process can have one at the same address.
fn is_kernels(socket: &HostSocket, kernel: &BTreeSet<TunnelPort>) -> bool {
    socket.transport == Transport::Udp
        && kernel
            .iter()
            .any(|port| port.port == socket.local.port() && port.address == socket.local.ip())
}

fn listens(socket: &HostSocket, guarded: &GuardedPorts) -> bool {
    let waits = match socket.transport {
        Transport::Tcp => socket.state == SocketState::Listen,
        Transport::Udp | Transport::UdpLite => !socket.connected(),
    };

    waits
        && guarded.guarded(socket.transport, socket.local.port())
        && !socket.local.ip().is_loopback()
}

/// Whether a peer still expects something from this connection.
fn serves(socket: &HostSocket) -> bool {
    match socket.transport {
        Transport::Tcp => matches!(
            socket.state,
            SocketState::Established | SocketState::CloseWait
        ),
        Transport::Udp | Transport::UdpLite => false,
    }
}

fn label<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.label().label())
}

#[cfg(test)]
mod tests;
