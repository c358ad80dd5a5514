//! Counters, of which every processor has its own.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// The part of `union bpf_attr` that looks up an element.
#[repr(C)]
struct Lookup {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The sum of one counter over all processors. `aya` would ask how many there are each time.
pub(super) fn sum(map: BorrowedFd<'_>, slot: u32, processors: usize) -> io::Result<u64> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;

    let mut counters = vec![0u64; processors];
    let attr = Lookup {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const slot) as u64,
        value: counters.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the key is a `u32`, and the kernel writes a `u64` for each possible processor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_ELEM,
            &raw const attr,
            size_of::<Lookup>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(counters.iter().sum())
}
