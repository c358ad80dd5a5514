//! The hashes `link_addresses` and `kernel_ports`: sets that the daemon alone writes.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use aya::{
    Pod,
    maps::{HashMap, Map, MapData},
};
use guard_common::{
    flow::key::KernelPortKey,
    frame::{
        address::{V4, V6},
        ethernet::MacAddress,
    },
};

use crate::bpf::pins::Pins;

/// What such a set holds.
pub trait Member: Clone + Ord {
    /// It as the programs look it up.
    type Key: Pod;

    /// The name of the map.
    const MAP: &str;

    /// What the programs look it up by.
    fn key(&self) -> Self::Key;

    /// What is looked up by this.
    fn of(key: &Self::Key) -> Self;
}

/// A set that the programs ask.
pub struct ToldSet<T: Member> {
    map: HashMap<MapData, T::Key, u32>,
    members: BTreeSet<T>,
}

/// The MAC addresses of this host, as the programs know them.
pub type MacAddresses = ToldSet<MacAddress>;

/// Ports and addresses at which the kernel itself receives, as the programs know them.
pub type TunnelPorts = ToldSet<(u16, IpAddr)>;

impl<T: Member> ToldSet<T> {
    /// Opens the pinned map, and reads what an earlier run has left in it.
    ///
    /// # Errors
    /// When there is none, or the kernel refuses.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let name = T::MAP;
        let map = HashMap::try_from(Map::HashMap(super::open(&pins.map(name))?))
            .with_context(|| format!("{name}: not as this build lays it out"))?;
        let mut members = BTreeSet::new();
        for key in map.keys() {
            let key = key.with_context(|| format!("{name}: cannot be read"))?;
            members.insert(T::of(&key));
        }

        Ok(Self { map, members })
    }

    /// Adds these, as far as the kernel takes them.
    ///
    /// # Errors
    /// When the kernel refuses one, for instance because the map is full.
    pub fn add(&mut self, more: &BTreeSet<T>) -> anyhow::Result<()> {
        let all = self.members.union(more).cloned().collect();

        self.set(&all)
    }

    /// Makes the map hold these and no others, as far as the kernel takes them.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn set(&mut self, wanted: &BTreeSet<T>) -> anyhow::Result<()> {
        exchange(
            (&mut self.map, &mut self.members),
            wanted,
            |map, member| map.remove(&member.key()),
            |map, member| map.insert(member.key(), 1, 0),
        )
        .with_context(|| format!("{}: not all can be told to the programs", T::MAP))
    }
}

impl Member for MacAddress {
    type Key = Self;

    const MAP: &str = "link_addresses";

    fn key(&self) -> Self {
        *self
    }

    fn of(key: &Self) -> Self {
        *key
    }
}

impl Member for (u16, IpAddr) {
    type Key = KernelPortKey;

    const MAP: &str = "kernel_ports";

    fn key(&self) -> KernelPortKey {
        let (port, address) = *self;
        match address {
            IpAddr::V4(address) => KernelPortKey::new(V4::from(address.octets()), port.to_be()),
            IpAddr::V6(address) => KernelPortKey::new(V6::from(address.octets()), port.to_be()),
        }
    }

    fn of(key: &KernelPortKey) -> Self {
        let octets = <[u8; 16]>::from(key.address);
        let address = match key.family {
            4 => IpAddr::from([octets[0], octets[1], octets[2], octets[3]]),
            _ => octets.into(),
        };

        (u16::from_be(key.port), address)
    }
}

/// Makes a map hold what is `wanted` and nothing else. What stays is there all along, and what the
/// kernel refuses keeps nothing else out or in.
///
/// # Errors
/// The first refusal, for instance because the map is full.
pub(super) fn exchange<M, T: Clone + Ord, E>(
    (map, members): (&mut M, &mut BTreeSet<T>),
    wanted: &BTreeSet<T>,
    remove: impl Fn(&mut M, &T) -> Result<(), E>,
    insert: impl Fn(&mut M, &T) -> Result<(), E>,
) -> Result<(), E> {
    let mut outcome = Ok(());
    let gone: Vec<_> = members.difference(wanted).cloned().collect();
    for one in gone {
        let removed = remove(map, &one);
        if removed.is_ok() {
            members.remove(&one);
        }
        outcome = outcome.and(removed);
    }
    let new: Vec<_> = wanted.difference(members).cloned().collect();
    for one in new {
        let inserted = insert(map, &one);
        if inserted.is_ok() {
            members.insert(one);
        }
        outcome = outcome.and(inserted);
    }

    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_nothing_else_out() {
        let (mut map, mut members) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3]));
        let wanted = BTreeSet::from([3, 4, 5, 6]);
        let refuse = |refused: i32, one: i32| if one == refused { Err(one) } else { Ok(()) };
        let outcome = exchange(
            (&mut map, &mut members),
            &wanted,
            |map: &mut BTreeSet<i32>, one| {
                refuse(1, *one)?;
                map.remove(one);
                Ok(())
            },
            |map, one| {
                refuse(5, *one)?;
                map.insert(*one);
                Ok(())
            },
        );
        assert_eq!(outcome, Err(1));
        assert_eq!(map, BTreeSet::from([1, 3, 4, 6]));
        assert_eq!(map, members);
    }

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
            let end = (4789, address);
            assert_eq!(<(u16, IpAddr)>::of(&end.key()), end, "{text}");
        }
    }
}
