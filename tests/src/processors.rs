//! The processors that threads run on.

use std::{io, thread};

/// How many there are.
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps the calling thread on one of them.
pub fn pin(number: usize) -> io::Result<()> {
    // SAFETY: all zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set has room for more processors than there are threads in a test.
    unsafe { libc::CPU_SET(number, &mut set) };
    // SAFETY: the set is as long as the call is told. Only this thread is moved.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
