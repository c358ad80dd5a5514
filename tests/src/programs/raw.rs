//! Maps and programs by bare system calls, for tests that make millions of them.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    ptr::{self, NonNull},
};

use anyhow::{Context, Result, ensure};

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
const BPF_MAP_LOOKUP_AND_DELETE_BATCH: libc::c_int = 25;

/// Calls bpf(2).
///
/// # Safety
///
/// Whatever `attr` points to must be as long as the command and the map have it.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<()> {
    // SAFETY: the structure is as long as the kernel is told; the caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<A>()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A map of `K` to `V`, both plain bytes without padding.
#[derive(Clone, Copy, Debug)]
pub struct RawMap<K, V> {
    map: RawFd,
    entries: PhantomData<(K, V)>,
}

/// The part of `union bpf_attr` that is about an element.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that is about many of them.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl<K: aya::Pod, V: aya::Pod> RawMap<K, V> {
    /// The map behind a file descriptor, which must outlive this. `size` is that of a value where
    /// it is not `V`'s: that of an array of each processor's own.
    ///
    /// # Safety
    ///
    /// Keys of the map must be as long as `K`, values as long as `V`.
    pub unsafe fn new(map: BorrowedFd<'_>) -> Self {
        Self {
            map: map.as_raw_fd(),
            entries: PhantomData,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attr = self.element(key, value.as_mut_ptr() as u64);
        // SAFETY: the map's keys and values are `K` and `V`.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }.ok()?;
        // SAFETY: the kernel has written all of it, and any bytes are a `V`.
        Some(unsafe { value.assume_init() })
    }

    /// Sets the value of a key.
    pub fn set(&self, key: &K, value: &V) -> Result<()> {
        let mut attr = self.element(key, ptr::from_ref(value) as u64);
        // SAFETY: the map's keys and values are `K` and `V`.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.context("write an element")
    }

    /// Removes a key.
    pub fn remove(&self, key: &K) -> Result<()> {
        let mut attr = self.element(key, 0);
        // SAFETY: the map's keys are `K`.
        unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) }.context("delete an element")
    }

    fn element(&self, key: &K, value: u64) -> Element {
        Element {
            map: self.map as u32,
            padding: 0,
            key: ptr::from_ref(key) as u64,
            value,
            flags: 0,
        }
    }

    /// Takes out every entry of a hash map that has at most `room`.
    pub fn drain(&self, room: usize) -> Result<Vec<(K, V)>> {
        let mut keys = Vec::<K>::with_capacity(room);
        let mut values = Vec::<V>::with_capacity(room);
        let mut token = 0u32;
        let mut attr = Batch {
            from: 0,
            to: (&raw mut token) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map: self.map as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: there is room for as many keys and values as the kernel is told, and for the
        // four bytes by which a hash map says how far it has come.
        let outcome = unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_BATCH, &mut attr) };
        let ended = matches!(&outcome, Err(error) if error.raw_os_error() == Some(libc::ENOENT));
        ensure!(
            ended,
            "take out entries: {:?}, {} of {room}",
            outcome,
            attr.count
        );
        // SAFETY: the kernel has written so many, and any bytes are a key or a value.
        unsafe {
            keys.set_len(attr.count as usize);
            values.set_len(attr.count as usize);
        }
        Ok(keys.into_iter().zip(values).collect())
    }
}

/// Reads the elements that all processors have at one index of an array of each processor's own.
///
/// # Safety
///
/// `value` must be as long as all of them.
pub unsafe fn read_everywhere(map: BorrowedFd<'_>, index: u32, value: &mut [u64]) -> Result<()> {
    let mut attr = Element {
        map: map.as_raw_fd() as u32,
        padding: 0,
        key: (&raw const index) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the key is a `u32`, and the caller vouches for the value.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &mut attr) }.context("read an element")
}

/// The part of `union bpf_attr` that is about a test run.
#[repr(C)]
struct Run {
    program: u32,
    result: u32,
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

/// Runs a program once on a frame, with a context, and returns what it returned.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], context: &[u32]) -> Result<u32> {
    let mut attr = Run {
        program: program.as_raw_fd() as u32,
        result: 0,
        size_in: frame.len() as u32,
        size_out: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
        context_size_in: size_of_val(context) as u32,
        context_size_out: 0,
        context_in: context.as_ptr() as u64,
        context_out: 0,
        flags: 0,
        processor: 0,
        batch_size: 0,
        padding: 0,
    };
    // SAFETY: the frame and the context are as long as the kernel is told, and it only reads them.
    let outcome = unsafe { bpf(BPF_PROG_TEST_RUN, &mut attr) };
    outcome.with_context(|| format!("run a program on {} bytes", frame.len()))?;
    Ok(attr.result)
}

/// The element of an array that the kernel shares with this process.
#[derive(Debug)]
pub struct Shared {
    memory: NonNull<u8>,
    length: usize,
}

impl Shared {
    /// Maps the first `length` bytes of an array.
    pub fn map(map: BorrowedFd<'_>, length: usize) -> Result<Self> {
        // SAFETY: the kernel chooses the place, and checks the length against the map's.
        let memory = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        ensure!(
            memory != libc::MAP_FAILED,
            "share an array: {}",
            io::Error::last_os_error()
        );
        let memory = NonNull::new(memory.cast()).context("share an array")?;
        Ok(Self { memory, length })
    }

    /// What it holds. Nobody may run a program while the slice lives.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: so much is mapped as long as `self` lives; programs run by our own calls alone,
        // which are not made while the slice is in use.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }

    /// What it holds, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.length) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and nothing refers to it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}
