//! libFuzzer around whatever reads bytes, and the corpora that it leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::build::{self, OBJECT_VARIABLE};
use crate::process::{self, announce};
use crate::{cargo, packages, toolchain, workspace};

/// Names the target to the program.
const TARGET_VARIABLE: &str = "PORTGUARD_FUZZ_TARGET";

/// Stands for no target: all are listed.
const LIST: &str = "list";

/// The name of the target's program.
const PROGRAM: &str = "guard-fuzz";

/// Longer inputs show nothing that shorter ones do not.
const LONGEST: usize = 4096;

/// What compiles the runtime of libFuzzer.
const COMPILER: (&str, &str) = ("c++", "g++");

/// What `cargo fuzz` would tell rustc. The sanitizer is unstable, the rest is not.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Zsanitizer=address",
];

/// Lets coverage guide `target` for so long, and keeps what leads there if asked to.
pub fn guide(target: &str, duration: Duration, keep: bool) -> Result<()> {
    let program = build()?;
    if target == LIST {
        return process::run(
            Command::new(&program)
                .env(TARGET_VARIABLE, LIST)
                .arg("-runs=1"),
        );
    }
    let kept = workspace::root().join("fuzz/corpus").join(target);
    let scratch = workspace::target().join("fuzz");
    let (fresh, found) = (
        scratch.join("corpus").join(target),
        scratch.join("found").join(target),
    );
    for folder in [&kept, &fresh, &found] {
        fs::create_dir_all(folder)
            .with_context(|| format!("{} could not be made", folder.display()))?;
    }

    announce(&format!("fuzz {target}"));
    let mut guide = Command::new(&program);
    guide
        .env(TARGET_VARIABLE, target)
        .arg(format!("-max_total_time={}", duration.as_secs()))
        .arg(format!("-max_len={LONGEST}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args(["-timeout=20", "-print_final_stats=1"])
        .args([&fresh, &kept]);
    process::run(&mut guide).with_context(|| {
        format!(
            "what led there is in {}; mend what it shows, and keep it in {}, where every test run \
             tries it",
            workspace::shown(&found),
            workspace::shown(&kept),
        )
    })?;
    if keep {
        merge(&program, target, &[&fresh, &kept], &kept)?;
    }
    Ok(())
}

/// Replaces what is kept by as little as leads to all that either folder does.
fn merge(program: &Path, target: &str, from: &[&Path], kept: &Path) -> Result<()> {
    let merged = workspace::target().join("fuzz/merged").join(target);
    // Of an earlier run, if anything.
    let _ = fs::remove_dir_all(&merged);
    fs::create_dir_all(&merged)
        .with_context(|| format!("{} could not be made", merged.display()))?;
    let mut merge = Command::new(program);
    merge
        .env(TARGET_VARIABLE, target)
        .args(["-set_cover_merge=1", &format!("-max_len={LONGEST}")])
        .arg(&merged)
        .args(from);
    process::run(&mut merge).context("the corpora could not be merged")?;

    let inputs = files(&merged)?;
    ensure!(!inputs.is_empty(), "nothing would be kept");
    for old in files(kept)? {
        fs::remove_file(&old).with_context(|| format!("{} stays", old.display()))?;
    }
    for input in &inputs {
        let name = input.file_name().context("an input has no name")?;
        fs::copy(input, kept.join(name)).context("an input could not be kept")?;
    }
    announce(&format!(
        "kept {} inputs in {}",
        inputs.len(),
        workspace::shown(kept)
    ));
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("{} could not be read", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Builds the program with all targets, with a sanitizer, as the caller.
fn build() -> Result<PathBuf> {
    let toolchain = toolchain::ensure()?;
    let built = build::everything(&toolchain, false)?;
    let (compiler, package) = COMPILER;
    if process::find(compiler).is_none() {
        packages::install(&[package], "libFuzzer is C++")?;
    }

    // For a target that is named, build scripts and macros are compiled without these flags.
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = workspace::target().join("fuzz");
    let mut compile = cargo::foreign(&cargo::program());
    compile
        .arg("build")
        .args(["--release", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", &host, "--target-dir"])
        .arg(&folder)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .env(OBJECT_VARIABLE, &built.object);
    cargo::lock(&mut compile);
    process::run(&mut compile).context("the targets were not built")?;

    Ok(folder.join(host).join("release").join(PROGRAM))
}
