//! Monitor mode: what enforcing would cost, before it does.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassRefreshedFlow},
};
use guard_tests::{
    frames::{P, udp},
    guard::Guard,
    load::{self, Servers},
    metrics,
    peers::{Connection, Talk, alive},
};

use super::{FAMILIES, Lab, MODES, PATIENCE};

/// Frames of which the kernel has a socket that would have lost them.
fn would_drop(guard: &Guard, socket: &str) -> Result<u64> {
    let name = "portguard_would_drop_live_total";
    Ok(metrics::sum(&guard.scrape()?, name, &[("socket", socket)]))
}

#[test]
fn monitor_counts_listeners_and_no_connection() -> Result<()> {
    for mode in MODES {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let mut old = Connection::open(host, peer, (P.address(Family::Ipv6), 8080), 5)?;
        let _servers = Servers::start(peer)?;
        let guard = lab.guard(&["--mode", "monitor", "--xdp-mode", mode])?;
        let mut new = Connection::open(host, peer, (P.address(Family::Ipv4), 8080), 5)?;
        for family in FAMILIES {
            let server = P.address(family);
            host.run(|| {
                (0..50).try_for_each(|_| {
                    load::get(server)?;
                    load::resolve(server)
                })
            })?;
        }
        ensure!(alive(&mut old, PATIENCE)? == 5, "{mode}: older ones");
        ensure!(alive(&mut new, PATIENCE)? == 5, "{mode}: younger ones");
        // On a slow machine the last of the closed connections still repeats itself.
        thread::sleep(Duration::from_secs(1));
        // Ten for the listener, and two that nobody takes.
        guard.expect([(DropNoFlow, 12)], || {
            ensure!(
                lab.hears(5)?,
                "{mode}: monitored unsolicited packets are not delivered"
            );
            for family in FAMILIES {
                lab.wire.send(&udp(54, 41_000).received(family))?;
            }
            Ok(())
        })?;

        ensure!(would_drop(&guard, "listener")? == 10, "{mode}: listeners");
        ensure!(would_drop(&guard, "connected")? == 0, "{mode}: connections");
        let packets = |verdict| -> Result<u64> {
            let labels = [("verdict", verdict), ("reason", "no_flow")];
            let samples = guard.scrape()?;
            Ok(metrics::sum(&samples, "portguard_packets_total", &labels))
        };
        ensure!(packets("pass")? == 12, "{mode}: would-be drops");
        ensure!(packets("drop")? == 0, "{mode}: drops");
    }
    Ok(())
}

/// With nothing to keep an idle connection, the counter tells.
#[test]
fn monitor_counts_a_connection_that_would_be_cut() -> Result<()> {
    let lab = Lab::new()?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let forgetful = ["--no-rescue", "--timeout", "tcp-established=1"];
    let guard = lab.guard(&[&forgetful[..], &["--mode", "monitor"]].concat())?;
    let mut idle = Connection::open(host, peer, (P.address(Family::Ipv4), 8080), 1)?;
    thread::sleep(Duration::from_millis(2_600));
    let due = [
        (DropNoFlow, 1),
        (guard_common::outcome::Outcome::PassNewFlow, 1),
        (PassRefreshedFlow, 0),
    ];
    guard.expect(due, || {
        idle[0].speak()?;
        ensure!(idle[0].hears(PATIENCE), "monitoring has cut it");
        Ok(())
    })?;
    ensure!(would_drop(&guard, "connected")? == 1, "not counted");
    ensure!(
        would_drop(&guard, "listener")? == 0,
        "counted as a listener"
    );
    Ok(())
}
