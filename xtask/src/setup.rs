//! `cargo xtask setup`: everything that building and testing need.

use anyhow::{Result, bail};

use crate::process::announce;
use crate::{packages, toolchain};

#[derive(clap::Args)]
pub struct Args {
    /// Also install the Debian packages that the test suites call
    #[arg(long)]
    tests: bool,
}

pub fn execute(args: &Args) -> Result<()> {
    toolchain::ensure()?;
    if args.tests {
        tests()?;
    }
    Ok(())
}

/// Installs what the test suites call.
pub fn tests() -> Result<()> {
    let missing = packages::missing(packages::FOR_TESTS)?;
    if missing.is_empty() {
        announce("every package of the test suites is installed");
        return Ok(());
    }
    if !packages::installable(&missing)? {
        bail!(
            "the test suites need packages that cannot be installed here; type, as root:\n  \
             apt-get update\n  \
             apt-get install --yes --no-install-recommends {}",
            missing.join(" "),
        );
    }
    packages::install(&missing, "the test suites call them")
}

/// Installs what the bench calls, as far as that can be had: it names the peers that are missing.
pub fn bench() -> Result<()> {
    let missing = packages::missing(packages::FOR_BENCH)?;
    for name in missing {
        if packages::installable(&[&name])? {
            packages::install(&[name], "the bench calls it")?;
        } else {
            announce(&format!(
                "{name} cannot be installed here: the bench does without"
            ));
        }
    }
    Ok(())
}
