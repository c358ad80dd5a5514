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

/// How often the kernel has complained about itself: warnings, bugs, bad accesses.
pub fn complaints() -> usize {
    const READ_ALL: libc::c_int = 3;
    const ROOM: usize = 16 << 20;
    const SIGNS: [&str; 4] = ["cut here", "BUG:", "Oops", "general protection"];

    let mut log = vec![0u8; ROOM];
    // SAFETY: the buffer is as long as the call is told.
    let length = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), ROOM as libc::c_int) };
    assert!(length >= 0, "the kernel log cannot be read");
    log.truncate(length.unsigned_abs() as usize);
    let log = String::from_utf8_lossy(&log);
    log.lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)))
        .count()
}
