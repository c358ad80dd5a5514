//! Requests that run while the daemon comes and goes.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use guard_tests::{guard::Guard, rounds::rounds};

use super::{Lab, attachments, layouts::folders, requests::beside};

/// Restarts so many times, with a pause before each.
fn repeated<'a>(
    times: usize,
    mut restart: impl FnMut(&mut Guard<'a>) -> Result<()>,
) -> impl FnOnce(&mut Guard<'a>) -> Result<()> {
    move |guard| {
        (0..times).try_for_each(|_| {
            thread::sleep(Duration::from_millis(200));
            restart(guard)
        })
    }
}

#[test]
fn f03_crashes_cost_no_request_and_leak_nothing() -> Result<()> {
    for flags in attachments() {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let requests = beside(
            &lab,
            &mut guard,
            true,
            repeated(rounds(3), |guard| {
                guard.kill()?;
                guard.start_again(&flags)
            }),
        )?;
        requests.none_failed()?;
        requests.none_leaked()?;
    }
    Ok(())
}

#[test]
fn f02_upgrades_cost_no_request_and_leak_nothing() -> Result<()> {
    for flags in attachments() {
        let flags = [&flags[..], &["--keep-attached"]].concat();
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let requests = beside(
            &lab,
            &mut guard,
            true,
            repeated(rounds(2), |guard| {
                ensure!(guard.end()?.success(), "{}", guard.said());
                guard.start_again(&flags)
            }),
        )?;
        requests.none_failed()?;
        requests.none_leaked()?;
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
        let mut next = maps.into_iter().cycle();
        let requests = beside(
            &lab,
            &mut guard,
            true,
            repeated(rounds(maps.len()), |guard| {
                let (size, layout) = next.next().expect("it never ends");
                guard.kill()?;
                guard.alter(&["--layout", layout]);
                guard.start_again(&with(size))?;
                let folders = folders(guard)?;
                ensure!(folders == [format!("v{layout}")], "left: {folders:?}");
                Ok(())
            }),
        )?;
        requests.none_failed()?;
        requests.none_leaked()?;
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
        let requests = beside(
            &lab,
            &mut guard,
            false,
            repeated(rounds(3), |guard| {
                ensure!(guard.end()?.success(), "{}", guard.said());
                guard.start_again(&flags)
            }),
        )?;
        requests.none_failed()?;
    }
    Ok(())
}
