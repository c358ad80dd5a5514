//! What the running kernel has.

use aya::util::KernelVersion;

/// Whether this is Linux `major.minor` or later.
pub fn is_since(major: u8, minor: u8) -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(major, minor, 0))
}

/// Whether the kernel knows XDP programs that can read frames in several pieces.
pub fn reads_frags() -> bool {
    is_since(5, 18)
}
