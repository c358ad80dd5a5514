//! What the daemon tells the programs.

use core::cell::UnsafeCell;

use crate::{
    flow::timer::Timeouts,
    ports::{
        bloom::BloomFilter,
        class::{GuardedPorts, Window},
    },
};

/// What the daemon tells the programs. It changes single words of it in place.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Config {
    /// [`LAYOUT_VERSION`](crate::abi::layout::LAYOUT_VERSION) of whoever wrote this.
    pub layout: u32,
    /// Which of the two pages of guarded ports is in force: 0 or 1.
    pub page: u32,
    /// The epoch of the occupancy table, modulo 256.
    pub epoch: u32,
    /// 1 when would-be drops pass.
    pub monitor: u32,
    /// 1 when a UDP flow admits every port of the peer's address.
    pub any_remote_port: u32,
    /// 1 when a flow that is not in the map may be looked up among the kernel's sockets.
    pub rescue: u32,
    /// Questions to ask before a drop: any of [`FORWARDS`](Self::FORWARDS),
    /// [`TRUSTS`](Self::TRUSTS) and [`KERNEL_PORTS`](Self::KERNEL_PORTS).
    pub exceptions: u32,
    /// How often the daemon came to doubt the [`filter`](Self::filter). No program reads it.
    pub invalidations: u32,
    /// Ports whose strangers are dropped without another question.
    pub window: Window,
    /// What stands before look-ups of packets to ports in use.
    pub filter: BloomFilter,
    /// Timers.
    pub timeouts: Timeouts,
}

/// A [`Config`] that the daemon changes while programs read it.
#[repr(transparent)]
pub struct ConfigCell(UnsafeCell<Config>);

/// One volatile read a word.
macro_rules! reads {
    ($($(#[doc = $doc:literal])+ $name:ident;)+) => {
        impl ConfigCell {
            $(
                $(#[doc = $doc])+
                #[inline(always)]
                pub fn $name(&self) -> u32 {
                    // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives,
                    // and a volatile read of one word tolerates that the daemon writes it.
                    unsafe { (&raw const (*self.0.get()).$name).read_volatile() }
                }
            )+
        }
    };
}

reads! {
    /// Which page of guarded ports is in force.
    page;
    /// The epoch of the occupancy table.
    epoch;
    /// Whether would-be drops pass.
    monitor;
    /// Whether a UDP flow admits every port of the peer's address.
    any_remote_port;
    /// Whether flows may be rescued.
    rescue;
    /// Questions to ask before a drop.
    exceptions;
}

impl Config {
    /// In [`exceptions`](Self::exceptions): some interface forwards or bridges.
    pub const FORWARDS: u32 = 1;
    /// In [`exceptions`](Self::exceptions): the user trusts somebody.
    pub const TRUSTS: u32 = 2;
    /// In [`exceptions`](Self::exceptions): the kernel itself receives on some guarded ports.
    pub const KERNEL_PORTS: u32 = 4;

    /// The window that these ports get: none while anything but the flow decides about a drop at
    /// any port. Those on which the kernel receives are in no window.
    pub fn window_for(&self, guarded: &GuardedPorts) -> Window {
        if self.exceptions & !Self::KERNEL_PORTS | self.monitor != 0 {
            Window::NONE
        } else {
            Window::of(guarded)
        }
    }
}

impl ConfigCell {
    /// A configuration that is not in a map.
    pub const fn new(config: Config) -> Self {
        Self(UnsafeCell::new(config))
    }

    /// Ports whose strangers are dropped without another question.
    #[inline(always)]
    pub fn window(&self) -> Window {
        // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives, and a
        // volatile read of one word tolerates that the daemon writes it.
        unsafe { (&raw const (*self.0.get()).window).read_volatile() }
    }

    /// Whether anything but the flow decides about a packet that has none.
    #[inline(always)]
    pub fn has_exceptions(&self) -> bool {
        (self.exceptions() | self.monitor()) != 0
    }

    /// What stands before look-ups of packets to ports in use, as it is now.
    #[inline(always)]
    pub fn filter(&self) -> BloomFilter {
        // SAFETY: as in `window`. The seeds never change while programs look at them.
        unsafe {
            let filter = &raw const (*self.0.get()).filter;
            BloomFilter {
                size: (&raw const (*filter).size).read_volatile(),
                seeds: (*filter).seeds,
            }
        }
    }

    /// The timers. They change one word at a time.
    #[inline(always)]
    pub fn timeouts(&self) -> &Timeouts {
        // SAFETY: the cell is a valid, aligned `Config` for as long as `self` lives. A timer that
        // the daemon replaces meanwhile is read as it was or as it will be.
        unsafe { &(*self.0.get()).timeouts }
    }
}
