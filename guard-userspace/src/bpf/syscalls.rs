//! The bpf(2) commands that the loader's library has no words for.

mod elements;
pub mod tcx;

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub use self::elements::{HashMap, words_by_processor};

/// Commands of bpf(2), `enum bpf_cmd` of include/uapi/linux/bpf.h.
mod command {
    pub const MAP_CREATE: libc::c_int = 0;
    pub const MAP_UPDATE_ELEM: libc::c_int = 2;
    pub const PROG_LOAD: libc::c_int = 5;
    pub const OBJ_PIN: libc::c_int = 6;
    pub const OBJ_GET: libc::c_int = 7;
    pub const PROG_TEST_RUN: libc::c_int = 10;
    pub const PROG_GET_FD_BY_ID: libc::c_int = 13;
    pub const OBJ_GET_INFO: libc::c_int = 15;
    pub const PROG_QUERY: libc::c_int = 16;
    pub const LINK_CREATE: libc::c_int = 28;
    pub const LINK_UPDATE: libc::c_int = 29;
    pub const LINK_DETACH: libc::c_int = 34;
}

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
    unsafe { bpf(command::PROG_TEST_RUN, &mut attr) }?;

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
    let descriptor = unsafe { bpf(command::OBJ_GET, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins a program, map or link at `path`, which must be free.
///
/// # Errors
/// When the kernel refuses.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    #[repr(C)]
    struct ObjPin {
        path: u64,
        descriptor: u32,
        flags: u32,
    }

    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attr = ObjPin {
        path: path.as_ptr() as u64,
        descriptor: object.as_raw_fd() as u32,
        flags: 0,
    };
    // SAFETY: the path ends in a zero byte and outlives the call.
    unsafe { bpf(command::OBJ_PIN, &mut attr) }.map(drop)
}

/// Detaches a link at once, even if another process holds it.
///
/// # Errors
/// When the kernel refuses; not when the interface is gone already.
pub fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: the command takes one file descriptor and no memory.
    match unsafe { bpf(command::LINK_DETACH, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// What an XDP or TCX link holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkTarget {
    /// The id of the program.
    pub program: u32,
    /// The index of the interface, or 0 when that is gone or the link was detached.
    pub interface: u32,
}

/// What an XDP or TCX link holds.
///
/// # Errors
/// When the kernel refuses.
pub fn linked(link: BorrowedFd<'_>) -> io::Result<LinkTarget> {
    let info = link_info(link)?;

    Ok(LinkTarget {
        program: info.program,
        interface: info.interface,
    })
}

/// Whether a link is of XDP.
///
/// # Errors
/// When the kernel refuses.
pub fn is_xdp(link: BorrowedFd<'_>) -> io::Result<bool> {
    /// `BPF_LINK_TYPE_XDP`.
    const XDP: u32 = 6;

    Ok(link_info(link)?.kind == XDP)
}

/// The head of `bpf_link_info`, and the first word of what follows for links on interfaces.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    interface: u32,
}

fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: `LinkInfo` is the head of what the kernel writes, all of it numbers.
    unsafe { object_info(link) }
}

/// What the kernel says about a program, map or link.
///
/// # Safety
///
/// `T` must be the head of the structure that the kernel fills for such an object, and any bytes
/// must be a valid `T`.
unsafe fn object_info<T: Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct GetInfo {
        descriptor: u32,
        length: u32,
        info: u64,
    }

    let mut info = T::default();
    let mut attr = GetInfo {
        descriptor: object.as_raw_fd() as u32,
        length: size_of::<T>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the call, and
    // reads no addresses from it, which are all zero.
    unsafe { bpf(command::OBJ_GET_INFO, &mut attr) }?;

    Ok(info)
}

/// Puts another program in the place of a link's.
///
/// # Errors
/// When the kernel or the driver refuses, `ENOLINK` when the interface is gone.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        link: u32,
        program: u32,
        flags: u32,
        former: u32,
    }

    let mut attr = Update {
        link: link.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        flags: 0,
        former: 0,
    };
    // SAFETY: the command takes numbers and no memory.
    unsafe { bpf(command::LINK_UPDATE, &mut attr) }.map(drop)
}

/// Loads an XDP program that passes everything. `frags` says that it reads frames in several
/// pieces, which drivers may ask of a program.
///
/// # Errors
/// When the kernel refuses.
pub fn load_pass(frags: bool) -> io::Result<OwnedFd> {
    /// `BPF_PROG_TYPE_XDP`.
    const XDP: u32 = 6;
    /// `BPF_XDP`: links compare what a program expects to be attached to.
    const INTERFACE: u32 = 37;
    /// `BPF_F_XDP_HAS_FRAGS`.
    const HAS_FRAGS: u32 = 1 << 5;
    /// `r0 = XDP_PASS; exit`, as words of `struct bpf_insn`.
    const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

    load(&Program {
        kind: XDP,
        instructions: &PASS,
        license: c"GPL",
        flags: if frags { HAS_FRAGS } else { 0 },
        name: *b"portguard_pass\0\0",
        expected: INTERFACE,
    })
}

/// A program of a few instructions.
struct Program<'a> {
    kind: u32,
    /// As words of `struct bpf_insn`.
    instructions: &'a [u64],
    license: &'a CStr,
    flags: u32,
    name: [u8; 16],
    /// What it expects to be attached to, where its kind says nothing.
    expected: u32,
}

fn load(program: &Program<'_>) -> io::Result<OwnedFd> {
    /// The head of what `BPF_PROG_LOAD` takes.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel: u32,
        flags: u32,
        name: [u8; 16],
        device: u32,
        expected: u32,
    }

    let mut attr = Load {
        kind: program.kind,
        count: program.instructions.len() as u32,
        instructions: program.instructions.as_ptr() as u64,
        license: program.license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: program.flags,
        name: program.name,
        device: 0,
        expected: program.expected,
    };
    // SAFETY: instructions and license are as long as the kernel is told, and outlive the call,
    // which copies them.
    let descriptor = unsafe { bpf(command::PROG_LOAD, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Makes a map that holds another map, and exchanges that.
///
/// # Errors
/// When the kernel refuses.
pub fn exchange_inner_map() -> io::Result<()> {
    /// `BPF_MAP_TYPE_ARRAY`.
    const ARRAY: u32 = 2;
    /// `BPF_MAP_TYPE_ARRAY_OF_MAPS`.
    const ARRAY_OF_MAPS: u32 = 12;

    let inner = array_of_one(ARRAY, None)?;
    let outer = array_of_one(ARRAY_OF_MAPS, Some(inner.as_fd()))?;

    set_first(outer.as_fd(), inner.as_raw_fd() as u32)
}

/// Makes an array of one word, or of one map that is like `inner`.
fn array_of_one(kind: u32, inner: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    /// The head of what `BPF_MAP_CREATE` takes.
    #[repr(C)]
    struct Create {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
        inner: u32,
    }

    let mut attr = Create {
        kind,
        key_size: size_of::<u32>() as u32,
        value_size: size_of::<u32>() as u32,
        max_entries: 1,
        flags: 0,
        inner: inner.map_or(0, |inner| inner.as_raw_fd() as u32),
    };
    // SAFETY: the command takes numbers and no memory.
    let descriptor = unsafe { bpf(command::MAP_CREATE, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Sets the first word of an array.
fn set_first(map: BorrowedFd<'_>, value: u32) -> io::Result<()> {
    #[repr(C)]
    struct Update {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }

    let key = 0_u32;
    let mut attr = Update {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const key as u64,
        value: &raw const value as u64,
        flags: 0,
    };
    // SAFETY: key and value are words, as in the map, and outlive the call.
    unsafe { bpf(command::MAP_UPDATE_ELEM, &mut attr) }.map(drop)
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
