//! The map `link_addresses`.

use std::collections::BTreeSet;

use anyhow::Context;
use aya::maps::{HashMap, Map, MapData};
use guard_common::link::LinkAddress;

use crate::pins::Pins;

/// The link addresses of this host, as the programs know them.
pub struct Links {
    map: HashMap<MapData, LinkAddress, u32>,
    held: BTreeSet<LinkAddress>,
}

impl Links {
    /// Opens the pinned map, and reads what an earlier run has left in it.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let name = "link_addresses";
        let map = HashMap::try_from(Map::HashMap(super::open(&pins.map(name))?))
            .with_context(|| format!("{name}: not as this build lays it out"))?;
        let held = map
            .keys()
            .collect::<Result<_, _>>()
            .with_context(|| format!("{name}: cannot be read"))?;

        Ok(Self { map, held })
    }

    /// Makes the map hold these addresses and no others. What stays is there all along. One that
    /// the kernel refuses keeps none of the others out.
    ///
    /// # Errors
    /// The first that the kernel refuses, for instance because the map is full.
    pub fn set(&mut self, wanted: &BTreeSet<LinkAddress>) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for address in self.held.clone().difference(wanted) {
            let removed = self.map.remove(address);
            if removed.is_ok() {
                self.held.remove(address);
            }
            outcome = outcome.and(removed);
        }
        for address in wanted.difference(&self.held.clone()) {
            let inserted = self.map.insert(address, 1, 0);
            if inserted.is_ok() {
                self.held.insert(*address);
            }
            outcome = outcome.and(inserted);
        }

        outcome.context("link_addresses: not all can be told to the programs")
    }
}
