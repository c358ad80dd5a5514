//! Ports in use, the Bloom filter and the flow maps: what is found there, and what is put in.

use crate::{
    abi::page::InForce,
    flow::{
        key::{FlowAddress, FlowKey, SizedKey},
        state::{Flow, FlowCell, Phase},
    },
    frame::{address::Address, ip::Tuple, transport::Transport},
    outcome::Outcome,
    policy::datapath::{Datapath, Inserted},
    ports::{bloom::LINE, occupancy::Use, peer::PeerHash},
};

/// What is known of a packet's flow.
#[derive(Clone, Copy)]
pub(crate) enum FlowLookup<'a> {
    /// This is it.
    Found(&'a FlowCell),
    /// The map does not hold it. A socket may prove it.
    Absent,
    /// There is neither a flow nor a socket.
    Unknown,
}

impl<'a> From<Option<&'a FlowCell>> for FlowLookup<'a> {
    #[inline(always)]
    fn from(found: Option<&'a FlowCell>) -> Self {
        found.map_or(Self::Absent, Self::Found)
    }
}

/// Looks up the flow of a packet in the Bloom filter, and then in the map.
#[inline(always)]
pub(crate) fn look_up<'a, A: FlowAddress>(
    tuple: &Tuple<A>,
    datapath: &'a impl Datapath,
) -> FlowLookup<'a> {
    let recorded = as_recorded(tuple, datapath);
    if !bloom_contains(&recorded, datapath) {
        return FlowLookup::Unknown;
    }

    datapath
        .flow(tuple.transport, A::FlowKey::new(&recorded).sized())
        .into()
}

/// The tuple that a flow is looked up and recorded under.
#[inline(always)]
pub(crate) fn as_recorded<A: Address>(tuple: &Tuple<A>, datapath: &impl Datapath) -> Tuple<A> {
    match tuple.transport {
        Transport::Udp | Transport::UdpLite
            if datapath.in_force().has(InForce::ANY_REMOTE_PORT) =>
        {
            Tuple {
                remote_port: 0,
                ..*tuple
            }
        }
        Transport::Tcp | Transport::Udp | Transport::UdpLite => *tuple,
    }
}

/// Notes that this flow is in use, and its port.
#[inline(always)]
pub(crate) fn mark_flow<A: Address>(tuple: &Tuple<A>, port: usize, datapath: &impl Datapath) {
    mark_port(tuple, port, datapath);
    bloom_insert(&as_recorded(tuple, datapath), datapath);
}

/// Notes that a port is in use with this remote address.
#[inline(always)]
pub(crate) fn mark_port<A: Address>(tuple: &Tuple<A>, port: usize, datapath: &impl Datapath) {
    let purpose = Use::flow(tuple.transport);
    let epoch = datapath.config().epoch() as u8;
    // Most ports are marked already, and then their single peer does not matter.
    if datapath
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.is(epoch))
    {
        return;
    }
    let by_single_peer = datapath
        .single_peer(purpose, port)
        .is_some_and(|single_peer| {
            single_peer.load() == PeerHash::of(tuple.remote, &datapath.config().filter())
        });
    // The single peer does not mark its port, which would then look as if it were used with others too.
    if !by_single_peer {
        mark(purpose, port, datapath);
    }
}

/// Marks a port as in use with any remote address.
#[inline(always)]
pub(crate) fn mark(purpose: Use, port: usize, datapath: &impl Datapath) {
    let epoch = datapath.config().epoch() as u8;
    if let Some(occupancy) = datapath.occupancy(purpose, port) {
        occupancy.mark(epoch);
    }
}

/// What [`Flow::word`] has above the time, where only time passes.
const fn above_time(phase: Phase) -> u32 {
    (Flow::new(phase, 0).word() >> 32) as u32
}

/// What remains to be done once the time of a flow is up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tick {
    /// Nothing: another packet has come in this tick.
    Same,
    /// What is done once a tick.
    New,
}

/// Updates the time of a live flow whose state does not change; `None` for any other. The packet must have none of the TCP flags that change the state.
#[inline(always)]
pub(crate) fn refresh_time(cell: &FlowCell, datapath: &impl Datapath) -> Option<Tick> {
    const ESTABLISHED: u32 = above_time(Phase::Established);
    const DATAGRAM: u32 = above_time(Phase::Datagram);
    const DNS: u32 = above_time(Phase::Dns);

    // One comparison covers all three.
    const _: () = assert!(DATAGRAM == ESTABLISHED + 1 && DNS == DATAGRAM + 1);

    let word = cell.load_word();
    let phase = (word >> 32) as u32;
    if !(ESTABLISHED..=DNS).contains(&phase) {
        return None;
    }
    let now = datapath.now();
    // Where another processor's clock is a tick ahead this is a great age, and left to others.
    let age = now.wrapping_sub(word as u32);
    if age == 0 {
        return Some(Tick::Same);
    }
    let timeouts = datapath.timeouts();
    let timeout = match phase {
        ESTABLISHED => timeouts.tcp_established,
        DATAGRAM => timeouts.udp,
        _ => timeouts.udp_dns,
    };
    if age > timeout {
        return None;
    }
    cell.seen(now);

    Some(Tick::New)
}

/// Whether a tuple may have a flow or a socket. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn bloom_contains<A: Address>(tuple: &Tuple<A>, datapath: &impl Datapath) -> bool {
    let config = datapath.config();
    let filter = config.filter();

    let (epoch, span) = (config.epoch() as u8, filter.size.span());
    let [first, second] = filter.places(tuple);
    let Some(line) = datapath.line(first) else {
        return true;
    };

    line[first & (LINE - 1)].within(epoch, span) && line[second & (LINE - 1)].within(epoch, span)
}

/// Notes that a tuple has a flow. `tuple` is as it is recorded.
#[inline(always)]
pub(crate) fn bloom_insert<A: Address>(tuple: &Tuple<A>, datapath: &impl Datapath) {
    let config = datapath.config();
    let [first, second] = config.filter().places(tuple);
    if let Some(line) = datapath.line(first) {
        for place in [first, second] {
            line[place & (LINE - 1)].set(config.epoch() as u8);
        }
    }
}

/// Whether a port may be used with this remote address.
#[inline(always)]
pub(crate) fn in_use<A: Address>(
    transport: Transport,
    remote: A,
    port: usize,
    datapath: &impl Datapath,
) -> bool {
    let purpose = Use::flow(transport);
    if is_marked(purpose, port, datapath) {
        return true;
    }
    let filter = datapath.config().filter();
    let single_peer = datapath
        .single_peer(purpose, port)
        .map_or(PeerHash::NONE, |single_peer| single_peer.load());

    // Branch-free on purpose: a branch on "the port is free" is unpredictable under a flood of free and used ports.
    single_peer == PeerHash::of(remote, &filter)
        || !filter.size.is_valid() && single_peer != PeerHash::NONE
}

/// Whether a port may be in use with any remote address.
#[inline(always)]
pub(crate) fn is_marked(purpose: Use, port: usize, datapath: &impl Datapath) -> bool {
    let epoch = datapath.config().epoch() as u8;
    datapath
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.fresh(epoch))
}

#[inline(always)]
pub(crate) fn insert(
    transport: Transport,
    key: SizedKey<'_>,
    flow: &Flow,
    datapath: &impl Datapath,
) -> Outcome {
    match datapath.insert(transport, key, flow) {
        Inserted::New => Outcome::PassNewFlow,
        Inserted::Exists => Outcome::PassRefreshedFlow,
        Inserted::Failed => Outcome::PassInsertFailed,
    }
}
