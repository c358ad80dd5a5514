//! Requests that run while the daemon comes and goes.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_tests::{
    frames::P,
    guard::Guard,
    load::{self, Servers},
};

use super::{FAMILIES, Lab, attachments, layouts::folders};

/// What became of the requests.
#[derive(Debug, Default)]
struct Requests {
    made: AtomicUsize,
    failed: AtomicUsize,
    leaked: AtomicUsize,
}

/// Runs requests and a scan beside `restart`, which is called `rounds` times.
fn beside<'a>(
    lab: &'a Lab,
    guard: &mut Guard<'a>,
    (rounds, queries): (usize, bool),
    mut restart: impl FnMut(&mut Guard<'a>) -> Result<()>,
) -> Result<Requests> {
    let _servers = Servers::start(&lab.topology.peer)?;
    let (requests, ended) = (Requests::default(), AtomicBool::new(false));
    let request = |family| {
        let server = P.address(family);
        lab.topology.guarded.run(|| {
            while !ended.load(Ordering::Relaxed) {
                let answers = [
                    load::get(server),
                    if queries {
                        load::resolve(server)
                    } else {
                        Ok(())
                    },
                ];
                for answer in answers {
                    requests.made.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = answer {
                        println!("{family:?}: {error:#}");
                        requests.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
    };
    let scan = || {
        while !ended.load(Ordering::Relaxed) {
            let delivered = lab.scan(20).expect("a scan can be sent");
            requests.leaked.fetch_add(delivered, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        scope.spawn(scan);
        for family in FAMILIES {
            scope.spawn(move || request(family));
        }
        let restarted = (0..rounds).try_for_each(|_| {
            thread::sleep(Duration::from_millis(200));
            restart(guard)
        });
        thread::sleep(Duration::from_millis(200));
        ended.store(true, Ordering::Relaxed);
        restarted
    })?;
    println!("{requests:?}");
    Ok(requests)
}

fn none_failed(requests: &Requests) -> Result<()> {
    let made = requests.made.load(Ordering::Relaxed);
    let failed = requests.failed.load(Ordering::Relaxed);
    ensure!(made > 100, "only {made} requests were made");
    ensure!(failed == 0, "{failed} of {made} requests failed");
    Ok(())
}

fn none_leaked(requests: &Requests) -> Result<()> {
    let leaked = requests.leaked.load(Ordering::Relaxed);
    ensure!(leaked == 0, "{leaked} frames leaked");
    Ok(())
}

#[test]
fn f03_crashes_cost_no_request_and_leak_nothing() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let requests = beside(&lab, &mut guard, (3, true), |guard| {
            guard.kill()?;
            guard.start_again(&flags)
        })?;
        none_failed(&requests)?;
        none_leaked(&requests)?;
    }
    Ok(())
}

#[test]
fn f02_upgrades_cost_no_request_and_leak_nothing() -> Result<()> {
    for flags in attachments() {
        let flags = [&flags[..], &["--keep-attached"]].concat();
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let requests = beside(&lab, &mut guard, (2, true), |guard| {
            ensure!(guard.end()?.success(), "{}", guard.said());
            guard.start_again(&flags)
        })?;
        none_failed(&requests)?;
        none_leaked(&requests)?;
    }
    Ok(())
}

/// The flows move into other maps while packets of theirs come and go: of another size, of
/// another version's layout, forth and back.
#[test]
fn f02_other_maps_cost_no_request_and_leak_nothing() -> Result<()> {
    for flags in attachments() {
        let maps = [("2048", "7"), ("65536", "7"), ("65536", "8"), ("2048", "7")];
        let with = |size| [&flags[..], &["--max-flows", size]].concat();
        let lab = Lab::new()?;
        let mut guard = lab.guard(&with("65536"))?;
        let mut next = maps.into_iter();
        let requests = beside(&lab, &mut guard, (maps.len(), true), |guard| {
            let (size, layout) = next.next().expect("one a round");
            guard.kill()?;
            guard.alter(&["--layout", layout]);
            guard.start_again(&with(size))?;
            let folders = folders(guard)?;
            ensure!(folders == [format!("v{layout}")], "left: {folders:?}");
            Ok(())
        })?;
        none_failed(&requests)?;
        none_leaked(&requests)?;
        ensure!(guard.end()?.success(), "{}", guard.said());
        ensure!(lab.hears(1)?, "something is left");
    }
    Ok(())
}

/// Nobody guards between the end and the start, so a scan gets through; and a query that is
/// unanswered at the start has no socket that names its peer.
#[test]
fn f02_restarts_cost_no_request() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let requests = beside(&lab, &mut guard, (3, false), |guard| {
            ensure!(guard.end()?.success(), "{}", guard.said());
            guard.start_again(&flags)
        })?;
        none_failed(&requests)?;
    }
    Ok(())
}
