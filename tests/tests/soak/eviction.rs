//! Idle connections, and so much traffic beside them that the maps forget them over and over.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::soak::{self, Budget, Figures, Idle, Size, Tally};

use crate::{flawless, lab::Lab, report};

/// Threads of each kind of client.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(1);

/// A sweep in between would put the flows back.
const UNREPAIRED: [&str; 2] = ["--without", "repair"];

/// How much of everything.
#[derive(Clone, Copy)]
struct Amount {
    max_flows: &'static str,
    idle: usize,
    queries: u64,
    connections: u64,
}

const SHORT: Amount = Amount {
    max_flows: "1024",
    idle: 200,
    queries: 6_000,
    connections: 4_000,
};
const FULL: Amount = Amount {
    max_flows: "4096",
    idle: 1_000,
    queries: 300_000,
    connections: 100_000,
};
const UNGUARDED: Amount = Amount {
    queries: 1_000,
    connections: 500,
    ..SHORT
};

/// Lets clients at the servers, and then the far ends of idle connections speak.
fn load(lab: &Lab, idle: &mut Idle, amount: Amount) -> Result<Figures> {
    let began = Instant::now();
    let host = &lab.topology.guarded;
    let tally = Tally::default();
    thread::scope(|scope| {
        let queries = Budget::count(amount.queries);
        let connections = Budget::count(amount.connections);
        let tally = &tally;
        scope.spawn(move || soak::query(host, &queries, CLIENTS, tally));
        scope.spawn(move || soak::connect(host, &connections, CLIENTS, tally));
    });
    let count = idle.count();
    let alive = idle.alive(PATIENCE)?;
    println!("eviction: {alive} of {count} idle connections alive");
    let figures = tally.figures();
    Ok(Figures {
        made: figures.made + count as u64,
        failed: figures.failed + (count - alive) as u64,
        took: began.elapsed(),
        ..figures
    })
}

fn run(size: Size, alterations: &[&str], flags: &[&str]) -> Result<Figures> {
    let amount = size.choose(SHORT, FULL);
    let lab = Lab::new()?;
    let mut idle = Idle::open(&lab.topology, amount.idle, amount.idle)?;
    let figures = load(&lab, &mut idle, UNGUARDED)?;
    println!("eviction, without a guard: {figures}");
    flawless(&figures)?;

    let flags = [&["--max-flows", amount.max_flows], flags].concat();
    let guard = lab.guard_altered(alterations, &flags)?;
    let before = guard.packets()?;
    let figures = load(&lab, &mut idle, amount)?;
    let moved = guard.packets()?.since(&before);
    println!("eviction:{moved}");
    let figures = figures.counted(&moved);
    report("eviction", size, &figures);
    Ok(figures)
}

#[test]
fn l3_idle_connections_outlive_their_entries() -> Result<()> {
    let size = Size::asked();
    let figures = run(size, &[], &[])?;
    flawless(&figures)?;
    // Else nothing was evicted, and nothing is shown.
    let idle = size.choose(SHORT, FULL).idle as u64;
    ensure!(figures.rescued > idle / 2, "{figures}");
    Ok(())
}

#[test]
fn l3_without_rescue_eviction_cuts_them() -> Result<()> {
    let figures = run(Size::Short, &UNREPAIRED, &["--no-rescue"])?;
    ensure!(figures.failed > 0 && figures.dropped > 0, "{figures}");
    ensure!(figures.rescued == 0, "{figures}");
    Ok(())
}
