//! The daemon with parts of it switched off, for tests to show that each of them is needed.
//!
//! `portguard` has no such switches, and nothing of this is in it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use guard_userspace::{
    base::{failure::Exit, slow_answers},
    cli::arguments::{Cli, Command},
    daemon::{event_loop::RunRequest, log, process},
    guard::fault_injection::Parts,
    host::features::Feature,
};

/// Runs portguard without a part of it
#[derive(Parser)]
struct Altered {
    /// What it does not do; may be repeated
    #[arg(long, value_name = "PART")]
    without: Vec<Part>,

    /// How long it rests between two sweeps at least
    #[arg(long, value_name = "MILLISECONDS")]
    sweep_rest: Option<u64>,

    /// The layout of maps that it takes for its own, as if it were another version
    #[arg(long, value_name = "NUMBER")]
    layout: Option<u32>,

    /// While this folder holds a file `sockets`, `conntrack`, `interfaces` or `flows`, the kernel answers
    /// no question about these
    #[arg(long, value_name = "FOLDER")]
    keep_back: Option<PathBuf>,

    /// A feature that the kernel is taken not to have; may be repeated
    #[arg(long, value_name = "NAME", value_parser = feature)]
    lacking: Vec<Feature>,

    /// The command line of portguard, from `run` on
    #[arg(last = true)]
    command_line: Vec<String>,
}

fn feature(name: &str) -> Result<Feature, String> {
    let found = Feature::ALL.iter().find(|feature| feature.name() == name);

    found
        .copied()
        .ok_or_else(|| format!("{name}: no such feature"))
}

/// What can be switched off.
#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// Putting connected sockets into the maps before they are guarded
    Seeding,
    /// Putting what conntrack knows into the maps, before they are guarded and in sweeps
    Conntrack,
    /// Marking the ports of flows in sweeps
    FlowMarks,
    /// Marking the ports of connected sockets in sweeps
    SocketMarks,
    /// Marking the tuples of both in sweeps
    TupleMarks,
    /// Putting back, in sweeps, the flows of connected sockets that the maps have forgotten
    Repair,
    /// Putting back, in sweeps, the flows that NAT translates
    Translated,
    /// Taking out, in sweeps, what has expired where maps fill
    Reclaim,
    /// Listing sockets once a change is in force, which fails
    LateList,
    /// Recording what the next policy guards before it is in force
    BothRecorded,
    /// Copying the flows of an earlier run into other maps
    Carrying,
}

impl Altered {
    fn parts(&self) -> Parts {
        let mut parts = Parts::default();
        for part in &self.without {
            let part = match part {
                Part::Seeding => &mut parts.seeding,
                Part::Conntrack => &mut parts.conntrack,
                Part::FlowMarks => &mut parts.flow_marks,
                Part::SocketMarks => &mut parts.socket_marks,
                Part::TupleMarks => &mut parts.tuple_marks,
                Part::Repair => &mut parts.repair,
                Part::Translated => &mut parts.translated,
                Part::Reclaim => &mut parts.reclaim,
                Part::LateList => &mut parts.late_list,
                Part::BothRecorded => &mut parts.both_recorded,
                Part::Carrying => &mut parts.carrying,
            };
            *part = false;
        }
        if let Some(milliseconds) = self.sweep_rest {
            parts.sweep_rest = Duration::from_millis(milliseconds);
        }
        if let Some(layout) = self.layout {
            parts.layout = layout;
        }
        parts
    }
}

fn main() -> ExitCode {
    let altered = Altered::parse();
    let words = ["portguard"].into_iter().map(str::to_owned);
    let cli = Cli::parse_from(words.chain(altered.command_line.clone()));
    let Command::Run(flags) = cli.command else {
        eprintln!("only `run` can be altered");
        return Exit::Usage.into();
    };
    log::to_stderr();
    for feature in &altered.lacking {
        feature.do_without();
    }
    if let Some(folder) = altered.keep_back.clone() {
        slow_answers::keep_back(folder);
    }
    eprintln!("altered for a test: this guard may cut connections");
    let start = RunRequest {
        flags: flags.layer.0,
        config: flags.config,
    };
    match process::guard(start, altered.parts()) {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.code.into()
        }
    }
}
