//! The map `occupancy`, in memory that is shared with the programs.

use std::{num::NonZeroUsize, ptr::NonNull};

use anyhow::Context;
use guard_common::{
    ports::{Occupancy, PORTS},
    tables::Use,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::pins::Pins;

const LENGTH: usize = Use::COUNT * PORTS;

/// Which ports are in use, as the programs see it.
#[derive(Debug)]
pub struct OccupancyMemory {
    bytes: NonNull<Occupancy>,
}

// SAFETY: the memory belongs to the map, not to a thread, and is only accessed a byte at a time.
unsafe impl Send for OccupancyMemory {}

impl OccupancyMemory {
    /// Maps the memory of the pinned map.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses (before 5.5).
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let map = super::open(&pins.map("occupancy"))?;
        let length = NonZeroUsize::new(LENGTH).context("occupancy: empty")?;
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let memory = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.fd(),
                0,
            )
        }
        .context("occupancy: cannot be mapped into memory")?;

        Ok(Self {
            bytes: memory.cast(),
        })
    }

    /// Notes that `port` is used for `purpose` in `epoch`.
    pub fn mark(&self, purpose: Use, port: u16, epoch: u8) {
        let offset = purpose as usize * PORTS + usize::from(port);
        // SAFETY: the mapping has a byte for each purpose and port, and an `Occupancy` is a byte.
        unsafe { self.bytes.add(offset).as_ref() }.mark(epoch);
    }
}

impl Drop for OccupancyMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more.
        let _ = unsafe { munmap(self.bytes.cast(), LENGTH) };
    }
}
