//! `cargo xtask fuzz`: the policy told twice and done twice, on frames that nobody thought of; what
//! the kernel delivers with a guard and without; and whatever reads bytes from outside, on bytes that coverage guides to.

mod coverage;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::build::{self, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::suites::BINARY_VARIABLE;
use crate::{cargo, privilege, toolchain, workspace};

#[derive(clap::Args)]
pub struct Args {
    /// The number of the first session; another one each time unless it is given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many steps to try [default: 1000000]
    #[arg(long, value_name = "COUNT")]
    steps: Option<u64>,
    /// Try what a release is tried on: 10,000,000 frames received and 2,000,000 sent
    #[arg(long, conflicts_with = "steps")]
    long: bool,
    /// Leave out the loaded programs
    #[arg(long)]
    memory: bool,
    /// Compare what the kernel delivers with and without a guard instead, of so many packets
    #[arg(
        long,
        value_name = "COUNT",
        num_args = 0..=1,
        default_missing_value = "1000000",
        conflicts_with_all = ["steps", "long", "memory"],
    )]
    oracle: Option<u32>,
    /// Let coverage guide what this target reads, in place of all that: `list` lists them
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["seed", "steps", "long", "memory", "oracle"])]
    coverage: Option<String>,
    /// For how long: 60s, 10m
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// Then keep what leads to all that was covered, as few and as short as can be
    #[arg(long, requires = "coverage")]
    keep: bool,
}

pub fn execute(args: &Args) -> Result<()> {
    match &args.coverage {
        Some(target) => coverage::guide(target, args.duration, args.keep),
        None => compare(args),
    }
}

/// Builds one of the two comparisons, and runs it as root.
fn compare(args: &Args) -> Result<()> {
    let name = match args.oracle {
        Some(_) => "oracle",
        None => "differential",
    };
    let toolchain = toolchain::ensure()?;
    let built = build::everything(&toolchain, false)?;
    let mut compile = cargo::host("build");
    compile
        .args(["--release", "--package", "guard-tests"])
        .args(["--bin", name])
        .env(OBJECT_VARIABLE, &built.object);
    process::run(&mut compile).context("the comparison was not built")?;

    let mut compare = privilege::as_root(
        workspace::target().join("release").join(name),
        &[
            (OBJECT_VARIABLE, &built.object),
            (BINARY_VARIABLE, &built.binary),
        ],
    )?;
    for (flag, number) in [
        ("--seed", args.seed),
        ("--steps", args.steps),
        ("--encodings", args.oracle.map(u64::from)),
    ] {
        if let Some(number) = number {
            compare.args([flag, &number.to_string()]);
        }
    }
    for (flag, given) in [("--long", args.long), ("--memory", args.memory)] {
        if given {
            compare.arg(flag);
        }
    }
    compare.current_dir(workspace::root());
    announce("fuzz");
    process::run(&mut compare)
}

/// Seconds, minutes or hours.
fn duration(text: &str) -> Result<Duration, String> {
    let last = text.char_indices().next_back().map_or(0, |(at, _)| at);
    let (number, unit) = text.split_at(last);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(format!("{text:?} is no time; write 60s, 10m or 1h")),
    };
    let number: u64 = number
        .parse()
        .map_err(|error| format!("{text:?} is no time: {error}"))?;

    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "s", "10", "1d", "-1s", "\u{e4}"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
