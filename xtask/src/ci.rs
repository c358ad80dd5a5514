//! `cargo xtask ci`: everything that must pass before a change is merged.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::build::{self, OBJECT_VARIABLE, Programs};
use crate::process::{self, announce};
use crate::toolchain::{self, Toolchain};
use crate::{bench, cargo, dependencies, packages, test, words, workspace};

/// Holds the clippy that belongs to Debian's `rustc-web`.
const CLIPPY_PACKAGE: &str = "rust-web-clippy";
/// What static binaries without glibc are compiled for.
const MUSL: &str = "x86_64-unknown-linux-musl";
/// Finds what is commonly misspelled; `.codespellrc` says where.
const SPELLING: &str = "codespell";

pub fn execute() -> Result<()> {
    announce("formatting");
    format_check()?;
    dependencies::check()?;
    announce("spelling");
    spelling()?;
    announce("words");
    words::check()?;
    let toolchain = toolchain::ensure()?;
    // The host's crates embed the object, so it has to exist before they can be checked.
    let object = build::object(&toolchain, build::GUARD, &[])?;
    announce("clippy on the host's crates");
    clippy_host(&object)?;
    announce("the daemon with musl");
    check_musl(&object)?;
    announce("clippy on the eBPF programs");
    clippy_bpf(&toolchain)?;
    announce("documentation");
    documentation(&object)?;

    test::execute(&test::Args::everything())?;
    bench::short(&toolchain, &build::everything(&toolchain, false)?)?;
    test::execute(&test::Args::brief(test::OLDEST_KERNEL))?;
    test::execute(&test::Args::cards())?;
    announce("everything passed");
    Ok(())
}

fn format_check() -> Result<()> {
    let manifests = Programs::ALL.map(Programs::manifest);
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"]
        .into_iter()
        .chain(manifests)
    {
        let mut fmt = cargo::plain();
        fmt.args(["fmt", "--all", "--check", "--manifest-path", manifest]);
        process::run(&mut fmt).context("the sources are not formatted: type `cargo fmt`")?;
    }
    Ok(())
}

fn spelling() -> Result<()> {
    if process::find(SPELLING).is_none() {
        packages::install(&[SPELLING], "words are checked by it")?;
    }
    let mut spelling = Command::new(SPELLING);
    spelling.current_dir(workspace::root());
    process::run(&mut spelling).context("words are misspelled, or missing in .codespellrc")
}

fn clippy_host(object: &Path) -> Result<()> {
    let mut clippy = cargo::host("clippy");
    clippy
        .args(["--workspace", "--all-targets", "--", "--deny", "warnings"])
        .env(OBJECT_VARIABLE, object);
    process::run(&mut clippy).context("clippy objects to the host's crates")
}

/// Compiles the daemon for musl, whose types differ here and there, where its standard library is
/// installed.
fn check_musl(object: &Path) -> Result<()> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", MUSL]);
    let libraries = process::output(&mut rustc).context("rustc does not know musl")?;
    if !Path::new(libraries.trim()).is_dir() {
        announce(&format!("skipped: type `rustup target add {MUSL}`"));
        return Ok(());
    }

    let mut check = cargo::host("check");
    check
        .args(["--package", "guard-userspace", "--target", MUSL])
        .env(OBJECT_VARIABLE, object);
    process::run(&mut check).context("the daemon does not compile with musl")
}

/// Lints the programs as they are compiled, with the clippy of that very compiler.
fn clippy_bpf(toolchain: &Toolchain) -> Result<()> {
    let program = toolchain.compiler.rustc.with_file_name("cargo-clippy");
    if !program.is_file() {
        packages::install(
            &[CLIPPY_PACKAGE],
            "the eBPF programs are linted by their own compiler",
        )
        .with_context(|| format!("{} is missing", program.display()))?;
    }

    for programs in Programs::ALL {
        let mut clippy = build::bpf_cargo(program.as_os_str(), toolchain);
        clippy.arg("clippy").env("CARGO", cargo::program());
        build::bpf_arguments(&mut clippy, programs);
        clippy.args(["--", "--deny", "warnings"]);
        process::run(&mut clippy).context("clippy objects to the eBPF programs")?;
    }
    Ok(())
}

fn documentation(object: &Path) -> Result<()> {
    let mut doc = cargo::host("doc");
    doc.args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "--deny warnings")
        .env(OBJECT_VARIABLE, object);
    process::run(&mut doc).context("the documentation has errors")
}
