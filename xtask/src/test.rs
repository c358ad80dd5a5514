//! `cargo xtask test`: the unit tests and the suites, here or on other kernels.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Result, ensure};

use crate::build::{self, Built, OBJECT_VARIABLE};
use crate::earlier::{self, EARLIER_VARIABLE};
use crate::kernel::Selection;
use crate::process::{self, announce};
use crate::suites::{self, BINARY_VARIABLE, Compiled, Suite};
use crate::version::Version;
use crate::{cargo, kernel, privilege, setup, toolchain};

/// The suites look at delays too, so that more of them at a time than this disturb each other.
const MOST_THREADS: usize = 4;

/// The old kernel that every change is tried on: the oldest that is promised, without TCX and
/// without frames in pieces.
pub const OLDEST_KERNEL: &[Version] = &[Version::new(5, 10)];

/// The kernels that network cards are guarded on: of Debian 12, whose drivers give programs frames in
/// one piece, and one whose drivers give them several.
const CARD_KERNELS: &[Version] = &[Version::new(6, 1), Version::new(6, 12)];

/// Tests, and modules of them, that start the daemon again and again, which takes an emulated
/// processor many minutes. They run on this machine's kernel, and on others when all tests are asked
/// for. Of the privileges, what is left is what old kernels do otherwise.
const LONG: &[&str] = &[
    "killed::",
    "layouts::",
    "restarts::",
    "missing_privileges",
    "nobody_may_not",
    "a_bpffs_that_is_missing_or_read_only",
    "a_kernel_that_shows_no_btf",
    "what_is_not_needed_any_more_is_given_up",
    "a_crash_leaves_no_process",
    "what_is_pinned_for_a_namespace_that_is_gone",
];

#[derive(clap::Args)]
pub struct Args {
    /// Boot these kernels of Debian under QEMU instead: --kernel 5.10 6.1
    #[arg(long, num_args = 1.., value_name = "VERSION", value_parser = kernel_version)]
    kernel: Vec<Version>,
    /// Guard network cards of several kinds under QEMU instead, on these kernels or on two of Debian's
    #[arg(long, conflicts_with = "filter")]
    drivers: bool,
    /// On other kernels, leave out what takes many minutes when it is emulated; of the network cards,
    /// try three on one kernel
    #[arg(long)]
    brief: bool,
    /// Run only the tests whose name contains this; stands before --kernel
    filter: Option<String>,
}

impl Args {
    /// Every test on this machine's kernel.
    pub fn everything() -> Self {
        Self {
            kernel: Vec::new(),
            drivers: false,
            brief: false,
            filter: None,
        }
    }

    /// The tests of a change on `kernels`.
    pub fn brief(kernels: &[Version]) -> Self {
        Self {
            kernel: kernels.to_vec(),
            drivers: false,
            brief: true,
            filter: None,
        }
    }

    /// The network cards that a change is tried on.
    pub fn cards() -> Self {
        Self {
            kernel: Vec::new(),
            drivers: true,
            brief: true,
            filter: None,
        }
    }
}

pub fn execute(args: &Args) -> Result<()> {
    let filter = args.filter.as_deref();
    ensure!(
        !args.brief || args.drivers || !args.kernel.is_empty(),
        "--brief is for --kernel and --drivers"
    );
    let toolchain = toolchain::ensure()?;
    setup::tests()?;
    let built = build::everything(&toolchain, false)?;

    if args.drivers {
        let kernels = match (args.kernel.is_empty(), args.brief) {
            (true, true) => &CARD_KERNELS[..1],
            (true, false) => CARD_KERNELS,
            (false, _) => &args.kernel,
        };
        kernel::test_cards(kernels, &built, args.brief)
    } else if args.kernel.is_empty() {
        let earlier = earlier::binary(&toolchain)?;
        here(&built, earlier.as_deref(), filter)
    } else {
        let skipped = if args.brief { LONG } else { &[] };
        kernel::test(&args.kernel, &built, &Selection { filter, skipped })
    }
}

/// Runs every test on this machine's kernel.
fn here(built: &Built, earlier: Option<&Path>, filter: Option<&str>) -> Result<()> {
    let mut failed = Vec::new();
    let Compiled { units, suites } = suites::compile(built)?;
    for unit in units {
        announce(&format!("unit tests of {}", unit.name));
        if run_unprivileged(&unit, built, filter).is_err() {
            failed.push(format!("the unit tests of {}", unit.name));
        }
    }
    announce("unit tests of xtask, and what documentation shows");
    if rest_of_unit_tests(built, filter).is_err() {
        failed.push("the unit tests of xtask, or what documentation shows".to_owned());
    }
    for suite in suites {
        announce(&format!("suite {}", suite.name));
        if run(&suite, built, earlier, filter).is_err() {
            failed.push(format!("suite {}", suite.name));
        }
    }

    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    announce("every test passed");
    if earlier.is_none() {
        announce(earlier::LEFT_OUT);
    }
    Ok(())
}

fn run_unprivileged(unit: &Suite, built: &Built, filter: Option<&str>) -> Result<()> {
    let mut command = Command::new(&unit.executable);
    command
        .args(filter)
        .env(OBJECT_VARIABLE, &built.object)
        .env(BINARY_VARIABLE, &built.binary)
        .current_dir(&unit.folder)
        .stdin(Stdio::null());
    process::run(&mut command)
}

/// What cargo has to run itself, or has compiled with features of its own to run us.
fn rest_of_unit_tests(built: &Built, filter: Option<&str>) -> Result<()> {
    let mut xtask = cargo::host("test");
    xtask.args(["--package", "xtask"]).args(filter);
    let mut shown = suites::selected("test");
    shown
        .arg("--doc")
        .args(filter)
        .env(OBJECT_VARIABLE, &built.object)
        .env(BINARY_VARIABLE, &built.binary);

    process::run(&mut xtask).and(process::run(&mut shown))
}

/// Runs one suite as root; it was compiled as the caller, so no file of root's is left in target.
fn run(suite: &Suite, built: &Built, earlier: Option<&Path>, filter: Option<&str>) -> Result<()> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_THREADS);
    let mut variables = vec![
        (BINARY_VARIABLE, built.binary.as_path()),
        (OBJECT_VARIABLE, built.object.as_path()),
    ];
    variables.extend(earlier.map(|earlier| (EARLIER_VARIABLE, earlier)));
    let mut command = privilege::as_root(&suite.executable, &variables)?;
    command
        .arg(format!("--test-threads={threads}"))
        .args(filter)
        .current_dir(&suite.folder)
        .stdin(Stdio::null());
    process::run(&mut command)
}

fn kernel_version(text: &str) -> Result<Version, String> {
    text.parse()
        .map_err(|error| format!("{error}; a filter stands before --kernel"))
}
