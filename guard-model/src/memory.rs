//! The datapath in memory, with a clock that is set by hand, and a sweep over it.

mod entries;
mod host;

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap},
    iter::repeat_with,
    ptr, slice,
};

use guard_common::{
    abi::{
        config::{Config, ConfigCell},
        device::Device,
        page::{InForce, Page, PageCell},
        state::State,
    },
    flow::{
        fragment::{FragmentKey, RefusedAt},
        key::{AddressKey, FlowKeyV4, FlowKeyV6, KernelPortKey, SizedKey},
        state::{Flow, FlowCell, Phase},
    },
    frame::{address::Address, ethernet::MacAddress, ip::Tuple, transport::Transport},
    outcome::{Decision, Tally},
    policy::{
        datapath::{Datapath, Inserted, Locality, RouteKey, SocketMatch},
        egress,
    },
    ports::{
        bloom::{BLOOM_BYTES, BloomSize, LINE, Line},
        class::PORTS,
        occupancy::{Occupancy, Use},
        peer::{PeerHash, SinglePeer},
    },
};

use crate::setup::{self, Setup};

use entries::Entries;
pub use host::Host;
use host::Usual;

/// Flows, and refused datagrams, that there is room for.
const ROOM: usize = 1024;

/// When a model starts: far from 0, so that flows can be aged.
const START: u32 = 1 << 24;

/// The datapath of one guard.
pub struct MemoryDatapath {
    now: u32,
    config: Config,
    cell: ConfigCell,
    page: Box<PageCell>,
    next_page: Box<PageCell>,
    /// Whether a frame is being sent.
    sends: Cell<bool>,
    device: Device,
    occupancy: Box<[Occupancy]>,
    single_peers: Box<[SinglePeer]>,
    /// What the last sweep has found of each port, by its place in `single_peers`.
    users: HashMap<usize, PeerHash>,
    tuples: Box<[Occupancy]>,
    flows: Entries<Key, FlowCell>,
    refused: Entries<FragmentKey, RefusedAt>,
    host: Box<dyn Host>,
    forwarded: bool,
    tallies: [Cell<u64>; Tally::COUNT],
}

impl MemoryDatapath {
    /// The datapath of a guard that has seen nothing yet.
    pub fn new(setup: Setup) -> Self {
        let room = if setup.no_room { 0 } else { ROOM };
        Self::with(
            setup.config(),
            setup.page(),
            setup::device(),
            room,
            Box::new(Usual),
        )
    }

    /// The datapath of any guard, with room for so many flows.
    pub fn with(
        config: Config,
        page: Box<Page>,
        device: Device,
        room: usize,
        host: Box<dyn Host>,
    ) -> Self {
        Self {
            now: START,
            config,
            cell: ConfigCell::new(config),
            page: Box::new(PageCell::new(*page)),
            next_page: Box::new(PageCell::new(Page::EMPTY)),
            sends: Cell::new(false),
            device,
            occupancy: unmarked(Use::COUNT * PORTS),
            single_peers: repeat_with(SinglePeer::none)
                .take(Use::COUNT * PORTS)
                .collect(),
            users: HashMap::new(),
            tuples: unmarked(BLOOM_BYTES),
            flows: Entries::new(room),
            refused: Entries::new(ROOM),
            host,
            forwarded: false,
            tallies: Default::default(),
        }
    }

    /// Puts another configuration in force, at the same epoch.
    pub fn configure(&mut self, config: Config, page: Box<Page>) {
        self.config = Config {
            epoch: self.config.epoch,
            filter: self.config.filter,
            ..config
        };
        self.cell = ConfigCell::new(self.config);
        *self.page = PageCell::new(*page);
    }

    /// Lets egress record what `next` guards as well, whose word this is, as while that is about to come
    /// into force.
    pub fn record_both(&mut self, in_force: InForce, next: Box<Page>) {
        self.config.recorded = self.config.in_force.before(in_force);
        self.cell = ConfigCell::new(self.config);
        *self.next_page = PageCell::new(*next);
    }

    /// Records a sent frame.
    pub fn send(&self, frame: &[u8]) -> Decision {
        self.sends.set(true);
        let decision = egress::egress(frame, self);
        self.sends.set(false);

        decision
    }

    /// Sets the clock.
    pub fn set_now(&mut self, now: u32) {
        self.now = now;
    }

    /// Sets whether the frames that are sent were received before.
    pub fn set_forwarded(&mut self, forwarded: bool) {
        self.forwarded = forwarded;
    }

    /// Writes the epoch in which a port was last in use.
    pub fn set_mark(&mut self, purpose: Use, port: u16, epoch: u8) {
        self.occupancy[purpose as usize * PORTS + usize::from(port)] = Occupancy::new(epoch);
    }

    /// Whether a port is marked as in use with any remote address.
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
        // SAFETY: a `RefusedAt` is a word in a cell, and nothing writes it meanwhile.
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
        let memory = self.page.timeouts().fragment;
        self.refused
            .iter()
            .map(|(key, mark)| (format!("{key:?}"), mark.holds(self.now, memory)))
            .collect()
    }

    /// The epochs in which each port was last in use, one use behind the other.
    pub fn occupancy_bytes(&self) -> Vec<u8> {
        let marks = self.occupancy.as_ptr().cast::<u8>();
        // SAFETY: an `Occupancy` is one byte, and nothing writes one while they are copied: the
        // datapath stays on one thread.
        unsafe { slice::from_raw_parts(marks, self.occupancy.len()) }.to_vec()
    }
}

/// Nothing was ever in use.
fn unmarked(marks: usize) -> Box<[Occupancy]> {
    let bytes = vec![0u8; marks].into_boxed_slice();
    // SAFETY: an `Occupancy` is a byte in a cell, of any value.
    unsafe { Box::from_raw(Box::into_raw(bytes) as *mut [Occupancy]) }
}

impl Datapath for MemoryDatapath {
    fn now(&self) -> u32 {
        self.now
    }

    fn config(&self) -> &ConfigCell {
        &self.cell
    }

    fn in_force(&self) -> InForce {
        if self.sends.get() {
            self.config.recorded
        } else {
            self.config.in_force
        }
    }

    fn page(&self) -> &PageCell {
        &self.page
    }

    fn other_page(&self) -> &PageCell {
        &self.next_page
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
        self.host.socket(transport, key)
    }

    fn tally(&self, tally: Tally) {
        let tally = &self.tallies[tally as usize];
        tally.set(tally.get() + 1);
    }

    fn trusts(&self, address: &AddressKey) -> bool {
        self.host.trusts(address)
    }

    fn kernel_receives(&self, port: &KernelPortKey) -> bool {
        self.host.kernel_receives(port)
    }

    fn locality(&self, address: &AddressKey) -> Locality {
        self.host.locality(address)
    }

    fn is_neighbour<A: Address>(&self, address: A) -> bool {
        self.host.is_neighbour(&AddressKey::new(address))
    }

    fn is_own_mac(&self, address: MacAddress) -> bool {
        self.host.is_own_mac(address)
    }

    fn forwards<A: Address>(&self, packet: &RouteKey<A>) -> bool {
        let [source, destination] = [packet.source, packet.destination].map(AddressKey::new);
        self.host.forwards(&source, &destination)
    }

    fn is_forwarded(&self) -> bool {
        self.forwarded
    }
}

impl MemoryDatapath {
    /// Completes a sweep that finds every flow, and these sockets. The Bloom filter is valid from then
    /// on.
    pub fn sweep_all(&mut self, sockets: &[Key]) {
        let epoch = (self.config.epoch + 1) as u8;
        let timeouts = *self.page.timeouts();
        let found: Vec<_> = self
            .all_flows()
            .filter(|(_, flow)| flow.alive(self.now, &timeouts))
            .map(|(key, flow)| (key, flow.phase == Phase::Multicast as u8))
            .chain(sockets.iter().map(|key| (*key, false)))
            .collect();
        let mut users: HashMap<usize, PeerHash> = self
            .users
            .keys()
            .map(|place| (*place, PeerHash::NONE))
            .collect();
        for (key, query) in found {
            let (protocol, port, places, one) = self.place_of(&key);
            // The protocol's number is in the key: TCP in two of the four maps alone.
            let transport = Transport::from_number(protocol as u8).unwrap_or(Transport::Udp);
            for place in places {
                self.tuples[place - size_of::<State>()].mark(epoch);
            }
            let these = if query {
                self.set_mark(Use::Multicast, port, epoch);
                PeerHash::MANY
            } else {
                one
            };
            let place = Use::flow(transport) as usize * PORTS + usize::from(port);
            let before = users.entry(place).or_insert(PeerHash::NONE);
            *before = before.merge(these);
        }
        for (place, users) in &users {
            self.single_peers[*place].update(*users, &self.occupancy[*place], epoch);
        }
        self.users = users;
        self.config.filter.size = self.config.filter.size.validated();
        self.sweep(1);
    }

    /// Makes the Bloom filter invalid: every packet to a port in use is looked up.
    pub fn invalidate_filter(&mut self) {
        self.set_size(BloomSize::invalidated);
    }

    /// Makes the Bloom filter valid.
    pub fn validate_filter(&mut self) {
        self.set_size(BloomSize::validated);
    }

    /// Gives the Bloom filter the size that suits so many marks.
    pub fn resize_filter(&mut self, marks: u64) {
        self.set_size(|size| size.fitting(marks, 1));
    }

    /// Whether the Bloom filter is valid.
    pub fn filters(&self) -> bool {
        self.config.filter.size.is_valid()
    }

    fn set_size(&mut self, change: impl Fn(BloomSize) -> BloomSize) {
        self.config.filter.size = change(self.config.filter.size);
        self.cell = ConfigCell::new(self.config);
    }

    /// The protocol and the local port of a flow, the places of its bytes, and the hash of its peer.
    fn place_of(&self, key: &Key) -> (u32, u16, [usize; 2], PeerHash) {
        let filter = self.config.filter;
        match key {
            Key::V4(key) => {
                let ports = (key.local_port, key.remote_port);
                let places = filter.places(&tuple(key.local, key.remote, ports));
                let one = PeerHash::of(key.remote, &filter);
                (key.protocol, u16::from_be(key.local_port), places, one)
            }
            Key::V6(key) => {
                let ports = (key.local_port, key.remote_port);
                let places = filter.places(&tuple(key.local, key.remote, ports));
                let one = PeerHash::of(key.remote, &filter);
                (key.protocol, u16::from_be(key.local_port), places, one)
            }
        }
    }
}

/// The transport plays no part in the Bloom filter.
fn tuple<A>(local: A, remote: A, (local_port, remote_port): (u16, u16)) -> Tuple<A> {
    Tuple {
        transport: Transport::Udp,
        local,
        remote,
        local_port,
        remote_port,
    }
}

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

/// What a datapath holds, with ages in place of times, by the debug print of each key.
pub type Contents<T> = BTreeMap<String, T>;

/// A flow, in the form in which two datapaths are compared.
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
