//! What both programs ask of every frame, in one piece of memory.
//!
//! One map with one element, so that a frame costs one look-up for all of it: measured, each
//! further look-up takes as long as parsing a header.

use core::cell::UnsafeCell;

use crate::{
    abi::{
        config::{Config, ConfigCell},
        page::{InForce, Page, PageCell},
    },
    ports::{
        bloom::{BLOOM_BYTES, ELEMENT_BYTES, LINE, Line, STATE_BYTES},
        class::PORTS,
        occupancy::{Occupancy, Use},
        peer::SinglePeer,
    },
};

/// What user space keeps at hand of the map `state`. The daemon changes single words and bytes of
/// it in place. A multiple of a processor's cache lines, so that those of the filter are whole.
#[repr(C, align(64))]
pub struct State {
    /// What the daemon has configured.
    pub config: Config,
    /// The epoch in which each port was last in use, a table for each [`Use`]. Near the start, so
    /// that a program adds its offset for nothing.
    pub occupancy: [[u8; PORTS]; Use::COUNT],
    /// The single-peer hash of each port, likewise. There is none for multicast.
    pub single_peers: [[u8; PORTS]; Use::COUNT],
    /// Two pages of the policy. The daemon fills one while the other is in force.
    pub pages: [Page; 2],
}

/// The one element of the map `state`.
#[repr(C)]
pub struct Element {
    /// What comes first.
    pub state: State,
    /// The Bloom filter: the epoch in which a tuple of each hash was last in use. Last, so that user
    /// space can do without it.
    pub tuples: [u8; BLOOM_BYTES],
}

const _: () = assert!(size_of::<State>() == STATE_BYTES);
const _: () = assert!(size_of::<Element>() == Element::SIZE);

impl Element {
    /// Bytes of all of it.
    pub const SIZE: usize = ELEMENT_BYTES;
}

/// An [`Element`] that the daemon and other processors change while it is read.
#[repr(transparent)]
pub struct ElementCell(UnsafeCell<Element>);

impl ElementCell {
    /// What comes first.
    #[inline(always)]
    pub fn state(&self) -> &StateCell {
        // SAFETY: a `StateCell` is a `State` that is only read a word or a byte at a time.
        unsafe { &*(&raw const (*self.0.get()).state).cast::<StateCell>() }
    }

    /// The line at this place of the map `state`, which this element must be the right one for.
    #[inline(always)]
    pub fn line(&self, place: usize) -> &Line {
        let place = place & (Element::SIZE - 1) & !(LINE - 1);
        // SAFETY: an `Occupancy` is a byte that is only accessed as a whole, and the element is a
        // multiple of lines long, of which the place is masked to the start of one.
        unsafe { &*self.0.get().cast::<u8>().add(place).cast::<Line>() }
    }
}

/// A [`State`] that the daemon and other processors change while it is read.
#[repr(transparent)]
pub struct StateCell(UnsafeCell<State>);

impl StateCell {
    /// What the daemon has configured.
    #[inline(always)]
    pub fn config(&self) -> &ConfigCell {
        // SAFETY: a `ConfigCell` is a `Config` that is only read a word at a time.
        unsafe { &*(&raw const (*self.0.get()).config).cast::<ConfigCell>() }
    }

    /// The page that is meant by what is in force.
    #[inline(always)]
    pub fn page(&self, in_force: InForce) -> &PageCell {
        // SAFETY: there are two pages, and a `PageCell` is a `Page` of which the daemon changes no
        // more than single words while it is in force.
        unsafe {
            let pages = (&raw const (*self.0.get()).pages).cast::<PageCell>();
            &*pages.add(in_force.page())
        }
    }

    /// The page that is not meant by it.
    #[inline(always)]
    pub fn other_page(&self, in_force: InForce) -> &PageCell {
        self.page(in_force.with(InForce::SECOND_PAGE, in_force.page() == 0))
    }

    /// The occupancy of one port, in host byte order; only 16 bits of it count.
    #[inline(always)]
    pub fn occupancy(&self, purpose: Use, port: usize) -> &Occupancy {
        // SAFETY: an `Occupancy` is a byte that is only accessed as a whole, and there are as many
        // as the index is masked to.
        unsafe {
            let marks = (&raw const (*self.0.get()).occupancy).cast::<Occupancy>();
            &*marks.add(index(purpose, port))
        }
    }

    /// The single-peer hash of one port, in host byte order; only 16 bits of it count.
    #[inline(always)]
    pub fn single_peer(&self, purpose: Use, port: usize) -> &SinglePeer {
        // SAFETY: as in `occupancy`, of an `SinglePeer`.
        unsafe {
            let single_peers = (&raw const (*self.0.get()).single_peers).cast::<SinglePeer>();
            &*single_peers.add(index(purpose, port))
        }
    }
}

/// Where a port is in tables of one for each [`Use`]: one index into all of them takes fewer
/// instructions than one for each dimension.
#[inline(always)]
const fn index(purpose: Use, port: usize) -> usize {
    const ALL: usize = Use::COUNT * PORTS;
    const _: () = assert!(ALL.is_power_of_two());

    (((purpose as usize) << PORTS.trailing_zeros()) + port) & (ALL - 1)
}
