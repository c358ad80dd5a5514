//! The kernel the suites run on.

use std::fmt;

/// A version of Linux.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Kernel {
    major: u32,
    minor: u32,
}

impl Kernel {
    /// Linux `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The one that runs.
    pub fn running() -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .expect("/proc/sys/kernel/osrelease can be read");
        let mut numbers = release
            .split(|character: char| !character.is_ascii_digit())
            .map(|number| number.parse().expect("a release starts with two numbers"));
        let mut next = || numbers.next().expect("a release starts with two numbers");
        Self::new(next(), next())
    }

    /// Whether the running kernel is older, which is printed as the reason for a skip. A kernel
    /// that is new enough gets no skip: there, what is tested must work.
    pub fn is_missing(self, what: &str) -> bool {
        let running = Self::running();
        if running < self {
            println!("skipped: {what} needs Linux {self}, this is {running}");
        }
        running < self
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
