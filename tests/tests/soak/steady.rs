//! A bit of everything for as long as you like, and a daemon that must not grow.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    setup::{FIRST, LAST},
    soak::{Budget, Figures, Footprint, Idle, Size},
};

use crate::{
    flawless,
    lab::{Lab, Load},
    report,
};

const STRANGE: u64 = 10_000;
const QUERIES: u64 = 500;
const CONNECTIONS: u64 = 50;
const IDLE: usize = 100;
const SHORT: Duration = Duration::from_secs(6);
const FULL: Duration = Duration::from_secs(180);
const UNGUARDED: Duration = Duration::from_secs(1);
/// Timers and maps so small that idle connections are forgotten all the time.
const FLAGS: [&str; 6] = [
    "--max-flows",
    "1024",
    "--timeout",
    "tcp-established=1",
    "--timeout",
    "udp=1",
];
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two words of far ends.
const PAUSE: Duration = Duration::from_millis(20);
/// By how much a daemon may vary that does not grow, in kB: the pages that a walk over the maps
/// and sockets takes and gives back.
const SLACK: u64 = 1_024;

fn load() -> Load {
    Load {
        connections: Budget::endless().paced(CONNECTIONS),
        queries: Budget::endless().paced(QUERIES),
        strange: Budget::endless().paced(STRANGE),
        ports: FIRST..=LAST,
    }
}

/// Lets far ends speak for so long, and calls `look` every second.
fn speak(
    idle: &mut Idle,
    time: Duration,
    mut look: impl FnMut() -> Result<()>,
) -> Result<(u64, u64)> {
    let (began, mut looks) = (Instant::now(), 0);
    let (mut spoken, mut deaf) = (0, 0);
    while began.elapsed() < time {
        deaf += u64::from(!idle.hears_next(PATIENCE)?);
        spoken += 1;
        if began.elapsed().as_secs() >= looks {
            look()?;
            looks += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok((spoken, deaf))
}

/// A load, and idle connections that are spoken to beside it.
fn run(
    lab: &Lab,
    idle: &mut Idle,
    time: Duration,
    look: impl FnMut() -> Result<()>,
) -> Result<Figures> {
    let load = load();
    let (mut spoken, mut deaf) = (0, 0);
    let figures = lab.beside(&load, || {
        (spoken, deaf) = speak(idle, time, look)?;
        Ok(())
    })?;
    Ok(Figures {
        made: figures.made + spoken,
        failed: figures.failed + deaf,
        ..figures
    })
}

/// The load without a guard, on hosts of its own: a guard has to let in anyone who was half
/// connected when it came.
fn baseline() -> Result<()> {
    let lab = Lab::new()?;
    let mut idle = Idle::open(&lab.topology, IDLE, IDLE)?;
    let figures = run(&lab, &mut idle, UNGUARDED, || Ok(()))?;
    println!("steady, without a guard: {figures}");
    ensure!(figures.failed == 0 && figures.late == 0, "{figures}");
    ensure!(
        figures.leaked > 0,
        "unsolicited packets are not delivered: {figures}"
    );
    Ok(())
}

fn guarded(size: Size, flags: &[&str]) -> Result<Figures> {
    baseline()?;
    let lab = Lab::new()?;
    let mut idle = Idle::open(&lab.topology, IDLE, IDLE)?;
    let flags = [&FLAGS, flags].concat();
    let guard = lab.guard(&flags)?;
    let time = size.seconds().unwrap_or(size.choose(SHORT, FULL));
    let mut footprints = Vec::new();
    let figures = run(&lab, &mut idle, time, || {
        guard.scrape()?;
        footprints.push(Footprint::of(guard.pid())?);
        Ok(())
    })?;
    let figures = figures.counted(&guard.packets()?);
    report("steady", size, &figures);
    flat(&footprints)?;
    Ok(figures)
}

/// Whether the daemon took no more towards the end than in the beginning, of which the first
/// third is left out: until then it has not done everything once.
fn flat(footprints: &[Footprint]) -> Result<()> {
    let third = footprints.len() / 3;
    ensure!(third > 0, "looked at too seldom");
    let (early, late) = (&footprints[third..2 * third], &footprints[2 * third..]);
    let memory = |part: &[Footprint]| part.iter().map(|each| each.memory).max();
    // A look may fall into a sweep, which has a file open meanwhile; a file that stays open is in
    // every look.
    let files = |part: &[Footprint]| part.iter().map(|each| each.files).min();
    let (first, last) = (footprints[third], footprints[footprints.len() - 1]);
    println!("steady: the daemon took {first}, and takes {last}");
    ensure!(
        memory(late) <= memory(early).map(|memory| memory + SLACK),
        "memory grows: {footprints:?}"
    );
    ensure!(files(late) <= files(early), "files grow: {footprints:?}");
    Ok(())
}

#[test]
fn l12_nothing_fails_and_the_daemon_stays_as_it_is() -> Result<()> {
    let figures = guarded(Size::asked(), &[])?;
    flawless(&figures)?;
    ensure!(figures.rescued > 0, "nothing was forgotten: {figures}");
    Ok(())
}
