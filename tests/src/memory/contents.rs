//! What tables hold, in the form that two sets of them are compared in.

use std::collections::BTreeMap;

use guard_common::flow::{
    key::{FlowKeyV4, FlowKeyV6, SizedKey},
    state::Flow,
};

/// The key of a flow of either family.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// IPv4.
    V4(FlowKeyV4),
    /// IPv6.
    V6(FlowKeyV6),
}

impl From<SizedKey<'_>> for Key {
    fn from(key: SizedKey<'_>) -> Self {
        match key {
            SizedKey::V4(key) => Self::V4(*key),
            SizedKey::V6(key) => Self::V6(*key),
        }
    }
}

/// What the tables hold, with ages in place of times, by the debug print of each key.
pub type Contents<T> = BTreeMap<String, T>;

/// A flow as two sets of tables can be compared by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aged {
    /// Ticks since `last_seen`.
    pub age: u32,
    /// The flow, its `last_seen` set to 0.
    pub flow: Flow,
}

impl Aged {
    /// A flow as it looks at `now`.
    pub fn new(flow: Flow, now: u32) -> Self {
        Self {
            age: now.wrapping_sub(flow.last_seen),
            flow: Flow {
                last_seen: 0,
                ..flow
            },
        }
    }
}
