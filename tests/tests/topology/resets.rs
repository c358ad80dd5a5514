//! A forged RST on a masqueraded connection, which no socket of this host can rescue.

use std::{io::Write, thread, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRefreshedFlow},
};
use guard_tests::{
    frames::{P, tcp},
    guard::Guard,
    peers::{Connection, Talk},
    wire::Wire,
};

use super::{FAMILIES, MODES, behind::Behind};

/// A connection that was reset is forgotten after a second, which is four ticks or five.
const FLAGS: [&str; 2] = ["--timeout", "tcp-transitory=1"];
/// Longer than that.
const SILENCE: Duration = Duration::from_millis(2_600);
const PATIENCE: Duration = Duration::from_millis(400);

const SERVER: u16 = 8080;

/// A connection of the container, and a RST that comes as if from its server.
fn reset(behind: &Behind, guard: &Guard, family: Family, server: u16) -> Result<Connection> {
    let peer = &behind.topology.peer;
    let wire = Wire::open(peer, behind.topology.peer_interface())?;
    let address = (P.address(family), server).into();
    let connection = Connection::open_masqueraded(&behind.container, peer, address)?;
    let port = connection.server.peer_addr()?.port();
    guard.expect([(PassKnownFlow, 1)], || {
        wire.send(&tcp(server, port).rst().received(family))
    })?;
    Ok(connection)
}

/// The server has the first word after a long silence.
fn is_alive(guard: &Guard, connection: &mut Connection) -> Result<()> {
    guard.expect([(PassKnownFlow, 1), (PassRefreshedFlow, 1)], || {
        connection.speak()?;
        ensure!(connection.hears(PATIENCE), "cut");
        Ok(())
    })
}

#[test]
fn a5_either_side_undoes_a_forged_reset() -> Result<()> {
    for mode in MODES {
        let behind = Behind::masqueraded()?;
        let guard = behind.guard(mode, &FLAGS)?;
        let mut connections = Vec::new();
        for (family, server) in FAMILIES.into_iter().zip([SERVER, SERVER + 2]) {
            let mut ours = reset(&behind, &guard, family, server)?;
            ours.client.write_all(b"still here")?;
            let mut theirs = reset(&behind, &guard, family, server + 1)?;
            theirs.speak()?;
            ensure!(theirs.hears(PATIENCE), "{mode}, {family:?}: cut at once");
            connections.extend([ours, theirs]);
        }
        thread::sleep(SILENCE);
        for connection in &mut connections {
            is_alive(&guard, connection)?;
        }
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 0, "{mode}:{packets}");
    }
    Ok(())
}

/// The control: where both are silent for longer than the timer, the server's word is lost, and
/// the container's next one mends it.
#[test]
fn a5_without_a_word_the_reset_counts() -> Result<()> {
    let behind = Behind::masqueraded()?;
    let guard = behind.guard("native", &FLAGS)?;
    let mut connection = reset(&behind, &guard, Family::Ipv4, SERVER)?;
    thread::sleep(SILENCE);
    let before = guard.packets()?;
    connection.speak()?;
    ensure!(!connection.hears(PATIENCE), "nothing has undone the reset");
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) > 0, "{moved}");
    connection.client.write_all(b"still here")?;
    ensure!(connection.hears(SILENCE), "its next word must be enough");
    Ok(())
}
