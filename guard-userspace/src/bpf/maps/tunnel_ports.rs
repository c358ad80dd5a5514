//! The map `kernel_ports`.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use aya::maps::{HashMap, Map, MapData};
use guard_common::{
    flow::key::KernelPortKey,
    frame::address::{V4, V6},
};

use super::sync::exchange;
use crate::bpf::pins::Pins;

/// Ports and addresses at which the kernel itself receives, as the programs know them.
pub struct TunnelPorts {
    map: HashMap<MapData, KernelPortKey, u32>,
    held: BTreeSet<(u16, IpAddr)>,
}

impl TunnelPorts {
    /// Opens the pinned map, and reads what an earlier run has left in it.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let name = "kernel_ports";
        let map = HashMap::try_from(Map::HashMap(super::open(&pins.map(name))?))
            .with_context(|| format!("{name}: not as this build lays it out"))?;
        let mut held = BTreeSet::new();
        for key in map.keys() {
            held.insert(end(&key.with_context(|| format!("{name}: cannot be read"))?));
        }

        Ok(Self { map, held })
    }

    /// Adds these, as far as the kernel takes them.
    ///
    /// # Errors
    /// When the kernel refuses one, for instance because the map is full.
    pub fn add(&mut self, ends: &BTreeSet<(u16, IpAddr)>) -> anyhow::Result<()> {
        let all = self.held.union(ends).copied().collect();

        self.set(&all)
    }

    /// Makes the map hold these and no others, as far as the kernel takes them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn set(&mut self, wanted: &BTreeSet<(u16, IpAddr)>) -> anyhow::Result<()> {
        exchange(
            (&mut self.map, &mut self.held),
            wanted,
            |map, end| map.remove(&key(*end)),
            |map, end| map.insert(key(*end), 1, 0),
        )
        .context("kernel_ports: not all can be told to the programs")
    }
}

fn key((port, address): (u16, IpAddr)) -> KernelPortKey {
    match address {
        IpAddr::V4(address) => KernelPortKey::new(V4::from(address.octets()), port.to_be()),
        IpAddr::V6(address) => KernelPortKey::new(V6::from(address.octets()), port.to_be()),
    }
}

fn end(key: &KernelPortKey) -> (u16, IpAddr) {
    let octets = <[u8; 16]>::from(key.address);
    let address = match key.family {
        4 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
        _ => octets.into(),
    };

    (u16::from_be(key.port), address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ends() {
        for text in [
            "0.0.0.0",
            "192.0.2.1",
            "::",
            "2001:db8::1",
            "::ffff:192.0.2.1",
        ] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(end(&key((4789, address))), (4789, address), "{text}");
        }
    }
}
