//! What is on the machine already.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Compiler, Linker, required};
use crate::process::{self, probe};
use crate::version;
use crate::workspace;

/// Where a distribution puts its own rustc, which rustup's proxies hide on PATH.
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// Every usable rustc, best first: the active one, rustup's nightly, the distribution's.
pub fn compilers() -> Vec<Compiler> {
    let nightly = probe(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]))
        .map(|path| PathBuf::from(path.trim()));
    let mut found: Vec<Compiler> = Vec::new();
    for rustc in [
        Some("rustc".into()),
        nightly,
        Some(DISTRIBUTION_RUSTC.into()),
    ] {
        let Some(compiler) = rustc.and_then(|rustc| compiler(&rustc)) else {
            continue;
        };
        if !found.iter().any(|known| known.rustc == compiler.rustc) {
            found.push(compiler);
        }
    }
    found
}

/// Every bpf-linker that runs: the one on PATH, the one of this checkout.
pub fn linkers() -> Vec<Linker> {
    [
        process::find("bpf-linker"),
        Some(workspace::tools().join("bin/bpf-linker")),
    ]
    .into_iter()
    .flatten()
    .filter_map(linker)
    .collect()
}

fn compiler(rustc: &Path) -> Option<Compiler> {
    let sysroot = probe(Command::new(rustc).args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return None;
    }

    // The path inside the sysroot, because a rustup proxy would choose again by itself.
    let rustc = sysroot.join("bin/rustc");
    let (release, llvm) = version::of_compiler(&probe(Command::new(&rustc).arg("-vV"))?).ok()?;

    (release >= required()).then_some(Compiler {
        rustc,
        release,
        llvm,
    })
}

fn linker(path: PathBuf) -> Option<Linker> {
    // bpf-linker's own `--version` does not name its LLVM, but it hands LLVM its options.
    let printed = probe(Command::new(&path).args([
        "--llvm-args=--version",
        "--output",
        "/dev/null",
        "/dev/null",
    ]))?;
    let llvm = version::of_llvm(&printed).ok()?;

    Some(Linker { path, llvm })
}
