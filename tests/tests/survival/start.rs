//! Connections that are older than the guard, and on which only the peer speaks.

use std::{
    io::Write,
    net::Shutdown,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRescued},
};
use guard_tests::{
    frames::P,
    guard::Guard,
    netns::Direct,
    peers::{Connection, Exchange, Talk},
};

use super::{FAMILIES, MODES, guard};

const CONNECTIONS: usize = 100;
const EXCHANGES: usize = 50;
const PAUSE: Duration = Duration::from_millis(25);
/// What a socket's buffer can hold of datagrams that nobody has read yet.
const MOST_ROUNDS: u32 = 200;
/// Rounds after the start.
const MORE_ROUNDS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets every far end speak again and again until the guard has stood for a while. Returns how
/// often they did.
fn spoken<'a>(
    talks: &mut [impl Talk + Send],
    start: impl FnOnce() -> Result<Guard<'a>>,
) -> Result<(u32, Guard<'a>)> {
    let (ended, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let speaker = scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) && rounds.load(Ordering::Relaxed) < MOST_ROUNDS {
                for talk in &mut *talks {
                    talk.speak()?;
                }
                rounds.fetch_add(1, Ordering::Relaxed);
                thread::sleep(PAUSE);
            }
            std::io::Result::Ok(())
        });
        let guard = start();
        let before = rounds.load(Ordering::Relaxed);
        while rounds.load(Ordering::Relaxed) < before + MORE_ROUNDS && !speaker.is_finished() {
            thread::sleep(PAUSE);
        }
        ended.store(true, Ordering::Relaxed);
        speaker.join().expect("the speaker does not panic")?;
        Ok((rounds.load(Ordering::Relaxed), guard?))
    })
}

/// The rescue is off: seeding alone must know them.
#[test]
fn f01_live_connections_do_not_notice_the_start() -> Result<()> {
    for mode in MODES {
        for family in FAMILIES {
            let topology = Direct::new()?;
            let (host, peer) = (&topology.guarded, &topology.peer);
            let server = P.address(family);
            let mut talks: Vec<Box<dyn Talk + Send>> = Vec::new();
            for connection in Connection::open(host, peer, (server, 8080), CONNECTIONS)? {
                // Half-closed ones hear as well as others.
                if talks.len().is_multiple_of(2) {
                    connection.client.shutdown(Shutdown::Write)?;
                }
                talks.push(Box::new(connection));
            }
            for exchange in Exchange::open(host, peer, (server, 8081), true, EXCHANGES)? {
                talks.push(Box::new(exchange));
            }

            let (rounds, guard) = spoken(&mut talks, || guard(&topology, mode, &["--no-rescue"]))?;
            let what = format!("{mode}, {family:?}, {rounds} rounds");
            for talk in &mut talks {
                for round in 0..rounds {
                    ensure!(talk.hears(PATIENCE), "{what}: deaf in round {round}");
                }
            }
            let packets = guard.packets()?;
            ensure!(packets.of(DropNoFlow) == 0, "{what}:{packets}");
            ensure!(packets.of(PassRescued) == 0, "{what}:{packets}");
            let known = (CONNECTIONS + EXCHANGES) as u64 * 5;
            ensure!(packets.of(PassKnownFlow) > known, "{what}:{packets}");
        }
    }
    Ok(())
}

/// Datagrams, which nobody acknowledges: what this host sends between egress and XDP is enough.
#[test]
fn f01_without_seeding_live_exchanges_are_cut() -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let server = P.address(Family::Ipv4);
    let mut talks = Exchange::open(host, peer, (server, 8081), true, 1)?;
    let alterations = ["--without", "seeding"];
    let guard = Guard::start_altered(host, topology.interface(), &alterations, &["--no-rescue"])?;
    guard.expect([(DropNoFlow, 1)], || Ok(talks[0].speak()?))?;
    ensure!(
        !talks[0].hears(PAUSE),
        "no mechanism but seeding knows them"
    );
    Ok(())
}

/// What seeding cannot know: to whom an unconnected socket has spoken.
#[test]
fn f01_without_a_peer_in_the_kernel_nothing_is_seeded() -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let server = P.address(Family::Ipv4);
    let mut talks = Exchange::open(host, peer, (server, 8081), false, 1)?;
    ensure!(
        guard_tests::peers::alive(&mut talks, PATIENCE)? == 1,
        "deaf without a guard"
    );
    let guard = guard(&topology, "native", &[])?;
    guard.expect([(DropNoFlow, 1)], || Ok(talks[0].speak()?))?;
    ensure!(!talks[0].hears(PAUSE), "nobody knows of it, and it hears");
    talks[0].client.send_to(b"query", (server, 8081))?;
    ensure!(
        guard_tests::peers::alive(&mut talks, PATIENCE)? == 1,
        "its next word must be enough"
    );
    Ok(())
}

/// A socket of IPv6 that speaks IPv4 is a socket of IPv4.
#[test]
fn f01_mapped_sockets_are_seeded_as_ipv4() -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let mapped = std::net::IpAddr::V6(P.ipv4.to_ipv6_mapped());
    let listener = peer.run(|| std::net::TcpListener::bind((P.ipv4, 8080)))?;
    let client = host.run(|| std::net::TcpStream::connect((mapped, 8080)))?;
    ensure!(client.local_addr()?.is_ipv6(), "not of IPv6");
    let (server, _) = listener.accept()?;
    let mut connection = Connection { client, server };
    let guard = guard(&topology, "native", &["--no-rescue"])?;
    guard.expect(
        [
            (PassKnownFlow, 1),
            (guard_common::outcome::Outcome::PassRefreshedFlow, 1),
        ],
        || Ok(connection.server.write_all(b"news")?),
    )?;
    ensure!(connection.hears(PATIENCE), "not heard");
    Ok(())
}
