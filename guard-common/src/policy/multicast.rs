//! UDP to multicast and broadcast addresses, which any neighbour may answer; requests of a DHCP client,
//! which any server may.

use crate::{
    flow::{
        key::{FlowAddress, FlowKey},
        state::{Flow, Phase},
    },
    frame::{ip::Tuple, transport::Transport},
    outcome::{Family, Outcome},
    policy::{
        datapath::Datapath,
        lookup::{as_recorded, bloom_insert, insert, is_marked, mark},
    },
    ports::occupancy::Use,
};

/// The port of a DHCP client over IPv4, and that of a server (RFC 2131, section 4.1), as packets have
/// them.
const DHCP_CLIENT: u16 = 68_u16.to_be();
const DHCP_SERVER: u16 = 67_u16.to_be();

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
/// and port (mDNS answers by unicast, SSDP from any port). A DHCP server may be behind a relay, and is
/// no neighbour of an interface that has no address yet.
#[inline(always)]
pub(crate) fn answers_multicast<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    now: u32,
    datapath: &impl Datapath,
) -> bool {
    is_open(tuple, port, now, datapath)
        && tuple.remote != A::UNSPECIFIED
        && (is_dhcp(tuple) || datapath.is_neighbour(tuple.remote))
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

/// The key of a query to a group: any remote may answer. A DHCP request is answered at the address
/// that the client has, at the one that it is to have, or at all of them, so its key names none.
#[inline(always)]
fn multicast_key<A: FlowAddress>(tuple: &Tuple<A>) -> A::FlowKey {
    let local = if is_dhcp(tuple) {
        A::UNSPECIFIED
    } else {
        tuple.local
    };

    A::FlowKey::new(&Tuple {
        local,
        remote: A::UNSPECIFIED,
        remote_port: 0,
        ..*tuple
    })
}

/// Whether this is from a DHCP client to a server, or back. Clients of DHCPv6 have an address on the
/// link, and servers answer from one.
#[inline(always)]
fn is_dhcp<A: FlowAddress>(tuple: &Tuple<A>) -> bool {
    matches!(A::FAMILY, Family::Ipv4)
        && tuple.local_port == DHCP_CLIENT
        && tuple.remote_port == DHCP_SERVER
}
