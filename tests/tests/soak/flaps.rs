//! The range changes all the time, while clients connect and idle connections are spoken to.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_tests::{
    guard::Guard,
    soak::{Budget, Figures, Idle, Size},
};

use crate::{
    UNLEARNED, flawless,
    lab::{Lab, Load},
    report,
};

/// All of them hold the ports that the unsolicited sender tries.
const RANGES: [&str; 4] = ["32768 60999", "40000 50000", "41000 65535", "32768 47000"];
const STRANGE_PORTS: std::ops::RangeInclusive<u16> = 41_000..=47_000;
const SHORT: Duration = Duration::from_secs(4);
const FULL: Duration = Duration::from_secs(120);
const UNGUARDED: Duration = Duration::from_secs(1);
/// Between two changes. The daemon looks five times a second.
const PAUSE: Duration = Duration::from_millis(300);
const STRANGE: u64 = 20_000;
const IDLE: usize = 50;
const PATIENCE: Duration = Duration::from_secs(1);
const SETTING: &str = "net/ipv4/ip_local_port_range";

/// Idle connections on ports of every range. Opened before there is a guard, they are known to it
/// only if it learns of them.
fn idle_connections(lab: &Lab) -> Result<Vec<Idle>> {
    RANGES
        .into_iter()
        .map(|range| {
            lab.topology.guarded.sysctl(SETTING, range)?;
            Idle::open(&lab.topology, IDLE, IDLE)
        })
        .collect()
}

/// Changes the range for so long. Every change is followed by words on the idle connections.
fn run(lab: &Lab, mut idle: Vec<Idle>, time: Duration) -> Result<(usize, Figures)> {
    let host = &lab.topology.guarded;
    let load = Load {
        connections: Budget::endless(),
        // Nobody can know whom an unconnected socket has asked before its port is guarded.
        queries: Budget::count(0),
        strange: Budget::endless().paced(STRANGE),
        ports: STRANGE_PORTS,
    };
    let (began, mut changes, mut spoken, mut alive) = (Instant::now(), 0, 0, 0);
    let figures = lab.beside(&load, || {
        while began.elapsed() < time {
            host.sysctl(SETTING, RANGES[changes % RANGES.len()])?;
            thread::sleep(PAUSE);
            for idle in &mut idle {
                spoken += idle.count();
                alive += idle.alive(PATIENCE)?;
            }
            changes += 1;
        }
        Ok(())
    })?;
    println!("flaps: {changes} changes, {alive} of {spoken} words heard");
    let figures = Figures {
        made: figures.made + spoken as u64,
        failed: figures.failed + (spoken - alive) as u64,
        ..figures
    };
    Ok((changes, figures))
}

fn baseline() -> Result<()> {
    let lab = Lab::new()?;
    let (_, figures) = run(&lab, idle_connections(&lab)?, UNGUARDED)?;
    println!("flaps, without a guard: {figures}");
    ensure!(figures.failed == 0 && figures.late == 0, "{figures}");
    ensure!(
        figures.leaked > 0,
        "unsolicited packets are not delivered: {figures}"
    );
    Ok(())
}

fn guarded(lab: &Lab, idle: Vec<Idle>, size: Size, guard: &Guard) -> Result<Figures> {
    let time = size.seconds().unwrap_or(size.choose(SHORT, FULL));
    let (_, figures) = run(lab, idle, time)?;
    Ok(figures.counted(&guard.packets()?))
}

#[test]
fn ranges_that_change_cost_no_connection() -> Result<()> {
    baseline()?;
    let (lab, size) = (Lab::new()?, Size::asked());
    let idle = idle_connections(&lab)?;
    let guard = lab.guard(&[])?;
    let figures = guarded(&lab, idle, size, &guard)?;
    // Its control has no time for so many: words that nobody hears take a second each.
    let followed = guard.said().matches("port range").count();
    ensure!(followed >= 3, "{followed} changes were followed");
    report("flaps", size, &figures);
    flawless(&figures)
}

/// Connections that are on ports which become guarded are lost unless somebody learns of them.
#[test]
fn ranges_that_change_cost_connections_that_nobody_learns_of() -> Result<()> {
    let lab = Lab::new()?;
    let idle = idle_connections(&lab)?;
    let guard = lab.guard_altered(&UNLEARNED, &["--no-rescue"])?;
    let figures = guarded(&lab, idle, Size::Short, &guard)?;
    report("flaps, nobody learns", Size::Short, &figures);
    ensure!(figures.failed > 0, "no lost connection is seen: {figures}");
    Ok(())
}
