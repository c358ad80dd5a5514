//! The bpf(2) commands that the loader's library has no words for.

use std::{
    ffi::CString,
    io,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

/// `BPF_MAP_UPDATE_ELEM`, include/uapi/linux/bpf.h.
const MAP_UPDATE_ELEM: libc::c_int = 2;
/// `BPF_OBJ_GET`.
const OBJ_GET: libc::c_int = 7;
/// `BPF_OBJ_GET_INFO_BY_FD`.
const OBJ_GET_INFO: libc::c_int = 15;
/// `BPF_PROG_TEST_RUN`.
const PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_MAP_LOOKUP_BATCH`.
const MAP_LOOKUP_BATCH: libc::c_int = 24;
/// `BPF_LINK_DETACH`.
const LINK_DETACH: libc::c_int = 34;

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

/// The index of the interface that an XDP or TCX link is on, or 0 when that is gone.
///
/// # Errors
/// When the kernel refuses.
pub fn link_interface(link: BorrowedFd<'_>) -> io::Result<u32> {
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

    Ok(info.interface)
}

/// Calls `visit` with every entry of a hash map whose keys and values have these types.
///
/// Reads bucket by bucket and so misses none that is there all along; entries that come or go
/// meanwhile may be seen or not. Does not count as use of an entry, so it leaves the order of an
/// LRU map as it is.
///
/// # Errors
/// When the kernel refuses, for instance before 5.6.
pub fn walk<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&K, &V),
) -> io::Result<()> {
    #[repr(C)]
    struct LookupBatch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map: u32,
        element_flags: u64,
        flags: u64,
    }

    let mut capacity = 4096_usize;
    let mut keys: Vec<MaybeUninit<K>> = Vec::with_capacity(capacity);
    let mut values: Vec<MaybeUninit<V>> = Vec::with_capacity(capacity);
    // Where the kernel goes on: for hash maps the index of a bucket.
    let mut position = 0_u64;
    let mut next = 0_u64;
    let mut started = false;
    loop {
        let mut attr = LookupBatch {
            in_batch: if started {
                &raw const position as u64
            } else {
                0
            },
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: capacity as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: both vectors have room for `count` elements, and the kernel checks that the map
        // has keys and values, whose sizes the caller vouches for by opening it from a pin of
        // this layout.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        let finished = match result {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // One bucket holds more than there is room for.
                Some(libc::ENOSPC) => {
                    capacity *= 2;
                    keys = Vec::with_capacity(capacity);
                    values = Vec::with_capacity(capacity);
                    continue;
                }
                Some(libc::EINTR | libc::EAGAIN) => continue,
                _ => return Err(error),
            },
        };

        for index in 0..attr.count as usize {
            // SAFETY: the kernel has written `count` keys and values, which are integers.
            let (key, value) = unsafe {
                (
                    keys.as_ptr().add(index).read().assume_init(),
                    values.as_ptr().add(index).read().assume_init(),
                )
            };
            visit(&key, &value);
        }
        if finished {
            return Ok(());
        }
        position = next;
        started = true;
    }
}

/// Puts a new entry into a hash map whose keys and values have these types. Returns whether it
/// was new; an entry that is there already stays as it is.
///
/// # Errors
/// When the kernel refuses, for instance when the map is full.
pub fn insert_new<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<bool> {
    /// `BPF_NOEXIST`.
    const NO_EXIST: u64 = 1;

    #[repr(C)]
    struct UpdateElem {
        map: u64,
        key: u64,
        value: u64,
        flags: u64,
    }

    let mut attr = UpdateElem {
        map: map.as_raw_fd() as u64,
        key: std::ptr::from_ref(key) as u64,
        value: std::ptr::from_ref(value) as u64,
        flags: NO_EXIST,
    };
    // SAFETY: both outlive the call, and the caller vouches for their sizes by opening the map
    // from a pin of this layout.
    match unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) } {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
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
