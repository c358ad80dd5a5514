//! The end that somebody has asked for.

use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    frames::P,
    load::{self, Servers},
    metrics,
    peers::{Exchange, Talk},
};

use super::{Lab, attachments, hooks};

/// What SIGTERM may take.
const PROMISED: Duration = Duration::from_secs(1);

#[test]
fn f02_sigterm_leaves_nothing() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
        let mut guard = lab.guard(&flags)?;
        guard.expect([(DropNoFlow, 20)], || {
            ensure!(
                lab.scan(10)? == 0,
                "{flags:?}: unsolicited packets are delivered"
            );
            Ok(())
        })?;
        let program = hooks::xdp(host, interface)?;
        ensure!(program.is_some(), "{flags:?}: no XDP program is shown");
        ensure!(hooks::egress(host, interface)? == 1, "{flags:?}");

        let asked = Instant::now();
        let status = guard.end()?;
        let took = asked.elapsed();
        ensure!(status.success(), "{flags:?}: {status}: {}", guard.said());
        ensure!(took < PROMISED, "{flags:?}: the end took {took:?}");
        ensure!(hooks::xdp(host, interface)?.is_none(), "{flags:?}: XDP");
        ensure!(hooks::egress(host, interface)? == 0, "{flags:?}: egress");
        let left = fs::read_dir(guard.pins()).map_or(0, Iterator::count);
        ensure!(left == 0, "{flags:?}: {left} folders are left");
        ensure!(!guard.control_socket().exists(), "{flags:?}: the socket");
        // Programs are freed behind the back of anyone who detaches them.
        let deadline = Instant::now() + PROMISED;
        while program.is_some_and(hooks::loaded) {
            ensure!(Instant::now() < deadline, "{flags:?}: still loaded");
            thread::sleep(Duration::from_millis(20));
        }
        ensure!(
            lab.hears(10)?,
            "{flags:?}: unsolicited packets are not delivered"
        );
    }
    Ok(())
}

/// While unsolicited senders knock, clients come and go, the range changes and everybody asks for figures.
#[test]
fn f02_sigterm_is_answered_soon_under_load() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let _servers = Servers::start(peer)?;
        let mut guard = lab.guard(&flags)?;
        let ended = AtomicBool::new(false);
        let (scanned, asked, scraped) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        let again = |count: &AtomicU32, act: &dyn Fn()| {
            while !ended.load(Ordering::Relaxed) {
                act();
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let took = thread::scope(|scope| -> Result<Duration> {
            scope.spawn(|| again(&scanned, &|| drop(lab.scan(100))));
            scope.spawn(|| {
                again(&asked, &|| {
                    drop(host.run(|| load::get(P.address(Family::Ipv4))));
                });
            });
            for _ in 0..2 {
                scope.spawn(|| again(&scraped, &|| drop(metrics::scrape(host))));
            }
            scope.spawn(|| {
                let mut ranges = ["40000 60999", "32768 60999"].iter().cycle();
                while !ended.load(Ordering::Relaxed) {
                    let range = ranges.next().unwrap_or(&"32768 60999");
                    let _ = host.sysctl("net/ipv4/ip_local_port_range", range);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            thread::sleep(PROMISED);
            let asked = Instant::now();
            let status = guard.end();
            let took = asked.elapsed();
            ended.store(true, Ordering::Relaxed);
            let status = status?;
            ensure!(status.success(), "{flags:?}: {status}: {}", guard.said());
            Ok(took)
        })?;
        for count in [scanned, asked, scraped].map(AtomicU32::into_inner) {
            ensure!(count > 1, "{flags:?}: there was no load");
        }
        ensure!(took < PROMISED, "{flags:?}: the end took {took:?}");
        ensure!(hooks::xdp(host, lab.topology.interface())?.is_none());
        ensure!(hooks::egress(host, lab.topology.interface())? == 0);
    }
    Ok(())
}

#[test]
fn f02_sigint_ends_it_too() -> Result<()> {
    let lab = Lab::new()?;
    let mut guard = lab.guard(&[])?;
    guard.signal(libc::SIGINT);
    thread::sleep(PROMISED);
    ensure!(lab.hears(1)?, "it still guards");
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// An upgrade: the guard stands while its daemon is replaced.
#[test]
fn f02_keep_attached_keeps_both_programs_in_force() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let keep = [&flags[..], &["--keep-attached"]].concat();
        let mut guard = lab.guard(&keep)?;
        // Nothing but its entry knows of an unconnected socket's peer.
        let server = P.address(Family::Ipv4);
        let mut talk = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
        ensure!(
            lab.scan(10)? == 0,
            "{flags:?}: unsolicited packets are delivered"
        );
        let status = guard.end()?;
        ensure!(status.success(), "{flags:?}: {status}: {}", guard.said());

        ensure!(lab.scan(10)? == 0, "{flags:?}: not kept");
        talk.speak()?;
        ensure!(talk.hears(PROMISED), "{flags:?}: the answer is lost");
        let mut second = Exchange::open(host, peer, (server, 8082), false, 1)?.remove(0);
        guard.start_again(&flags)?;
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 40, "{flags:?}:{packets}");
        for talk in [&mut talk, &mut second] {
            guard.expect([(PassKnownFlow, 1)], || {
                talk.speak()?;
                ensure!(talk.hears(PROMISED), "{flags:?}: the answer is lost");
                Ok(())
            })?;
        }
        ensure!(guard.end()?.success(), "{flags:?}: {}", guard.said());
        ensure!(lab.hears(1)?, "{flags:?}: kept, though not asked to");
    }
    Ok(())
}
