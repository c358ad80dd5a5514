//! F03: killed before every step of a start, of a take-over and of an end. A step is a system call
//! that changes what outlives the daemon, so these are all the states that a crash can leave.

mod witness;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use guard_common::abi::layout::LAYOUT_VERSION;
use guard_tests::rounds::{asked, rounds};

use self::witness::{Shape, Witness};
use super::{Lab, egress_hooks, requests::beside};

/// Before which of these steps to be killed: before the first and the last of each row of their
/// kind, or as many as were asked for.
fn chosen(deeds: &[&str]) -> Vec<usize> {
    let telling = |step: &usize| {
        let differs = |other: Option<&&str>| other != Some(&deeds[*step]);
        differs(deeds.get(step + 1))
            || differs(step.checked_sub(1).and_then(|step| deeds.get(step)))
    };
    let telling: Vec<usize> = (0..deeds.len()).filter(telling).collect();
    let count = rounds(telling.len());
    if count > telling.len() {
        return (0..deeds.len()).collect();
    }
    let spread = |number| telling[number * telling.len() / count];
    (0..count).map(spread).collect()
}

/// The two ways to attach that differ most, where the kernel has two hooks.
fn ways() -> Vec<[&'static str; 4]> {
    let ways = egress_hooks().iter().zip(["native", "generic"]);
    ways.map(|(hook, mode)| ["--xdp-mode", mode, "--egress-hook", hook])
        .collect()
}

/// One of the ways, or all where there is time.
fn way(number: usize) -> Vec<[&'static str; 4]> {
    let ways = ways();
    match asked() {
        Some(_) => ways,
        None => vec![ways[number % ways.len()]],
    }
}

/// Kills starts that take over from maps of another shape, before every step, and then starts
/// with the old shape, with the new one, or with a third.
fn taken_over(flags: &[&str], [mut old, mut new, mut third]: [Shape; 3]) -> Result<()> {
    let lab = Lab::new()?;
    let mut guard = lab.guard(flags)?;
    let mut witness = Witness::new(&lab, true)?;
    guard.kill()?;
    new.start(&mut guard, flags)?;
    guard.kill()?;
    let deeds = old.start_until(usize::MAX, &mut guard, flags)?.through()?;
    println!("{flags:?}: {deeds:?}");
    witness.whole(&guard, old)?;
    guard.kill()?;
    let requests = beside(&lab, &mut guard, true, |guard| {
        for step in chosen(&deeds) {
            let what = || format!("{flags:?}, {old:?} to {new:?}, before step {step}");
            let came = new.start_until(step, guard, flags).with_context(what)?;
            let what = || format!("{}: {came:?}", what());
            ensure!(witness.sound().with_context(what)?, "{}: bare", what());
            let next = [old, new, third][step % 3];
            let what = || format!("{}, and then {next:?}", what());
            next.start(guard, flags).with_context(what)?;
            witness.whole(guard, next).with_context(what)?;
            guard.kill()?;
            // Whatever is in force now is the old one.
            if next == new {
                std::mem::swap(&mut old, &mut new);
            } else if next == third {
                std::mem::swap(&mut old, &mut third);
            }
        }
        Ok(())
    })?;
    requests.none_failed()?;
    requests.none_leaked()
}

#[test]
fn f03_killed_while_it_takes_over_from_another_layout() -> Result<()> {
    way(1).iter().try_for_each(|flags| {
        let own = LAYOUT_VERSION;
        let shapes = [("32768", own), ("32768", 98), ("65536", 99)];
        taken_over(flags, shapes.map(|(size, layout)| Shape { size, layout }))
    })
}

#[test]
fn f03_killed_while_it_takes_over_from_another_size() -> Result<()> {
    way(0).iter().try_for_each(|flags| {
        let layout = LAYOUT_VERSION;
        let shapes = ["32768", "65536", "16384"];
        taken_over(flags, shapes.map(|size| Shape { size, layout }))
    })
}

/// At moments that have to do with nothing: also within a system call, and between two of those
/// that change nothing.
#[test]
fn f03_killed_at_any_moment() -> Result<()> {
    const MOMENTS: usize = 10;

    for flags in way(1) {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let mut witness = Witness::new(&lab, true)?;
        guard.kill()?;
        let with = |size| [&flags[..], &["--max-flows", size]].concat();
        let requests = beside(&lab, &mut guard, true, |guard| {
            let moments = rounds(MOMENTS);
            for moment in 0..moments {
                let (new, next) = if moment % 2 == 0 {
                    ("32768", "65536")
                } else {
                    ("65536", "32768")
                };
                let began = Instant::now();
                guard.start_again(&with(next))?;
                let whole = began.elapsed();
                guard.kill()?;
                let moment = whole * moment as u32 / moments as u32;
                let what = || format!("{flags:?}, killed after {moment:?} of {whole:?}");
                guard.start_for(moment, &with(new)).with_context(what)?;
                ensure!(witness.sound().with_context(what)?, "{}: bare", what());
            }
            guard.start_again(&flags)?;
            witness.whole(guard, Shape::OWN)
        })?;
        requests.none_failed()?;
        requests.none_leaked()?;
    }
    Ok(())
}

/// Where nobody guards yet.
#[test]
fn f03_killed_while_it_starts() -> Result<()> {
    for flags in ways() {
        let lab = Lab::new()?;
        let mut witness = Witness::new(&lab, false)?;
        let mut guard = lab.guard(&flags)?;
        ensure!(guard.end()?.success(), "{}", guard.said());
        let deeds = guard.start_until(usize::MAX, &flags)?.through()?;
        println!("{flags:?}: {deeds:?}");
        guard.end_until(usize::MAX)?;
        for step in chosen(&deeds) {
            let what = || format!("{flags:?}, before step {step}");
            let came = guard.start_until(step, &flags).with_context(what)?;
            let what = || format!("{}: {came:?}", what());
            witness.sound().with_context(what)?;
            guard.start_again(&flags).with_context(what)?;
            witness.whole(&guard, Shape::OWN).with_context(what)?;
            ensure!(guard.end()?.success(), "{}: {}", what(), guard.said());
            witness.none(&guard).with_context(what)?;
        }
    }
    Ok(())
}

/// Where the maps of the run before fit.
#[test]
fn f03_killed_while_it_adopts() -> Result<()> {
    for flags in ways() {
        let lab = Lab::new()?;
        let mut guard = lab.guard(&flags)?;
        let mut witness = Witness::new(&lab, true)?;
        guard.kill()?;
        let deeds = guard.start_until(usize::MAX, &flags)?.through()?;
        println!("{flags:?}: {deeds:?}");
        guard.kill()?;
        let requests = beside(&lab, &mut guard, true, |guard| {
            for step in chosen(&deeds) {
                let what = || format!("{flags:?}, before step {step}");
                let came = guard.start_until(step, &flags).with_context(what)?;
                let what = || format!("{}: {came:?}", what());
                ensure!(witness.sound().with_context(what)?, "{}: bare", what());
                guard.start_again(&flags).with_context(what)?;
                witness.whole(guard, Shape::OWN).with_context(what)?;
                guard.kill()?;
            }
            Ok(())
        })?;
        requests.none_failed()?;
        requests.none_leaked()?;
    }
    Ok(())
}

#[test]
fn f03_killed_while_it_ends() -> Result<()> {
    for flags in ways() {
        let lab = Lab::new()?;
        let mut witness = Witness::new(&lab, false)?;
        let mut guard = lab.guard(&flags)?;
        guard.kill()?;
        guard.start_until(usize::MAX, &flags)?;
        let deeds = guard.end_until(usize::MAX)?.through()?;
        println!("{flags:?}: {deeds:?}");
        witness.none(&guard)?;
        for step in chosen(&deeds) {
            let what = || format!("{flags:?}, before step {step}");
            guard.start_until(usize::MAX, &flags).with_context(what)?;
            let came = guard.end_until(step).with_context(what)?;
            let what = || format!("{}: {came:?}", what());
            witness.sound().with_context(what)?;
            guard.start_again(&flags).with_context(what)?;
            witness.whole(&guard, Shape::OWN).with_context(what)?;
            guard.kill()?;
        }
    }
    Ok(())
}
