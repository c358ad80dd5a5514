//! Queries to a group, which any neighbour may answer.

use crate::{
    address::Address,
    filter::remember,
    flood::marked,
    flow::{Flow, Phase},
    key::FlowKey,
    lookup::as_recorded,
    marks::mark,
    outcome::Outcome,
    parse::{Transport, Tuple},
    record::insert,
    tables::{Tables, Use},
};

/// Any neighbour may answer a query to a group, so its entry names no remote end.
#[inline(always)]
pub(crate) fn record_query<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    tables: &impl Tables,
) -> Outcome {
    let remote_port = tables.index(tuple.remote_port);
    if tables
        .guarded()
        .leaves_unrecorded(tuple.transport, remote_port)
    {
        return Outcome::PassNotRecorded;
    }
    let now = tables.now();
    let key = query_key(tuple);
    let outcome = match tables.flow(tuple.transport, key.sized()) {
        Some(cell) => {
            let alive = cell.load().alive(now, tables.config().timeouts());
            cell.restart(Flow::new(Phase::Query, now));
            if alive {
                Outcome::PassRefreshedFlow
            } else {
                Outcome::PassNewFlow
            }
        }
        None => insert(
            tuple.transport,
            key.sized(),
            &Flow::new(Phase::Query, now),
            tables,
        ),
    };
    mark(Use::Udp, port, tables);
    mark(Use::Query, port, tables);
    // What goes to one host by everybody's link address may come from a connected socket, which
    // proves the answer from wherever it is.
    remember(&as_recorded(tuple, tables), tables);
    outcome
}

/// Whether a packet is to be asked whether it [answers a query](answers_query).
#[inline(always)]
pub(crate) fn may_answer_query<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let port = tables.index(tuple.local_port);

    // Whoever asks a group marks the port for flows as well, which has been looked at already.
    tuple.transport == Transport::Udp
        && marked(Use::Udp, port, tables)
        && marked(Use::Query, port, tables)
}

/// Whether this answers a query that was sent to a group: from a neighbour, whatever its address
/// and port (mDNS answers by unicast, SSDP from any port).
#[inline(always)]
pub(crate) fn answers_query<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    now: u32,
    tables: &impl Tables,
) -> bool {
    is_open(tuple, port, now, tables)
        && tuple.remote != A::UNSPECIFIED
        && tables.is_neighbour(tuple.remote)
}

/// Whether a packet that is quoted was a query to a group, and may be one whose answers are due.
/// A router reports that it was too long for the next link (RFC 4443, section 2.4).
#[inline(always)]
pub(crate) fn is_query<A: Address>(tuple: &Tuple<A>, port: usize, tables: &impl Tables) -> bool {
    tuple.transport == Transport::Udp
        && tuple.remote.is_group()
        && is_open(tuple, port, tables.now(), tables)
}

/// Whether a query to a group was sent from this port not long ago.
#[inline(always)]
fn is_open<A: Address>(tuple: &Tuple<A>, port: usize, now: u32, tables: &impl Tables) -> bool {
    marked(Use::Query, port, tables)
        && tables
            .flow(tuple.transport, query_key(tuple).sized())
            .is_some_and(|flow| flow.load().alive(now, tables.config().timeouts()))
}

/// The key of a query to a group: any remote may answer.
#[inline(always)]
fn query_key<A: Address>(tuple: &Tuple<A>) -> A::FlowKey {
    A::FlowKey::new(&Tuple {
        remote: A::UNSPECIFIED,
        remote_port: 0,
        ..*tuple
    })
}
