//! The policy three ways: as the reference tells it, in memory, and as the loaded programs do it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{Direction, Outcome};
use guard_reference::model::Model;
use guard_tests::{
    cases,
    differential::{
        campaign::{self, Plan},
        corpus, found,
        generate::{self, Audience},
        kernel::Kernel,
        machine::{Machine, Sockets},
        session::Step,
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

/// Where coverage has led once, and whatever it has ever shown.
#[test]
fn what_was_collected_shows_no_difference() -> Result<()> {
    // Tests run in the folder of their package.
    let folder = Path::new("../fuzz/corpus/frames");
    let mut count = 0;
    for file in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = file?.path();
        println!("{}", path.display());
        corpus::compare(&fs::read(path)?);
        count += 1;
    }
    ensure!(count > 0, "{} is empty", folder.display());
    Ok(())
}

/// What is never met is never compared.
#[test]
fn sessions_meet_every_outcome() {
    let mut met: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for seed in 0..STEPS / campaign::LENGTH as u64 {
        let session = generate::session(seed, campaign::LENGTH, Audience::Programs);
        let mut model = Model::new(session.policy, session.host, 1 << 24);
        for step in &session.steps {
            let hook = match step {
                Step::Receive(_) => Direction::Ingress,
                _ => Direction::Egress,
            };
            if let Some(decided) = found::take(&mut model, step) {
                *met.entry((hook.label(), decided.reason.name()))
                    .or_default() += 1;
            }
        }
    }
    println!("{met:#?}");
    for outcome in Outcome::ALL {
        let times = met.get(&(outcome.direction().label(), outcome.reason()));
        // The maps of the programs always have room.
        if *outcome != Outcome::PassInsertFailed {
            assert!(
                times.is_some_and(|times| *times >= 50),
                "{outcome:?}: {times:?}"
            );
        }
    }
}
