//! The tries `local` and `trusted`.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use guard_common::{
    address::{V4, V6},
    key::AddressKey,
};
use ipnet::IpNet;

use super::held::exchange;
use crate::pins::Pins;

/// A trie of prefixes, and what is in it.
pub struct Prefixes {
    trie: LpmTrie<MapData, AddressKey, u32>,
    held: BTreeSet<IpNet>,
    name: &'static str,
}

impl Prefixes {
    /// Opens the pinned trie called `name`, and reads what an earlier run has left in it.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn open(pins: &Pins, name: &'static str) -> anyhow::Result<Self> {
        let trie = LpmTrie::try_from(Map::LpmTrie(super::open(&pins.map(name))?))
            .with_context(|| format!("{name}: not as this build lays it out"))?;
        let mut held = BTreeSet::new();
        for key in trie.keys() {
            held.extend(net(&key.context("prefixes: cannot be read")?));
        }

        Ok(Self { trie, held, name })
    }

    /// Makes the trie hold these prefixes and no others, as far as the kernel takes them.
    ///
    /// # Errors
    /// When the kernel refuses one, for instance because the trie is full.
    pub fn set(&mut self, wanted: &BTreeSet<IpNet>) -> anyhow::Result<()> {
        exchange(
            (&mut self.trie, &mut self.held),
            wanted,
            |trie, net| trie.remove(&key(*net)),
            |trie, net| trie.insert(&key(*net), 1, 0),
        )
        .with_context(|| format!("{}: not all can be told to the programs", self.name))
    }

    /// Whether the trie holds anything.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn key(net: IpNet) -> Key<AddressKey> {
    let address = match net.network() {
        IpAddr::V4(address) => AddressKey::new(V4::from(address.octets())),
        IpAddr::V6(address) => AddressKey::new(V6::from(address.octets())),
    };

    Key::new(
        AddressKey::FAMILY_BITS + u32::from(net.prefix_len()),
        address,
    )
}

/// The prefix of a key, unless it is none that [`key`] makes.
fn net(key: &Key<AddressKey>) -> Option<IpNet> {
    let length = key.prefix_len().checked_sub(AddressKey::FAMILY_BITS)?;
    let length = u8::try_from(length).ok()?;
    let data = key.data();
    let octets = <[u8; 16]>::from(data.address);
    let address: IpAddr = match data.family {
        4 => <[u8; 4]>::try_from(&octets[..4]).ok()?.into(),
        _ => octets.into(),
    };

    IpNet::new(address, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_prefixes() {
        for text in [
            "192.0.2.0/24",
            "10.0.0.1/32",
            "0.0.0.0/0",
            "2001:db8::/32",
            "::1/128",
        ] {
            let prefix: IpNet = text.parse().expect("is a prefix");
            assert_eq!(net(&key(prefix)), Some(prefix), "{text}");
        }
        let mapped: IpNet = "::ffff:192.0.2.1/128".parse().expect("is a prefix");
        let plain: IpNet = "192.0.2.1/32".parse().expect("is a prefix");
        assert_ne!(key(mapped).data(), key(plain).data());
    }
}
