//! The comparison must notice every single mistake, and soon.

use std::time::Instant;

use guard_reference::mutants;
use guard_tests::differential::{
    campaign::LENGTH,
    generate::{self, Audience},
    session::Session,
    trial::{self, Ending},
};

/// Sessions in which each mistake must show: as many steps as every change is tried on.
const SESSIONS: u64 = 1000;

#[test]
fn every_mistake_is_noticed() {
    let since = Instant::now();
    let mut sessions: Vec<Session> = Vec::new();
    let mut unnoticed = Vec::new();
    for mutant in mutants::ALL {
        let rules = mutant.rules();
        let mut steps = 0;
        let caught = (0..SESSIONS).find_map(|seed| {
            if sessions.len() as u64 == seed {
                sessions.push(generate::session(seed, LENGTH, Audience::Memory));
            }
            let session = &sessions[seed as usize];
            match trial::in_memory(session, &rules) {
                Ending::Differs(difference) => Some(steps + difference.step),
                Ending::Alike | Ending::Late => {
                    steps += session.steps.len();
                    None
                }
            }
        });
        match caught {
            Some(steps) => println!("{steps:>7} steps: a guard that {}", mutant.name),
            None => unnoticed.push(mutant.name),
        }
    }
    println!("{} mistakes, {:?}", mutants::ALL.len(), since.elapsed());
    assert!(
        unnoticed.is_empty(),
        "unnoticed: a guard that {}",
        unnoticed.join(", that ")
    );
}
