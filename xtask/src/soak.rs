//! `cargo xtask soak`: the scenarios of the suites that come in two sizes, in full.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::build::{self, Built, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::suites::{self, BINARY_VARIABLE, Suite};
use crate::{privilege, setup, toolchain};

/// The suites that come in two sizes.
const SUITES: [&str; 2] = ["soak", "concurrency"];

/// Tells a suite to run in full.
const SIZE_VARIABLE: &str = "PORTGUARD_SOAK";
/// Tells it for how long, in seconds.
const SECONDS_VARIABLE: &str = "PORTGUARD_SOAK_SECONDS";

#[derive(clap::Args)]
pub struct Args {
    /// How long each scenario takes that can go on for any time: 90s, 10m, 24h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Only these scenarios; an unknown name lists those there are
    #[arg(value_name = "SCENARIO")]
    scenarios: Vec<String>,
}

pub fn execute(args: &Args) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    setup::tests()?;
    let built = build::everything(&toolchain, false)?;
    let suites: Vec<Suite> = suites::compile(&built)?
        .suites
        .into_iter()
        .filter(|suite| SUITES.contains(&suite.name.as_str()))
        .collect();
    let known: Vec<BTreeSet<String>> = suites.iter().map(scenarios).collect::<Result<_>>()?;
    for scenario in &args.scenarios {
        if !known.iter().any(|known| known.contains(scenario)) {
            let known: Vec<&str> = known.iter().flatten().map(String::as_str).collect();
            bail!("no scenario {scenario}; there are {}", known.join(", "));
        }
    }

    let mut failed = Vec::new();
    for (suite, known) in suites.iter().zip(&known) {
        let asked = |name: &&String| args.scenarios.is_empty() || args.scenarios.contains(name);
        for scenario in known.iter().filter(asked) {
            announce(&format!("scenario {scenario}"));
            if run(suite, &built, scenario, args.duration).is_err() {
                failed.push(scenario.as_str());
            }
        }
    }

    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    announce("every scenario passed");
    Ok(())
}

/// Runs one scenario as root, and nothing beside it: that would be in the way of what it measures.
fn run(suite: &Suite, built: &Built, scenario: &str, duration: Option<Duration>) -> Result<()> {
    let mut variables: Vec<(&str, OsString)> = vec![
        (BINARY_VARIABLE, built.binary.clone().into()),
        (OBJECT_VARIABLE, built.object.clone().into()),
        (SIZE_VARIABLE, "full".into()),
    ];
    if let Some(duration) = duration {
        variables.push((SECONDS_VARIABLE, duration.as_secs().to_string().into()));
    }
    let mut soak = privilege::as_root(&suite.executable, &variables)?;
    soak.args(["--nocapture", "--test-threads=1"])
        .arg(format!("{scenario}::"))
        .current_dir(&suite.folder)
        .stdin(Stdio::null());
    process::run(&mut soak)
}

/// The scenarios of a suite: each is a module of its own.
fn scenarios(suite: &Suite) -> Result<BTreeSet<String>> {
    let list = process::output(Command::new(&suite.executable).args(["--list", "--format=terse"]))?;
    let scenarios = parse(&list);
    ensure!(
        !scenarios.is_empty(),
        "the suite {} has no scenario",
        suite.name
    );
    Ok(scenarios)
}

fn parse(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter_map(|line| line.split_once("::"))
        .map(|(module, _)| module.to_owned())
        .collect()
}

/// Seconds, minutes or hours: `90s`, `10m`, `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    let parts = text.split_at_checked(text.len().saturating_sub(1));
    let seconds = match parts {
        Some((number, unit)) => {
            let number: Option<u64> = number.parse().ok();
            let unit = match unit {
                "s" => Some(1),
                "m" => Some(60),
                "h" => Some(3_600),
                _ => None,
            };
            number
                .zip(unit)
                .and_then(|(number, unit)| number.checked_mul(unit))
        }
        None => None,
    };

    seconds
        .filter(|seconds| *seconds > 0)
        .map(Duration::from_secs)
        .ok_or_else(|| format!("{text:?} is no time; write 90s, 10m or 24h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("24h", Some(86_400)),
            ("", None),
            ("10", None),
            ("m", None),
            ("0s", None),
            ("-1s", None),
            ("10µ", None),
            ("99999999999999999999h", None),
            ("9999999999999999h", None),
        ];
        for (text, seconds) in table {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn scenarios_are_modules() {
        let list = "crash::one: test\ncrash::two: test\nscan::one: test\n\n3 tests, 0 benchmarks\n";
        let scenarios: Vec<String> = parse(list).into_iter().collect();
        assert_eq!(scenarios, ["crash", "scan"]);
    }
}
