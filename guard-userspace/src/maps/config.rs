//! The map `config`, in memory that is shared with the programs.

use std::{num::NonZeroUsize, path::Path, ptr::NonNull};

use anyhow::Context;
use guard_common::{
    config::{Config, FRAGMENT_MEMORY_SECONDS, Timeouts},
    layout::LAYOUT_VERSION,
    ports::Occupancy,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::settings::{Mode, Settings, UdpFilter};

/// The one element of the map `config`. The programs see each store at once.
#[derive(Debug)]
pub struct ConfigMemory {
    config: NonNull<Config>,
}

// SAFETY: the memory belongs to the map, not to a thread, and is only accessed a word at a time.
unsafe impl Send for ConfigMemory {}
// SAFETY: shared references only read, by volatile reads of single words.
unsafe impl Sync for ConfigMemory {}

/// One volatile read and one volatile store a word.
macro_rules! words {
    ($($(#[doc = $doc:literal])+ $read:ident, $store:ident: $field:ident;)+) => {
        impl ConfigMemory {
            $(
                $(#[doc = $doc])+
                pub fn $read(&self) -> u32 {
                    // SAFETY: the memory is mapped for as long as `self` lives, and is a `Config`.
                    unsafe { (&raw const (*self.config.as_ptr()).$field).read_volatile() }
                }

                /// Changes it.
                pub fn $store(&mut self, value: u32) {
                    // SAFETY: as above; a store of one whole word is never seen in part.
                    unsafe { (&raw mut (*self.config.as_ptr()).$field).write_volatile(value) }
                }
            )+
        }
    };
}

words! {
    /// The layout that the map was written for; 0 in a new map.
    layout, set_layout: layout;
    /// The page of guarded ports that is in force.
    page, set_page: page;
    /// The epoch of the occupancy table.
    epoch, set_epoch: epoch;
    /// Whether would-be drops pass.
    monitor, set_monitor: monitor;
    /// Whether a UDP flow admits every port of the peer's address.
    any_remote_port, set_any_remote_port: any_remote_port;
    /// Whether flows may be rescued.
    rescue, set_rescue: rescue;
    /// Questions to ask before a drop.
    excuses, set_excuses: excuses;
}

impl ConfigMemory {
    /// Maps the memory of the pinned map at `path`.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses (before 5.5).
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let map = super::open(path)?;
        let length = NonZeroUsize::new(size_of::<Config>()).context("config: empty")?;
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
        .context("config: cannot be mapped into memory")?;

        Ok(Self {
            config: memory.cast(),
        })
    }

    /// Applies what settings say, a word at a time, where the kernel counts `hertz` jiffies a
    /// second. A new map starts its epochs here.
    pub fn apply(&mut self, settings: &Settings, hertz: u32) {
        if self.layout() == 0 {
            self.set_epoch(u32::from(Occupancy::FIRST_EPOCH));
        }
        let ticks = |seconds| Timeouts::ticks(seconds, hertz);
        let timeouts = Timeouts {
            tcp_syn: ticks(settings.timeout.tcp_syn),
            tcp_established: ticks(settings.timeout.tcp_established),
            tcp_transitory: ticks(settings.timeout.tcp_transitory),
            udp: ticks(settings.timeout.udp),
            udp_dns: ticks(settings.timeout.udp_dns),
            multicast: ticks(settings.timeout.multicast),
            fragment: ticks(FRAGMENT_MEMORY_SECONDS),
        };
        // SAFETY: the memory is mapped for as long as `self` lives, and is a `Config`. A program
        // may read some timers before and some after the change, each of them whole.
        unsafe { (&raw mut (*self.config.as_ptr()).timeouts).write_volatile(timeouts) };
        self.set_monitor(u32::from(settings.mode == Mode::Monitor));
        self.set_any_remote_port(u32::from(settings.udp_filter == UdpFilter::Address));
        self.set_rescue(u32::from(!settings.no_rescue));
        self.set_layout(LAYOUT_VERSION);
    }

    /// The timers in force.
    pub fn timeouts(&self) -> Timeouts {
        // SAFETY: as in `apply`; only this process writes them.
        unsafe { (&raw const (*self.config.as_ptr()).timeouts).read_volatile() }
    }
}

impl Drop for ConfigMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more.
        let _ = unsafe { munmap(self.config.cast(), size_of::<Config>()) };
    }
}
