//! Loads that go on for long: rows L2, L5, L10 and L12 of the acceptance matrix.
//!
//! `cargo xtask test` runs them for seconds, `cargo xtask soak` for minutes. Each scenario first
//! runs its load without a guard: what fails there is no fault of the guard's, and an unsolicited sender who
//! is not heard there proves nothing. Each one has a control, in which what it counts is not 0.

mod lab;

mod crash;
mod eviction;
mod flaps;
mod scan;
mod steady;
mod young;

use anyhow::{Result, ensure};
use guard_tests::soak::{Figures, Size};

/// A daemon that learns of no connection by itself.
const UNLEARNED: [&str; 4] = ["--without", "seeding", "--without", "repair"];

/// Says what became of a scenario.
fn report(scenario: &str, size: Size, figures: &Figures) {
    println!("{scenario} ({size} size): {figures}");
}

/// Whether no connection has noticed, no strange frame got through, and none but strange ones were
/// dropped.
///
/// One connection in a million is late without any guard: its SYN meets what is left of an earlier
/// one between the same ports. It proves nothing where every frame that was dropped is a strange
/// one.
fn flawless(figures: &Figures) -> Result<()> {
    ensure!(figures.made > 0, "nothing was done: {figures}");
    ensure!(figures.failed == 0 && figures.leaked == 0, "{figures}");
    let exact = figures.dropped == figures.strange;
    ensure!(figures.late == 0 || exact, "{figures}");
    ensure!(
        figures.dropped <= figures.strange,
        "more was dropped than is strange: {figures}"
    );
    Ok(())
}
