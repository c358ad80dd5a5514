//! `cargo xtask bench`: portguard against what a user would take instead.

use std::ffi::OsString;
use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::build::{self, Built, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::suites::{self, BINARY_VARIABLE};
use crate::toolchain::{self, Toolchain};
use crate::{cargo, privilege, setup, workspace};

/// Names the bench's own eBPF object to it.
const BENCH_OBJECT_VARIABLE: &str = "PORTGUARD_BENCH_OBJECT";
/// Names the folder for its results.
const RESULTS_VARIABLE: &str = "PORTGUARD_BENCH_RESULTS";
/// What it writes there.
const RESULTS: [&str; 3] = ["results.json", "results.md", "results.svg"];

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed to the bench unchanged; --help lists what it takes
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

pub fn execute(args: &Args) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    setup::bench()?;
    let built = build::everything(&toolchain, false)?;
    let mut compile = cargo::host("build");
    compile
        .args(["--package", "guard-bench", "--release"])
        // As for the daemon and the suites: the same library is built once.
        .env(OBJECT_VARIABLE, &built.object);
    process::run(&mut compile).context("the bench was not built")?;
    measure(&toolchain, &built, "release", &args.arguments)
}

/// Measures a little, without a judgement: a machine that others use too says little by time.
pub fn short(toolchain: &Toolchain, built: &Built) -> Result<()> {
    // The kernel does the work, so the bench may be built as the suites are, and is built with them.
    suites::compile(built)?;
    measure(toolchain, built, "debug", &["--short".into()])
}

fn measure(
    toolchain: &Toolchain,
    built: &Built,
    folder: &str,
    arguments: &[OsString],
) -> Result<()> {
    let object = build::object(toolchain, build::BENCH, &[])?;
    let results = workspace::target().join("bench");
    // Made here, so that they are the caller's when root has filled them.
    fs::create_dir_all(&results)
        .with_context(|| format!("{} could not be made", results.display()))?;
    for name in RESULTS {
        let path = results.join(name);
        let mut open = File::options();
        open.create(true).append(true);
        open.open(&path)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let mut bench = privilege::as_root(
        workspace::target().join(folder).join("guard-bench"),
        &[
            (OBJECT_VARIABLE, &built.object),
            (BINARY_VARIABLE, &built.binary),
            (BENCH_OBJECT_VARIABLE, &object),
            (RESULTS_VARIABLE, &results),
        ],
    )?;
    bench.args(arguments).current_dir(workspace::root());
    announce("bench");
    process::run(&mut bench)
}
