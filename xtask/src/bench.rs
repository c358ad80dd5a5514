//! `cargo xtask bench`: portguard against what a user would take instead.

use std::ffi::OsString;
use std::fs::{self, File};

use anyhow::{Context, Result};

use crate::build::{self, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::suites::BINARY_VARIABLE;
use crate::{cargo, privilege, setup, toolchain, workspace};

/// Names the bench's own eBPF object to it.
const BENCH_OBJECT_VARIABLE: &str = "PORTGUARD_BENCH_OBJECT";
/// Names the folder for its results.
const RESULTS_VARIABLE: &str = "PORTGUARD_BENCH_RESULTS";
/// What it writes there.
const RESULTS: [&str; 2] = ["results.json", "results.svg"];

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
    let object = build::object(&toolchain, build::BENCH, &[])?;
    let mut compile = cargo::host("build");
    compile
        .args(["--release", "--package", "guard-bench"])
        // As for the daemon: the same library is built once.
        .env(OBJECT_VARIABLE, &built.object);
    process::run(&mut compile).context("the bench was not built")?;

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
        workspace::target().join("release/guard-bench"),
        &[
            (OBJECT_VARIABLE, &built.object),
            (BINARY_VARIABLE, &built.binary),
            (BENCH_OBJECT_VARIABLE, &object),
            (RESULTS_VARIABLE, &results),
        ],
    )?;
    bench.args(&args.arguments).current_dir(workspace::root());
    announce("bench");
    process::run(&mut bench)
}
