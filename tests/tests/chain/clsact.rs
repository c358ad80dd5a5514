//! clsact: ours has the first priority, and what cannot be passed is said.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_tests::{
    guard::Guard,
    neighbour::{End, NEXT, PASS, Program, add_filter, tc},
    netns::Direct,
    scratch::Scratch,
};

use super::{
    LOOK, LOST, answered, checked, has_tcx, health, refused, require_answers, status, within,
};

const CLSACT: [&str; 2] = ["--egress-hook", "clsact"];
const ALLOWED: &str = "--allow-filter-in-front";

/// Filters that match everything and end the chain, without their priority, and what each is called.
const FILTERS: [(&str, &str); 5] = [
    ("protocol ip u32 match u32 0 0 classid 1:1", "u32 filter"),
    (
        "protocol all u32 match u32 0 0 action mirred egress mirror dev lo",
        "u32 filter",
    ),
    ("protocol all matchall classid 1:1", "matchall filter"),
    ("protocol ip flower classid 1:1", "flower filter"),
    ("protocol all basic classid 1:1", "basic filter"),
];

fn filter_at(topology: &Direct, priority: u16, words: &str) -> Result<bool> {
    let place = (topology.interface(), "egress");
    add_filter(
        &topology.guarded,
        place,
        &format!("prio {priority} {words}"),
    )
}

#[test]
fn filters_behind_the_first_priority_are_passed() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let mut due = Vec::new();
    for (priority, (words, named)) in (2..).zip(FILTERS) {
        if filter_at(&topology, priority, words)? {
            due.push(named);
        }
    }
    let ends = Program::returning(PASS)?;
    for priority in [1, 9] {
        ends.add_filter(host, (interface, "egress"), &format!("prio {priority}"))?;
    }
    let mut guard = Guard::start(host, interface, &CLSACT)?;
    require_answers(&topology, "from before the start")?;
    ensure!(health(host)? == 200, "an alarm");

    // Another of the same priority is asked first, until ours is put before it again.
    ends.add_filter(host, (interface, "egress"), "prio 1 handle 77")?;
    within(LOOK, "ours does not go back to the front", || {
        Ok(guard.said().contains("is the first again"))
    })?;
    require_answers(&topology, "put in front later")?;
    for named in due {
        let said = status(host, &guard)?;
        ensure!(said.contains(named), "{named}: {said}");
    }

    // The control: nobody puts it back.
    guard.kill()?;
    ends.add_filter(host, (interface, "egress"), "prio 1 handle 78")?;
    let heard = answered(&topology, LOST)?;
    ensure!(heard == 0, "{heard} answers by no record");
    guard.start_again(&CLSACT)?;
    require_answers(&topology, "taken over")?;
    ensure!(guard.end()?.success(), "{}", guard.said());
    let left = tc(host, &format!("filter show dev {interface} egress"))?;
    ensure!(left.matches("neighbour:").count() == 4, "{left}");
    ensure!(!left.contains("0x7067"), "{left}");
    Ok(())
}

#[test]
fn a_filter_that_cannot_be_passed_is_refused_and_named() -> Result<()> {
    for (words, named) in FILTERS {
        let topology = Direct::new()?;
        let (host, interface) = (&topology.guarded, topology.interface());
        if !filter_at(&topology, 1, words)? {
            continue;
        }
        let (code, said) = refused(host, interface, &CLSACT)?;
        ensure!(code == Some(69), "{words}: {code:?}, {said}");
        for part in [named, "priority 1", "handle", ALLOWED] {
            ensure!(said.contains(part), "{words}: no {part} in {said}");
        }
        let (code, said) = checked(host, interface, &CLSACT)?;
        ensure!(code == Some(69), "{words}: {code:?}, {said}");
        ensure!(said.contains(named), "{words}: {said}");
        let left = tc(host, &format!("filter show dev {interface} egress"))?;
        ensure!(!left.contains("0x7067"), "{words}: {left}");
    }

    // One that lets everything pass on, which is not for us to know.
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let harmless = Program::returning(NEXT)?;
    harmless.add_filter(host, (interface, "egress"), "prio 1 protocol ip")?;
    let flags = [&CLSACT[..], &[ALLOWED]].concat();
    let guard = Guard::start(host, interface, &flags)?;
    require_answers(&topology, "allowed")?;
    ensure!(health(host)? == 200, "an alarm although it is allowed");
    ensure!(guard.said().contains("bpf filter, priority 1"), "not named");
    Ok(())
}

/// More filters than are looked at stand in front at the first priority, and others at the next: ours is
/// found behind them, and taken for ours.
#[test]
fn ours_is_found_behind_a_thousand_filters() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let nowhere = "protocol ip u32 match ip dst 192.0.2.1/32 classid 1:1";
    if !filter_at(&topology, 1, nowhere)? {
        return Ok(());
    }
    filter_at(&topology, 2, nowhere)?;
    let batch = format!("filter add dev {interface} egress prio 1 {nowhere}\n").repeat(1_000);
    let files = Scratch::new()?;
    let file = files.write("filters.tc", batch)?;
    tc(host, &format!("-batch {}", file.display()))?;

    let flags = [&CLSACT[..], &[ALLOWED]].concat();
    let mut guard = Guard::start(host, interface, &flags)?;
    require_answers(&topology, "behind a thousand")?;
    // Two looks later it is where it was.
    std::thread::sleep(Duration::from_secs(5));
    let ours = || -> Result<(usize, usize)> {
        let shown = tc(host, &format!("filter show dev {interface} egress"))?;
        let copies = shown.matches(" egress_last direct-action").count();
        Ok((shown.matches(" egress direct-action").count(), copies))
    };
    ensure!(ours()? == (1, 0), "{:?}: {}", ours()?, guard.said());
    let said = guard.said();
    ensure!(
        !said.contains("taken off"),
        "it does not find its own: {said}"
    );
    ensure!(health(host)? == 200, "an alarm: {said}");

    // One that is taken off is missed all the same.
    tc(host, &format!("filter del dev {interface} egress prio 3"))?;
    within(LOOK, "it does not miss its own", || {
        Ok(guard.said().contains("taken off") && ours()?.0 == 1)
    })?;
    require_answers(&topology, "put back")?;
    guard.kill()?;
    guard.start_again(&flags)?;
    ensure!(ours()?.0 == 1, "taken over: {:?}", ours()?);
    ensure!(guard.end()?.success(), "{}", guard.said());
    ensure!(ours()? == (0, 0), "left: {:?}", ours()?);
    Ok(())
}

#[test]
fn what_comes_in_front_later_is_an_alarm() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let mut guard = Guard::start(host, interface, &CLSACT)?;
    if has_tcx() {
        let ends = Program::returning(PASS)?;
        let link = ends.attach(host, interface, End::First)?;
        within(LOOK, "no alarm", || Ok(health(host)? == 503))?;
        let said = status(host, &guard)?;
        let named = format!("id {}", ends.id()?);
        let alarm = said.lines().find(|line| line.starts_with("ALARM"));
        ensure!(alarm.is_some_and(|line| line.contains(&named)), "{said}");
        drop(link);
        within(LOOK, "the alarm stays", || Ok(health(host)? == 200))?;
        let (code, said) = {
            let _link = ends.attach(host, interface, End::First)?;
            checked(host, interface, &CLSACT)?
        };
        ensure!(
            code == Some(69) && said.contains(&named),
            "{code:?}: {said}"
        );
    }

    // Ours is taken off, and its place is taken before it is back.
    guard.signal(libc::SIGSTOP);
    tc(host, &format!("qdisc del dev {interface} clsact"))?;
    filter_at(&topology, 1, FILTERS[0].0)?;
    guard.signal(libc::SIGCONT);
    within(LOOK, "no alarm", || Ok(health(host)? == 503))?;
    within(LOOK, "not named", || {
        Ok(guard.said().contains("u32 filter, priority 1"))
    })?;
    // Nobody guards what nobody records.
    require_answers(&topology, "not guarded")?;
    tc(host, &format!("filter del dev {interface} egress prio 1"))?;
    within(LOOK, "not guarded again", || Ok(health(host)? == 200))?;
    require_answers(&topology, "guarded again")
}

/// The older qdisc takes no filter of what is sent. While it is in the place of clsact, that is what is
/// said, with what to do, and not that anything is put back.
#[test]
fn a_qdisc_in_the_place_of_clsact_is_named_for_as_long_as_it_is_there() -> Result<()> {
    let topology = Direct::new()?;
    let (host, interface) = (&topology.guarded, topology.interface());
    let mut guard = Guard::start(host, interface, &CLSACT)?;
    guard.signal(libc::SIGSTOP);
    tc(host, &format!("qdisc del dev {interface} clsact"))?;
    tc(host, &format!("qdisc add dev {interface} ingress"))?;
    guard.signal(libc::SIGCONT);
    let is_said = |said: &str| {
        let alarm = said.lines().find(|line| line.starts_with("ALARM"));
        alarm.is_some_and(|line| {
            line.contains(
                "not guarded: cannot record what is sent: its qdisc ingress is in the place",
            ) && line.contains(&format!("; tc qdisc del dev {interface} ingress"))
                && !line.contains("put back")
        })
    };
    within(LOOK, "not said", || Ok(is_said(&status(host, &guard)?)))?;
    // Also after many looks.
    std::thread::sleep(LOOK);
    let said = status(host, &guard)?;
    ensure!(is_said(&said), "{said}");
    ensure!(health(host)? == 503, "it is said to guard");
    let headline = said.lines().next().unwrap_or_default();
    ensure!(!headline.starts_with("guarding vg"), "{said}");
    require_answers(&topology, "not guarded")?;
    tc(host, &format!("qdisc del dev {interface} ingress"))?;
    within(LOOK, "not guarded again", || Ok(health(host)? == 200))?;
    let said = status(host, &guard)?;
    ensure!(!said.contains("ALARM"), "{said}");
    require_answers(&topology, "guarded again")
}
