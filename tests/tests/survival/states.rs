//! States of TCP that other guards take for the end of a connection.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRefreshedFlow, PassRescued},
};
use guard_tests::{
    frames::{Frame, G, P, tcp},
    netns::Direct,
    peers::{Connection, Talk},
    wire::Wire,
};

use super::{FAMILIES, MODES, guard, guard_without_repair, rescues};

/// A closing connection is forgotten after a second, which is one tick or two.
const SHORT: [&str; 2] = ["--timeout", "tcp-transitory=1"];
/// Longer than that.
const SILENCE: Duration = Duration::from_millis(2_600);
const PATIENCE: Duration = Duration::from_millis(400);

const SERVER: u16 = 8080;

/// A segment that the server of `connection` might send, but for its numbers.
fn forged(connection: &Connection) -> Result<Frame> {
    Ok(tcp(SERVER, connection.client.local_addr()?.port()))
}

fn open(topology: &Direct, family: Family) -> Result<Connection> {
    let (host, peer) = (&topology.guarded, &topology.peer);
    Ok(Connection::open(host, peer, (P.address(family), SERVER), 1)?.remove(0))
}

/// The rescue is off: forged FINs start no timer at all.
#[test]
fn s07_a_blind_fin_ends_nothing() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guard = guard(&topology, mode, &[&SHORT[..], &["--no-rescue"]].concat())?;
        for family in FAMILIES {
            let mut connection = open(&topology, family)?;
            let fin = forged(&connection)?.fin();
            let broken = fin.clone().transport_bytes(16, &[0xde, 0xad]);
            guard.expect([(PassKnownFlow, 2), (PassRefreshedFlow, 1)], || {
                wire.send(&broken.received(family))?;
                wire.send(&fin.received(family))
            })?;
            thread::sleep(SILENCE);
            guard.expect([(PassKnownFlow, 1), (PassRefreshedFlow, 1)], || {
                connection.speak()?;
                ensure!(connection.hears(PATIENCE), "{mode}, {family:?}: not heard");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A forged RST starts the timer, and the socket outlives it.
#[test]
fn s07_a_blind_reset_ends_nothing() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guard = guard_without_repair(&topology, mode, &SHORT)?;
        for family in FAMILIES {
            let mut connection = open(&topology, family)?;
            let rst = forged(&connection)?.rst();
            let broken = rst.clone().transport_bytes(16, &[0xde, 0xad]);
            guard.expect([(PassKnownFlow, 2)], || {
                wire.send(&rst.received(family))?;
                wire.send(&broken.received(family))
            })?;
            thread::sleep(SILENCE);
            let rescued = rescues(&guard, "expired")?;
            guard.expect([(PassRescued, 1), (PassRefreshedFlow, 1)], || {
                connection.speak()?;
                ensure!(connection.hears(PATIENCE), "{mode}, {family:?}: not heard");
                Ok(())
            })?;
            ensure!(rescues(&guard, "expired")? == rescued + 1, "another cause");
        }
    }
    Ok(())
}

#[test]
fn s07_without_rescue_a_blind_reset_ends_it_unless_somebody_speaks() -> Result<()> {
    let topology = Direct::new()?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let flags = [&SHORT[..], &["--no-rescue"]].concat();
    let guard = guard(&topology, "native", &flags)?;
    let (mut silent, mut talking) = (
        open(&topology, Family::Ipv4)?,
        open(&topology, Family::Ipv4)?,
    );
    for connection in [&silent, &talking] {
        wire.send(&forged(connection)?.rst().received(Family::Ipv4))?;
    }
    // What follows the RST cancels it.
    talking.client.write_all(b"still here")?;
    thread::sleep(SILENCE);
    guard.expect([(PassKnownFlow, 1), (PassRefreshedFlow, 1)], || {
        talking.speak()?;
        ensure!(talking.hears(PATIENCE), "the RST was not cancelled");
        Ok(())
    })?;
    let before = guard.packets()?;
    silent.speak()?;
    ensure!(!silent.hears(PATIENCE), "no mechanism but the rescue");
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) > 0, "{moved}");
    Ok(())
}

/// The rescue is off: a connection that is closed in one direction is an open one.
#[test]
fn s02_half_closed_connections_run_on() -> Result<()> {
    const MANY: usize = 10 << 20;

    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let topology = Direct::new()?;
        let flags = [&SHORT[..], &["--no-rescue"]].concat();
        let guard = guard(&topology, mode, &flags)?;
        let mut connection = open(&topology, family)?;
        connection.client.write_all(b"request")?;
        connection.client.shutdown(Shutdown::Write)?;
        let mut request = String::new();
        connection.server.read_to_string(&mut request)?;
        thread::sleep(Duration::from_millis(3_500));

        let mut server = connection.server.try_clone()?;
        let sender = thread::spawn(move || {
            server.write_all(&vec![7; MANY])?;
            server.shutdown(Shutdown::Write)
        });
        let mut all = Vec::new();
        connection
            .client
            .set_read_timeout(Some(Duration::from_secs(2)))?;
        let read = connection.client.read_to_end(&mut all);
        ensure!(read.is_ok() && all.len() == MANY, "{mode}: {}", all.len());
        sender.join().expect("the sender does not panic")?;
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 0, "{mode}:{packets}");
    }
    Ok(())
}

/// The same four-tuple again is a new connection, not the end of the old one.
#[test]
fn c4_a_tuple_that_is_used_again_is_new() -> Result<()> {
    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        let wire = Wire::open(peer, topology.peer_interface())?;
        let flags = [&SHORT[..], &["--no-rescue"]].concat();
        let guard = guard(&topology, mode, &flags)?;
        let local = SocketAddr::new(G.address(family), 40_000);
        let server = SocketAddr::new(P.address(family), SERVER);
        close(Connection::open_from(local, (host, peer), server)?)?;
        thread::sleep(Duration::from_secs(1));
        let mut again = Connection::open_from(local, (host, peer), server)?;
        thread::sleep(SILENCE);
        guard.expect([(PassKnownFlow, 1), (PassRefreshedFlow, 1)], || {
            again.speak()?;
            ensure!(again.hears(PATIENCE), "{mode}: the old timer has cut it");
            Ok(())
        })?;
        // Were it not for the new SYN, the timer would have.
        close(again)?;
        thread::sleep(SILENCE);
        guard.expect([(DropNoFlow, 1)], || {
            wire.send(&tcp(SERVER, 40_000).received(family))
        })?;
    }
    Ok(())
}

/// The server closes first, so that the client's port is free at once.
fn close(connection: Connection) -> Result<()> {
    let Connection { mut client, server } = connection;
    drop(server);
    client.read_to_end(&mut Vec::new())?;
    drop(client);
    thread::sleep(Duration::from_millis(50));
    Ok(())
}
