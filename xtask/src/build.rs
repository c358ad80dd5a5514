//! `cargo xtask build`: the eBPF object first, then the binary that carries it.

use std::env::consts::ARCH;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::toolchain::{self, Toolchain};
use crate::{cargo, object::without_dwarf, process, workspace};

/// The instruction set: v3 has 32-bit operations and is understood since Linux 5.1.
const BPF_CPU: &str = "v3";
/// Features of the eBPF target beyond `BPF_CPU`, such as `+allows-misaligned-mem-access`.
const BPF_FEATURES: &[&str] = &["+allows-misaligned-mem-access"];
const BPF_TARGET: &str = "bpfel-unknown-none";

/// A crate of eBPF programs: where its manifest is, and the name of its binary.
#[derive(Clone, Copy)]
pub struct Programs {
    manifest: &'static str,
    name: &'static str,
}

/// The kernel side of portguard.
pub const GUARD: Programs = Programs {
    manifest: "guard-ebpf/Cargo.toml",
    name: "portguard",
};
/// What the bench compares with and sends by.
pub const BENCH: Programs = Programs {
    manifest: "bench/ebpf/Cargo.toml",
    name: "bench",
};

impl Programs {
    /// Every such crate.
    pub const ALL: [Self; 2] = [GUARD, BENCH];

    /// Where cargo finds the crate, from the workspace's folder.
    pub const fn manifest(self) -> &'static str {
        self.manifest
    }
}

/// Names the finished object to guard-userspace, which embeds it, and to the suites.
pub const OBJECT_VARIABLE: &str = "PORTGUARD_BPF_OBJECT";

#[derive(clap::Args)]
pub struct Args {
    /// Compile aya-log's messages into the eBPF programs
    #[arg(long)]
    bpf_log: bool,
}

pub struct Built {
    pub binary: PathBuf,
    pub object: PathBuf,
}

pub fn execute(args: &Args) -> Result<()> {
    let toolchain = toolchain::ensure()?;
    let built = everything(&toolchain, args.bpf_log)?;
    process::announce(&format!("built {}", workspace::shown(&built.binary)));
    Ok(())
}

/// Builds the object, then the binary around it.
pub fn everything(toolchain: &Toolchain, log: bool) -> Result<Built> {
    let features: &[&str] = if log { &["log"] } else { &[] };
    let object = object(toolchain, GUARD, features)?;
    let mut build = cargo::host("build");
    build
        .args(["--release", "--package", "guard-userspace"])
        .env(OBJECT_VARIABLE, &object);
    if log {
        build.args(["--features", "bpf-log"]);
    }
    process::run(&mut build).context("the binary portguard was not built")?;

    Ok(Built {
        binary: workspace::target().join("release/portguard"),
        object,
    })
}

/// Builds the eBPF object of a crate and returns where it is.
pub fn object(toolchain: &Toolchain, programs: Programs, features: &[&str]) -> Result<PathBuf> {
    let mut build = bpf_cargo(&cargo::program(), toolchain);
    build.arg("build");
    bpf_arguments(&mut build, programs);
    quiet(&mut build);
    if !features.is_empty() {
        build.args(["--features", &features.join(",")]);
    }
    process::run(&mut build).context("the eBPF object was not built")?;

    let fresh = bpf_target()
        .join(BPF_TARGET)
        .join("release")
        .join(programs.name);
    let object = workspace::target()
        .join("bpf")
        .join(format!("{}.o", programs.name));
    let bytes = fs::read(&fresh).with_context(|| format!("{} is missing", fresh.display()))?;
    write_if_changed(&without_dwarf(&bytes)?, &object)?;
    Ok(object)
}

/// Builds the eBPF object of a crate in another checkout into `folder`, and returns where it is, with
/// all that the compiler says for debuggers.
pub fn object_of(
    toolchain: &Toolchain,
    programs: Programs,
    checkout: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    let mut build = bpf_cargo(&cargo::program(), toolchain);
    build
        .args(["build", "--release", "--target", BPF_TARGET])
        .args(["-Zbuild-std=core", "--manifest-path"])
        .arg(checkout.join(programs.manifest))
        .arg("--target-dir")
        .arg(folder)
        .env(cargo::BUILD_FOLDER, bpf_target());
    cargo::lock(&mut build);
    quiet(&mut build);
    process::run(&mut build).context("the eBPF object was not built")?;

    Ok(folder.join(BPF_TARGET).join("release").join(programs.name))
}

fn quiet(build: &mut Command) {
    // The compiler warns of `BPF_FEATURES` at every build, which nobody can do anything about. What it
    // has to say of the code, clippy says too.
    build.args(["-Zwarnings", "--config", "build.warnings=\"allow\""]);
}

/// `program`, a cargo or a subcommand of it, set up to use the eBPF toolchain.
pub fn bpf_cargo(program: &OsStr, toolchain: &Toolchain) -> Command {
    let mut flags = vec![
        format!("-Clinker={}", toolchain.linker().display()),
        // What aya-ebpf's own build script would ask clang for.
        format!("--cfg=bpf_target_arch=\"{}\"", ARCH),
        format!("-Ctarget-cpu={BPF_CPU}"),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    flags.extend(
        BPF_FEATURES
            .iter()
            .map(|feature| format!("-Ctarget-feature={feature}")),
    );

    let mut command = cargo::foreign(program);
    command
        .env("RUSTC", &toolchain.compiler.rustc)
        // Building core from source is unstable, also where rustc itself is a stable release.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command
}

/// What every cargo subcommand on a crate of eBPF programs is told.
pub fn bpf_arguments(command: &mut Command, programs: Programs) {
    command
        .args(["--release", "--target", BPF_TARGET, "-Zbuild-std=core"])
        .args(["--manifest-path", programs.manifest, "--target-dir"])
        .arg(bpf_target());
    cargo::lock(command);
}

/// The target folder of the eBPF programs.
fn bpf_target() -> PathBuf {
    workspace::target().join("bpf-build")
}

/// Leaves an equal file alone, so that nothing is rebuilt around it.
fn write_if_changed(bytes: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|present| present == bytes) {
        return Ok(());
    }

    let folder = to.parent().context("the object has no folder")?;
    // Renamed into place, because another build may be reading it.
    let fresh = to.with_extension("fresh");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&fresh, bytes))
        .and_then(|()| fs::rename(&fresh, to))
        .with_context(|| format!("{} could not be written", to.display()))
}
