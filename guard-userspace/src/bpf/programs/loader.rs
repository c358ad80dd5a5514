//! A loader that does not read the kernel's types first.

use std::{io, thread};

use aya::EbpfLoader;

/// A loader without the kernel's types, which no program of ours asks about.
///
/// aya's constructor reads and parses all of /sys/kernel/btf/vmlinux before it can be told so:
/// 5 MB, which become 15 in memory and a sixth of the time to start. So it is called by a thread
/// that may not open files, and does without.
pub(super) fn without_kernel_types<'a>() -> EbpfLoader<'a> {
    let apart = thread::Builder::new().spawn(|| {
        // Where the kernel knows no filters, the start takes longer.
        let _ = open_nothing();
        EbpfLoader::new()
    });
    let mut loader = apart
        .ok()
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    loader.btf(None);

    loader
}

/// Keeps this thread from opening files, and no other: `EACCES` whenever it tries, until it ends.
fn open_nothing() -> io::Result<()> {
    /// Loads the number of the system call: the first word of `struct seccomp_data`.
    const NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES as u32;
    let mut filter = [
        step(NUMBER, 0, 0, 0),
        step(EQUAL, 0, 1, libc::SYS_openat as u32),
        step(RETURN, 0, 0, refused),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // A thread that can gain no privileges needs none to filter itself.
    // SAFETY: the option takes numbers only.
    let bound = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, which holds as many steps as it says, before the call
    // returns.
    let filtered = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if filtered != 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_thread_that_may_open_nothing_leaves_the_others_alone() {
        let path = "/proc/self/status";
        let apart = thread::spawn(move || open_nothing().map(|()| File::open(path)));
        let opened = apart.join().expect("does not panic");
        let error = opened
            .expect("the kernel has filters")
            .expect_err("is forbidden");
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        File::open(path).expect("is allowed here");
    }
}
