//! Measures portguard against what it would be replaced by: `cargo xtask bench`.
//!
//! Modules in reading order: the eBPF programs that are compared with and sent by ([`programs`],
//! [`recipe`], [`fields`]) and how they are run ([`bpf`]), on which [`processor`] and in which
//! order ([`rounds`]); then what is measured: [`test_run`].

mod bpf;
mod fields;
mod processor;
mod programs;
#[path = "../ebpf/src/recipe.rs"]
mod recipe;

mod rounds;

mod test_run;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Measures portguard against what a user would take instead
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    /// Measure only these parts; repeatable
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Measure only what has this in its name
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// Rounds of each comparison by test-run
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    rounds: usize,
    /// The processor to measure on; the last one unless told otherwise
    #[arg(long, value_name = "NUMBER")]
    processor: Option<usize>,
}

/// What can be measured apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// What each outcome costs over a program that does nothing
    TestRun,
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
    processor::pin(cli.processor.unwrap_or_else(processor::usual))?;
    if cli.only.is_empty() || cli.only.contains(&Part::TestRun) {
        print!("{}", test_run::HEADING);
        test_run::measure(&cli.filter, cli.rounds, |cost| println!("{cost}"))?;
    }
    Ok(())
}
