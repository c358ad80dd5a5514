//! Tries of prefixes.

use std::net::IpAddr;

use anyhow::Result;
use guard_reference::policy::Prefix;

use crate::programs::raw::RawMap;

/// The bytes of a prefix in a trie: bits, family, address.
pub type Key = [u32; 6];

/// A trie, and what it holds.
pub struct Trie {
    map: RawMap<Key, u32>,
    present: Vec<(Prefix, u32)>,
    slot: u32,
}

impl Trie {
    /// An empty trie, in which prefixes are those of the interface in this slot, or of none.
    pub const fn new(map: RawMap<Key, u32>, slot: u32) -> Self {
        Self {
            map,
            present: Vec::new(),
            slot,
        }
    }

    /// Lets it hold these prefixes, and no others.
    pub fn hold(&mut self, prefixes: &[Prefix]) -> Result<()> {
        let prefixes: Vec<_> = prefixes.iter().map(|prefix| (*prefix, 1)).collect();
        self.hold_values(&prefixes)
    }

    /// Lets it hold these values of prefixes, and no others. The last one of a prefix counts.
    pub fn hold_values(&mut self, prefixes: &[(Prefix, u32)]) -> Result<()> {
        if self.present == prefixes {
            return Ok(());
        }
        for (prefix, _) in self.present.drain(..) {
            // Two of them may be the same.
            let _ = self.map.remove(&key(&prefix, self.slot));
        }
        for (prefix, value) in prefixes {
            self.map.set(&key(prefix, self.slot), value)?;
            self.present.push((*prefix, *value));
        }
        Ok(())
    }
}

fn key(prefix: &Prefix, slot: u32) -> Key {
    let mut octets = [0; 16];
    let family = match prefix.address {
        IpAddr::V4(address) => {
            octets[..4].copy_from_slice(&address.octets());
            4
        }
        IpAddr::V6(address) => {
            octets = address.octets();
            6
        }
    };
    let word = |at: usize| {
        u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
    };
    let bits = u32::from(prefix.bits) + 32;
    [
        bits,
        slot << 8 | family,
        word(0),
        word(4),
        word(8),
        word(12),
    ]
}
