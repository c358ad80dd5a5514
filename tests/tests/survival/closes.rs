//! S05: both ends go through the same states as without a guard, however a connection ends.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use guard_common::outcome::{Family, Outcome::DropNoFlow};
use guard_tests::{
    frames::{G, P},
    guard::Guard,
    netns::{Direct, Namespace},
    peers::Connection,
};
use guard_userspace::host::sockets::{self, SocketState};

use super::{FAMILIES, MODES, guard};

/// Connections that end in each way.
const MANY: usize = 1_000;
/// Files that a test holds open for as many connections, and for what else it does.
const FILES: u64 = 8_192;
/// A FIN that is lost comes again after 0.2, 0.6, 1.4 and 3.0 seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many sockets are in each state.
type Histogram = BTreeMap<String, usize>;

/// How a connection ends.
#[derive(Clone, Copy, Debug)]
enum End {
    ClientCloses,
    ServerCloses,
    BothClose,
    ClientResets,
    ServerResets,
}

const ENDS: [End; 5] = [
    End::ClientCloses,
    End::ServerCloses,
    End::BothClose,
    End::ClientResets,
    End::ServerResets,
];

/// Every socket in the same state, or none at all.
fn all(state: Option<SocketState>, many: usize) -> Histogram {
    state
        .map(|state| (format!("{state:?}"), many))
        .into_iter()
        .collect()
}

/// The states of connections with this server port on a host.
fn states(host: &Namespace, server: u16) -> Result<Histogram> {
    let mut histogram = Histogram::new();
    for socket in host.run(sockets::list)? {
        let ours = socket.local.port() == server || socket.remote.port() == server;
        if ours && socket.connected() {
            *histogram.entry(format!("{:?}", socket.state)).or_default() += 1;
        }
    }
    Ok(histogram)
}

/// Waits until this host's sockets and the peer's are in these states.
fn settle(
    topology: &Direct,
    server: u16,
    expected: [Option<SocketState>; 2],
    many: usize,
) -> Result<()> {
    let expected = expected.map(|state| all(state, many));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = [
            states(&topology.guarded, server)?,
            states(&topology.peer, server)?,
        ];
        if found == expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("in {found:?} instead of {expected:?}");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Opens connections from this host, which `end` as they do, and follows their states: this
/// host's first, then the peer's.
fn open_and_end(topology: &Direct, family: Family, end: End, many: usize) -> Result<()> {
    let server = 8_080 + end as u16;
    let connections = open(topology, family, server, many)?;
    settle(topology, server, [Some(SocketState::Established); 2], many)?;

    finish(topology, family, end, connections)
}

fn open(topology: &Direct, family: Family, server: u16, many: usize) -> Result<Vec<Connection>> {
    raise_limit()?;
    let address = SocketAddr::new(P.address(family), server);

    Connection::open(&topology.guarded, &topology.peer, address, many)
}

fn finish(topology: &Direct, family: Family, end: End, connections: Vec<Connection>) -> Result<()> {
    let (many, server) = (connections.len(), 8_080 + end as u16);
    let settle = |expected| settle(topology, server, expected, many);
    let (clients, servers): (Vec<TcpStream>, Vec<TcpStream>) = connections
        .into_iter()
        .map(|connection| (connection.client, connection.server))
        .unzip();
    match end {
        End::ClientCloses => {
            drop(clients);
            settle([Some(SocketState::FinWait2), Some(SocketState::CloseWait)])?;
            drop(servers);
            settle([Some(SocketState::TimeWait), None])
        }
        End::ServerCloses => {
            drop(servers);
            settle([Some(SocketState::CloseWait), Some(SocketState::FinWait2)])?;
            drop(clients);
            settle([None, Some(SocketState::TimeWait)])
        }
        End::BothClose => {
            // Neither hears the other's first FIN.
            lose(topology, family, true)?;
            drop((clients, servers));
            settle([Some(SocketState::FinWait1); 2])?;
            lose(topology, family, false)?;
            settle([Some(SocketState::TimeWait); 2])
        }
        End::ClientResets => {
            reset(clients)?;
            settle([None; 2])
        }
        End::ServerResets => {
            reset(servers)?;
            settle([None; 2])
        }
    }
}

/// Closes with a RST instead of a FIN.
fn reset(streams: Vec<TcpStream>) -> Result<()> {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    for stream in streams {
        // SAFETY: the option is as long as the call is told.
        let result = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const at_once).cast(),
                size_of::<libc::linger>() as libc::socklen_t,
            )
        };
        ensure!(result == 0, "SO_LINGER: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// What either host sends to the other is lost, or is not.
fn lose(topology: &Direct, family: Family, lost: bool) -> Result<()> {
    for (host, interface, other) in [
        (&topology.guarded, topology.interface(), &P),
        (&topology.peer, topology.peer_interface(), &G),
    ] {
        let last = if lost { 0x77 } else { other.mac[5] };
        host.ip(&format!(
            "neigh replace {} lladdr 02:00:00:00:00:{last:02x} dev {interface} nud permanent",
            other.address(family)
        ))?;
    }
    Ok(())
}

fn raise_limit() -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: FILES,
        rlim_max: FILES,
    };
    // SAFETY: the call only reads the limit.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    ensure!(result == 0, "RLIMIT_NOFILE: {}", io::Error::last_os_error());
    Ok(())
}

/// What is expected of a guarded host is what an unguarded one does.
#[test]
fn s05_connections_end_like_this_without_a_guard() -> Result<()> {
    for family in FAMILIES {
        let topology = Direct::new()?;
        for end in ENDS {
            open_and_end(&topology, family, end, MANY)?;
        }
    }
    Ok(())
}

#[test]
fn s05_connections_end_like_this_with_a_guard() -> Result<()> {
    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let topology = Direct::new()?;
        let guard = guard(&topology, mode, &["--no-rescue"])?;
        for end in ENDS {
            open_and_end(&topology, family, end, MANY)?;
            let packets = guard.packets()?;
            ensure!(packets.of(DropNoFlow) == 0, "{mode}, {end:?}:{packets}");
        }
    }
    Ok(())
}

/// A guard that knows nothing of them leaves them in states that an unguarded host does not.
#[test]
fn s05_a_guard_that_knows_nothing_is_seen_by_the_states() -> Result<()> {
    const FEW: usize = 10;

    for (knows, alterations) in [(true, &[][..]), (false, &["--without", "seeding"][..])] {
        let topology = Direct::new()?;
        let server = 8_080 + End::ServerCloses as u16;
        let connections = open(&topology, Family::Ipv4, server, FEW)?;
        let (host, interface) = (&topology.guarded, topology.interface());
        let guard = Guard::start_altered(host, interface, alterations, &["--no-rescue"])?;
        if knows {
            finish(&topology, Family::Ipv4, End::ServerCloses, connections)?;
            continue;
        }
        let (_clients, servers): (Vec<_>, Vec<_>) = connections
            .into_iter()
            .map(|connection| (connection.client, connection.server))
            .unzip();
        drop(servers);
        let cut = [Some(SocketState::Established), Some(SocketState::FinWait1)];
        settle(&topology, server, cut, FEW)?;
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) >= FEW as u64, "{packets}");
    }
    Ok(())
}
