//! The bpf(2) commands that the loader's library has no words for.

mod elements;

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `BPF_OBJ_GET`, include/uapi/linux/bpf.h.
const OBJ_GET: libc::c_int = 7;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO: libc::c_int = 15;
/// `BPF_PROG_TEST_RUN`.
const PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_int = 34;

pub use self::elements::{insert_new, lookup, replace, take, walk};

/// Runs a classifier once on `frame`, which it may rewrite, and returns its return value.
///
/// # Errors
/// When the kernel refuses, for instance a frame of less than 14 bytes.
pub fn run_classifier(program: BorrowedFd<'_>, frame: &mut [u8; 64]) -> io::Result<u32> {
    #[repr(C)]
    struct TestRun {
        program: u32,
        return_value: u32,
        size_in: u32,
        size_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
    }

    let input = *frame;
    let mut attr = TestRun {
        program: program.as_raw_fd() as u32,
        return_value: 0,
        size_in: input.len() as u32,
        size_out: frame.len() as u32,
        data_in: input.as_ptr() as u64,
        data_out: frame.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: both buffers are as long as the kernel is told and outlive the call.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;

    Ok(attr.return_value)
}

/// Opens whatever is pinned at `path`.
///
/// # Errors
/// When nothing is, or the kernel refuses.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ObjGet {
        path: u64,
        descriptor: u32,
        flags: u32,
    }

    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjGet {
        path: path.as_ptr() as u64,
        descriptor: 0,
        flags: 0,
    };
    // SAFETY: the path ends in a zero byte and outlives the call.
    let descriptor = unsafe { bpf(OBJ_GET, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Detaches a link at once, whoever else holds it.
///
/// # Errors
/// When the kernel refuses; not when the interface is gone already.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: the command takes one file descriptor and no memory.
    match unsafe { bpf(LINK_DETACH, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What an XDP or TCX link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Linked {
    /// The id of the program.
    pub program: u32,
    /// The index of the interface, or 0 when that is gone or the link was detached.
    pub interface: u32,
}

/// What an XDP or TCX link holds.
///
/// # Errors
/// When the kernel refuses.
pub fn linked(link: BorrowedFd<'_>) -> io::Result<Linked> {
    /// The head of `bpf_link_info`, and the first word of what follows for these kinds of link.
    #[repr(C)]
    #[derive(Default)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        program: u32,
        padding: u32,
        interface: u32,
    }
    #[repr(C)]
    struct GetInfo {
        descriptor: u32,
        length: u32,
        info: u64,
    }

    let mut info = LinkInfo::default();
    let mut attr = GetInfo {
        descriptor: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the call.
    unsafe { bpf(OBJ_GET_INFO, &mut attr) }?;

    Ok(Linked {
        program: info.program,
        interface: info.interface,
    })
}

/// # Safety
///
/// Every address in `attr` must be valid for what `command` does with it.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<i32> {
    // SAFETY: `attr` is as long as the kernel is told; the caller vouches for what is in it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }

    Ok(result as i32)
}
