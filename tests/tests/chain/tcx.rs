//! TCX: ours runs before all others.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_tests::{
    guard::Guard,
    neighbour::{End, NEXT, PASS, Program, add_filter, row, tc},
    netns::Direct,
    scratch::Scratch,
};

use super::{LOOK, LOST, answered, has_tcx, health, require_answers, status, within};

#[test]
fn a_program_that_ends_the_chain_stands_in_front_before_the_start() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    for mode in ["native", "generic"] {
        let topology = Direct::new()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        let ends = Program::returning(PASS)?;
        let _link = ends.attach(host, interface, End::First)?;
        let mut guard = Guard::start(host, interface, &["--xdp-mode", mode])?;
        require_answers(&topology, mode)?;
        let place = row(host, interface)?
            .iter()
            .position(|id| *id == ends.id().unwrap_or(0));
        ensure!(place == Some(1), "{mode}: ours is not the first");
        ensure!(health(host)? == 200, "{mode}");

        // The control: behind it nothing is recorded, and nobody moves ours any more.
        guard.kill()?;
        let other = Program::returning(PASS)?;
        let _other = other.attach(host, interface, End::First)?;
        let heard = answered(&topology, LOST)?;
        ensure!(heard == 0, "{mode}: {heard} answers by no record");

        // Anyone who takes over goes to the front.
        guard.start_again(&["--xdp-mode", mode])?;
        require_answers(&topology, "taken over")?;
        ensure!(row(host, interface)?[1] == other.id()?, "{mode}: not first");
    }
    Ok(())
}

#[test]
fn a_program_that_ends_the_chain_is_put_in_front_later() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let guard = Guard::start(host, interface, &[])?;
    let (first, second) = (Program::returning(PASS)?, Program::returning(PASS)?);
    let mut links = Vec::new();
    for program in [&first, &second] {
        links.push(program.attach(host, interface, End::First)?);
        let id = program.id()?;
        within(LOOK, "ours does not go back to the front", || {
            Ok(row(host, interface)?.get(1) == Some(&id))
        })?;
        let named = format!("id {id}");
        within(LOOK, "it is not said", || Ok(guard.said().contains(&named)))?;
        require_answers(&topology, "in front later")?;
        ensure!(status(host, &guard)?.contains(&named), "who is behind?");
    }
    ensure!(health(host)? == 200, "an alarm");
    drop(links);
    within(LOOK, "what runs last stays", || {
        Ok(row(host, interface)?.len() == 1)
    })?;
    require_answers(&topology, "alone again")?;
    ensure!(guard.stop()?.success());
    ensure!(row(host, interface)?.is_empty(), "something is left");
    Ok(())
}

#[test]
fn who_wants_to_be_first_as_well_is_an_alarm_and_no_fight() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let guard = Guard::start(host, interface, &[])?;
    // One that passes everything on is no harm, but that is not for us to know.
    let program = Program::returning(NEXT)?;
    let mut link = Some(program.attach(host, interface, End::First)?);
    let id = program.id()?;
    let mut moves = 0;
    within(Duration::from_secs(40), "ours is moved for ever", || {
        if row(host, interface)?.first() != Some(&id) {
            moves += 1;
            link = None;
            link = Some(program.attach(host, interface, End::First)?);
        }
        Ok(health(host)? == 503)
    })?;
    ensure!((3..10).contains(&moves), "{moves} moves");
    let said = status(host, &guard)?;
    let named = format!("id {id}");
    let alarm = said.lines().find(|line| line.starts_with("ALARM"));
    ensure!(alarm.is_some_and(|line| line.contains(&named)), "{said}");
    drop(link);
    within(LOOK, "the alarm stays", || Ok(health(host)? == 200))
}

/// The daemon looks at the first filters, and finds its own behind them all the same.
#[test]
fn a_thousand_filters_are_not_all_looked_at() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let nowhere = "match ip dst 192.0.2.1/32 classid 1:1";
    add_filter(
        host,
        (interface, "egress"),
        &format!("prio 9 protocol ip u32 {nowhere}"),
    )?;
    let batch: String = (0..1_000)
        .map(|_| format!("filter add dev {interface} egress prio 9 protocol ip u32 {nowhere}\n"))
        .collect();
    let files = Scratch::new()?;
    let file = files.write("filters.tc", batch)?;
    tc(host, &format!("-batch {}", file.display()))?;

    let mut guard = Guard::start(host, interface, &[])?;
    require_answers(&topology, "behind a thousand")?;
    let said = status(host, &guard)?;
    ensure!(said.contains(" more\n"), "{said}");
    let copies = || -> Result<usize> {
        let shown = tc(
            host,
            &format!("filter show dev {interface} egress prio 65535"),
        )?;
        Ok(shown.matches("egress_last direct-action").count())
    };
    ensure!(copies()? == 1, "{} copies", copies()?);
    // Two looks later there is no other.
    std::thread::sleep(Duration::from_secs(5));
    ensure!(copies()? == 1, "{} copies", copies()?);
    ensure!(guard.end()?.success(), "{}", guard.said());
    ensure!(copies()? == 0, "a copy is left");
    Ok(())
}

#[test]
fn filters_and_programs_behind_ours_end_the_chain() -> Result<()> {
    if !has_tcx() {
        return Ok(());
    }
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let ends = Program::returning(PASS)?;
    ends.add_filter(host, (interface, "egress"), "prio 1")?;
    let every = "match u32 0 0";
    for filter in [
        format!("prio 2 protocol ip u32 {every} classid 1:1"),
        format!("prio 3 protocol ipv6 u32 {every} classid 1:1"),
    ] {
        add_filter(host, (interface, "egress"), &filter)?;
    }
    let guard = Guard::start(host, interface, &[])?;
    require_answers(&topology, "filters")?;
    let _link = ends.attach(host, interface, End::Last)?;
    require_answers(&topology, "a program")?;
    for named in ["u32 filter, priority 2", "bpf filter, priority 1"] {
        ensure!(status(host, &guard)?.contains(named), "{named}");
    }
    ensure!(health(host)? == 200, "an alarm");
    Ok(())
}
