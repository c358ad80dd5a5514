//! How connections begin and end when packets are lost or cross.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRescued},
};
use guard_tests::{
    frames::{G, P},
    netns::Direct,
    peers::{Connection, connect_from},
};

use super::{FAMILIES, MODES, guard, guard_without_repair};

/// Long enough for a SYN that is lost to be sent, and too short for another.
const CROSSING: Duration = Duration::from_millis(300);

/// What the guarded host sends to the peer is lost, or is not.
fn lose(topology: &Direct, family: Family, lost: bool) -> Result<()> {
    let mac = if lost { "77" } else { "01" };
    let peer = P.address(family);
    topology.guarded.ip(&format!(
        "neigh replace {peer} lladdr 02:00:00:00:00:{mac} dev vg nud permanent"
    ))
}

/// Both sides connect to each other, `first` and then the other.
fn open(topology: &Direct, family: Family, host_first: bool) -> Result<(TcpStream, TcpStream)> {
    let ours = SocketAddr::new(G.address(family), 40_000);
    let theirs = SocketAddr::new(P.address(family), 41_000);
    let from_host = || topology.guarded.run(|| connect_from(ours, theirs));
    let from_peer = || topology.peer.run(|| connect_from(theirs, ours));
    thread::scope(|scope| {
        let (host, peer);
        if host_first {
            lose(topology, family, true)?;
            host = scope.spawn(from_host);
            thread::sleep(CROSSING);
            lose(topology, family, false)?;
            peer = scope.spawn(from_peer);
        } else {
            peer = scope.spawn(from_peer);
            thread::sleep(CROSSING);
            host = scope.spawn(from_host);
        }
        let host = host.join().expect("connecting does not panic")?;
        let peer = peer.join().expect("connecting does not panic")?;
        Ok((host, peer))
    })
}

#[test]
fn s01_both_sides_open_at_once() -> Result<()> {
    for mode in MODES {
        for family in FAMILIES {
            for host_first in [true, false] {
                let what = format!("{mode}, {family:?}, host first: {host_first}");
                let topology = Direct::new()?;
                let guard = guard(&topology, mode, &["--no-rescue"])?;
                let (mut host, mut peer) = open(&topology, family, host_first)?;
                for stream in [&mut host, &mut peer] {
                    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
                    stream.write_all(b"hello")?;
                }
                for stream in [&mut host, &mut peer] {
                    stream.read_exact(&mut [0; 5])?;
                }
                let packets = guard.packets()?;
                ensure!(packets.of(PassKnownFlow) >= 2, "{what}:{packets}");
                // Who calls a host that has not called yet is an unsolicited sender, until it has.
                let strange = u64::from(!host_first);
                ensure!(packets.of(DropNoFlow) == strange, "{what}:{packets}");
            }
        }
    }
    Ok(())
}

/// Whether a connection of the peer still waits for the acknowledgment of its FIN.
fn waits(topology: &Direct) -> bool {
    const LAST_ACK: &str = "09";

    topology.peer.run(|| {
        ["tcp", "tcp6"].into_iter().any(|table| {
            fs::read_to_string(format!("/proc/thread-self/net/{table}"))
                .unwrap_or_default()
                .lines()
                .any(|line| line.split_whitespace().nth(3) == Some(LAST_ACK))
        })
    })
}

/// Loses the acknowledgments of the peer's FIN for so long that the entry expires between two of
/// them, and returns whether the peer waits on when they could be sent again.
fn lost_acknowledgments(topology: &Direct, family: Family) -> Result<bool> {
    let (host, peer) = (&topology.guarded, &topology.peer);
    let server = P.address(family);
    let Connection { client, mut server } =
        Connection::open(host, peer, (server, 8080), 1)?.remove(0);
    drop(client);
    server.read_to_end(&mut Vec::new())?;
    lose(topology, family, true)?;
    drop(server);
    // The FIN comes again after 0.2, 0.6, 1.4, 3.0 and 6.2 seconds.
    thread::sleep(Duration::from_millis(2_200));
    ensure!(waits(topology), "nothing was lost");
    lose(topology, family, false)?;
    thread::sleep(Duration::from_millis(1_800));
    Ok(waits(topology))
}

#[test]
fn s04_the_last_acknowledgment_is_lost() -> Result<()> {
    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let topology = Direct::new()?;
        let guard = guard_without_repair(&topology, mode, &["--timeout", "tcp-transitory=1"])?;
        let waits = lost_acknowledgments(&topology, family)?;
        let packets = guard.packets()?;
        ensure!(!waits, "{mode}, {family:?}: the peer waits on:{packets}");
        ensure!(packets.of(DropNoFlow) == 0, "{mode}, {family:?}:{packets}");
        ensure!(packets.of(PassRescued) >= 1, "{mode}, {family:?}:{packets}");
    }
    Ok(())
}

#[test]
fn s04_without_rescue_the_peer_waits_on() -> Result<()> {
    let topology = Direct::new()?;
    let flags = ["--timeout", "tcp-transitory=1", "--no-rescue"];
    let guard = guard(&topology, "native", &flags)?;
    let waits = lost_acknowledgments(&topology, Family::Ipv4)?;
    let packets = guard.packets()?;
    ensure!(waits, "no mechanism but the rescue:{packets}");
    ensure!(packets.of(DropNoFlow) >= 1, "{packets}");
    Ok(())
}

/// With the timers that are usual, nothing need be rescued.
#[test]
fn s04_the_entry_outlives_the_end() -> Result<()> {
    let topology = Direct::new()?;
    let guard = guard(&topology, "native", &["--no-rescue"])?;
    let waits = lost_acknowledgments(&topology, Family::Ipv6)?;
    let packets = guard.packets()?;
    ensure!(!waits, "the peer waits on:{packets}");
    ensure!(packets.of(DropNoFlow) == 0, "{packets}");
    Ok(())
}
