//! UDP to multicast and broadcast addresses, which any neighbour may answer.

use crate::{
    flow::{
        key::{FlowAddress, FlowKey},
        state::{Flow, Phase},
    },
    frame::{ip::Tuple, transport::Transport},
    outcome::Outcome,
    policy::{
        datapath::Datapath,
        lookup::{as_recorded, bloom_insert, insert, is_marked, mark},
    },
    ports::occupancy::Use,
};

/// Records a packet to a group. Any neighbour may answer it, so the entry names no remote end.
#[inline(always)]
pub(crate) fn record_multicast<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    datapath: &impl Datapath,
) -> Outcome {
    let remote_port = datapath.index(tuple.remote_port);
    if datapath
        .guarded()
        .leaves_unrecorded(tuple.transport, remote_port)
    {
        return Outcome::PassNotRecorded;
    }
    let now = datapath.now();
    let key = multicast_key(tuple);
    let outcome = match datapath.flow(tuple.transport, key.sized()) {
        Some(cell) => {
            let alive = cell.load().alive(now, datapath.timeouts());
            cell.restart(Flow::new(Phase::Multicast, now));
            if alive {
                Outcome::PassRefreshedFlow
            } else {
                Outcome::PassNewFlow
            }
        }
        None => insert(
            tuple.transport,
            key.sized(),
            &Flow::new(Phase::Multicast, now),
            datapath,
        ),
    };
    mark(Use::Udp, port, datapath);
    mark(Use::Multicast, port, datapath);
    // A packet to one host by the broadcast MAC address may come from a connected socket, which proves the answer wherever it comes from.
    bloom_insert(&as_recorded(tuple, datapath), datapath);
    outcome
}

/// Whether a packet may be one that [answers multicast](answers_multicast).
#[inline(always)]
pub(crate) fn may_answer_multicast<A: FlowAddress>(
    tuple: &Tuple<A>,
    datapath: &impl Datapath,
) -> bool {
    let port = datapath.index(tuple.local_port);

    // A packet to a group marks the port for flows as well, and that mark is in the cache already.
    tuple.transport == Transport::Udp
        && is_marked(Use::Udp, port, datapath)
        && is_marked(Use::Multicast, port, datapath)
}

/// Whether this answers a query that was sent to a group: from a neighbour, whatever its address
/// and port (mDNS answers by unicast, SSDP from any port).
#[inline(always)]
pub(crate) fn answers_multicast<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    now: u32,
    datapath: &impl Datapath,
) -> bool {
    is_open(tuple, port, now, datapath)
        && tuple.remote != A::UNSPECIFIED
        && datapath.is_neighbour(tuple.remote)
}

/// Whether a packet that is quoted was a query to a group, and may be one whose answers are due.
/// A router reports that it was too long for the next link (RFC 4443, section 2.4).
#[inline(always)]
pub(crate) fn quotes_multicast<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    datapath: &impl Datapath,
) -> bool {
    tuple.transport == Transport::Udp
        && tuple.remote.is_group()
        && is_open(tuple, port, datapath.now(), datapath)
}

/// Whether a query to a group was sent from this port not long ago.
#[inline(always)]
fn is_open<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    now: u32,
    datapath: &impl Datapath,
) -> bool {
    is_marked(Use::Multicast, port, datapath)
        && datapath
            .flow(tuple.transport, multicast_key(tuple).sized())
            .is_some_and(|flow| flow.load().alive(now, datapath.timeouts()))
}

/// The key of a query to a group: any remote may answer.
#[inline(always)]
fn multicast_key<A: FlowAddress>(tuple: &Tuple<A>) -> A::FlowKey {
    A::FlowKey::new(&Tuple {
        remote: A::UNSPECIFIED,
        remote_port: 0,
        ..*tuple
    })
}
