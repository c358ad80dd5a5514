//! Versions, as compilers and kernels print them.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result};

/// The part of a version that decides whether two things fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
}

impl Version {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Whether a tool built with this LLVM reads the bitcode that `writer` produces.
    ///
    /// Bitcode changes from one major release to the next, never within one.
    pub fn reads_bitcode_of(self, writer: Self) -> bool {
        self.major >= writer.major
    }
}

impl FromStr for Version {
    type Err = Error;

    /// Reads `22.1.8`, `1.97.0-nightly` and `5.10` alike.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("expected a version such as 6.1, got {text:?}");

        let mut numbers = text.trim().split(['.', '-', '+']);
        let major = numbers
            .next()
            .and_then(|part| part.parse().ok())
            .with_context(wrong)?;
        let minor = numbers
            .next()
            .and_then(|part| part.parse().ok())
            .with_context(wrong)?;

        Ok(Self { major, minor })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What `rustc -vV` says of itself and of its LLVM.
pub fn of_compiler(verbose: &str) -> Result<(Version, Version)> {
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .with_context(|| format!("rustc -vV has no line {name:?}"))
    };
    let release = field("release:")?.parse()?;
    let llvm = field("LLVM version:")?.parse()?;

    Ok((release, llvm))
}

/// What LLVM's own `--version` says, wherever the word stands in the line.
pub fn of_llvm(text: &str) -> Result<Version> {
    text.lines()
        .find_map(|line| line.split_once("LLVM version "))
        .with_context(|| format!("expected an LLVM version, got {text:?}"))?
        .1
        .parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_its_first_two_numbers() {
        for (text, expected) in [
            ("22.1.8", Version::new(22, 1)),
            (" 1.97.0-nightly", Version::new(1, 97)),
            ("5.10", Version::new(5, 10)),
            ("6.12+deb12", Version::new(6, 12)),
        ] {
            assert_eq!(text.parse::<Version>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "6", "verdicts", "6.x", ".1"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_compared_as_numbers() {
        assert!(Version::new(5, 10) > Version::new(5, 4));
        assert!(Version::new(6, 1) > Version::new(5, 10));
    }

    #[test]
    fn bitcode_is_read_within_a_major_release_and_by_later_ones() {
        let rustc = Version::new(22, 1);
        assert!(Version::new(22, 0).reads_bitcode_of(rustc));
        assert!(Version::new(23, 1).reads_bitcode_of(rustc));
        assert!(!Version::new(21, 9).reads_bitcode_of(rustc));
    }

    #[test]
    fn a_compiler_names_itself_and_its_llvm() {
        let verbose = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)\n\
                       binary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(
            of_compiler(verbose).unwrap(),
            (Version::new(1, 96), Version::new(22, 1))
        );
        assert!(of_compiler("release: 1.96.0\n").is_err());
    }

    #[test]
    fn distributions_put_their_name_before_the_llvm_version() {
        for text in [
            "Debian LLVM version 22.1.8\n  Optimized build.\n",
            "LLVM version 22.1.8",
        ] {
            assert_eq!(of_llvm(text).unwrap(), Version::new(22, 1));
        }
        assert!(of_llvm("bpf-linker 0.13.0").is_err());
    }
}
