//! Elements of arrays as bytes: `aya` wants them on the stack, and counts processors each time.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    slice,
};

use anyhow::{Context, Result};
use guard_common::abi::{config::Config, page::Page};

/// The part of `union bpf_attr` that is about an element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// A structure of integers without padding.
pub(super) trait Plain {}

impl Plain for Config {}
impl Plain for Page {}

/// What a structure looks like in a map.
pub(super) fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: every byte of a plain structure belongs to one of its integers.
    unsafe { slice::from_raw_parts((&raw const *value).cast::<u8>(), size_of::<T>()) }
}

/// Reads an element. `value` must be as long as the kernel makes it: in an array of each
/// processor's own, so many times the element.
pub(super) fn read(map: BorrowedFd<'_>, index: u32, value: &mut [u8]) -> Result<()> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;

    call(BPF_MAP_LOOKUP_ELEM, map, &index, value.as_mut_ptr() as u64).context("read an element")
}

fn call(command: libc::c_int, map: BorrowedFd<'_>, index: &u32, value: u64) -> io::Result<()> {
    let attr = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const *index) as u64,
        value,
        flags: 0,
    };
    // SAFETY: the key is a `u32`, and the callers vouch for the value.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const attr,
            size_of::<Element>(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
