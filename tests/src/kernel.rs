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

/// How often the kernel has complained about itself: warnings, bugs, bad accesses. What
/// [`fixed_offloads`] counts is none of them.
pub fn complaints() -> usize {
    const SIGNS: [&str; 4] = ["cut here", "BUG:", "Oops", "general protection"];

    let log = log();
    let signs = log
        .lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));

    signs.count() - warnings_of_offloads(&log)
}

/// How often the kernel has warned that a receive offload cannot be turned off, as it does where an
/// XDP program is attached in generic mode (`dev_disable_gro_hw`, net/core/dev.c).
pub fn fixed_offloads() -> usize {
    warnings_of_offloads(&log())
}

/// A warning is a line that cuts, and its text behind it.
fn warnings_of_offloads(log: &str) -> usize {
    let lines: Vec<_> = log.lines().collect();
    let warnings = lines.windows(2).filter(|lines| {
        lines[0].contains("cut here")
            && ["LRO", "GRO_HW"]
                .iter()
                .any(|offload| lines[1].contains(&format!("failed to disable {offload}!")))
    });

    warnings.count()
}

/// All that the kernel has logged and still has.
fn log() -> String {
    const READ_ALL: libc::c_int = 3;
    const ROOM: usize = 16 << 20;

    let mut log = vec![0u8; ROOM];
    // SAFETY: the buffer is as long as the call is told.
    let length = unsafe { libc::klogctl(READ_ALL, log.as_mut_ptr().cast(), ROOM as libc::c_int) };
    assert!(length >= 0, "the kernel log cannot be read");
    log.truncate(length.unsigned_abs() as usize);

    String::from_utf8_lossy(&log).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_of_an_offload_or_of_something_else() {
        let log = "[ 1.0] ------------[ cut here ]------------\n\
                   [ 1.0] netdevice: vg: failed to disable GRO_HW!\n\
                   [ 1.1] WARNING: CPU: 0 PID: 1 at net/core/dev.c:1\n\
                   [ 2.0] ------------[ cut here ]------------\n\
                   [ 2.0] WARNING: CPU: 0 PID: 1 at net/core/dev.c:9 dev_xdp_uninstall\n\
                   [ 3.0] vg: failed to disable LRO!\n";
        assert_eq!(warnings_of_offloads(log), 1);
    }
}
