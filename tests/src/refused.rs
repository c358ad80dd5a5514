//! System calls that the kernel refuses, as it may: because it is older, or has run out of something.

use std::{io, mem, thread};

use anyhow::{Context, Result};

/// What is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A command of bpf(2), by its number in include/uapi/linux/bpf.h.
    Bpf(u32),
    /// To make sockets.
    Sockets,
    /// To wait for what runs on all processors.
    Membarrier,
}

/// Does something on a thread to which the kernel refuses `refused` with this error number, and to
/// the threads that this one starts.
pub fn while_refused<T: Send>(
    refused: Refused,
    errno: i32,
    act: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let refused = scope.spawn(move || {
            install(refused, errno).context("have system calls refused")?;
            act()
        });
        match refused.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn install(refused: Refused, errno: i32) -> io::Result<()> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const JUMP_IF: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

    let instruction = |code: u32, k, jf| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let load = |offset: usize| instruction(LOAD, offset as u32, 0);
    let (call, command) = match refused {
        Refused::Bpf(command) => (libc::SYS_bpf, Some(command)),
        Refused::Sockets => (libc::SYS_socket, None),
        Refused::Membarrier => (libc::SYS_membarrier, None),
    };
    let mut filter = vec![load(mem::offset_of!(libc::seccomp_data, nr))];
    let rest = if command.is_some() { 3 } else { 1 };
    filter.push(instruction(JUMP_IF, call as u32, rest));
    if let Some(command) = command {
        // The lower half of the first argument, on a little-endian machine.
        filter.push(load(mem::offset_of!(libc::seccomp_data, args)));
        filter.push(instruction(JUMP_IF, command, 1));
    }
    let refusal = libc::SECCOMP_RET_ERRNO | errno as u32;
    filter.push(instruction(RETURN, refusal, 0));
    filter.push(instruction(RETURN, libc::SECCOMP_RET_ALLOW, 0));

    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program outlives the call, which copies it.
    let installed = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    if installed != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
