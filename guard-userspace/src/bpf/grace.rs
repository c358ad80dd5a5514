//! Waiting until no program can still use what it has read before.

use std::io;

use anyhow::Context;

use super::syscalls;

/// Returns once every program that runs at this moment has ended: programs run within RCU read-side
/// sections, and the kernel waits here for those of all processors. That takes some milliseconds.
///
/// # Errors
/// When the kernel offers neither way.
pub fn wait_for_programs() -> anyhow::Result<()> {
    membarrier().or_else(|refused| {
        // For as long as maps can be nested, the kernel has waited when it has exchanged an inner map
        // (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c).
        syscalls::exchange_inner_map()
            .context("a map in a map")
            .context(format!("MEMBARRIER_CMD_GLOBAL: {refused}"))
    })
}

/// Refused where some processors are left alone (`nohz_full`), and where a filter of system calls does
/// not know it (kernel/sched/membarrier.c).
fn membarrier() -> io::Result<()> {
    /// `MEMBARRIER_CMD_GLOBAL`, include/uapi/linux/membarrier.h.
    const GLOBAL: libc::c_int = 1;

    // SAFETY: the call has no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
