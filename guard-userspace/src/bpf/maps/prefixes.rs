//! The tries `local`, `neighbours` and `trusted`.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use aya::maps::{
    Map, MapData,
    lpm_trie::{Key, LpmTrie},
};
use guard_common::{
    flow::key::AddressKey,
    frame::address::{V4, V6},
};
use ipnet::IpNet;

use super::sets::exchange;
use crate::bpf::pins::Pins;

/// A prefix in a trie.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Entry {
    /// The slot of the interface that it is of, where each has its own; else 0.
    pub slot: u32,
    /// The prefix.
    pub net: IpNet,
    /// What is told of it.
    pub value: u32,
}

impl From<IpNet> for Entry {
    fn from(net: IpNet) -> Self {
        Self {
            slot: 0,
            net,
            value: 1,
        }
    }
}

/// A trie of prefixes, and what is in it.
pub struct Prefixes {
    trie: LpmTrie<MapData, AddressKey, u32>,
    held: BTreeSet<Entry>,
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
        for entry in trie.iter() {
            let (key, value) = entry.with_context(|| format!("{name}: cannot be read"))?;
            held.extend(entry_of(&key, value));
        }

        Ok(Self { trie, held, name })
    }

    /// Makes the trie hold these prefixes and no others, as far as the kernel takes them.
    ///
    /// # Errors
    /// When the kernel refuses one, for instance because the trie is full.
    pub fn set(&mut self, wanted: impl IntoIterator<Item: Into<Entry>>) -> anyhow::Result<()> {
        exchange(
            (&mut self.trie, &mut self.held),
            &wanted.into_iter().map(Into::into).collect(),
            |trie, entry| trie.remove(&key(entry)),
            |trie, entry| trie.insert(&key(entry), entry.value, 0),
        )
        .with_context(|| format!("{}: not all can be told to the programs", self.name))
    }

    /// Whether the trie holds anything.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

fn key(entry: &Entry) -> Key<AddressKey> {
    let slot = entry.slot;
    let address = match entry.net.network() {
        IpAddr::V4(address) => AddressKey::of_interface(slot, V4::from(address.octets())),
        IpAddr::V6(address) => AddressKey::of_interface(slot, V6::from(address.octets())),
    };

    Key::new(
        AddressKey::FAMILY_BITS + u32::from(entry.net.prefix_len()),
        address,
    )
}

/// What a key and its value stand for, unless the key is none that [`key`] makes.
fn entry_of(key: &Key<AddressKey>, value: u32) -> Option<Entry> {
    let length = key.prefix_len().checked_sub(AddressKey::FAMILY_BITS)?;
    let length = u8::try_from(length).ok()?;
    let data = key.data();
    let octets = <[u8; 16]>::from(data.address);
    let address: IpAddr = match data.family & 0xff {
        4 => <[u8; 4]>::try_from(&octets[..4]).ok()?.into(),
        _ => octets.into(),
    };

    Some(Entry {
        slot: data.family >> 8,
        net: IpNet::new(address, length).ok()?,
        value,
    })
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
            for (slot, value) in [(0, 1), (31, 3)] {
                let net = text.parse().expect("is a prefix");
                let entry = Entry { slot, net, value };
                assert_eq!(entry_of(&key(&entry), value), Some(entry), "{text}");
            }
        }
        let key = |text: &str| key(&Entry::from(text.parse::<IpNet>().expect("is a prefix")));
        assert_ne!(
            key("::ffff:192.0.2.1/128").data(),
            key("192.0.2.1/32").data()
        );
    }
}
