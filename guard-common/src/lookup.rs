//! Judging a packet by its flow, or by what else proves that this host speaks with the peer.

use crate::{
    address::Address,
    filter::{may_be_known, remember},
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
    /// This is it.
    Flow(&'a FlowCell),
    /// The map does not hold it. A socket may prove it.
    Absent,
    /// There is neither a flow nor a socket.
    Stranger,
}

impl<'a> From<Option<&'a FlowCell>> for Known<'a> {
    #[inline(always)]
    fn from(found: Option<&'a FlowCell>) -> Self {
        found.map_or(Self::Absent, Self::Flow)
    }
}

/// Asks the filter for the flow of a packet, and then the map.
#[inline(always)]
pub(crate) fn look_up<'a, A: Address>(tuple: &Tuple<A>, tables: &'a impl Tables) -> Known<'a> {
    let recorded = as_recorded(tuple, tables);
    if !may_be_known(&recorded, tables) {
        return Known::Stranger;
    }

    tables
        .flow(tuple.transport, A::FlowKey::new(&recorded).sized())
        .into()
}

/// Judges a packet by its flow, if that is known, or if the kernel itself proves it.
///
/// A packet that only quotes the flow has no `flags`, and changes nothing: whoever forges an ICMP
/// error must not prolong or shorten anything.
#[inline(always)]
pub(crate) fn judge_flow<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    known: Known<'_>,
    flags: Option<TcpFlags>,
    tables: &impl Tables,
) -> Option<Outcome> {
    let now = tables.now();
    if let Known::Flow(cell) = known {
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
    let remembered = match known {
        Known::Flow(cell) => Some(cell),
        Known::Absent => None,
        Known::Stranger => return None,
    };

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
    let recorded = as_recorded(tuple, tables);
    match remembered {
        Some(cell) => {
            cell.restart(flow);
            tables.tally(Tally::RescuedExpired);
        }
        None => {
            // Without room for it, the next packet is rescued again.
            let key = A::FlowKey::new(&recorded);
            let _ = tables.insert(tuple.transport, key.sized(), &flow);
            tables.tally(Tally::RescuedAbsent);
        }
    }
    remember(&recorded, tables);

    Some(Outcome::PassRescued)
}

/// The tuple that a flow is looked up and recorded under.
#[inline(always)]
pub(crate) fn as_recorded<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> Tuple<A> {
    match tuple.transport {
        Transport::Udp | Transport::UdpLite if tables.config().any_remote_port() != 0 => Tuple {
            remote_port: 0,
            ..*tuple
        },
        Transport::Tcp | Transport::Udp | Transport::UdpLite => *tuple,
    }
}
