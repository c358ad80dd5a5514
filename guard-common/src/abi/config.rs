//! What the daemon tells the programs.

use core::cell::UnsafeCell;

use crate::{abi::page::InForce, ports::bloom::BloomFilter};

/// What changes by words: what is in force, and what sweeps say.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`](crate::abi::layout::LAYOUT_VERSION) of the daemon that wrote this.
    pub layout: u32,
    /// The epoch of the occupancy table, modulo 256.
    pub epoch: u32,
    /// Which page is in force, and how to read it: what ingress goes by.
    pub in_force: InForce,
    /// What egress goes by. The same, except while another policy is about to come into force:
    /// everything that either of them guards is recorded then, from before the daemon looks at
    /// sockets until after the flip.
    pub recorded: InForce,
    /// What stands before look-ups of packets to ports in use.
    pub filter: BloomFilter,
    /// How often the daemon has invalidated the [`filter`](Self::filter). No program reads it.
    pub invalidations: u32,
    /// Zero.
    pub reserved: u32,
}

/// A [`Config`] that the daemon changes while programs read it.
#[repr(transparent)]
pub struct ConfigCell(UnsafeCell<Config>);

impl ConfigCell {
    /// A configuration that is not in a map.
    pub const fn new(config: Config) -> Self {
        Self(UnsafeCell::new(config))
    }

    /// What is in force. To be read once a frame.
    #[inline(always)]
    pub fn in_force(&self) -> InForce {
        // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives, and a
        // volatile read of one word tolerates that the daemon writes it.
        unsafe { (&raw const (*self.0.get()).in_force).read_volatile() }
    }

    /// What egress goes by. To be read once a frame.
    #[inline(always)]
    pub fn recorded(&self) -> InForce {
        // SAFETY: as in `in_force`.
        unsafe { (&raw const (*self.0.get()).recorded).read_volatile() }
    }

    /// The epoch of the occupancy table.
    #[inline(always)]
    pub fn epoch(&self) -> u32 {
        // SAFETY: as in `in_force`.
        unsafe { (&raw const (*self.0.get()).epoch).read_volatile() }
    }

    /// What stands before look-ups of packets to ports in use, as it is now.
    #[inline(always)]
    pub fn filter(&self) -> BloomFilter {
        // SAFETY: as in `in_force`. The seeds never change while programs look at them.
        unsafe {
            let filter = &raw const (*self.0.get()).filter;
            BloomFilter {
                size: (&raw const (*filter).size).read_volatile(),
                seeds: (*filter).seeds,
            }
        }
    }
}
