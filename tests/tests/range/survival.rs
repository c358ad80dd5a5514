//! Y02: what lives stays alive, whatever becomes of the range.

use std::{
    io::{self, Read},
    net::{IpAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow, PassOutsideRange, PassRescued};
use guard_tests::{
    clients::{Protocol, Server, moves, run},
    frames::P,
    guard::Guard,
    metrics::{self, Packets},
    netns::Direct,
    peers::{Connection, Exchange, alive},
};

use crate::{MODES, RANGE, change};

const PEERS: [IpAddr; 2] = [IpAddr::V4(P.ipv4), IpAddr::V6(P.ipv6)];
/// Connections of each family.
const MANY: usize = 25;
const PATIENCE: Duration = Duration::from_secs(3);

/// Everything a host may have open: connections, and questions by connected and other sockets.
struct Talks {
    connections: Vec<Connection>,
    connected: Vec<Exchange>,
    unconnected: Vec<Exchange>,
}

impl Talks {
    fn open(topology: &Direct, port: u16) -> Result<Self> {
        let (guest, host) = (&topology.guarded, &topology.peer);
        let mut talks = Self {
            connections: Vec::new(),
            connected: Vec::new(),
            unconnected: Vec::new(),
        };
        for peer in PEERS {
            let connections = Connection::open(guest, host, (peer, port), MANY)?;
            talks.connections.extend(connections);
            for (connected, exchanges, port) in [
                (true, &mut talks.connected, port),
                (false, &mut talks.unconnected, port + 1),
            ] {
                exchanges.extend(Exchange::open(guest, host, (peer, port), connected, 5)?);
            }
        }
        Ok(talks)
    }

    /// Whether everybody hears the far end, which speaks first. Sockets that are not connected
    /// may be excepted.
    fn alive(&mut self, also_unconnected: bool) -> Result<()> {
        let all = [
            alive(&mut self.connections, PATIENCE)? == 2 * MANY,
            alive(&mut self.connected, PATIENCE)? == 10,
            !also_unconnected || alive(&mut self.unconnected, PATIENCE)? == 10,
        ];
        ensure!(all == [true; 3], "alive: {all:?}");
        Ok(())
    }
}

#[test]
fn y02_fifty_connections_survive_a_narrowed_shifted_and_widened_range() -> Result<()> {
    for (mode, flags) in [
        ("native", &["--no-rescue"][..]),
        ("native", &[]),
        ("generic", &["--no-rescue"]),
    ] {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let flags = [&["--xdp-mode", mode], flags].concat();
        let guard = Guard::start(host, topology.interface(), &flags)?;
        let mut talks = Talks::open(&topology, 7000)?;
        for range in [
            "40000 45000",
            "50000 60999",
            "32768 45000",
            "1024 65535",
            "32768 60999",
        ] {
            moves(&guard, &[PassKnownFlow], &[PassOutsideRange], || {
                change(host, &guard, range)?;
                talks.alive(true)
            })
            .with_context(|| format!("Y02, {mode}, {flags:?}, {range}"))?;
        }
    }
    Ok(())
}

/// Opens while their ports are not guarded, widens the range over them, and lets the far ends
/// speak first.
#[test]
fn y02_a_widened_range_cuts_nobody_off_because_sockets_are_seeded() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl(RANGE, "50000 55000")?;
        let mut talks = Talks::open(&topology, 7000)?;
        host.sysctl(RANGE, "40000 45000")?;
        let flags = ["--xdp-mode", mode, "--no-rescue"];
        let guard = Guard::start(host, topology.interface(), &flags)?;
        let row = || format!("Y02, {mode}");
        let flows =
            || Ok::<_, anyhow::Error>(metrics::sum(&guard.scrape()?, "portguard_flows", &[]));
        ensure!(flows()? == 0, "{}: {} flows already", row(), flows()?);
        moves(&guard, &[PassOutsideRange], &[], || talks.alive(true)).with_context(row)?;

        let seeded = (2 * MANY + 10) as u64;
        moves(&guard, &[PassKnownFlow], &[], || {
            change(host, &guard, "32768 60999")?;
            let found = flows()?;
            ensure!(found == seeded, "{found} seeded, not {seeded}");
            talks.alive(false)
        })
        .with_context(row)?;

        // The control: whom nobody can seed, as the kernel does not know the far end, dies.
        guard
            .expect([(DropNoFlow, 10)], || {
                let heard = alive(&mut talks.unconnected, Duration::from_millis(300))?;
                ensure!(heard == 0, "{heard} hear what was never recorded");
                Ok(())
            })
            .with_context(row)?;
    }
    Ok(())
}

#[test]
fn y02_transfers_go_on_while_the_range_changes() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let _server = Server::start(host, "iperf3 -s")?.listening(host, Protocol::Tcp, 5201)?;
        let guard = Guard::start(guest, topology.interface(), &["--xdp-mode", mode])?;
        let (before, peer) = (guard.packets()?, PEERS[usize::from(mode == "generic")]);
        thread::scope(|scope| -> Result<()> {
            let line = format!("iperf3 -c {peer} -P 50 -b 1M -R -t 3");
            let transfer = scope.spawn(move || run(guest, &line));
            while !transfer.is_finished() {
                for range in ["40000 45000", "50000 60999", "1024 65535", "32768 60999"] {
                    change(guest, &guard, range)?;
                }
            }
            let report = transfer.join().expect("it does not panic")?;
            ensure!(report.contains("iperf Done"), "Y02, {mode}: {report}");
            Ok(())
        })?;
        let moved = guard.packets()?.since(&before);
        ensure!(moved.of(PassKnownFlow) > 0, "Y02, {mode}:{moved}");
        for none in [DropNoFlow, PassRescued] {
            ensure!(moved.of(none) == 0, "Y02, {mode}:{moved}");
        }
    }
    Ok(())
}

/// A connection that begins while a change is under way is recorded by egress, or is found by the look
/// at the sockets: none depends on its own socket, and none is hit.
#[test]
fn y02_what_begins_while_the_range_changes_is_recorded() -> Result<()> {
    for mode in MODES {
        let (begun, moved) = begin_while_the_range_changes(&[], &["--xdp-mode", mode])?;
        ensure!(begun > 1000, "Y02, {mode}: only {begun} have begun");
        for none in [DropNoFlow, PassRescued] {
            ensure!(moved.of(none) == 0, "Y02, {mode}, {begun} began:{moved}");
        }
    }
    // The control: without a record some are rescued.
    let (begun, moved) = begin_while_the_range_changes(&["--without", "both-recorded"], &[])?;
    ensure!(
        moved.of(PassRescued) > 0,
        "Y02, control, {begun} began:{moved}"
    );
    Ok(())
}

/// Opens connections all the time while the range changes. Returns how many have begun and ended, and
/// what the guard has counted.
fn begin_while_the_range_changes(alterations: &[&str], flags: &[&str]) -> Result<(usize, Packets)> {
    const ROUNDS: usize = 12;
    const CONNECTING: usize = 4;
    let topology = Direct::new()?;
    let (guest, host) = (&topology.guarded, &topology.peer);
    let listeners = host.run(|| PEERS.map(|peer| TcpListener::bind((peer, 5202))));
    let listeners = listeners.into_iter().collect::<io::Result<Vec<_>>>()?;
    let guard = Guard::start_altered(guest, topology.interface(), alterations, flags)?;
    let before = guard.packets()?;
    let (done, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let connect = |number: usize| {
        let (done, peer) = (&done, PEERS[number % 2]);
        guest.run(|| -> Result<usize> {
            let mut begun = 0;
            while !done.load(Relaxed) {
                let mut connection = TcpStream::connect((peer, 5202))?;
                ensure!(connection.read(&mut [0])? == 0, "it says something");
                begun += 1;
            }
            Ok(begun)
        })
    };
    let begun = thread::scope(|scope| -> Result<usize> {
        for listener in &listeners {
            // The far end closes first, so that no port of the near end stays in use.
            scope.spawn(|| {
                listener
                    .incoming()
                    .take_while(|_| !over.load(Relaxed))
                    .count()
            });
        }
        let clients: Vec<_> = (0..CONNECTING)
            .map(|number| {
                let connect = &connect;
                scope.spawn(move || connect(number))
            })
            .collect();
        let changed = (0..ROUNDS).try_for_each(|_| {
            ["40000 45000", "50000 60999", "1024 65535", "32768 60999"]
                .iter()
                .try_for_each(|range| change(guest, &guard, range))
        });
        done.store(true, Relaxed);
        let begun = clients
            .into_iter()
            .map(|client| client.join().expect("it does not panic"))
            .sum::<Result<usize>>();
        // Those that wait for a connection notice.
        over.store(true, Relaxed);
        let woken = host.run(|| PEERS.map(|peer| TcpStream::connect((peer, 5202))));
        ensure!(
            woken.iter().all(Result::is_ok),
            "a listener is gone: {woken:?}"
        );
        changed.and(begun)
    })?;
    Ok((begun, guard.packets()?.since(&before)))
}
