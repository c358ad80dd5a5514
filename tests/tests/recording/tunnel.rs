//! R11: a tunnel sends from a port for each of the flows inside, and answers come to none of them.

use std::{net::UdpSocket, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{PassNewFlow, PassNotRecorded};
use guard_tests::{
    frames::P,
    guard::Guard,
    metrics::Packets,
    netns::Direct,
    peers::{Connection, Exchange, alive},
};

const PATIENCE: Duration = Duration::from_secs(2);
/// More than one processor keeps for itself, where no other processor can evict them.
const IDLE: usize = 300;
/// Flows inside, many times what the maps hold.
const INSIDE: u16 = 20_000;
/// Datagrams of each.
const SENT: u16 = 3;

/// How many idle conversations without a socket to rescue them hear their peer after the tunnel
/// was busy, and what moved meanwhile.
fn idle_beside_a_tunnel(flags: &[&str]) -> Result<(usize, Packets)> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    for (host, interface, number, remote) in [
        (host, "vg", 2, P.ipv4),
        (peer, "vp", 1, "10.9.0.2".parse()?),
    ] {
        host.ip(&format!(
            "link add vx type vxlan id 5 dstport 4789 remote {remote} dev {interface}"
        ))?;
        host.ip(&format!("addr add 192.0.2.{number}/24 dev vx"))?;
        host.ip("link set vx up")?;
    }
    let flags = [&["--max-flows", "1024", "--no-rescue"], flags].concat();
    let guard = Guard::start(host, topology.interface(), &flags)?;
    let mut streams = Connection::open(host, peer, (P.ipv4, 8080), IDLE)?;
    let mut datagrams = Exchange::open(host, peer, (P.ipv4, 8081), false, IDLE)?;
    let before = guard.packets()?;
    host.run(|| -> Result<()> {
        let socket = UdpSocket::bind("192.0.2.2:0")?;
        for port in 1..=INSIDE {
            // Anyone who sends once is the first to be forgotten.
            for _ in 0..SENT {
                // An earlier one may be reported as refused.
                let _ = socket.send_to(b"inside", ("192.0.2.1", port));
            }
        }
        Ok(())
    })?;
    let moved = guard.packets()?.since(&before);
    let heard = alive(&mut streams, PATIENCE)? + alive(&mut datagrams, PATIENCE)?;
    Ok((heard, moved))
}

#[test]
fn r11_the_flows_of_a_tunnel_take_no_room() -> Result<()> {
    let (heard, moved) = idle_beside_a_tunnel(&[])?;
    ensure!(heard == 2 * IDLE, "R11: {heard} hear:{moved}");
    let sent = u64::from(INSIDE) * u64::from(SENT) * 9 / 10;
    ensure!(moved.of(PassNotRecorded) >= sent, "R11:{moved}");
    ensure!(moved.of(PassNewFlow) == 0, "R11:{moved}");
    Ok(())
}

#[test]
fn r11_recorded_they_push_others_out() -> Result<()> {
    let (heard, moved) = idle_beside_a_tunnel(&["--unrecorded", "6081"])?;
    // TCP has a map of its own.
    ensure!(
        (IDLE..2 * IDLE).contains(&heard),
        "R11: {heard} hear:{moved}"
    );
    ensure!(moved.of(PassNewFlow) > 1_024, "R11:{moved}");
    Ok(())
}
