//! The map `link_addresses`.

use std::collections::BTreeSet;

use anyhow::Context;
use aya::maps::{HashMap, Map, MapData};
use guard_common::frame::ethernet::MacAddress;

use super::sync::exchange;
use crate::bpf::pins::Pins;

/// The link addresses of this host, as the programs know them.
pub struct MacAddresses {
    map: HashMap<MapData, MacAddress, u32>,
    held: BTreeSet<MacAddress>,
}

impl MacAddresses {
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

    /// Makes the map hold these addresses and no others, as far as the kernel takes them.
    ///
    /// # Errors
    /// When the kernel refuses one, for instance because the map is full.
    pub fn set(&mut self, wanted: &BTreeSet<MacAddress>) -> anyhow::Result<()> {
        exchange(
            (&mut self.map, &mut self.held),
            wanted,
            |map, address| map.remove(address),
            |map, address| map.insert(address, 1, 0),
        )
        .context("link_addresses: not all can be told to the programs")
    }
}
