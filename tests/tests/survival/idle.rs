//! Connections that are silent for longer than any timer.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassRescued},
};
use guard_tests::{
    frames::P,
    guard::Guard,
    netns::Direct,
    peers::{Connection, Exchange, Talk},
};

use super::{FAMILIES, MODES, guard, guard_without_repair, rescues};

/// Timers of a second, which is one tick or two.
const SHORT: [&str; 4] = ["--timeout", "tcp-established=1", "--timeout", "udp=1"];
/// Longer than that.
const IDLE: Duration = Duration::from_millis(2_600);
/// Long enough for one packet, and for no retransmission.
const ONE_PACKET: Duration = Duration::from_millis(150);

fn with<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    SHORT.iter().chain(flags).copied().collect()
}

/// One connection and one exchange of a family, which have been silent for so long.
fn silent(topology: &Direct, family: Family) -> Result<(Connection, Exchange)> {
    let (host, peer) = (&topology.guarded, &topology.peer);
    let server = P.address(family);
    let connection = Connection::open(host, peer, (server, 8080), 1)?.remove(0);
    let exchange = Exchange::open(host, peer, (server, 8081), true, 1)?.remove(0);
    thread::sleep(IDLE);
    Ok((connection, exchange))
}

/// The acknowledgment of what the connection hears is the one packet that egress sees.
fn heard(guard: &Guard, talk: &mut impl Talk, acknowledged: u64) -> Result<()> {
    let rescued = rescues(guard, "expired")?;
    let due = [(PassRescued, 1), (egress_known(), acknowledged)];
    guard.expect(due, || {
        talk.speak()?;
        ensure!(talk.hears(ONE_PACKET), "not heard");
        Ok(())
    })?;
    ensure!(
        rescues(guard, "expired")? == rescued + 1,
        "not counted as expired"
    );
    Ok(())
}

const fn egress_known() -> guard_common::outcome::Outcome {
    guard_common::outcome::Outcome::PassRefreshedFlow
}

#[test]
fn s12_the_server_speaks_after_the_timer() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let guard = guard_without_repair(&topology, mode, &with(&[]))?;
        for family in FAMILIES {
            let (mut connection, mut exchange) = silent(&topology, family)?;
            heard(&guard, &mut connection, 1)?;
            heard(&guard, &mut exchange, 0)?;
        }
    }
    Ok(())
}

#[test]
fn s12_without_rescue_the_server_is_not_heard() -> Result<()> {
    let topology = Direct::new()?;
    let guard = guard(&topology, "native", &with(&["--no-rescue"]))?;
    let (mut connection, mut exchange) = silent(&topology, Family::Ipv4)?;
    let before = guard.packets()?;
    connection.speak()?;
    exchange.speak()?;
    ensure!(
        !connection.hears(ONE_PACKET) && !exchange.hears(ONE_PACKET),
        "no mechanism but the rescue keeps them"
    );
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) >= 2, "{moved}");
    ensure!(moved.of(PassRescued) == 0, "{moved}");
    Ok(())
}

/// The rescue is off: what this host sends is enough.
#[test]
fn s11_the_client_speaks_after_the_timer() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let guard = guard(&topology, mode, &with(&["--no-rescue"]))?;
        for family in FAMILIES {
            let (mut connection, mut exchange) = silent(&topology, family)?;
            guard.expect([(PassNewFlow, 2), (PassKnownFlow, 1)], || {
                std::io::Write::write_all(&mut connection.client, b"hello")?;
                exchange.client.send(b"hello")?;
                Ok(())
            })?;
            connection.speak()?;
            exchange.speak()?;
            ensure!(connection.hears(ONE_PACKET), "{mode}, {family:?}: TCP");
            ensure!(exchange.hears(ONE_PACKET), "{mode}, {family:?}: UDP");
        }
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 0, "{mode}: {packets}");
    }
    Ok(())
}
