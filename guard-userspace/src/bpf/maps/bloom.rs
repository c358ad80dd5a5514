//! The Bloom filter of tuples, and what sweeps mark in it.

use std::{
    cell::Cell,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU8, Ordering},
};

use anyhow::ensure;
use guard_common::{
    abi::state::{Element, ElementCell},
    ports::{
        bloom::{BloomFilter, LINE},
        class::PORTS,
        occupancy::Use,
        peer::PeerHash,
    },
};
use nix::sys::mman::munmap;

use super::flows::{FlowEnds, FlowEntry, ends};
use crate::bpf::pins::Pins;

/// The map `state` with the tuple filter, in memory that is shared with the programs.
#[derive(Debug)]
pub struct Tuples {
    elements: NonNull<Element>,
    count: usize,
    filter: BloomFilter,
    marks: Cell<u64>,
}

impl Tuples {
    /// Maps the memory of the pinned map, whose tuples are hashed as `filter` says.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn open(pins: &Pins, filter: BloomFilter) -> anyhow::Result<Self> {
        let (memory, count) = super::share(pins, None)?;
        let tuples = Self {
            elements: memory.cast(),
            count: count as usize,
            filter,
            marks: Cell::new(0),
        };
        let end = filter.size.base() + filter.size.bytes() as usize;
        ensure!(
            end <= tuples.count * size_of::<Element>(),
            "state: ends before its filter"
        );

        Ok(tuples)
    }

    /// Makes marks look no younger that were left 255 epochs ago, and would be fresh again in the
    /// epoch that is to begin; and as old as the present epoch what a sweep has marked that failed,
    /// or this one could not tell what it marks itself. Of ports as well as of tuples.
    pub fn age(&self, next: u8) {
        // SAFETY: the memory is mapped for as long as `self` lives, is a multiple of a word long and
        // aligned as one, and is only accessed by whole words or bytes.
        let (occupancy, tuples) = unsafe {
            let elements = self.elements.as_ptr();
            let tuples = elements.cast::<AtomicU8>().add(self.filter.size.base());
            let occupancy = (&raw const (*elements).state.occupancy).cast::<AtomicU8>();
            (
                slice::from_raw_parts(occupancy, Use::COUNT * PORTS),
                slice::from_raw_parts(tuples, self.filter.size.bytes() as usize),
            )
        };
        let (stale, old) = (next.wrapping_add(1), next.wrapping_add(1 + u8::MAX / 2));
        let present = next.wrapping_sub(1);
        for mark in occupancy.iter().chain(tuples) {
            let found = mark.load(Ordering::Relaxed);
            let aged = if found == stale {
                old
            } else if found == next {
                present
            } else {
                continue;
            };
            // Anyone who marks it in this moment wins.
            let _ = mark.compare_exchange(found, aged, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Notes that the ends of a flow, as it is recorded, are in use in `epoch`, and says with whom
    /// its port is used.
    pub fn mark(&self, flow: &FlowEntry, epoch: u8) -> PeerHash {
        let filter = &self.filter;
        let (places, users) = match ends(flow) {
            Some(FlowEnds::V4(tuple)) => {
                (filter.places(&tuple), PeerHash::of(tuple.remote, filter))
            }
            Some(FlowEnds::V6(tuple)) => {
                (filter.places(&tuple), PeerHash::of(tuple.remote, filter))
            }
            // Nothing is sent between ends of two families. The port is in use all the same.
            None => return PeerHash::MANY,
        };
        let element = places[0] / Element::SIZE;
        if element >= self.count {
            return PeerHash::MANY;
        }
        // SAFETY: the memory is mapped for as long as `self` lives, there are more elements in it
        // than the index, and an `ElementCell` is an `Element`.
        let line = unsafe {
            let elements = self.elements.cast::<ElementCell>();
            elements.add(element).as_ref().line(places[0])
        };
        for place in places {
            if line[place & (LINE - 1)].mark(epoch) {
                self.marks.update(|marks| marks + 1);
            }
        }

        users
    }

    /// About how many bytes would have been marked if no two tuples shared one: linear counting
    /// (Whang, Vander-Zanden and Taylor 1990). Of a filter that is full, more than there can be.
    pub fn marks(&self) -> u64 {
        let bytes = f64::from(self.filter.size.bytes());
        // Bytes that egress marks anew while the sweep runs are counted twice.
        let free = (1.0 - self.marks.get() as f64 / bytes).max(0.0);

        (-bytes * free.ln()) as u64
    }
}

impl Drop for Tuples {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers into it any more.
        let _ = unsafe { munmap(self.elements.cast(), self.count * size_of::<Element>()) };
    }
}
