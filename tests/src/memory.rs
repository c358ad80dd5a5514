//! The tables of a decision, in memory, with a clock that is set by hand.

mod contents;
mod entries;
mod surroundings;
mod sweep;

use std::{cell::Cell, collections::HashMap, iter::repeat_with, ptr, slice};

use guard_common::{
    abi::{
        config::{Config, ConfigCell},
        device::Device,
        state::State,
    },
    flow::{
        fragment::{FragmentKey, RefusedAt},
        key::{AddressKey, KernelPortKey, SizedKey},
        state::{Flow, FlowCell},
    },
    frame::{address::Address, ethernet::MacAddress, transport::Transport},
    outcome::Tally,
    policy::datapath::{Datapath, Inserted, Locality, RouteKey, SocketMatch},
    ports::{
        bloom::{BLOOM_BYTES, LINE, Line},
        class::{GuardedPorts, PORTS},
        occupancy::{Occupancy, Use},
        peer::{PeerHash, SinglePeer},
    },
};

use crate::setup::{self, Setup};

pub use contents::{Aged, Contents, Key};
use entries::Entries;
pub use surroundings::Surroundings;
use surroundings::Usual;

/// Flows, and refused datagrams, that the tables have room for.
const ROOM: usize = 1024;

/// When a model starts: far from 0, so that flows can be aged.
const START: u32 = 1 << 24;

/// The tables of one guard.
pub struct MemoryTables {
    now: u32,
    config: Config,
    cell: ConfigCell,
    guarded: Box<GuardedPorts>,
    device: Device,
    occupancy: Box<[Occupancy]>,
    single_peers: Box<[SinglePeer]>,
    /// What the last sweep has found of each port, by its place among the owners.
    users: HashMap<usize, PeerHash>,
    tuples: Box<[Occupancy]>,
    flows: Entries<Key, FlowCell>,
    refused: Entries<FragmentKey, RefusedAt>,
    surroundings: Box<dyn Surroundings>,
    passing: bool,
    tallies: [Cell<u64>; Tally::COUNT],
}

impl MemoryTables {
    /// The tables of a guard that has seen nothing yet.
    pub fn new(setup: Setup) -> Self {
        let [first, second] = setup.pages();
        let guarded = if setup.second_page { second } else { first };
        let room = if setup.no_room { 0 } else { ROOM };
        Self::with(
            setup.config(),
            guarded,
            setup::device(),
            room,
            Box::new(Usual),
        )
    }

    /// The tables of any guard, with room for so many flows.
    pub fn with(
        config: Config,
        guarded: Box<GuardedPorts>,
        device: Device,
        room: usize,
        surroundings: Box<dyn Surroundings>,
    ) -> Self {
        Self {
            now: START,
            config,
            cell: ConfigCell::new(config),
            guarded,
            device,
            occupancy: unmarked(Use::COUNT * PORTS),
            single_peers: repeat_with(SinglePeer::none)
                .take(Use::COUNT * PORTS)
                .collect(),
            users: HashMap::new(),
            tuples: unmarked(BLOOM_BYTES),
            flows: Entries::new(room),
            refused: Entries::new(ROOM),
            surroundings,
            passing: false,
            tallies: Default::default(),
        }
    }

    /// Puts another configuration in force, at the same epoch.
    pub fn configure(&mut self, config: Config, guarded: Box<GuardedPorts>) {
        self.config = Config {
            epoch: self.config.epoch,
            ..config
        };
        self.cell = ConfigCell::new(self.config);
        self.guarded = guarded;
    }

    /// Says what time it is.
    pub fn set_now(&mut self, now: u32) {
        self.now = now;
    }

    /// Says whether what is sent was received before.
    pub fn set_passing(&mut self, passing: bool) {
        self.passing = passing;
    }

    /// Writes the epoch in which a port was last in use.
    pub fn set_mark(&mut self, purpose: Use, port: u16, epoch: u8) {
        self.occupancy[purpose as usize * PORTS + usize::from(port)] = Occupancy::new(epoch);
    }

    /// Whether a port is marked as in use with anybody.
    pub fn is_marked(&self, purpose: Use, port: u16) -> bool {
        self.occupancy[purpose as usize * PORTS + usize::from(port)].fresh(self.config.epoch as u8)
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

    /// One flow.
    pub fn known(&self, key: &Key) -> Option<Flow> {
        self.flows.get(key).map(FlowCell::load)
    }

    /// Every flow, in no order.
    pub fn all_flows(&self) -> impl Iterator<Item = (Key, Flow)> {
        self.flows.iter().map(|(key, cell)| (*key, cell.load()))
    }

    /// When each datagram was refused whose refusal was not taken back, in no order.
    pub fn all_refusals(&self) -> impl Iterator<Item = (FragmentKey, u32)> {
        // SAFETY: a `RefusedAt` is a word in a cell, and nobody writes it meanwhile.
        let since = |mark: &RefusedAt| unsafe { ptr::from_ref(mark).cast::<u32>().read() };
        self.refused
            .iter()
            .map(move |(key, mark)| (*key, since(mark)))
            .filter(|(_, since)| *since != 0)
    }

    /// How often something was counted beside the frames.
    pub fn tallied(&self, tally: Tally) -> u64 {
        self.tallies[tally as usize].get()
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
        unsafe { slice::from_raw_parts(marks, self.occupancy.len()) }.to_vec()
    }
}

/// Nothing was ever in use.
fn unmarked(marks: usize) -> Box<[Occupancy]> {
    let bytes = vec![0u8; marks].into_boxed_slice();
    // SAFETY: an `Occupancy` is a byte in a cell, of any value.
    unsafe { Box::from_raw(Box::into_raw(bytes) as *mut [Occupancy]) }
}

impl Datapath for MemoryTables {
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

    fn single_peer(&self, purpose: Use, port: usize) -> Option<&SinglePeer> {
        self.single_peers.get(purpose as usize * PORTS + port)
    }

    fn line(&self, place: usize) -> Option<&Line> {
        let lines = self.tuples.as_chunks().0;
        lines.get((place - size_of::<State>()) / LINE)
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

    fn socket(&self, transport: Transport, key: SizedKey<'_>) -> SocketMatch {
        self.surroundings.socket(transport, key)
    }

    fn tally(&self, tally: Tally) {
        let tally = &self.tallies[tally as usize];
        tally.set(tally.get() + 1);
    }

    fn trusts(&self, address: &AddressKey) -> bool {
        self.surroundings.trusts(address)
    }

    fn kernel_receives(&self, port: &KernelPortKey) -> bool {
        self.surroundings.kernel_receives(port)
    }

    fn locality(&self, address: &AddressKey) -> Locality {
        self.surroundings.locality(address)
    }

    fn is_neighbour<A: Address>(&self, address: A) -> bool {
        self.surroundings.is_neighbour(&AddressKey::new(address))
    }

    fn is_own_mac(&self, address: MacAddress) -> bool {
        self.surroundings.is_own_mac(address)
    }

    fn forwards<A: Address>(&self, packet: &RouteKey<A>) -> bool {
        let [source, destination] = [packet.source, packet.destination].map(AddressKey::new);
        self.surroundings.forwards(&source, &destination)
    }

    fn is_forwarded(&self) -> bool {
        self.passing
    }
}
