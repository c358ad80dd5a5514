//! TCX: the row of programs that see what an interface sends, before the filters of clsact.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::net::if_::if_nametoindex;

use super::{Program, bpf, command, load, object_info};
use crate::host::features::Feature;

/// `BPF_TCX_EGRESS`, include/uapi/linux/bpf.h.
const TCX_EGRESS: u32 = 47;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;
/// `BPF_F_BEFORE`.
const BEFORE: u32 = 1 << 3;
/// `BPF_F_AFTER`.
const AFTER: u32 = 1 << 4;

/// How many programs a row can have: `BPF_MPROG_MAX`, include/linux/bpf_mprog.h.
const MOST: usize = 64;

/// An end of the row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcxEnd {
    /// Before all that are there.
    First,
    /// Behind them.
    Last,
}

/// The ids of the programs that see what an interface sends, in the order in which they run. None
/// where the kernel has no TCX.
///
/// # Errors
/// When the kernel refuses.
pub fn programs(interface: u32) -> io::Result<Option<Vec<u32>>> {
    #[repr(C)]
    struct Query {
        interface: u32,
        hook: u32,
        query_flags: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        program_flags: u64,
        links: u64,
        link_flags: u64,
        revision: u64,
    }

    if !Feature::Tcx.may_be_used() {
        return Ok(None);
    }
    let mut ids = vec![0_u32; MOST];
    let mut attr = Query {
        interface,
        hook: TCX_EGRESS,
        query_flags: 0,
        attach_flags: 0,
        programs: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        padding: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    // SAFETY: the kernel writes at most `count` ids, for which there is room.
    match unsafe { bpf(command::PROG_QUERY, &mut attr) } {
        Ok(_) => {
            ids.truncate(attr.count as usize);
            Ok(Some(ids))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(Some(Vec::new())),
            Some(libc::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Puts a program at one end of the row. It is taken off when the link is closed that is returned,
/// unless that is pinned.
///
/// # Errors
/// When the kernel refuses: EINVAL where it has no TCX, EEXIST where the program is in the row.
pub fn attach(program: BorrowedFd<'_>, interface: u32, end: TcxEnd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        program: u32,
        interface: u32,
        hook: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        revision: u64,
    }

    if !Feature::Tcx.may_be_used() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut attr = Create {
        program: program.as_raw_fd() as u32,
        interface,
        hook: TCX_EGRESS,
        flags: match end {
            TcxEnd::First => BEFORE,
            TcxEnd::Last => AFTER,
        },
        relative: 0,
        padding: 0,
        revision: 0,
    };
    // SAFETY: the command takes numbers only.
    let link = unsafe { bpf(command::LINK_CREATE, &mut attr) }?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Loads a program that does nothing and lets the next one have the packet. It takes no more
/// privileges than to attach: the verifier has nothing to find.
///
/// # Errors
/// When the kernel refuses.
pub fn placeholder() -> io::Result<OwnedFd> {
    load(&Program {
        kind: SCHED_CLS,
        // r0 = -1, which is TCX_NEXT; exit.
        instructions: &[0xffff_ffff_0000_00b7, 0x95],
        license: c"Dual MIT/GPL",
        flags: 0,
        name: *b"placeholder\0\0\0\0\0",
        expected: 0,
    })
}

/// The name of the program with this id, which is root's to ask: none without `CAP_SYS_ADMIN`.
pub fn program_name(id: u32) -> Option<String> {
    #[repr(C)]
    struct GetById {
        id: u32,
        next: u32,
        flags: u32,
    }
    /// `struct bpf_prog_info` up to the name.
    #[repr(C)]
    #[derive(Default)]
    struct ProgramInfo {
        head: [u64; 8],
        name: [u8; 16],
    }

    let mut attr = GetById {
        id,
        next: 0,
        flags: 0,
    };
    // SAFETY: the command takes numbers only.
    let program = unsafe { bpf(command::PROG_GET_FD_BY_ID, &mut attr) }.ok()?;
    // SAFETY: the kernel has just opened it for us alone.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    // SAFETY: `ProgramInfo` is the head of what the kernel writes, all of it numbers and bytes.
    let info: ProgramInfo = unsafe { object_info(program.as_fd()) }.ok()?;
    let name = info.name.split(|byte| *byte == 0).next()?;

    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Whether the kernel has TCX. Who may not ask on an interface goes by the version.
pub fn is_there(interface: &str) -> bool {
    let programs = if_nametoindex(interface).map(programs);
    match programs {
        Ok(Ok(programs)) => programs.is_some(),
        Ok(Err(_)) | Err(_) => Feature::Tcx.is_expected(),
    }
}
