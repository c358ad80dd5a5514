//! Hosts with more flows than fit: what is forgotten, what is not, and what is said.

use std::{
    net::{Ipv4Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    build,
    clients::run,
    frames::{P, udp},
    guard::Guard,
    load::{self, Servers},
    metrics,
    netns::Direct,
    peers::{Exchange, alive},
    processors,
    wire::Wire,
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::sweeps::{altered, wait_for_sweeps};

/// Entries of each flow map: as few as there can be.
const ENTRIES: usize = 1024;
const SMALL: [&str; 2] = ["--max-flows", "1024"];
const PATIENCE: Duration = Duration::from_secs(2);
/// A port of the host from which it asks everybody.
const PORT: u16 = 40_000;
/// The first port that it asks.
const FIRST: u16 = 1_000;

/// Asks so many ports of the peer from one socket that hears everybody, which is a flow each.
fn ask(topology: &Direct, count: usize) -> Result<UdpSocket> {
    let host = &topology.guarded;
    let socket = host.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
    for port in (FIRST..).take(count) {
        socket.send_to(b"query", (P.ipv4, port))?;
    }
    Ok(socket)
}

/// Waits until the guard has said something.
fn wait_until_said(guard: &Guard, words: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !guard.said().contains(words) {
        ensure!(
            Instant::now() < deadline,
            "no {words:?} in {:?}",
            guard.said()
        );
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub fn status(topology: &Direct, guard: &Guard) -> Result<String> {
    let binary = build::binary();
    let (binary, socket) = (binary.display(), guard.control_socket());
    run(
        &topology.guarded,
        &format!("{binary} status --control-socket {}", socket.display()),
    )
}

#[test]
fn a_map_that_is_too_small_is_told_of() -> Result<()> {
    const ADVICE: &str = "--max-flows 4096 has room";

    let topology = Direct::new()?;
    let flags = [&SMALL[..], &["--timeout", "udp=4"]].concat();
    let guard = altered(&topology, &[], &flags)?;
    let socket = ask(&topology, 300)?;
    thread::sleep(Duration::from_millis(500));
    ensure!(!guard.said().contains("--max-flows"), "{}", guard.said());
    ensure!(!status(&topology, &guard)?.contains("advice"), "advice");

    drop(socket);
    let _socket = ask(&topology, 870)?;
    wait_until_said(&guard, ADVICE)?;
    let status = status(&topology, &guard)?;
    ensure!(status.contains(ADVICE), "{status}");
    let live = metrics::sum(&guard.scrape()?, "portguard_flows", &[("protocol", "udp")]);
    ensure!((860..=870).contains(&live), "{live} flows");
    wait_until_said(&guard, "the flow maps have room again")?;
    let said = guard.said();
    ensure!(said.matches(ADVICE).count() == 1, "{said}");
    Ok(())
}

/// A daemon that dies while timers are short leaves them so, and the next one must not take them
/// for those that are configured.
#[test]
fn who_adopts_short_timers_makes_them_whole() -> Result<()> {
    let topology = Direct::new()?;
    let mut guard = altered(&topology, &[], &SMALL)?;
    let namespace = topology.guarded.run(namespace::name)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
    let whole = state.timeouts();
    let _socket = ask(&topology, 900)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while state.timeouts() == whole {
        ensure!(Instant::now() < deadline, "timers stay as they are");
        thread::sleep(Duration::from_millis(20));
    }
    guard.kill()?;
    let short = state.timeouts();
    ensure!(short.udp_dns < whole.udp_dns, "{short:?}");
    ensure!(short.tcp_transitory == whole.tcp_transitory, "{short:?}");
    let off = [&SMALL[..], &["--adaptive-timeouts", "off"]].concat();
    guard.start_again(&off)?;
    wait_for_sweeps(&topology, &guard)?;
    ensure!(state.timeouts() == whole, "{:?}", state.timeouts());
    Ok(())
}

/// What becomes of some idle flows without a socket that the kernel would find, while short ones
/// come and go: more than fit, and fewer at a time.
fn idle_beside_short(without: &[&str]) -> Result<(usize, u64)> {
    const IDLE: usize = 30;
    const ROUNDS: usize = 90;
    const AT_ONCE: usize = 25;

    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let _servers = Servers::start(peer)?;
    let flags = [&SMALL[..], &["--timeout", "udp-dns=1"]].concat();
    let guard = altered(&topology, without, &flags)?;
    let server = P.address(Family::Ipv4);
    let mut idle = host.run(|| -> Result<_> {
        // What a processor has recorded last stays until that very processor records more.
        processors::pin(0)?;
        let idle = Exchange::open(host, peer, (server, 8081), false, IDLE)?;
        for _ in 0..ROUNDS {
            thread::sleep(Duration::from_millis(80));
            (0..AT_ONCE).try_for_each(|_| load::resolve(server))?;
        }
        Ok(idle)
    })?;
    let before = guard.packets()?;
    let heard = alive(&mut idle, PATIENCE)?;
    let dropped = guard.packets()?.since(&before).of(DropNoFlow);
    Ok((heard, dropped))
}

#[test]
fn idle_flows_outlive_many_short_ones() -> Result<()> {
    let (heard, dropped) = idle_beside_short(&[])?;
    ensure!(heard == 30 && dropped == 0, "{heard} hear, {dropped}");
    Ok(())
}

#[test]
fn without_reclaiming_many_short_flows_cut_idle_ones() -> Result<()> {
    let (heard, dropped) = idle_beside_short(&["reclaim"])?;
    ensure!(heard == 0, "{heard} hear although nobody makes room");
    ensure!(dropped == 30, "{dropped}");
    Ok(())
}

/// The share of answers that are lost when a host without connected sockets asks so many at once,
/// and all of them answer after the last was asked.
#[test]
fn what_eviction_costs() -> Result<()> {
    // asked, as parts of a hundred of what fits; answers lost of a hundred
    let table = [
        (50, 0..=0),
        (80, 0..=0),
        (100, 0..=30),
        (200, 45..=65),
        (400, 70..=80),
    ];
    for (percent, expected) in table {
        let topology = Direct::new()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let guard = altered(&topology, &[], &SMALL)?;
        let asked = ENTRIES * percent / 100;
        let _socket = ask(&topology, asked)?;
        let before = guard.packets()?;
        for port in (FIRST..).take(asked) {
            wire.send(&udp(port, PORT).received(Family::Ipv4))?;
        }
        let moved = guard.packets()?.since(&before);
        let (known, lost) = (moved.of(PassKnownFlow), moved.of(DropNoFlow));
        ensure!(known + lost == asked as u64, "{asked} asked:{moved}");
        let share = lost * 100 / asked as u64;
        println!("{asked} asked with room for {ENTRIES}: {lost} answers lost, {share} %");
        ensure!(expected.contains(&share), "{asked} asked, {share} % lost");
    }
    Ok(())
}
