//! `cargo xtask fuzz`: the policy told twice and done twice, on frames that nobody thought of.

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::build::{self, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::suites::BINARY_VARIABLE;
use crate::{cargo, privilege, toolchain, workspace};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed to the comparison unchanged; --help lists what it takes
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

pub fn execute(args: &Args) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let built = build::everything(&toolchain, false)?;
    let mut compile = cargo::host("build");
    compile
        .args([
            "--release",
            "--package",
            "guard-tests",
            "--bin",
            "differential",
        ])
        .env(OBJECT_VARIABLE, &built.object);
    process::run(&mut compile).context("the comparison was not built")?;

    let mut compare = privilege::as_root(
        workspace::target().join("release/differential"),
        &[
            (OBJECT_VARIABLE, &built.object),
            (BINARY_VARIABLE, &built.binary),
        ],
    )?;
    compare.args(&args.arguments).current_dir(workspace::root());
    announce("fuzz");
    process::run(&mut compare)
}
