//! Measures portguard against what it would be replaced by: `cargo xtask bench`.
//!
//! Modules in reading order: the eBPF programs that are compared with and sent by ([`programs`],
//! [`recipe`], [`fields`]) and how they are run ([`bpf`]), on which [`processor`] and in which
//! order ([`rounds`]); what each outcome costs ([`test_run`]); who is compared ([`contender`]),
//! where ([`rig`]), and what [`floods`] do to them.

mod bpf;
mod fields;
mod processor;
mod programs;
#[path = "../ebpf/src/recipe.rs"]
mod recipe;

mod known;
mod rounds;
mod shape;

mod test_run;

mod contender;
mod rig;

mod floods;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

/// Measures portguard against what a user would take instead
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    helper: Option<Helper>,
    /// Measure only these parts; repeatable
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Measure only what has this in its name
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// Rounds of each comparison by test-run
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    rounds: usize,
    /// Turns of each contender
    #[arg(long, default_value_t = 15, value_name = "NUMBER")]
    turns: usize,
    /// Measure the most important, and judge nothing
    #[arg(long)]
    short: bool,
    /// The processor to measure on; the last one unless told otherwise
    #[arg(long, value_name = "NUMBER")]
    processor: Option<usize>,
}

/// What the bench runs beside itself.
#[derive(Subcommand)]
enum Helper {
    /// Holds sockets
    #[command(hide = true)]
    Hold(rig::Hold),
}

/// What can be measured apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// What each outcome costs over a program that does nothing
    TestRun,
    /// Floods of real frames, against what a user would take instead
    Floods,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Some(Helper::Hold(hold)) = &cli.helper {
        return rig::hold(hold);
    }
    processor::choose(cli.processor);
    if cli.measures(Part::TestRun) {
        print!("{}", test_run::HEADING);
        test_run::measure(&cli.filter, cli.rounds, |cost| println!("{cost}"))?;
    }
    if cli.measures(Part::Floods) {
        let left_out = |contender, error| println!("left out: {contender}: {error:#}");
        print!("{}", rig::HEADING);
        let mut mode = None;
        floods::measure(cli.turns, cli.short, left_out, |reading| {
            if mode.replace(reading.mode) != Some(reading.mode) {
                println!("XDP: {}", reading.mode);
            }
            println!("{}", reading.flooded);
        })?;
    }
    Ok(())
}

impl Cli {
    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
