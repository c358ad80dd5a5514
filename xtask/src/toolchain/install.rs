//! Installing what is missing, each step announced with its reason.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Compiler, advice, required};
use crate::process::{self, announce};
use crate::version::Version;
use crate::{cargo, packages, workspace};

pub const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
pub const LINKER_VERSION: &str = "0.13.0";

/// The packages that building bpf-linker around this LLVM needs.
pub fn linker_packages(llvm: u32) -> [String; 3] {
    [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "libzstd-dev".into(),
    ]
}

/// Installs a rustc with the sources of core, or adds them to the rustc in use.
pub fn compiler() -> Result<()> {
    // Lists from before the last security update name a rustc that is too old.
    if packages::installable_as(&COMPILER_PACKAGES, is_recent)? {
        return packages::install(
            &COMPILER_PACKAGES,
            "no rustc here has the sources of core, from which eBPF programs are built",
        );
    }
    if process::find("rustup").is_some() {
        announce("adding rust-src to rustup's toolchain: eBPF programs are built from it");
        if process::run(Command::new("rustup").args(["component", "add", "rust-src"])).is_ok() {
            return Ok(());
        }
    }

    bail!(
        "no rustc here has the sources of core, and they cannot be installed; {}",
        advice::for_this_machine(),
    )
}

/// Installs bpf-linker into the tool folder of this checkout.
pub fn linker(compiler: &Compiler) -> Result<()> {
    if process::find("cargo-binstall").is_some() {
        announce("installing bpf-linker into target/tools with cargo binstall: none fits rustc");
        let mut binstall = cargo::foreign(&cargo::program());
        binstall
            .args(["binstall", "--no-confirm", "--root"])
            .arg(workspace::tools())
            .arg(format!("bpf-linker@{LINKER_VERSION}"));
        if process::run(&mut binstall).is_ok() {
            return Ok(());
        }
    }

    let llvm = compiler.llvm.major;
    let libraries = linker_packages(llvm);
    let missing = packages::missing(&libraries)?;
    if !missing.is_empty() {
        if !packages::installable(&missing)? {
            bail!(
                "bpf-linker needs LLVM {llvm}, the one of {}, and its packages cannot be \
                 installed; {}",
                compiler.rustc.display(),
                advice::for_this_machine(),
            );
        }
        packages::install(&missing, "bpf-linker is built around the LLVM of rustc")?;
    }

    announce(&format!(
        "building bpf-linker {LINKER_VERSION} into target/tools, about a minute: \
         none here has the LLVM {llvm} of rustc"
    ));
    let mut install = cargo::foreign(&cargo::program());
    install
        .env("PATH", path_with(&workspace::tools().join("bin")))
        .env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"))
        .args(["install", "bpf-linker", "--version", LINKER_VERSION])
        .args([
            "--no-default-features",
            "--features",
            &format!("llvm-{llvm}"),
            "--root",
        ])
        .arg(workspace::tools());
    process::run(&mut install).with_context(|| {
        format!(
            "bpf-linker could not be built; {}",
            advice::for_this_machine()
        )
    })
}

/// Whether a package of this version holds a rustc that is new enough.
fn is_recent(version: &str) -> bool {
    version
        .parse()
        .is_ok_and(|release: Version| release >= required())
}

/// PATH with `folder` at its end, without which cargo would tell the user to add it.
fn path_with(folder: &Path) -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(folder);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_an_older_rustc_are_none() {
        assert!(is_recent("1.96.0+dfsg1-1~deb12u2"));
        assert!(!is_recent("1.85.0+dfsg3-1~deb12u3"));
        assert!(!is_recent("(none)"));
    }
}
