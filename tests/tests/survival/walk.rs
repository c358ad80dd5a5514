//! Sweeps of large maps in which flows come and go all the time.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::{
    flow::{
        key::{FlowKey, FlowKeyV4},
        state::{Flow, Phase},
    },
    frame::{address::V4, ip::Tuple, transport::Transport},
    ports::occupancy::Use,
};
use guard_tests::{netns::Namespace, pinned::PinnedMaps};
use guard_userspace::{
    bpf::maps::StateMemory,
    config::ConfigLayer,
    guard::{
        fault_injection::Parts,
        sweep::{SweepResult, Sweeper},
    },
};

/// The kernel's usual range.
const PORTS: Range<u16> = 32_768..61_000;
/// Flows that are there all along.
const FLOWS: usize = 1_000_000;
/// The map they are in, which nobody need be evicted from.
const MASS: (&str, u32) = ("flows_tcp4", 1 << 20);
/// The map with one flow a port.
const SINGLES: (&str, u32) = ("flows_udp4", 1 << 16);
/// Flows that come and go.
const PASSERS: u32 = 8_000;
/// Those that do so while a small map is swept, in all. A walk that goes on from the entry it has
/// seen last, and starts anew where that has gone, does so about once in a million.
const MANY_PASSERS: u64 = 3_000_000;
/// How long that may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(25);
/// Sweeps, each of which must miss none.
const SWEEPS: u8 = 2;

fn key(transport: Transport, port: u16, remote: u32) -> FlowKeyV4 {
    FlowKeyV4::new(&Tuple {
        transport,
        local: V4::from([10, 9, 0, 2]),
        remote: V4::from(remote.to_be_bytes()),
        local_port: port.to_be(),
        remote_port: 443_u16.to_be(),
    })
}

/// The flow with this number, spread over all ports.
fn numbered(number: usize) -> FlowKeyV4 {
    let port = PORTS.start + (number % PORTS.len()) as u16;
    key(Transport::Tcp, port, number as u32)
}

/// Lets flows come and go in these maps until `ended`, and counts them. So many at a time that a
/// walk that loses its place when an entry vanishes does so again and again.
fn come_and_go(
    maps: &PinnedMaps,
    crowded: &[(&str, Transport)],
    ended: &AtomicBool,
    passed: &AtomicU64,
) -> Result<()> {
    let now = maps.now()?;
    // Off the range, so that the ports they are on tell nothing of the others.
    let passers = |transport, half: u32| -> Vec<_> {
        (0..PASSERS)
            .map(|number| key(transport, 1_024, half * PASSERS + number))
            .collect()
    };
    let halves = [0, 1].map(|half| {
        let crowd = |&(name, transport)| (name, transport, passers(transport, half));
        crowded.iter().map(crowd).collect::<Vec<_>>()
    });
    let come = |half: &[(&str, Transport, Vec<_>)]| {
        half.iter().try_for_each(|(name, transport, keys)| {
            let phase = match transport {
                Transport::Tcp => Phase::Established,
                Transport::Udp | Transport::UdpLite => Phase::Datagram,
            };
            maps.fill(name, keys, Flow::new(phase, now))
        })
    };
    let go = |half: &[(&str, Transport, Vec<_>)]| {
        half.iter()
            .try_for_each(|(name, _, keys)| maps.empty(name, keys))
    };
    come(&halves[1])?;
    while !ended.load(Ordering::Relaxed) {
        for (ours, others) in [(0, 1), (1, 0)] {
            come(&halves[ours])?;
            go(&halves[others])?;
            passed.fetch_add(u64::from(PASSERS), Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Does something while flows come and go, which it is told the number of.
fn beside_a_crowd(
    maps: &PinnedMaps,
    crowded: &[(&str, Transport)],
    act: impl FnOnce(&AtomicU64) -> Result<()>,
) -> Result<()> {
    let (ended, passed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let churn = scope.spawn(|| come_and_go(maps, crowded, &ended, &passed));
        let done = act(&passed);
        ended.store(true, Ordering::Relaxed);
        churn.join().expect("the churn does not panic")?;
        done
    })
}

/// Ports that look free.
fn free(state: &StateMemory) -> usize {
    PORTS.filter(|port| !state.in_use(Use::Udp, *port)).count()
}

/// Ports whose one flow the sweep has not found: they have no owner, or it has lost them just now,
/// and they are marked.
fn missed(state: &StateMemory) -> usize {
    PORTS
        .filter(|port| !state.is_owned(Use::Udp, *port))
        .count()
}

/// Sweeps once, and looks at the ports at the very moment at which the epoch moves.
fn sweep(state: &StateMemory, sweeper: &mut Sweeper, flows: usize) -> Result<(SweepResult, usize)> {
    let before = state.epoch();
    let swept = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while state.epoch() == before && !swept.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(20));
            }
            missed(state)
        });
        let found = sweeper.sweep();
        swept.store(true, Ordering::Relaxed);
        let missed = watcher.join().expect("the watcher does not panic");
        let found = found?;
        ensure!(state.epoch() != before, "the epoch has not moved");
        ensure!(found.flows() >= flows as u64, "{found:?}");
        Ok((found, missed))
    })
}

#[test]
fn a_sweep_of_a_million_flows_misses_none() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[MASS, SINGLES], ConfigLayer::default())?;
    let now = maps.now()?;
    let mass: Vec<_> = (0..FLOWS).map(numbered).collect();
    maps.fill(MASS.0, &mass, Flow::new(Phase::Established, now))?;
    let singles: Vec<_> = PORTS.map(|port| key(Transport::Udp, port, 1)).collect();
    maps.fill(SINGLES.0, &singles, Flow::new(Phase::Datagram, now))?;

    let crowded = [(MASS.0, Transport::Tcp), (SINGLES.0, Transport::Udp)];
    beside_a_crowd(&maps, &crowded, |passed| check(&host, &maps, passed))
}

fn check(host: &Namespace, maps: &PinnedMaps, passed: &AtomicU64) -> Result<()> {
    let state = maps.state();
    let mut sweeper = maps.sweeper(Parts::default())?;
    ensure!(free(&state) == PORTS.len(), "marked before the sweep");
    for round in 0..SWEEPS {
        // So far ahead that no earlier mark counts.
        state.set_epoch(u32::from(10 + 50 * round));
        let before = passed.load(Ordering::Relaxed);
        let (swept, missed) = host.run(|| sweep(&state, &mut sweeper, FLOWS + PORTS.len()))?;
        let passed = passed.load(Ordering::Relaxed) - before;
        let (took, busy) = (swept.took, swept.busy);
        println!("swept in {took:?}, busy for {busy:?}, while {passed} came and went");
        ensure!(missed == 0, "{missed} flows were not found");
        ensure!(passed > 0, "nothing came or went meanwhile");
    }

    // Each flow by itself.
    let mut seen = vec![false; FLOWS];
    let mass = maps.flows()?;
    let mass = mass.first().context("the map of TCP flows")?;
    let began = Instant::now();
    mass.walk(|entry| {
        let std::net::IpAddr::V4(remote) = entry.remote.ip() else {
            return;
        };
        let number = u32::from(remote) as usize;
        if let Some(seen) = seen.get_mut(number) {
            *seen = true;
        }
    })?;
    println!("walked in {:?}", began.elapsed());
    let missed = seen.iter().filter(|seen| !**seen).count();
    ensure!(missed == 0, "{missed} flows of {FLOWS} were not seen");
    Ok(())
}

/// What goes wrong once in a million entries goes wrong here.
#[test]
fn many_sweeps_of_a_busy_map_miss_none() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[SINGLES], ConfigLayer::default())?;
    let singles: Vec<_> = PORTS.map(|port| key(Transport::Udp, port, 1)).collect();
    maps.fill(SINGLES.0, &singles, Flow::new(Phase::Datagram, maps.now()?))?;
    let state = maps.state();
    let mut sweeper = maps.sweeper(Parts::default())?;
    beside_a_crowd(&maps, &[(SINGLES.0, Transport::Udp)], |passed| {
        let began = Instant::now();
        let (mut epoch, mut sweeps, mut missed) = (10_u8, 0, 0);
        let passed = || passed.load(Ordering::Relaxed);
        while passed() < MANY_PASSERS && began.elapsed() < PATIENCE {
            state.set_epoch(u32::from(epoch));
            let swept = host.run(|| sweep(&state, &mut sweeper, 0))?;
            missed += swept.1;
            sweeps += 1;
            epoch = epoch.wrapping_add(50);
        }
        println!("{sweeps} sweeps, while {} came and went", passed());
        ensure!(missed == 0, "{missed} flows were not found");
        ensure!(sweeps >= 10 && passed() > 0, "{sweeps} sweeps");
        Ok(())
    })
}

#[test]
fn without_the_marks_of_flows_every_port_looks_free() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[SINGLES], ConfigLayer::default())?;
    let singles: Vec<_> = PORTS.map(|port| key(Transport::Udp, port, 1)).collect();
    maps.fill(SINGLES.0, &singles, Flow::new(Phase::Datagram, maps.now()?))?;
    let state = maps.state();
    let mut sweeper = maps.sweeper(Parts {
        flow_marks: false,
        ..Parts::default()
    })?;
    let before = state.epoch();
    let swept = host.run(|| sweeper.sweep())?;
    ensure!(swept.flows() == PORTS.len() as u64, "{swept:?}");
    ensure!(state.epoch() == before + 1, "the epoch has not moved");
    ensure!(
        free(&state) == PORTS.len(),
        "no mechanism but the sweep over flows marks them"
    );
    Ok(())
}

/// Epochs count modulo 256, so that what was never marked would look fresh when they are around 0.
#[test]
fn epochs_that_wrap_around_mark_nobody() -> Result<()> {
    let host = Namespace::new("g")?;
    let maps = PinnedMaps::new(&[SINGLES], ConfigLayer::default())?;
    let state = maps.state();
    let mut sweeper = maps.sweeper(Parts::default())?;
    state.set_epoch(252);
    for sweep in 0..6 {
        host.run(|| sweeper.sweep())?;
        ensure!(
            state.filters(),
            "a complete sweep leaves the filter in doubt"
        );
        ensure!(
            free(&state) == PORTS.len(),
            "ports look busy after sweep {sweep}, in epoch {}",
            state.epoch()
        );
    }
    ensure!(state.epoch() % 256 == 2, "{}", state.epoch());
    Ok(())
}
