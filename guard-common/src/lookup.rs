//! Judging a packet by its flow, or by what else proves that this host speaks with the peer.

use crate::{
    address::Address,
    flow::{Flow, FlowCell, Phase},
    key::FlowKey,
    outcome::Outcome,
    parse::{Transport, Tuple},
    query::answers_query,
    tables::{Socket, Tables, Tally},
    wire::TcpFlags,
};

/// What is known of a packet's flow.
#[derive(Clone, Copy)]
pub(crate) enum Known<'a> {
    /// Not even whether its port is guarded.
    Nothing,
    /// Its port is guarded, and this is its flow, if it has one.
    Flow(Option<&'a FlowCell>),
}

/// Judges a packet by its flow, if that is known, or if the kernel itself proves it.
///
/// A packet that only quotes the flow has no `flags`, and changes nothing: whoever forges an ICMP
/// error must not prolong or shorten anything.
#[inline(always)]
pub(crate) fn judge_flow<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    remembered: Option<&FlowCell>,
    flags: Option<TcpFlags>,
    tables: &impl Tables,
) -> Option<Outcome> {
    let now = tables.now();
    if let Some(cell) = remembered {
        let flow = cell.load();
        // The entry of a query names no remote end, and neither does a packet from the unspecified
        // address: it must not be taken for a flow, whose packets prolong it.
        if !flow.is_query() && flow.alive(now, tables.config().timeouts()) {
            let Some(flags) = flags else {
                return Some(Outcome::PassIcmpRelated);
            };
            cell.received(flow, flags, now);
            return Some(Outcome::PassKnownFlow);
        }
    }
    if flags.is_some()
        && tuple.transport == Transport::Udp
        && answers_query(tuple, port, now, tables)
    {
        return Some(Outcome::PassKnownFlow);
    }

    // The map may have evicted the flow, its timer may have run out, or the guard may be younger
    // than the connection.
    if tables.config().rescue() == 0
        || tables.socket(tuple.transport, A::FlowKey::new(tuple).sized()) != Socket::Connected
    {
        return None;
    }
    let Some(flags) = flags else {
        return Some(Outcome::PassIcmpRelated);
    };
    let mut flow = Flow::rescued_by(tuple, flags, now);
    if tuple.transport == Transport::Udp && tables.config().any_remote_port() != 0 {
        // As in what is recorded: one entry stands for every port of the peer.
        flow.phase = Phase::Datagram as u8;
    }
    match remembered {
        Some(cell) => {
            cell.restart(flow);
            tables.tally(Tally::RescuedExpired);
        }
        None => {
            // Without room for it, the next packet is rescued again.
            let key = flow_key(tuple, tables);
            let _ = tables.insert(tuple.transport, key.sized(), &flow);
            tables.tally(Tally::RescuedAbsent);
        }
    }

    Some(Outcome::PassRescued)
}

/// The key that `tuple` is looked up and recorded under.
#[inline(always)]
pub(crate) fn flow_key<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> A::FlowKey {
    match tuple.transport {
        Transport::Udp | Transport::UdpLite if tables.config().any_remote_port() != 0 => {
            A::FlowKey::new(&Tuple {
                remote_port: 0,
                ..*tuple
            })
        }
        Transport::Tcp | Transport::Udp | Transport::UdpLite => A::FlowKey::new(tuple),
    }
}
