//! The daemon is killed and started again, while clients connect, idle connections are spoken
//! to, and an unsolicited sender tries every port.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    guard::Guard,
    setup::{FIRST, LAST},
    soak::{Budget, Figures, Idle, Size},
};

use crate::{
    UNLEARNED, flawless,
    lab::{Lab, Load},
    report,
};

/// How many connections a full run makes, unless it is told how long it takes.
const CONNECTIONS: u64 = 200_000;
/// How many of them in a second.
const PER_SECOND: u64 = 2_000;
/// Queries in a second.
const QUERIES: u64 = 500;
/// Frames of an unsolicited sender in a second.
const STRANGE: u64 = 100_000;
/// Idle connections, and connected sockets of UDP, each.
const IDLE: usize = 50;
/// How long a short run takes.
const SHORT: Duration = Duration::from_secs(4);
/// How many connections are made without a guard.
const UNGUARDED: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(1);

fn load(connections: Budget) -> Load {
    Load {
        connections: connections.paced(PER_SECOND),
        queries: Budget::endless().paced(QUERIES),
        strange: Budget::endless().paced(STRANGE),
        ports: FIRST..=LAST,
    }
}

/// Waits until the load ends, or for so long.
fn rest(load: &Load, time: Option<Duration>) {
    let began = Instant::now();
    while !load.connections.ended() && time.is_none_or(|time| began.elapsed() < time) {
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the clients are like without a guard, and that the unsolicited packet is delivered. On hosts of its
/// own: a guard has to let in anyone who was half connected when it came.
fn baseline() -> Result<()> {
    let lab = Lab::new()?;
    let load = load(Budget::count(UNGUARDED));
    let figures = lab.beside(&load, || {
        rest(&load, None);
        Ok(())
    })?;
    println!("crash, without a guard: {figures}");
    ensure!(figures.failed == 0 && figures.late == 0, "{figures}");
    ensure!(
        figures.leaked > 0,
        "unsolicited packets are not delivered: {figures}"
    );
    Ok(())
}

/// Runs the load while `restart` ends and starts the guard again and again.
fn run<'a>(
    lab: &'a Lab,
    size: Size,
    guard: &mut Guard<'a>,
    mut restart: impl FnMut(&mut Guard<'a>) -> Result<()>,
) -> Result<Figures> {
    let mut idle = Idle::open(&lab.topology, IDLE, IDLE)?;
    let time = size.seconds().or(size.choose(Some(SHORT), None));
    let enough = size.choose(2, 5);
    let every = size.choose(Duration::from_millis(300), Duration::from_secs(5));
    let load = load(time.map_or(Budget::count(CONNECTIONS), |_| Budget::endless()));
    let (began, mut restarts, mut alive) = (Instant::now(), 0, 0);
    let figures = lab.beside(&load, || {
        while restarts < enough
            || !load.connections.ended() && time.is_none_or(|time| began.elapsed() < time)
        {
            rest(&load, Some(every));
            restart(guard)?;
            alive += idle.alive(PATIENCE)?;
            restarts += 1;
        }
        Ok(())
    })?;
    let packets = guard.packets()?;
    let spoken = restarts * idle.count();
    println!("crash: {restarts} restarts, {alive} of {spoken} words heard,{packets}");
    Ok(Figures {
        made: figures.made + spoken as u64,
        failed: figures.failed + (spoken - alive) as u64,
        ..figures.counted(&packets)
    })
}

#[test]
fn l10_crashes_cost_no_connection_and_leak_nothing() -> Result<()> {
    baseline()?;
    let (lab, size) = (Lab::new()?, Size::asked());
    let mut guard = lab.guard(&[])?;
    let figures = run(&lab, size, &mut guard, |guard| {
        guard.kill()?;
        guard.start_again(&[])
    })?;
    report("crash", size, &figures);
    flawless(&figures)?;
    // The link may have lost some.
    let reached = figures.dropped > figures.strange / 2;
    ensure!(
        reached,
        "hardly anything unsolicited was dropped: {figures}"
    );
    Ok(())
}

/// Between a daemon that is asked to end and the next one nobody guards, and who is idle is lost
/// unless the next one learns of it.
#[test]
fn l10_ends_leak_and_cost_connections_that_nobody_learns_of() -> Result<()> {
    let lab = Lab::new()?;
    let flags = ["--no-rescue"];
    let mut guard = lab.guard_altered(&UNLEARNED, &flags)?;
    let figures = run(&lab, Size::Short, &mut guard, |guard| {
        ensure!(guard.end()?.success(), "{}", guard.said());
        guard.start_again(&flags)
    })?;
    report("crash, ended instead", Size::Short, &figures);
    ensure!(figures.leaked > 0, "no leak is seen: {figures}");
    ensure!(figures.failed > 0, "no lost connection is seen: {figures}");
    Ok(())
}
