//! Sets up, builds, runs and tests portguard: `cargo xtask --help`.

mod build;
mod ci;
mod run;
mod setup;
mod soak;
mod test;

mod bench;
mod fuzz;

mod dependencies;
mod words;

mod earlier;
mod kernel;
mod suites;

mod object;

mod packages;
mod toolchain;

mod cargo;
mod privilege;
mod process;
mod version;
mod workspace;

#[cfg(test)]
mod documents;
#[cfg(test)]
mod structure;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
#[command(about = "Sets up, builds, runs and tests portguard")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Finds the eBPF toolchain, and installs what is missing of it
    Setup(setup::Args),
    /// Builds the eBPF object and, around it, the binary target/release/portguard
    Build(build::Args),
    /// Builds, then runs `portguard run` with every argument that follows
    Run(run::Args),
    /// Runs the unit tests and the suites, on this kernel or on others under QEMU
    Test(test::Args),
    /// Compares a second telling of the policy with the policy in memory and in the kernel
    Fuzz(fuzz::Args),
    /// Measures portguard against what a user would take instead
    Bench(bench::Args),
    /// Builds, then runs loads that go on for minutes, and tells what became of them
    Soak(soak::Args),
    /// Runs everything that must pass before a change is merged
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Setup(args) => setup::execute(&args),
        Command::Build(args) => build::execute(&args),
        Command::Run(args) => run::execute(&args),
        Command::Test(args) => test::execute(&args),
        Command::Fuzz(args) => fuzz::execute(&args),
        Command::Bench(args) => bench::execute(&args),
        Command::Soak(args) => soak::execute(&args),
        Command::Ci => ci::execute(),
    };

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
