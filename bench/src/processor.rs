//! The processor that is measured on, and the one for everything else.

use std::{
    fs, io, mem,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};

static MEASURED: AtomicUsize = AtomicUsize::new(0);

/// Chooses what [`measured`] returns: the last processor unless told otherwise, because the first
/// one takes most interrupts.
pub fn choose(processor: Option<usize>) {
    MEASURED.store(processor.unwrap_or(count() - 1), Ordering::Relaxed);
}

/// The processor that is measured on.
pub fn measured() -> usize {
    MEASURED.load(Ordering::Relaxed)
}

/// Another one, if there is another.
pub fn other() -> usize {
    (measured() + 1) % count()
}

/// How many there are. Not those that this thread may use, which are fewer once it is pinned.
pub fn count() -> usize {
    // SAFETY: no memory is involved.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).map_or(1, |count| count.max(1))
}

/// Keeps this thread, and those it starts, on one processor.
pub fn pin(processor: usize) -> Result<()> {
    pin_thread(0, processor)
}

/// Keeps every thread of a process, and those they start, on one processor.
pub fn pin_process(process: u32, processor: usize) -> Result<()> {
    let threads = format!("/proc/{process}/task");
    for thread in fs::read_dir(&threads).with_context(|| threads.clone())? {
        let thread = thread?.file_name();
        let thread = thread.to_str().and_then(|number| number.parse().ok());
        pin_thread(thread.with_context(|| threads.clone())?, processor)?;
    }
    Ok(())
}

fn pin_thread(thread: libc::pid_t, processor: usize) -> Result<()> {
    // SAFETY: all zero bytes are an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid, and the macro ignores processors beyond it.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set is as long as the call is told.
    let pinned = unsafe { libc::sched_setaffinity(thread, size_of_val(&set), &raw const set) };
    if pinned != 0 {
        return Err(io::Error::last_os_error())
            .with_context(|| format!("keep thread {thread} on processor {processor}"));
    }
    Ok(())
}
