//! Idle connections, and so much traffic beside them that the maps forget them.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassRescued},
};
use guard_tests::{
    frames::P,
    load::{self, Servers},
    netns::Direct,
    peers::{Connection, Exchange, Talk, alive},
};

use super::{FAMILIES, MODES, guard, rescues};

const CONNECTIONS: usize = 300;
/// More than the hundred or so that the kernel lets nobody evict: they wait on the list of the
/// processor that made them.
const EXCHANGES: usize = 300;
const REQUESTS: usize = 3_000;
const PATIENCE: Duration = Duration::from_millis(1_000);

/// What became of those that were idle.
#[derive(Debug)]
struct Evicted {
    connections: usize,
    exchanges: usize,
    rescued: u64,
    dropped: u64,
}

/// Opens connections, leaves them idle while requests fill the maps, and lets the peer speak.
fn run(mode: &str, family: Family, flags: &[&str]) -> Result<Evicted> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let server = P.address(family);
    let _servers = Servers::start(peer)?;
    let flags: Vec<&str> = ["--max-flows", "1024"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    let guard = guard(&topology, mode, &flags)?;
    let mut connections = Connection::open(host, peer, (server, 8080), CONNECTIONS)?;
    let mut exchanges = Exchange::open(host, peer, (server, 8081), true, EXCHANGES)?;
    host.run(|| {
        (0..REQUESTS).try_for_each(|_| {
            load::get(server)?;
            load::resolve(server)
        })
    })?;

    let before = guard.packets()?;
    ensure!(
        before.of(DropNoFlow) == 0,
        "requests were dropped: {before}"
    );
    let connections = alive(&mut connections, PATIENCE)?;
    let exchanges = alive(&mut exchanges, PATIENCE)?;
    let moved = guard.packets()?.since(&before);
    ensure!(
        moved.of(PassRescued) == rescues(&guard, "absent")?,
        "{moved}"
    );
    Ok(Evicted {
        connections,
        exchanges,
        rescued: moved.of(PassRescued),
        dropped: moved.of(DropNoFlow),
    })
}

#[test]
fn idle_connections_outlive_their_entries() -> Result<()> {
    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let evicted = run(mode, family, &[])?;
        println!("{mode}, {family:?}: {evicted:?}");
        ensure!(
            evicted.connections == CONNECTIONS && evicted.exchanges == EXCHANGES,
            "{mode}, {family:?}: {evicted:?}"
        );
        ensure!(evicted.dropped == 0, "{mode}, {family:?}: {evicted:?}");
        // Else nothing was evicted, and nothing is shown.
        ensure!(
            evicted.rescued > CONNECTIONS as u64 / 2,
            "{mode}, {family:?}: {evicted:?}"
        );
    }
    Ok(())
}

#[test]
fn without_rescue_eviction_cuts_them() -> Result<()> {
    let evicted = run("native", Family::Ipv4, &["--no-rescue"])?;
    println!("{evicted:?}");
    ensure!(
        evicted.connections < CONNECTIONS && evicted.exchanges < EXCHANGES,
        "no mechanism but the rescue keeps them: {evicted:?}"
    );
    ensure!(evicted.dropped > 0 && evicted.rescued == 0, "{evicted:?}");
    Ok(())
}

/// A packet that is no connected socket's is not rescued: a listener is not shown to
/// unsolicited senders by it.
#[test]
fn a_listener_on_a_busy_port_is_not_rescued() -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = guard(&topology, "native", &[])?;
    let mut talks = Exchange::open(host, peer, (P.address(Family::Ipv4), 8081), false, 1)?;
    let port = talks[0].client.local_addr()?.port();
    let unsolicited = peer.run(|| std::net::UdpSocket::bind(("0.0.0.0", 9000)))?;
    guard.expect([(DropNoFlow, 1)], || {
        unsolicited.send_to(b"news", (guard_tests::frames::G.ipv4, port))?;
        Ok(())
    })?;
    let heard = talks[0].hears(Duration::from_millis(100));
    ensure!(
        !heard,
        "an unsolicited packet was delivered on a port in use"
    );
    ensure!(alive(&mut talks, PATIENCE)? == 1, "the peer is not heard");
    Ok(())
}
