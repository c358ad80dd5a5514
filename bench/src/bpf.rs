//! Running programs by hand, and attaching those of others, through bpf(2).

use std::{
    ffi::CString,
    fmt, io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use serde::Serialize;

/// `BPF_PROG_TEST_RUN`, include/uapi/linux/bpf.h.
const PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_LINK_CREATE`.
const LINK_CREATE: libc::c_int = 28;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;
/// `BPF_XDP`.
const XDP: u32 = 37;

/// The part of `union bpf_attr` that is about a run by hand.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    return_value: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    processor: u32,
    batch_size: u32,
    padding: u32,
}

/// Shows `frame` to a program `repeat` times.
///
/// # Errors
/// When the kernel refuses, for instance a frame of less than 14 bytes.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], repeat: u32) -> io::Result<()> {
    call(TestRun {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat,
        ..TestRun::default()
    })
}

/// Lets an XDP program send `count` copies of `frame`, each of which it may rewrite, from the
/// network of this thread.
///
/// # Errors
/// When the kernel refuses.
pub fn send(program: BorrowedFd<'_>, frame: &[u8], count: u32, batch: u32) -> io::Result<()> {
    call(TestRun {
        program: program.as_raw_fd() as u32,
        size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: count,
        flags: LIVE_FRAMES,
        batch_size: batch,
        ..TestRun::default()
    })
}

/// How an XDP program is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Mode {
    /// In the stack: `XDP_FLAGS_SKB_MODE`, include/uapi/linux/if_link.h.
    Generic = 1 << 1,
    /// In the driver: `XDP_FLAGS_DRV_MODE`.
    Native = 1 << 2,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generic => "generic",
            Self::Native => "native",
        })
    }
}

/// Attaches an XDP program, in the network of this thread, for as long as the result lives.
///
/// # Errors
/// When there is no such interface, or the kernel refuses.
pub fn attach(program: BorrowedFd<'_>, interface: &str, mode: Mode) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        interface: u32,
        attach_type: u32,
        flags: u32,
    }

    let mut attr = LinkCreate {
        program: program.as_raw_fd() as u32,
        interface: interface_index(interface)?,
        attach_type: XDP,
        flags: mode as u32,
    };
    // SAFETY: `attr` is as long as the kernel is told, and names no memory.
    let link = unsafe { bpf(LINK_CREATE, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// The index of an interface in the network of this thread.
///
/// # Errors
/// When there is none of this name.
pub fn interface_index(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in zero.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn call(mut attr: TestRun) -> io::Result<()> {
    loop {
        // SAFETY: the callers' frames outlive the call.
        match unsafe { bpf(PROG_TEST_RUN, &mut attr) } {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// # Safety
///
/// Every address in `attr` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is as long as the kernel is told; the caller vouches for what is in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(result as i32)
}
