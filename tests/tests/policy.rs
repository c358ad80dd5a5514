//! The table of cases and the properties of the packet logic, in memory.

use std::collections::HashSet;

use guard_common::{
    outcome::{Decision, Direction, Outcome},
    policy::{egress, ingress},
};
use guard_tests::{
    cases::{self, Step},
    memory::MemoryDatapath,
};

/// Outcomes that need the kernel's sockets or routes, which no table in memory has.
const ELSEWHERE: [Outcome; 2] = [Outcome::PassRescued, Outcome::PassNotLocal];

fn check(direction: Direction, frame: &[u8], tables: &MemoryDatapath) -> Decision {
    match direction {
        Direction::Ingress => ingress::ingress(frame, tables),
        Direction::Egress => egress::egress(frame, tables),
    }
}

#[test]
fn every_case_is_decided_as_specified() {
    let mut wrong = Vec::new();
    for case in cases::table() {
        for family in case.families() {
            let mut tables = MemoryDatapath::new(case.setup);
            for (number, step) in case.steps.iter().enumerate() {
                match step {
                    Step::Waits(ticks) => tables.wait(*ticks),
                    Step::Sweeps(sweeps) => tables.sweep(*sweeps),
                    Step::Frame(direction, frame, outcome) => {
                        let bytes = cases::bytes(frame, *direction, family);
                        let decision = check(*direction, &bytes, &tables);
                        let due = cases::due(frame, *outcome, family);
                        if decision != due {
                            wrong.push(format!(
                                "{} ({family:?}), step {number}: {decision:?}, not {due:?}",
                                case.name
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_every_outcome() {
    let seen: HashSet<u8> = cases::table()
        .iter()
        .flat_map(|case| &case.steps)
        .filter_map(|step| match step {
            Step::Frame(_, _, outcome) => Some(*outcome as u8),
            Step::Waits(_) | Step::Sweeps(_) => None,
        })
        .collect();
    for outcome in Outcome::ALL {
        assert!(
            seen.contains(&(*outcome as u8)) != ELSEWHERE.contains(outcome),
            "{outcome:?}"
        );
    }
}
