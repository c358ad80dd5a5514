//! `cargo xtask run`: builds as the caller, runs as root.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, ensure};

use crate::{build, privilege, toolchain};

#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Passed to `portguard run` unchanged: --iface IFACE and whatever it takes
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

pub fn execute(args: &Args) -> Result<()> {
    // Asked before a build that may take minutes.
    ensure!(
        privilege::obtainable(),
        "portguard needs root to load its programs, and there is no sudo: run the same command \
         as root"
    );
    let toolchain = toolchain::ensure()?;
    let built = build::everything(&toolchain, false)?;
    let mut portguard = privilege::as_root::<&str>(&built.binary, &[])?;
    portguard.arg("run").args(&args.arguments);

    // It takes our place, so that signals reach it and its exit code is ours.
    Err(portguard.exec()).with_context(|| format!("{} did not start", built.binary.display()))
}
