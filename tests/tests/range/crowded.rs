//! Y04 on hosts that have much open: what others have open delays no change.

use std::{
    net::SocketAddrV4,
    sync::{PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    capabilities,
    crowd::Crowd,
    frames::P,
    guard::Guard,
    metrics,
    netns::Direct,
    wire::{Acceptor, Listener, Wire},
};

use crate::{
    PATIENCE,
    changes::{SOON, lag},
};

/// Held alone while processes have so many descriptors that names come long after a start, and shared
/// by tests that expect them with it: a guard looks at all processes, whichever network they are in.
pub static DESCRIPTORS: RwLock<()> = RwLock::new(());

/// How long a look at the health may take.
const HEALTH: Duration = Duration::from_secs(1);
/// How long it may take to name who listens.
const NAMED: Duration = Duration::from_secs(60);

/// The shortest of some lags: what else the machine has to do delays some of them.
fn best_lag(
    topology: &Direct,
    place: (&Wire, &Listener),
    (open, guarded): (&str, &str),
) -> Result<Duration> {
    let mut best = Duration::MAX;
    for round in 0..8 {
        lag(topology, place, open, true)?;
        thread::sleep(Duration::from_millis(37 * round));
        best = best.min(lag(topology, place, guarded, false)?);
        if best <= SOON {
            break;
        }
    }
    Ok(best)
}

#[test]
fn y04_a_hundred_thousand_sockets_delay_no_change() -> Result<()> {
    let topology = Direct::new()?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let listener = Listener::new(&topology.guarded, 40_000)?;
    let peer = SocketAddrV4::new(P.ipv4, 9000);
    let _crowd = Crowd::of_sockets(&topology.guarded, peer, (2000, 40_000), 95_000)?;
    let flags = ["--xdp-mode", "generic", "--max-flows", "262144"];
    let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
    // Nearly all of them come to be on guarded ports.
    let ranges = ("60000 60999", "1024 65535");
    let best = best_lag(&topology, (&wire, &listener), ranges)?;
    println!("Y04, 95,000 sockets: in force after {best:?}");
    // By then it has been learned what flows there are.
    let said_to_be_in_force = || {
        let said = guard.said();
        let last = said.lines().rfind(|line| line.contains("port range "));
        last.is_some_and(|line| line.contains("-> 1024-65535"))
    };
    let deadline = Instant::now() + PATIENCE;
    while !said_to_be_in_force() {
        ensure!(Instant::now() < deadline, "not said: {}", guard.said());
        thread::sleep(Duration::from_millis(10));
    }
    let learned = |line: &str| {
        let count = line
            .split_once("existing flows: ")?
            .1
            .split_whitespace()
            .next()?;
        count.parse::<usize>().ok()
    };
    let all: usize = guard.said().lines().filter_map(learned).sum();
    ensure!(all > 90_000, "only {all} were there: {}", guard.said());
    ensure!(best <= SOON, "in force only after {best:?}");
    Ok(())
}

#[test]
fn y04_half_a_million_descriptors_delay_nothing() -> Result<()> {
    let _alone = DESCRIPTORS.write().unwrap_or_else(PoisonError::into_inner);
    let topology = Direct::new()?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let listener = Listener::new(&topology.guarded, 40_000)?;
    let _crowd = Crowd::of_descriptors(520_000)?;
    let flags = ["--xdp-mode", "generic"];
    let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
    // Anyone who has this one is younger than the crowd, and so found first; this test is not.
    let acceptor = Acceptor::new(&topology.guarded, 41_000)?;
    let began = Instant::now();
    let ranges = ("50000 60999", "32768 60999");
    let best = best_lag(&topology, (&wire, &listener), ranges)?;
    println!("Y04, 520,000 descriptors: in force after {best:?}");
    ensure!(best <= SOON, "in force only after {best:?}");
    for _ in 0..20 {
        let asked = Instant::now();
        let (code, text) = metrics::get(&topology.guarded, "/healthz")?;
        ensure!(code == 200, "{code}: {text}");
        let took = asked.elapsed();
        ensure!(took < HEALTH, "/healthz takes {took:?}");
    }

    // The walk takes a whole processor for a second, and a tenth of one from then on.
    let (before, at) = (busy(&guard), Instant::now());
    thread::sleep(Duration::from_secs(4));
    let took = busy(&guard).saturating_sub(before);
    let share = took.as_secs_f64() / at.elapsed().as_secs_f64();
    println!(
        "Y04, 520,000 descriptors: {:.0} % of a processor",
        100.0 * share
    );
    ensure!(share < 0.5, "{took:?} of a processor are taken");

    while !guard.said().contains("41000/tcp") {
        ensure!(began.elapsed() < NAMED, "not named: {}", guard.said());
        thread::sleep(Duration::from_millis(50));
    }
    println!(
        "Y04, 520,000 descriptors: named after {:?}",
        began.elapsed()
    );
    let (before, at) = (busy(&guard), Instant::now());
    thread::sleep(Duration::from_secs(6));
    let took = busy(&guard).saturating_sub(before);
    let share = took.as_secs_f64() / at.elapsed().as_secs_f64();
    println!("Y04, 520,000 descriptors: then {:.0} %", 100.0 * share);
    ensure!(share < 0.2, "{took:?} of a processor are taken for ever");
    drop(acceptor);
    Ok(())
}

/// For how long processors were busy with what the guard has started.
fn busy(guard: &Guard) -> Duration {
    let processes = capabilities::descendants(guard.pid());
    processes.into_iter().filter_map(capabilities::busy).sum()
}
