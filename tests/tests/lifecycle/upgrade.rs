//! An upgrade from an earlier version, and the way back.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::DropNoFlow;
use guard_tests::{
    build,
    frames::P,
    guard::Guard,
    peers::{Connection, Exchange, Talk, alive},
};

use super::{FAMILIES, Lab, PATIENCE, attachments, hooks};

/// Connections and exchanges of each kind and family.
const EACH: usize = 10;

/// From version 0.1 to this one and back, each by a daemon that is killed and by one that ends and
/// leaves the guard in force. Meanwhile a flood goes on, of which nothing may be delivered, and so do
/// connections, connected UDP sockets, and unconnected ones, of which nothing but the maps knows.
/// Nothing is rescued, no answer may be lost, and no counter may fall.
#[test]
fn f02_an_upgrade_from_0_1_and_the_way_back_lose_nothing() -> Result<()> {
    let Some(earlier) = build::earlier() else {
        println!("skipped: PORTGUARD_EARLIER names no binary of an earlier version");
        return Ok(());
    };
    let current = build::binary();
    for flags in attachments() {
        let lab = Lab::new()?;
        let interface = lab.topology.interface();
        let flags = [&flags[..], &["--no-rescue", "--keep-attached"]].concat();
        let mut guard = Guard::start_other(&lab.topology.guarded, interface, &earlier, &flags)?;
        let mut live = conversations(&lab)?;
        ensure!(lab.scan(10)? == 0, "{flags:?}: delivered");
        let mut dropped = guard.packets()?.of(DropNoFlow);
        ensure!(dropped >= 20, "{flags:?}: {dropped} dropped");

        for (binary, killed) in [
            (&current, true),
            (&earlier, true),
            (&current, false),
            (&earlier, false),
        ] {
            let what = format!("{flags:?}: to {}, killed: {killed}", binary.display());
            let seen = meanwhile(&lab, &mut live, || {
                if killed {
                    guard.kill()?;
                } else {
                    let status = guard.end()?;
                    ensure!(status.success(), "{status}: {}", guard.said());
                }
                guard.replace(binary);
                guard.start_again(&flags)
            });
            let seen = seen.with_context(|| what.clone())?;
            ensure!(seen.delivered == 0, "{what}: {seen:?}");
            ensure!(seen.asked > 2 * live.len(), "{what}: too few: {seen:?}");
            ensure!(seen.answered == seen.asked, "{what}: {seen:?}");
            ensure!(
                hooks::egress(&lab.topology.guarded, interface)? == 1,
                "{what}: egress"
            );
            let now = guard.packets()?.of(DropNoFlow);
            ensure!(now > dropped, "{what}: {dropped} dropped became {now}");
            dropped = now;
        }

        guard.kill()?;
        guard.start_again(&flags[..flags.len() - 1])?;
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        let host = &lab.topology.guarded;
        ensure!(hooks::xdp(host, interface)?.is_none(), "{flags:?}: XDP");
        ensure!(hooks::egress(host, interface)? == 0, "{flags:?}: egress");
        let left = fs::read_dir(guard.pins()).map_or(0, Iterator::count);
        ensure!(left == 0, "{flags:?}: {left} folders are left");
        // The control: without a guard the same flood is delivered.
        ensure!(lab.hears(1)?, "{flags:?}: nothing is delivered");
    }
    Ok(())
}

/// The control: a daemon that copies no flows from maps of another layout loses conversations.
#[test]
fn f02_an_upgrade_from_0_1_that_copies_no_flows_is_noticed() -> Result<()> {
    let Some(earlier) = build::earlier() else {
        println!("skipped: PORTGUARD_EARLIER names no binary of an earlier version");
        return Ok(());
    };
    let lab = Lab::new()?;
    let flags = ["--no-rescue", "--keep-attached"];
    let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
    let mut guard = Guard::start_other(host, interface, &earlier, &flags)?;
    let mut live = conversations(&lab)?;
    let expected = live.len();
    ensure!(alive(&mut live, PATIENCE)? == expected, "before");
    guard.kill()?;
    guard.alter(&["--without", "carrying"]);
    guard.start_again(&flags)?;
    let left = alive(&mut live, Duration::from_secs(1))?;
    // Sockets are seeded all the same, but nothing knows of those that are not connected.
    let unconnected = EACH * FAMILIES.len();
    ensure!(left == expected - unconnected, "{left} of {expected}");
    Ok(())
}

/// Conversations of every kind that this host began.
fn conversations(lab: &Lab) -> Result<Vec<Box<dyn Talk + Send>>> {
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let mut live: Vec<Box<dyn Talk + Send>> = Vec::new();
    for family in FAMILIES {
        let server = |port| (P.address(family), port);
        for connection in Connection::open(host, peer, server(8080), EACH)? {
            live.push(Box::new(connection));
        }
        for (port, connected) in [(8081, true), (8082, false)] {
            for exchange in Exchange::open(host, peer, server(port), connected, EACH)? {
                live.push(Box::new(exchange));
            }
        }
    }
    Ok(live)
}

/// What became of packets.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Packets of the flood.
    delivered: usize,
    /// Packets of peers to conversations.
    asked: usize,
    /// Those that arrived.
    answered: usize,
}

/// Floods the host and has all peers send, while `act` is under way and a little longer.
fn meanwhile(
    lab: &Lab,
    live: &mut [Box<dyn Talk + Send>],
    act: impl FnOnce() -> Result<()>,
) -> Result<Seen> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| -> Result<usize> {
            let mut delivered = 0;
            while !over.load(Ordering::Relaxed) {
                delivered += lab.scan(50)?;
            }
            Ok(delivered)
        });
        let talking = scope.spawn(|| -> Result<(usize, usize)> {
            let (mut asked, mut answered) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                for talk in &mut *live {
                    talk.speak()?;
                    asked += 1;
                    answered += usize::from(talk.hears(PATIENCE));
                }
            }
            Ok((asked, answered))
        });
        let acted = act();
        // What was under way when the new one took over has ended by then.
        thread::sleep(Duration::from_millis(500));
        over.store(true, Ordering::Relaxed);
        let (asked, answered) = talking.join().expect("it does not panic")?;
        let delivered = flood.join().expect("it does not panic")?;

        acted.map(|()| Seen {
            delivered,
            asked,
            answered,
        })
    })
}
