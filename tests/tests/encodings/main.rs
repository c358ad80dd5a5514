//! However a forbidden packet is encoded, it dies on the wire (rows E01 to E10, traps A1 to A19).
//!
//! Every frame is first sent where nobody guards, and the kernel must deliver it, unless its row
//! says that the kernel would not.

mod case;
mod extensions;
mod fragments;
mod groups;
mod lies;
mod link;
mod metadata;
mod options;
mod orphans;
mod truncation;

use anyhow::Result;

use case::Case;
use guard_tests::mode::Mode;

const MODES: [&str; 2] = ["native", "generic"];

#[test]
fn e01_a1_tags() -> Result<()> {
    check(link::cases)
}

#[test]
fn e03_options() -> Result<()> {
    check(options::cases)
}

#[test]
fn e04_a5_fragments() -> Result<()> {
    check(fragments::cases)
}

#[test]
fn e06_a7_a8_extension_headers() -> Result<()> {
    check(extensions::cases)
}

#[test]
fn e08_lies() -> Result<()> {
    check(lies::cases)
}

#[test]
fn a9_u10_groups() -> Result<()> {
    check(groups::cases)
}

fn check(cases: fn() -> Vec<Case>) -> Result<()> {
    Mode::every().try_for_each(|mode| case::check(mode, &cases()))
}
