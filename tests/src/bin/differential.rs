//! Compares the reference, the policy in memory and the loaded programs for as long as asked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use guard_tests::{
    differential::campaign::{self, Plan, Progress},
    programs::{Entry, FRAGS},
};

/// How often it says how far it has come.
const REPORT: Duration = Duration::from_secs(10);

/// Compares the reference, the policy in memory and the loaded programs
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Arguments {
    /// The number of the first session; another one each time unless it is given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How many steps to try
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    steps: u64,

    /// Try what a release is tried on: 10,000,000 frames received and 2,000,000 sent
    #[arg(long, conflicts_with = "steps")]
    long: bool,

    /// Leave out the loaded programs
    #[arg(long)]
    memory: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = arguments.plan();
    println!("seed {}", plan.seed);
    let mut last = Instant::now();
    let report = |progress: &Progress| {
        if last.elapsed() > REPORT {
            last = Instant::now();
            println!("{progress}");
        }
    };
    let tried = if arguments.memory {
        campaign::in_memory(&plan, report)?
    } else {
        let entries: &[Entry] = if FRAGS.is_missing("XDP on frames in several pieces") {
            &[Entry::Whole]
        } else {
            &[Entry::Whole, Entry::Frags]
        };
        campaign::three_ways(&plan, entries, report)?
    };
    println!("{tried}\nno difference");
    Ok(())
}

impl Arguments {
    fn plan(&self) -> Plan {
        let seed = self.seed.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs() * 1_000)
        });
        if self.long {
            Plan {
                seed,
                steps: 0,
                received: 10_000_000,
                sent: 2_000_000,
            }
        } else {
            Plan::steps(seed, self.steps)
        }
    }
}
