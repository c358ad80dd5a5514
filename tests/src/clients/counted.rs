//! What the guard counts while clients are at work.

use anyhow::{Result, ensure};
use guard_common::outcome::Outcome;

use crate::{guard::Guard, metrics::Packets};

/// What happens while flows are recorded, and while hosts say things unasked.
const USUAL: [Outcome; 5] = [
    Outcome::PassNewFlow,
    Outcome::PassRefreshedFlow,
    Outcome::PassNotRecorded,
    Outcome::PassIcmpInfo,
    Outcome::PassNotIp,
];

/// Checks that `act` moves every counter of `due`, and besides only those of `also`, of flows
/// being recorded, and of what hosts say unasked.
pub fn moves<T>(
    guard: &Guard,
    due: &[Outcome],
    also: &[Outcome],
    act: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let before = guard.packets()?;
    let result = act()?;
    let moved = guard.packets()?.since(&before);
    check(&moved, due, also)?;
    Ok(result)
}

fn check(moved: &Packets, due: &[Outcome], also: &[Outcome]) -> Result<()> {
    for outcome in Outcome::ALL {
        let (reason, count) = (outcome.reason(), moved.of(*outcome));
        if due.contains(outcome) {
            ensure!(count > 0, "{reason} did not move:{moved}");
            continue;
        }
        let expected = also.contains(outcome) || USUAL.contains(outcome);
        ensure!(expected || count == 0, "{reason} moved by {count}:{moved}");
    }
    Ok(())
}
