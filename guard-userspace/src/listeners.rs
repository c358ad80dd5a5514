//! Sockets that listen on guarded ports, where strangers can no longer reach them.

mod apart;
mod owner;
mod verdict;

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use guard_common::parse::Transport;
use ipnet::IpNet;
use serde::{Serialize, Serializer};

pub use self::{
    apart::Apart,
    owner::Owner,
    verdict::{Moment, Verdict, Warning, judge, judge_start},
};
use crate::{
    range::{GuardedPorts, PortRange},
    settings::Exposed,
    sockets::{self, Socket, State},
};

/// Who finds out which processes have sockets open.
#[derive(Debug)]
pub enum Owners {
    /// This process.
    Here,
    /// A process apart.
    Apart(Apart),
    /// Nobody any more.
    Lost,
}

impl Owners {
    fn scan(&mut self, wanted: &HashSet<u32>) -> owner::Scan {
        match self {
            Self::Here => owner::scan(wanted),
            Self::Apart(apart) => apart.scan(wanted).unwrap_or_else(|error| {
                tracing::warn!(
                    "the process that names listeners does not answer ({error}): none that is \
                     found from now on has a name, and the kernel's own are not left open; \
                     restart portguard"
                );
                *self = Self::Lost;
                owner::Scan::default()
            }),
            Self::Lost => owner::Scan::default(),
        }
    }
}

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
    /// The inodes of its sockets.
    #[serde(skip)]
    inodes: Vec<u32>,
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

/// Lists the sockets of the calling thread's namespace, and says which listen on guarded ports,
/// who owns them, and which serve a peer that is not in `trusted`.
///
/// Has `owners` look through every process, but only when something listens.
///
/// # Errors
/// When the sockets cannot be listed.
pub fn survey(
    guarded: &GuardedPorts,
    trusted: &[IpNet],
    owners: &mut Owners,
) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = find(&sockets::list()?, guarded, trusted);
    if listeners.is_empty() {
        return Ok(listeners);
    }

    let wanted: HashSet<u32> = listeners
        .iter()
        .flat_map(|listener| listener.inodes.iter().copied())
        .collect();
    let scan = owners.scan(&wanted);
    // A socket that was closed before the scan reached its process has no owner either, so the
    // kernel's own are those that still exist.
    let alive: HashSet<u32> =
        if scan.complete && wanted.iter().any(|inode| scan.owner(*inode).is_none()) {
            sockets::list()?
                .iter()
                // The kernel's own are root's; a user's socket may just be out of sight.
                .filter(|socket| socket.uid == 0)
                .map(|socket| socket.inode)
                .collect()
        } else {
            HashSet::new()
        };
    for listener in &mut listeners {
        listener.owner = owner_of(listener, &scan, &alive);
    }

    Ok(listeners)
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
                inodes: Vec::new(),
            });
        listener.addresses.push(socket.local.ip());
        listener.inodes.push(socket.inode);
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

fn owner_of(listener: &Listener, scan: &owner::Scan, alive: &HashSet<u32>) -> Owner {
    if let Some(owner) = listener.inodes.iter().find_map(|inode| scan.owner(*inode)) {
        return owner.clone();
    }
    if listener
        .inodes
        .iter()
        .all(|inode| *inode == 0 || alive.contains(inode))
    {
        return Owner::Kernel;
    }

    Owner::Unknown
}

fn label<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.label().label())
}

#[cfg(test)]
mod tests;
