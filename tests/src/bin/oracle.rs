//! Compares what the kernel delivers with and without a guard for as long as asked.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use guard_tests::oracle::{campaign, tally::Plan};

/// How often it says how far it has come.
const REPORT: Duration = Duration::from_secs(10);

/// Compares what the kernel delivers with and without a guard
#[derive(Parser)]
#[command(
    name = "cargo xtask fuzz --oracle",
    bin_name = "cargo xtask fuzz --oracle"
)]
struct Arguments {
    /// The number that the packets are made up from; another one each time unless it is given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How many packets to try, half of them by generic XDP
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    encodings: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs() * 1_000)
    });
    println!("seed {seed}");
    for mode in ["native", "generic"] {
        let plan = Plan {
            seed,
            encodings: arguments.encodings.div_ceil(2),
            mode: Some(mode),
            asks: true,
        };
        let mut last = Instant::now();
        let tally = campaign::run(&plan, |tally| {
            if last.elapsed() > REPORT {
                last = Instant::now();
                println!("{mode}: {} of {}", tally.encodings, plan.encodings);
            }
        })?;
        println!("{mode}: {tally}");
    }
    println!("no difference");
    Ok(())
}
