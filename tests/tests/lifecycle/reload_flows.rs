//! Reloads that look flows up otherwise, or let them live longer.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::{
    outcome::{
        Family,
        Outcome::{DropNoFlow, PassKnownFlow},
    },
    ports::occupancy::Use,
};
use guard_tests::{
    frames::P,
    guard::Guard,
    peers::{Exchange, Talk},
    wire::QUIET,
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::{
    Lab,
    reload::{Config, PATIENCE},
};

#[test]
fn another_filter_cuts_nobody_it_can_know() -> Result<()> {
    let lab = Lab::new()?;
    let config = Config::new()?;
    let path = config.path.display().to_string();
    let mut guard = lab.guard(&["--config", &path])?;
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let server = P.address(Family::Ipv4);
    let mut unconnected = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    let mut connected = Exchange::open(host, peer, (server, 8082), true, 1)?.remove(0);
    let heard = |guard: &Guard, talk: &mut Exchange, what: &str| {
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{what} has cost a flow");
            Ok(())
        })
    };

    heard(&guard, &mut unconnected, "nothing")?;
    config.reload(&mut guard, "udp-filter = \"address\"", "reloaded: ")?;
    heard(&guard, &mut unconnected, "a wider filter")?;
    heard(&guard, &mut connected, "a wider filter")?;
    let mut late = Exchange::open(host, peer, (server, 8083), false, 1)?.remove(0);
    heard(&guard, &mut late, "nothing")?;
    config.reload(&mut guard, "", "reloaded: udp-filter")?;
    heard(&guard, &mut connected, "a narrower filter")?;
    // Which port it had asked is not known any more, until it asks again.
    guard.expect([(DropNoFlow, 1)], || {
        late.speak()?;
        ensure!(!late.hears(QUIET), "a port that nobody asked is heard");
        Ok(())
    })?;
    late.client.send_to(b"query", (server, 8083))?;
    heard(&guard, &mut late, "asking again")?;
    ensure!(guard.end()?.success(), "{}", guard.said());
    Ok(())
}

/// Sweeps forget the port of a flow that has expired. Where the timer becomes longer and the flow
/// lives again, the next sweep does not wait for its turn.
#[test]
fn longer_timers_bring_ports_back_at_once() -> Result<()> {
    const REST: Duration = Duration::from_secs(4);

    let lab = Lab::new()?;
    let config = Config::new()?;
    config.write("timeout = { udp = 1 }")?;
    let path = config.path.display().to_string();
    let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
    let rest = REST.as_millis().to_string();
    let mut guard = Guard::start_altered(
        host,
        lab.topology.interface(),
        &["--sweep-rest", &rest],
        &["--config", &path],
    )?;
    let server = (P.address(Family::Ipv4), 8081);
    let mut talk = Exchange::open(host, peer, server, false, 1)?.remove(0);
    let port = talk.client.local_addr()?.port();
    let state = StateMemory::open(&Pins::new(guard.pins(), &host.run(namespace::name)?))?;
    let deadline = Instant::now() + 10 * REST;
    while state.in_use(Use::Udp, port) {
        ensure!(Instant::now() < deadline, "{port} is in use for ever");
        thread::sleep(Duration::from_millis(10));
    }
    // A sweep has just ended, so none is due.
    let epoch = state.epoch();
    config.reload(&mut guard, "timeout = { udp = 300 }", "reloaded: ")?;
    let deadline = Instant::now() + REST * 3 / 4;
    while state.epoch() == epoch {
        ensure!(Instant::now() < deadline, "no sweep has begun");
        thread::sleep(Duration::from_millis(10));
    }
    guard.expect([(PassKnownFlow, 1)], || {
        talk.speak()?;
        ensure!(talk.hears(PATIENCE), "a flow that lives again is not heard");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_start_with_a_wider_filter_keeps_flows() -> Result<()> {
    for size in [[].as_slice(), &["--max-flows", "131072"]] {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&[])?;
        let (host, peer) = (&lab.topology.guarded, &lab.topology.peer);
        let server = (P.address(Family::Ipv4), 8081);
        let mut talk = Exchange::open(host, peer, server, false, 1)?.remove(0);
        guard.kill()?;
        guard.start_again(&[&["--udp-filter", "address"], size].concat())?;
        guard.expect([(PassKnownFlow, 1)], || {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "{size:?}: the start has cost a flow");
            Ok(())
        })?;
    }
    Ok(())
}
