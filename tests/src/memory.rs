//! The tables of a decision, in memory, with a clock that is set by hand.

use std::{cell::OnceCell, collections::BTreeMap};

use guard_common::{
    config::{Config, ConfigCell, Device},
    flow::{Flow, FlowCell},
    fragment::{FragmentKey, RefusedAt},
    key::{AddressKey, FlowKeyV4, FlowKeyV6, SizedKey},
    parse::Transport,
    ports::{GuardedPorts, Occupancy, PORTS},
    tables::{Inserted, Socket, Tables, Tally, Use},
};

use crate::setup::{self, Setup};

/// Flows, and refused datagrams, that the tables have room for.
const ROOM: usize = 1024;

/// When a model starts: far from 0, so that flows can be aged.
const START: u32 = 1 << 24;

/// The key of a flow of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// Entries in the order of their insertion. None is ever removed, so a reference into one stays
/// good while others are added.
struct Entries<K, V>(Vec<OnceCell<(K, V)>>);

impl<K: PartialEq, V> Entries<K, V> {
    fn new(room: usize) -> Self {
        Self((0..room).map(|_| OnceCell::new()).collect())
    }

    fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.0.iter().map_while(OnceCell::get)
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.iter()
            .find(|(present, _)| present == key)
            .map(|(_, value)| value)
    }

    /// Whether there was room.
    fn add(&self, key: K, value: V) -> bool {
        match self.0.iter().find(|entry| entry.get().is_none()) {
            Some(entry) => entry.set((key, value)).is_ok(),
            None => false,
        }
    }
}

/// The tables of one guard.
pub struct MemoryTables {
    now: u32,
    config: Config,
    cell: ConfigCell,
    guarded: Box<GuardedPorts>,
    device: Device,
    occupancy: Box<[Occupancy]>,
    flows: Entries<Key, FlowCell>,
    refused: Entries<FragmentKey, RefusedAt>,
}

impl MemoryTables {
    /// The tables of a guard that has seen nothing yet.
    pub fn new(setup: Setup) -> Self {
        let config = setup.config();
        let [first, second] = setup.pages();
        Self {
            now: START,
            config,
            cell: ConfigCell::new(config),
            guarded: if config.page == 0 { first } else { second },
            device: setup::device(),
            occupancy: unmarked(),
            flows: Entries::new(if setup.no_room { 0 } else { ROOM }),
            refused: Entries::new(ROOM),
        }
    }

    /// Lets so many ticks pass.
    pub fn wait(&mut self, ticks: u32) {
        self.now += ticks;
    }

    /// Completes so many sweeps that found no port in use.
    pub fn sweep(&mut self, sweeps: u32) {
        self.config.epoch = (self.config.epoch + sweeps) % 256;
        self.cell = ConfigCell::new(self.config);
    }

    /// The epoch in force.
    pub fn epoch(&self) -> u32 {
        self.config.epoch
    }

    /// Every flow.
    pub fn flows(&self) -> Contents<Aged> {
        let aged = |cell: &FlowCell| Aged::new(cell.load(), self.now);
        self.flows
            .iter()
            .map(|(key, cell)| (format!("{key:?}"), aged(cell)))
            .collect()
    }

    /// For every datagram that was ever refused, whether its later fragments are refused now.
    pub fn refusals(&self) -> Contents<bool> {
        let memory = self.config.timeouts.fragment;
        self.refused
            .iter()
            .map(|(key, mark)| (format!("{key:?}"), mark.holds(self.now, memory)))
            .collect()
    }

    /// The epochs in which each port was last in use, one use behind the other.
    pub fn occupancy_bytes(&self) -> Vec<u8> {
        let marks = self.occupancy.as_ptr().cast::<u8>();
        // SAFETY: an `Occupancy` is one byte, and nobody writes one while they are copied: the
        // tables stay on one thread.
        unsafe { std::slice::from_raw_parts(marks, self.occupancy.len()) }.to_vec()
    }
}

/// No port was ever in use.
fn unmarked() -> Box<[Occupancy]> {
    let bytes = vec![0u8; Use::COUNT * PORTS].into_boxed_slice();
    // SAFETY: an `Occupancy` is a byte in a cell, of any value.
    unsafe { Box::from_raw(Box::into_raw(bytes) as *mut [Occupancy]) }
}

impl Tables for MemoryTables {
    fn now(&self) -> u32 {
        self.now
    }

    fn config(&self) -> &ConfigCell {
        &self.cell
    }

    fn guarded(&self) -> &GuardedPorts {
        &self.guarded
    }

    fn occupancy(&self, purpose: Use, port: usize) -> Option<&Occupancy> {
        self.occupancy.get(purpose as usize * PORTS + port)
    }

    fn flow(&self, _transport: Transport, key: SizedKey<'_>) -> Option<&FlowCell> {
        self.flows.get(&key.into())
    }

    fn insert(&self, transport: Transport, key: SizedKey<'_>, flow: &Flow) -> Inserted {
        if self.flow(transport, key).is_some() {
            return Inserted::Exists;
        }
        if self.flows.add(key.into(), FlowCell::new(*flow)) {
            Inserted::New
        } else {
            Inserted::Failed
        }
    }

    fn device(&self) -> Option<&Device> {
        Some(&self.device)
    }

    fn refused(&self, key: &FragmentKey) -> Option<&RefusedAt> {
        self.refused.get(key)
    }

    fn refuse(&self, key: &FragmentKey, now: u32) {
        self.refused.add(*key, RefusedAt::new(now));
    }

    /// No socket is known here: rescues are tried on real ones.
    fn socket(&self, _transport: Transport, _key: SizedKey<'_>) -> Socket {
        Socket::None
    }

    fn tally(&self, _tally: Tally) {}

    fn trusts(&self, address: &AddressKey) -> bool {
        setup::trusted()
            .into_iter()
            .any(|prefix| setup::covers(prefix, address))
    }

    /// Without interfaces that forward, nobody asks.
    fn is_local(&self, _address: &AddressKey) -> bool {
        true
    }

    fn forwards(&self, _transport: Transport, _key: SizedKey<'_>) -> bool {
        false
    }

    fn passes_through(&self) -> bool {
        false
    }
}
