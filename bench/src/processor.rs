//! The processor that is measured on.

use std::{io, mem, thread};

use anyhow::{Context, Result};

/// Keeps this thread, and those it starts, on one processor.
pub fn pin(processor: usize) -> Result<()> {
    // SAFETY: all zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid, and the macro ignores processors beyond it.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set is as long as the call is told.
    let pinned = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if pinned != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("stay on processor {processor}"));
    }
    Ok(())
}

/// The last processor: the first one takes most interrupts.
pub fn usual() -> usize {
    thread::available_parallelism().map_or(1, usize::from) - 1
}
