//! Measures portguard against what it would be replaced by: `cargo xtask bench`.
//!
//! Modules in reading order: the eBPF programs that are compared with and sent by ([`programs`],
//! [`recipe`], [`fields`]) and how they are run ([`bpf`], [`known`]), on which [`processor`] and in
//! which order ([`rounds`], [`passes`]); what each outcome costs ([`test_run`]); who is compared
//! ([`contender`]) and where ([`rig`]); what [`floods`] do to them, what [`policies`] cost, what their
//! [`clients`] notice, what many flows cost ([`scaling`]), and what else is used up ([`footprint`]);
//! and what is made of all that ([`report`]).

mod bpf;
mod fields;
mod known;
mod processor;
mod programs;
#[path = "../ebpf/src/recipe.rs"]
mod recipe;

mod passes;
mod rounds;
mod shape;

mod test_run;

mod contender;
mod rig;

mod clients;
mod floods;
mod footprint;
mod policies;
mod scaling;

mod report;

use std::{fmt::Display, process::ExitCode, time::Instant};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    contender::Contender,
    passes::Again,
    report::{Assessment, Extent, Recorded, Results, cost_name},
    test_run::Cost,
};

/// How often the parts are measured whose targets are nanoseconds or a few percent.
const PASSES: usize = 3;

/// Measures portguard against what a user would take instead
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(subcommand)]
    helper: Option<Helper>,
    /// Measure only these parts; repeatable
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
    /// Of the outcomes, measure only those whose name has this in it
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// Turns of each outcome and of the program that does nothing, in all passes
    #[arg(long, default_value_t = 200, value_name = "NUMBER")]
    rounds: usize,
    /// Turns of each contender, in all passes
    #[arg(long, default_value_t = 30, value_name = "NUMBER")]
    turns: usize,
    /// Measure little, in under a minute, and check nothing
    #[arg(long, conflicts_with_all = ["check", "record"])]
    short: bool,
    /// Fail when something is worse than bench/recorded.json says
    #[arg(long)]
    check: bool,
    /// Write bench/recorded.json, for later checks
    #[arg(long, conflicts_with_all = ["check", "only", "filter"])]
    record: bool,
    /// Put the figures into README.md and docs/performance.md, and their picture beside the bench
    #[arg(long, conflicts_with_all = ["only", "filter", "short"])]
    readme: bool,
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
    /// Floods where the policy or the host has something to be asked before a drop
    Policies,
    /// What connections of the guarded host notice
    Clients,
    /// What many flows cost
    Scaling,
    /// Memory, and how long changes take
    Footprint,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.helper {
        Some(Helper::Hold(hold)) => rig::hold(hold),
        None => run(&cli),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    processor::choose(cli.processor);
    let recorded = cli.check.then(Recorded::read).transpose()?;
    let started = Instant::now();
    let mut results = measure(cli)?;
    let assessment = recorded
        .map(|recorded| check(cli, &recorded, &mut results))
        .transpose()?;
    results.targets = report::marks(&results);

    if !cli.short {
        println!("\ntarget {:>72} {:>9}", "", "measured");
        results.targets.iter().for_each(|mark| println!("{mark}"));
    }
    let folder = results.write()?;
    println!(
        "\nmeasured in {:.0} s; results.json, results.md and results.svg are in {}",
        started.elapsed().as_secs_f64(),
        folder.display()
    );
    if cli.readme {
        report::refresh_documents(&results)?;
    }
    if cli.record {
        Recorded::of(&results).write()?;
    }
    if let Some(assessment) = assessment {
        println!("\n{assessment}");
        ensure!(
            assessment.holds(),
            "this is not what was recorded; measure again on a quiet machine, and --record what \
             is meant to be so"
        );
    }
    Ok(())
}

/// Compares a run with what was recorded. Costs that seem worse are measured again: a row takes a
/// tenth of a second, which a busy machine may spoil as a whole.
fn check(cli: &Cli, recorded: &Recorded, results: &mut Results) -> Result<Assessment> {
    const AGAIN: usize = 2;

    let compare =
        |results: &Results| Assessment::new(recorded, &Recorded::of(results), cli.extent());
    let mut assessment = compare(results);
    for _ in 0..AGAIN {
        let seems_worse = |name: &str, shape| assessment.is_worse(&cost_name(name, shape));
        if !results
            .test_run
            .iter()
            .any(|cost| seems_worse(cost.name, cost.shape))
        {
            break;
        }
        print!("\nonce more, {}", test_run::HEADING);
        for cost in test_run::measure(seems_worse, cli.rounds, |cost| println!("{cost}"))? {
            let same = |before: &&mut Cost| before.name == cost.name && before.shape == cost.shape;
            if let Some(before) = results.test_run.iter_mut().find(same)
                && cost.cost.low < before.cost.low
            {
                *before = cost;
            }
        }
        assessment = compare(results);
    }
    Ok(assessment)
}

fn measure(cli: &Cli) -> Result<Results> {
    let mut results = Results::new();
    let mut left_out = Vec::new();
    let mut leave_out = |contender: Contender, error: anyhow::Error| {
        let line = format!("{contender}: {error:#}");
        if !left_out.contains(&line) {
            println!("left out: {line}");
            left_out.push(line);
        }
    };
    let show = |line: &dyn Display| println!("{line}");

    // The short form has no time for many rounds, and shows what changes of the code change most.
    let (passes, rounds, turns) = if cli.short {
        (1, 60, 5)
    } else {
        let share = |all: usize| all.div_ceil(PASSES);
        (PASSES, share(cli.rounds), share(cli.turns))
    };
    for pass in 1..=passes {
        if passes > 1 {
            println!("\npass {pass} of {passes}");
        }
        if cli.measures(Part::TestRun) {
            print!("\n{}", test_run::HEADING);
            let wanted = |name: &str, _| name.contains(&cli.filter);
            let costs = test_run::measure(wanted, rounds, |cost| show(cost))?;
            results.test_run.settle(costs);
        }
        if cli.measures(Part::Floods) {
            let floods = floods::measure(turns, cli.short, &mut leave_out, show)?;
            results.floods.settle(floods);
        }
        if cli.short {
            continue;
        }
        again(cli, rounds, &mut results)?;
        if cli.measures(Part::Policies) {
            let policies = policies::measure(turns, show)?;
            results.policies.settle(policies);
        }
        if cli.measures(Part::Clients) {
            let clients = clients::measure(turns, &mut leave_out, show)?;
            results.clients.settle(Some(clients));
        }
        again(cli, rounds, &mut results)?;
        if cli.measures(Part::Footprint) {
            let footprint = footprint::measure()?;
            show(&footprint);
            results.footprint.settle(Some(footprint));
        }
    }
    if cli.measures(Part::Scaling) && !cli.short {
        results.scaling = Some(scaling::measure(cli.turns, show)?);
        again(cli, rounds, &mut results)?;
    }
    results.left_out = left_out;
    Ok(results)
}

/// Measures the outcomes that have a target once more, which takes a second.
fn again(cli: &Cli, rounds: usize, results: &mut Results) -> Result<()> {
    if cli.measures(Part::TestRun) && cli.filter.is_empty() {
        let costs = test_run::measure(report::has_target, rounds, |_| {})?;
        results.test_run.settle(costs);
    }
    Ok(())
}

impl Cli {
    fn extent(&self) -> Extent {
        if self.only.is_empty() && self.filter.is_empty() {
            Extent::Whole
        } else {
            Extent::Part
        }
    }

    fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
