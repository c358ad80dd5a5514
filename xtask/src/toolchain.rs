//! What compiles eBPF: a rustc that has the sources of core, and a bpf-linker that reads the
//! bitcode of that rustc.

mod advice;
mod find;
mod install;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::process::announce;
use crate::version::Version;
use crate::workspace;

/// A rustc with the sources of core.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub rustc: PathBuf,
    release: Version,
    llvm: Version,
}

#[derive(Clone, Debug)]
struct Linker {
    path: PathBuf,
    llvm: Version,
}

pub struct Toolchain {
    pub compiler: Compiler,
    linker: Linker,
}

impl Toolchain {
    pub fn linker(&self) -> &Path {
        &self.linker.path
    }

    fn announce(&self) {
        announce(&format!(
            "eBPF is compiled by rustc {} ({}), which has the sources of core, and bpf-linker \
             ({}), whose LLVM {} reads its bitcode",
            self.compiler.release,
            workspace::shown(&self.compiler.rustc),
            workspace::shown(&self.linker.path),
            self.linker.llvm,
        ));
    }
}

/// Finds the toolchain, and installs what is missing where that is possible.
pub fn ensure() -> Result<Toolchain> {
    let mut compilers = find::compilers();
    if compilers.is_empty() {
        install::compiler()?;
        compilers = find::compilers();
    }
    let Some(first) = compilers.first() else {
        bail!(
            "no rustc of at least {} has the sources of core, which eBPF programs need; {}",
            required(),
            advice::for_this_machine(),
        );
    };

    let mut toolchain = pair(&compilers, &find::linkers());
    if toolchain.is_none() {
        install::linker(first)?;
        toolchain = pair(&compilers, &find::linkers());
    }
    let Some(toolchain) = toolchain else {
        bail!(
            "no bpf-linker has the LLVM {} of {}; {}",
            first.llvm,
            first.rustc.display(),
            advice::for_this_machine(),
        );
    };

    toolchain.announce();
    Ok(toolchain)
}

/// The oldest rustc that compiles this workspace.
fn required() -> Version {
    env!("CARGO_PKG_RUST_VERSION")
        .parse()
        .expect("Cargo.toml gives a version")
}

/// The first compiler for which there is a linker.
fn pair(compilers: &[Compiler], linkers: &[Linker]) -> Option<Toolchain> {
    compilers.iter().find_map(|compiler| {
        let linker = linkers
            .iter()
            .find(|linker| linker.llvm.reads_bitcode_of(compiler.llvm))?;
        Some(Toolchain {
            compiler: compiler.clone(),
            linker: linker.clone(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(rustc: &str, llvm: u32) -> Compiler {
        Compiler {
            rustc: rustc.into(),
            release: Version::new(1, 96),
            llvm: Version::new(llvm, 1),
        }
    }

    fn linker(path: &str, llvm: u32) -> Linker {
        Linker {
            path: path.into(),
            llvm: Version::new(llvm, 1),
        }
    }

    #[test]
    fn the_first_compiler_that_has_a_linker_is_taken() {
        let compilers = [compiler("newer", 23), compiler("older", 22)];
        let linkers = [linker("old", 21), linker("fits", 22)];

        let toolchain = pair(&compilers, &linkers).unwrap();
        assert_eq!(toolchain.compiler.rustc, Path::new("older"));
        assert_eq!(toolchain.linker(), Path::new("fits"));
    }

    #[test]
    fn a_linker_older_than_every_compiler_is_none() {
        assert!(pair(&[compiler("rustc", 22)], &[linker("old", 21)]).is_none());
    }
}
