//! The table of cases on the loaded programs, frame by frame, beside the same guard in memory.
//!
//! Time does not pass here. What the clock is compared with is moved back where a case waits, and
//! forth where the kernel's own clock moved on between two frames; a case in which it moved on
//! while a frame was decided is tried again.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use guard_common::{
    abi::page::{InForce, Page},
    outcome::{Direction, Family, Outcome, Verdict},
    policy::{egress, ingress},
};
use guard_tests::{
    cases::{self, Case, Step},
    frames::{
        Extension::{Destination, HopByHop},
        udp,
    },
    memory::MemoryDatapath,
    mutations::Mutations,
    programs::{self, Entry, FRAGS, LONGEST_WHOLE, Programs},
    setup::{self, Setup},
};

/// How often a case is tried until the clock stands still while a frame is decided.
const TRIES: usize = 20;

#[test]
fn frames_in_one_piece_are_decided_as_specified() -> Result<()> {
    table(Entry::Whole)
}

#[test]
fn frames_that_may_be_split_are_decided_as_specified() -> Result<()> {
    if FRAGS.is_missing("XDP on frames in several pieces") {
        return Ok(());
    }
    table(Entry::Frags)
}

fn table(entry: Entry) -> Result<()> {
    let mut programs = Programs::load(entry)?;
    let mut wrong = Vec::new();
    // Whether the kernel's map has room is not for a test to say.
    for case in cases::table().iter().filter(|case| !case.setup.no_room) {
        for family in case.families() {
            if let Err(error) = when_time_stands_still(&mut programs, case, family) {
                wrong.push(format!("{} ({family:?}): {error:#}", case.name));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn when_time_stands_still(programs: &mut Programs, case: &Case, family: Family) -> Result<()> {
    for _ in 0..TRIES {
        if run(programs, case, family)? {
            return Ok(());
        }
    }
    bail!("the clock moved on while a frame was decided, in each of {TRIES} tries")
}

/// Runs one case, and compares everything the guard knows after each step. Returns whether the
/// clock stood still whenever it had to.
fn run(programs: &mut Programs, case: &Case, family: Family) -> Result<bool> {
    let mut tables = MemoryDatapath::new(case.setup);
    programs.reset(case.setup)?;
    let mut clock = programs.now()?;
    for (number, step) in case.steps.iter().enumerate() {
        let context = || format!("step {number}");
        match step {
            Step::Waits(ticks) => {
                tables.wait(*ticks);
                programs.age(*ticks)?;
            }
            Step::Sweeps(sweeps) => {
                tables.sweep(*sweeps);
                programs.set_epoch(tables.epoch())?;
            }
            Step::Frame(direction, frame, outcome) => {
                let bytes = cases::bytes(frame, *direction, family);
                if *direction == Direction::Egress && !programs::can_be_sent(&bytes) {
                    continue;
                }
                let before = programs.counters(setup::DEVICE)?;
                catch_up(programs, &mut clock)?;
                let carried_out = match direction {
                    Direction::Ingress => programs.ingress(&bytes),
                    Direction::Egress => programs.egress(&bytes),
                };
                if programs.now()? != clock {
                    return Ok(false);
                }

                match direction {
                    Direction::Ingress => ingress::ingress(&bytes[..], &tables),
                    Direction::Egress => egress::egress(&bytes[..], &tables),
                };
                let decision = cases::due(frame, *outcome, family);
                let action = verdict(case.setup, *outcome);
                let carried_out =
                    carried_out.with_context(|| format!("step {number}, {} bytes", bytes.len()))?;
                ensure!(
                    carried_out == action,
                    "step {number}: {carried_out:?}, not {action:?} by {outcome:?}"
                );
                let due = BTreeMap::from([(decision.slot(action), 1)]);
                compare_counters(&before, &programs.counters(setup::DEVICE)?, &due)
                    .with_context(|| format!("step {number}: {decision:?}"))?;
            }
        }
        compare(programs, &tables, clock).with_context(context)?;
    }
    Ok(true)
}

/// Lets everything be as old at the present time as it was at `clock`, which becomes the present.
fn catch_up(programs: &mut Programs, clock: &mut u32) -> Result<()> {
    loop {
        let now = programs.now()?;
        if now == *clock {
            return Ok(());
        }
        programs.age(clock.wrapping_sub(now))?;
        *clock = now;
    }
}

fn verdict(setup: Setup, outcome: Outcome) -> Verdict {
    if setup.monitor {
        Verdict::Pass
    } else {
        outcome.verdict()
    }
}

/// `clock` is when the last frame was decided.
fn compare(programs: &mut Programs, tables: &MemoryDatapath, clock: u32) -> Result<()> {
    let (flows, due) = (programs.flows(clock)?, tables.flows());
    ensure!(flows == due, "the flows are {flows:#?}, not {due:#?}");
    let (refusals, due) = (programs.refusals(clock)?, tables.refusals());
    ensure!(refusals == due, "refused are {refusals:#?}, not {due:#?}");
    ensure!(
        programs.occupancy()? == tables.occupancy_bytes(),
        "other ports are marked as in use"
    );
    Ok(())
}

fn compare_counters(before: &[u64], after: &[u64], due: &BTreeMap<u32, u64>) -> Result<()> {
    for (slot, (before, after)) in (0..).zip(before.iter().zip(after)) {
        let moved = after - before;
        let due = due.get(&slot).copied().unwrap_or(0);
        ensure!(moved == due, "counter {slot} moved by {moved}, not {due}");
    }
    Ok(())
}

/// Headers are read in the first piece of a frame alone. Where ports lie across its end, or behind
/// it, nobody passes, not even an answer: no sender has so many headers.
#[test]
fn ports_beyond_the_first_piece_of_a_frame_let_nobody_pass() -> Result<()> {
    if FRAGS.is_missing("XDP on frames in several pieces") {
        return Ok(());
    }
    let mut programs = Programs::load(Entry::Frags)?;
    programs.reset(Setup::default())?;
    programs.egress(&udp(40_000, 53).v6().sent(Family::Ipv6))?;
    for tags in 0..=1 {
        let mut unread = false;
        for units in 0..=255 {
            let far = |source, destination| {
                udp(source, destination)
                    .tags(tags)
                    .behind(HopByHop(255))
                    .behind(Destination(units))
                    .received(Family::Ipv6)
            };
            let length = far(53, 40_000).len();
            let verdict = |source, destination| programs.ingress(&far(source, destination));
            let answer = verdict(53, 40_000)?;
            unread |= answer == Verdict::Drop;
            ensure!(
                unread == (answer == Verdict::Drop),
                "{length} bytes: an answer passes, though a shorter one does not"
            );
            ensure!(!unread || length > LONGEST_WHOLE, "{length} bytes: unread");
            ensure!(
                verdict(54, 40_000)? == Verdict::Drop,
                "{length} bytes, unsolicited sender"
            );
            ensure!(verdict(53, 80)? == answer, "{length} bytes, unguarded");
        }
        ensure!(unread, "every frame came in one piece");
    }
    Ok(())
}

#[test]
fn any_frame_is_decided_as_in_memory() -> Result<()> {
    alike(Entry::Whole, 200)
}

#[test]
fn any_frame_that_may_be_split_is_decided_as_in_memory() -> Result<()> {
    if FRAGS.is_missing("XDP on frames in several pieces") {
        return Ok(());
    }
    alike(Entry::Frags, 200)
}

/// Shows both guards the same rounds of damaged frames.
fn alike(entry: Entry, rounds: u64) -> Result<()> {
    const FRAMES: usize = 250;

    let mut programs = Programs::load(entry)?;
    let originals = cases::frames();
    for seed in 0..rounds {
        let mut mutations = Mutations::new(seed);
        let setup = Setup {
            any_remote_port: seed % 4 == 1,
            ..Setup::default()
        };
        let mut tables = MemoryDatapath::new(setup);
        programs.reset(setup)?;
        if seed % 3 == 2 {
            // Another policy is about to come into force, half of the time with another UDP filter.
            let next = InForce::new(30_000, 65_535, 0)
                .with(InForce::ANY_REMOTE_PORT, seed % 2 == 0)
                .with(InForce::SPECIAL, true);
            let mut page = Box::new(Page::EMPTY);
            for port in 30_000..=65_535 {
                page.ports.tcp[port / 32] |= u32::from(port % 3 != 0) << (port % 32);
                page.ports.udp[port / 32] |= u32::from(port % 5 != 0) << (port % 32);
            }
            programs.record_both(setup, next, &page)?;
            tables.record_both(next, page);
        }
        let before = programs.counters(setup::DEVICE)?;
        let mut due = BTreeMap::new();
        for _ in 0..FRAMES {
            let (direction, frame) = mutations.next(&originals);
            if frame.len() > LONGEST_WHOLE {
                continue;
            }
            if direction == Direction::Egress && !programs::can_be_sent(&frame) {
                continue;
            }
            let (decision, carried_out) = match direction {
                Direction::Ingress => (
                    ingress::ingress(&frame[..], &tables),
                    programs.ingress(&frame),
                ),
                Direction::Egress => (tables.send(&frame), programs.egress(&frame)),
            };
            let action = decision.outcome.verdict();
            ensure!(
                carried_out.as_ref().is_ok_and(|verdict| *verdict == action),
                "seed {seed}: {carried_out:?}, not {decision:?}, for {direction:?} of {frame:02x?}"
            );
            *due.entry(decision.slot(action)).or_insert(0) += 1;
        }

        let context = || format!("seed {seed}");
        compare_counters(&before, &programs.counters(setup::DEVICE)?, &due)
            .with_context(context)?;
        let now = programs.now()?;
        let known = programs.flows(now)?;
        ensure!(
            known.keys().eq(tables.flows().keys()),
            "seed {seed}: the flows differ"
        );
        ensure!(
            programs.occupancy()? == tables.occupancy_bytes(),
            "seed {seed}: the occupancy differs"
        );
    }

    for device in 0..setup::DEVICE {
        let counters = programs.counters(device)?;
        ensure!(
            counters.iter().all(|count| *count == 0),
            "counted for {device}"
        );
    }
    Ok(())
}
