//! Sockets that listen on guarded ports, where strangers can no longer reach them.

mod helper;
mod names;
mod owner;
mod verdict;
mod walk;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use guard_common::parse::Transport;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

use self::walk::Walk;
pub use self::{
    helper::Helper,
    names::Names,
    owner::Owner,
    verdict::{Moment, Verdict, Warning, judge, judge_start},
    walk::Open,
};
use crate::{
    range::{GuardedPorts, PortRange},
    settings::Exposed,
    sockets::{self, Socket, State},
};

/// How long a look goes on between two looks at the clock.
const PIECE: Duration = Duration::from_millis(20);

/// A guarded port on which this host waits for strangers, or for UDP seems to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// What it speaks.
    #[serde(rename = "protocol", serialize_with = "label")]
    pub transport: Transport,
    /// Its port.
    pub port: u16,
    /// The addresses it listens on, each once and in order; unspecified ones stand for all.
    pub addresses: Vec<IpAddr>,
    /// Who has it open.
    pub owner: Owner,
    /// A remote peer it has a TCP connection with at this moment.
    pub serves: Option<SocketAddr>,
    /// Its sockets.
    #[serde(skip)]
    sockets: Vec<Open>,
}

impl Listener {
    /// The exposure that would let strangers reach it.
    pub fn exposure(&self) -> Option<Exposed> {
        let ports = PortRange::new(self.port, self.port).ok()?;

        Some(Exposed {
            transport: self.transport,
            ports,
        })
    }

    /// The flag that would let strangers reach it, such as `--expose 2222/tcp`.
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

/// Lists the sockets of the calling thread's namespace, and says which listen on guarded ports, and
/// which serve a peer that is not in `trusted`. Who owns them is for [`Names`] to say.
///
/// Blocks for as long as the kernel takes to list them.
///
/// # Errors
/// When the sockets cannot be listed.
pub fn survey(guarded: &GuardedPorts, trusted: &[IpNet]) -> anyhow::Result<Vec<Listener>> {
    Ok(find(&sockets::list()?, guarded, trusted))
}

/// Names the owners of listeners by looks of this process's own, for as long as `time`.
pub fn name_here(listeners: &mut [Listener], time: Duration) {
    let mut walk = Walk::default();
    let mut names = Names::of_nobody();
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
/// peer, each port once. Those on loopback addresses are left out, as no stranger reaches them
/// anyway. Owners are not known yet.
///
/// A UDP socket without a peer may as well be a client: the kernel does not tell.
pub fn find(sockets: &[Socket], guarded: &GuardedPorts, trusted: &[IpNet]) -> Vec<Listener> {
    let mut listeners = BTreeMap::<(u8, u16), Listener>::new();
    for socket in sockets.iter().filter(|socket| listens(socket, guarded)) {
        let listener = listeners
            .entry((socket.transport as u8, socket.local.port()))
            .or_insert_with(|| Listener {
                transport: socket.transport,
                port: socket.local.port(),
                addresses: Vec::new(),
                owner: Owner::Unknown,
                serves: None,
                sockets: Vec::new(),
            });
        listener.addresses.push(socket.local.ip());
        listener.sockets.push(Open {
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

fn listens(socket: &Socket, guarded: &GuardedPorts) -> bool {
    let waits = match socket.transport {
        Transport::Tcp => socket.state == State::Listen,
        Transport::Udp | Transport::UdpLite => !socket.connected(),
    };

    waits
        && guarded.guarded(socket.transport, socket.local.port())
        && !socket.local.ip().is_loopback()
}

/// Whether a peer still expects something from this connection.
fn serves(socket: &Socket) -> bool {
    match socket.transport {
        Transport::Tcp => matches!(socket.state, State::Established | State::CloseWait),
        Transport::Udp | Transport::UdpLite => false,
    }
}

fn label<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.label().label())
}

#[cfg(test)]
mod tests;
