//! The host scans others, none of which answers, and its older connections live on.

use std::{
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome::{PassInsertFailed, PassNewFlow, PassRefreshedFlow};
use guard_tests::{
    metrics::Packets,
    processors,
    soak::{self, Figures, Idle, Size},
};

use crate::{flawless, lab::Lab, report};

/// Scanners at a time: as many as may meet in a map.
const SCANNERS: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(1);

/// A sweep in between would put the flows back.
const UNREPAIRED: [&str; 2] = ["--without", "repair"];

/// How much of everything.
#[derive(Clone, Copy)]
struct Amount {
    max_flows: &'static str,
    idle: usize,
    hosts: u32,
}

const SHORT: Amount = Amount {
    max_flows: "1024",
    idle: 200,
    hosts: 40_000,
};
const FULL: Amount = Amount {
    max_flows: "65536",
    idle: 1_000,
    hosts: 1_000_000,
};
const UNGUARDED: u32 = 10_000;

/// Scans so many hosts, and returns how many frames that took.
fn scan(lab: &Lab, hosts: u32) -> Result<u64> {
    let (host, interface) = (&lab.topology.guarded, lab.topology.interface());
    let share = hosts / SCANNERS;
    thread::scope(|scope| {
        let scan = |number| {
            scope.spawn(move || {
                // One to each: entries that a processor has put in wait on a list of its own, where
                // the others evict none of them.
                processors::pin(number as usize % processors::count())?;
                soak::scan(host, interface, number * share, share)
            })
        };
        let scanners: Vec<_> = (0..SCANNERS).map(scan).collect();
        let join =
            |scanner: ScopedJoinHandle<'_, _>| scanner.join().expect("a scanner does not panic");
        scanners.into_iter().map(join).sum()
    })
}

/// Lets the far ends of older connections speak.
fn speak(idle: &mut Idle) -> Result<Figures> {
    let (count, alive) = (idle.count(), idle.alive(PATIENCE)?);
    Ok(Figures {
        made: count as u64,
        failed: (count - alive) as u64,
        ..Figures::default()
    })
}

/// Every frame is recorded, or counted as one that found no room.
fn accounted(moved: &Packets, sent: u64) -> Result<()> {
    let kinds = [PassNewFlow, PassRefreshedFlow, PassInsertFailed];
    let counted: u64 = kinds.into_iter().map(|outcome| moved.of(outcome)).sum();
    ensure!(counted == sent, "{counted} counted of {sent} sent:{moved}");
    Ok(())
}

fn run(size: Size, alterations: &[&str], flags: &[&str]) -> Result<Figures> {
    let amount = size.choose(SHORT, FULL);
    let lab = Lab::new()?;
    let mut idle = Idle::open(&lab.topology, amount.idle, amount.idle)?;
    scan(&lab, UNGUARDED)?;
    let figures = speak(&mut idle)?;
    println!("scan, without a guard: {figures}");
    flawless(&figures)?;

    let flags = [&["--max-flows", amount.max_flows], flags].concat();
    let guard = lab.guard_altered(alterations, &flags)?;
    let (began, before) = (Instant::now(), guard.packets()?);
    let sent = scan(&lab, amount.hosts)?;
    accounted(&guard.packets()?.since(&before), sent)?;
    let figures = Figures {
        took: began.elapsed(),
        ..speak(&mut idle)?
    };
    let moved = guard.packets()?.since(&before);
    println!("scan: {sent} frames sent,{moved}");
    let figures = figures.counted(&moved);
    report("scan", size, &figures);
    Ok(figures)
}

#[test]
fn l5_a_scan_cuts_no_older_connection() -> Result<()> {
    let figures = run(Size::asked(), &[], &[])?;
    flawless(&figures)?;
    ensure!(figures.rescued > 0, "nothing was evicted: {figures}");
    Ok(())
}

#[test]
fn l5_without_rescue_a_scan_cuts_them() -> Result<()> {
    let figures = run(Size::Short, &UNREPAIRED, &["--no-rescue"])?;
    ensure!(figures.failed > 0 && figures.dropped > 0, "{figures}");
    ensure!(figures.rescued == 0, "{figures}");
    Ok(())
}
