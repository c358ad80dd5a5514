//! Elements of hash maps.

use std::{
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use aya::{
    Pod,
    maps::{MapData, MapType},
};

use super::bpf;
use crate::host::features::Feature;

/// `BPF_MAP_LOOKUP_ELEM`, include/uapi/linux/bpf.h.
const MAP_LOOKUP_ELEM: libc::c_int = 1;
/// `BPF_MAP_UPDATE_ELEM`.
const MAP_UPDATE_ELEM: libc::c_int = 2;
/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`.
const MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
/// `BPF_MAP_LOOKUP_BATCH`.
const MAP_LOOKUP_BATCH: libc::c_int = 24;

/// `BPF_NOEXIST`, for an update: the entry must be new.
const NO_EXIST: u64 = 1;
/// `BPF_EXIST`: the entry must be there.
const EXIST: u64 = 2;

/// A hash map whose keys and values are of these types.
///
/// Their sizes are compared when it is made, and as `Pod` they may have any bits, so whatever the
/// kernel writes is a value.
#[derive(Debug)]
pub struct HashMap<K, V> {
    map: MapData,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashMap<K, V> {
    /// Takes `map` for one of such keys and values.
    ///
    /// # Errors
    /// When it is of another kind, or its keys or values are longer or shorter.
    pub fn new(map: MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let kind = info.map_type().map_err(io::Error::other)?;
        // Values of maps for each processor are as many as there are processors.
        let hash = matches!(kind, MapType::Hash | MapType::LruHash);
        let sizes = (info.key_size() as usize, info.value_size() as usize);
        if !hash || sizes != (size_of::<K>(), size_of::<V>()) {
            return Err(io::Error::other("not as this build lays it out"));
        }

        Ok(Self {
            map,
            types: PhantomData,
        })
    }

    /// The map itself.
    pub const fn data(&self) -> &MapData {
        &self.map
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }

    /// Calls `visit` with every entry.
    ///
    /// Reads bucket by bucket and so misses none that is there all along; entries that come or go
    /// meanwhile may be seen or not. Does not count as use of an entry, so it leaves the order of an
    /// LRU map as it is.
    ///
    /// # Errors
    /// When the kernel refuses, for instance before 5.6.
    pub fn walk(&self, mut visit: impl FnMut(&K, &V)) -> io::Result<()> {
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
                map: self.fd().as_raw_fd() as u32,
                element_flags: 0,
                flags: 0,
            };
            // SAFETY: both vectors have room for `count` elements, which are as long as those of the map.
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
                // SAFETY: the kernel has written `count` keys and values, of whatever bits.
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

    /// The value of an entry, if it is there. Does not count as use of the entry either.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lookup(&self, key: &K) -> io::Result<Option<V>> {
        self.value(MAP_LOOKUP_ELEM, key)
    }

    /// Takes an entry out, and returns the value that it had in that moment, if it was there.
    ///
    /// # Errors
    /// When the kernel refuses, for instance before 5.14:
    /// <https://github.com/torvalds/linux/commit/3e87f192b405>.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        if !Feature::TakeElement.may_be_used() {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }

        self.value(MAP_LOOKUP_AND_DELETE_ELEM, key)
    }

    fn value(&self, command: libc::c_int, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attr = Element::new(self.fd(), key, value.as_mut_ptr() as u64, 0);
        // SAFETY: both outlive the call, and are as long as those of the map.
        match unsafe { bpf(command, &mut attr) } {
            // SAFETY: the kernel has written the value, of whatever bits.
            Ok(_) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts in a new entry. Returns whether it was new; an entry that is there already stays as it is.
    ///
    /// # Errors
    /// When the kernel refuses, for instance when the map is full.
    pub fn insert_new(&self, key: &K, value: &V) -> io::Result<bool> {
        match self.update(key, value, NO_EXIST) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    /// Replaces the value of an entry. Returns whether the entry was there.
    ///
    /// The kernel takes a fresh element for it, so an LRU map that is full evicts another entry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace(&self, key: &K, value: &V) -> io::Result<bool> {
        match self.update(key, value, EXIST) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    fn update(&self, key: &K, value: &V, flags: u64) -> io::Result<()> {
        let mut attr = Element::new(self.fd(), key, std::ptr::from_ref(value) as u64, flags);
        // SAFETY: both outlive the call, and are as long as those of the map.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }
}

/// An element of a per-CPU array, as 64-bit words of each processor that there can be, however many the
/// map has.
///
/// # Errors
/// When it is no such array, or the kernel refuses.
pub fn words_by_processor(map: &MapData, index: u32) -> io::Result<Vec<Vec<u64>>> {
    let info = map.info().map_err(io::Error::other)?;
    let kind = info.map_type().map_err(io::Error::other)?;
    if kind != MapType::PerCpuArray || info.key_size() as usize != size_of::<u32>() {
        return Err(io::Error::other("no array of each processor's own"));
    }
    let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    // The kernel rounds each up to whole words.
    let words = (info.value_size() as usize).div_ceil(size_of::<u64>());
    let mut value = vec![0_u64; words * processors];
    let mut attr = Element::new(map.fd().as_fd(), &index, value.as_mut_ptr() as u64, 0);
    // SAFETY: both outlive the call, and the value has room for that of every processor.
    unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) }?;

    Ok(value.chunks(words.max(1)).map(<[u64]>::to_vec).collect())
}

/// What the commands on one element take.
#[repr(C)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new<K>(map: BorrowedFd<'_>, key: &K, value: u64, flags: u64) -> Self {
        Self {
            map: map.as_raw_fd() as u64,
            key: std::ptr::from_ref(key) as u64,
            value,
            flags,
        }
    }
}
