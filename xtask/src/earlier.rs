//! The last commit of an earlier version, built for the suites to upgrade from and to go back to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::build::{self, OBJECT_VARIABLE};
use crate::toolchain::Toolchain;
use crate::{cargo, object, process, workspace};

/// The last commit of version 0.1 before its files, maps and names were put in order.
const COMMIT: &str = "0f7f8b545a84678bd5de52a0349dafe487d79380";

/// Names the earlier binary to the suites.
pub const EARLIER_VARIABLE: &str = "PORTGUARD_EARLIER";

/// What is not tried where the history of this clone does not reach back so far, and how to mend it.
pub const LEFT_OUT: &str = "the upgrade from version 0.1 and the way back were left out: this clone is \
    shallow and does not hold the commit; type `git fetch --unshallow`, then run the tests again";

/// Builds it, unless that was done before. `None` where the history of this clone does not reach back
/// so far.
pub fn binary(toolchain: &Toolchain) -> Result<Option<PathBuf>> {
    let folder = workspace::target().join("earlier");
    let binary = folder.join(format!("portguard-{}", &COMMIT[..12]));
    if binary.is_file() {
        return Ok(Some(binary));
    }
    let commit = format!("{COMMIT}^{{commit}}");
    if process::probe(git().args(["cat-file", "-e", &commit])).is_none() {
        process::announce(LEFT_OUT);
        return Ok(None);
    }

    process::announce(&format!("building the earlier version {}", &COMMIT[..12]));
    let source = folder.join("source");
    unpack(&source)?;
    let stripped = folder.join("portguard.o");
    let object = build::object_of(toolchain, build::GUARD, &source, &folder)?;
    fs::write(&stripped, object::without_dwarf(&fs::read(object)?)?)
        .with_context(|| format!("{} could not be written", stripped.display()))?;
    let compiled = daemon(&source, &folder, &stripped)?;
    // Last, so that a build that was cut short is done again.
    fs::rename(compiled, &binary)
        .with_context(|| format!("{} could not be written", binary.display()))?;

    Ok(Some(binary))
}

/// Compiles the daemon around its object. It is tried, not measured, so that what it is made of can be
/// that of the suites, which is compiled once.
fn daemon(source: &Path, folder: &Path, object: &Path) -> Result<PathBuf> {
    let mut compile = cargo::plain();
    compile
        .args(["build", "--workspace", "--exclude", "xtask"])
        .args(["--bin", "portguard", "--manifest-path"])
        .arg(source.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(folder)
        .env(cargo::BUILD_FOLDER, workspace::target())
        .env("CARGO_INCREMENTAL", "0")
        .env(OBJECT_VARIABLE, object);
    cargo::lock(&mut compile);
    process::run(&mut compile).context("the earlier version was not built")?;

    Ok(folder.join("debug/portguard"))
}

/// Writes the files of the commit to `folder`.
fn unpack(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let mut archive = git()
        .args(["archive", COMMIT])
        .stdout(Stdio::piped())
        .spawn()
        .context("git could not be started")?;
    let files = archive.stdout.take().context("git has no output")?;
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("-C").arg(folder).stdin(files);
    process::run(&mut tar)?;
    ensure!(archive.wait()?.success(), "git archive failed");

    Ok(())
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(workspace::root());
    git
}
