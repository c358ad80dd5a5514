//! The policy three ways: as the reference tells it, in memory, and as the loaded programs do it.

use anyhow::{Context, Result, ensure};
use guard_tests::{
    cases,
    differential::{
        campaign::{self, Plan},
        kernel::Kernel,
        machine::{Machine, Sockets},
    },
    programs::{Entry, FRAGS},
};

/// Steps that every change is tried on; `cargo xtask fuzz --long` takes a hundred times as many.
const STEPS: u64 = 100_000;

fn entries() -> Vec<Entry> {
    if FRAGS.is_missing("XDP on frames in several pieces") {
        vec![Entry::Whole]
    } else {
        vec![Entry::Whole, Entry::Frags]
    }
}

#[test]
fn the_policy_in_memory_does_what_the_reference_does() -> Result<()> {
    let tried = campaign::in_memory(&Plan::steps(1, STEPS), |_| {})?;
    println!("{tried}");
    Ok(())
}

#[test]
fn the_programs_do_what_the_reference_does() -> Result<()> {
    let tried = campaign::three_ways(&Plan::steps(1_000_000, STEPS), &entries(), |_| {})?;
    println!("{tried}");
    Ok(())
}

/// What was found once is tried on everybody, and the reference says what the row says.
#[test]
fn what_was_found_stays_right() -> Result<()> {
    let machine = Machine::new()?;
    machine
        .namespace
        .run(|| {
            let _sockets = Sockets::open()?;
            for entry in entries() {
                let mut kernel = Kernel::new(entry)?;
                for found in cases::found() {
                    found.is_due()?;
                    let differs = campaign::punctual(&found.session, &mut kernel, &mut 0)?;
                    ensure!(differs.is_none(), "{}: {differs:?}", found.name);
                }
            }
            Ok(())
        })
        .context("see tests/src/cases/found.rs")
}
