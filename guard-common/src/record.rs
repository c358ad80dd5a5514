//! Egress: what is remembered of a frame that this host sends.

use crate::{
    address::{Address, V4, V6},
    decide::{flow_key, query_key},
    flow::{Flow, Phase},
    key::{FlowKey, SizedKey},
    link::{self, Payload},
    outcome::{Direction, Family, Judged, Outcome, Protocol},
    packet::Packet,
    parse::{Fragment, Ip, Transport, Tuple},
    tables::{Inserted, Tables, Use},
    wire::TcpFlags,
};

/// Takes note of a sent frame. It passes whatever it is.
#[inline(always)]
pub fn egress(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    match link::payload(frame) {
        Ok(Payload::Ipv4(offset)) => egress_ip::<V4>(frame, offset, tables),
        Ok(Payload::Ipv6(offset)) => egress_ip::<V6>(frame, offset, tables),
        Ok(Payload::NotIp) | Err(_) => Judged {
            outcome: Outcome::PassNotRecorded,
            family: Family::Other,
            protocol: Protocol::Other,
        },
    }
}

#[inline(always)]
fn egress_ip<A: Address>(
    frame: &(impl Packet + ?Sized),
    offset: usize,
    tables: &impl Tables,
) -> Judged {
    let Ok(ip) = A::read_ip(frame, offset) else {
        return Judged {
            outcome: Outcome::PassNotRecorded,
            family: A::FAMILY,
            protocol: Protocol::Other,
        };
    };

    Judged {
        outcome: record(frame, &ip, tables),
        family: A::FAMILY,
        protocol: ip.protocol_label(),
    }
}

/// A later fragment's bytes are payload: who chooses the payload must not choose what is recorded.
/// ICMP is not recorded either: an error that this host sends quotes what a stranger sent.
#[inline(always)]
fn record<A: Address>(frame: &(impl Packet + ?Sized), ip: &Ip<A>, tables: &impl Tables) -> Outcome {
    let Some(transport) = Transport::from_number(ip.protocol) else {
        return Outcome::PassNotRecorded;
    };
    if ip.fragment == Fragment::Later {
        return Outcome::PassNotRecorded;
    }
    let Ok(tuple) = ip.tuple(frame, transport, Direction::Egress) else {
        return Outcome::PassNotRecorded;
    };
    let port = u16::from_be(tuple.local_port);
    if !tables.guarded().guards(transport, port) {
        return Outcome::PassNotRecorded;
    }
    if transport == Transport::Udp && (tuple.remote.is_group() || link::to_group(frame)) {
        return record_query(&tuple, port, tables);
    }

    record_flow(&tuple, port, ip.tcp_flags(frame, transport), tables)
}

#[inline(always)]
fn record_flow<A: Address>(
    tuple: &Tuple<A>,
    port: u16,
    flags: TcpFlags,
    tables: &impl Tables,
) -> Outcome {
    let now = tables.now();
    let key = flow_key(tuple, tables);
    let known = tables.flow(tuple.transport, key.sized());
    if let Some(cell) = known {
        let flow = cell.load();
        if flow.alive(now, tables.config().timeouts()) {
            cell.sent(flow, flags, now);
            mark(Use::flow(tuple.transport), port, tables);
            return Outcome::PassRefreshedFlow;
        }
    }

    let Some(mut flow) = Flow::opened_by(tuple, flags, now) else {
        return Outcome::PassNotRecorded;
    };
    if tuple.transport == Transport::Udp && tables.config().any_remote_port() != 0 {
        // One entry stands for every port of the peer, so no single port's timer fits it.
        flow.phase = Phase::Datagram as u8;
    }
    if let Some(cell) = known {
        cell.restart(flow);
        mark(Use::flow(tuple.transport), port, tables);
        return Outcome::PassNewFlow;
    }
    let remote_port = u16::from_be(tuple.remote_port);
    if tables
        .guarded()
        .leaves_unrecorded(tuple.transport, remote_port)
    {
        return Outcome::PassNotRecorded;
    }

    let outcome = insert(tuple.transport, key.sized(), &flow, tables);
    // Also when the map had no room: the kernel's socket may still prove the flow.
    mark(Use::flow(tuple.transport), port, tables);
    outcome
}

/// Any neighbour may answer a query to a group, so its entry names no remote end.
#[inline(always)]
fn record_query<A: Address>(tuple: &Tuple<A>, port: u16, tables: &impl Tables) -> Outcome {
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
    outcome
}

#[inline(always)]
fn insert(transport: Transport, key: SizedKey<'_>, flow: &Flow, tables: &impl Tables) -> Outcome {
    match tables.insert(transport, key, flow) {
        Inserted::New => Outcome::PassNewFlow,
        Inserted::Exists => Outcome::PassRefreshedFlow,
        Inserted::Failed => Outcome::PassInsertFailed,
    }
}

#[inline(always)]
fn mark(purpose: Use, port: u16, tables: &impl Tables) {
    let epoch = tables.config().epoch() as u8;
    if let Some(occupancy) = tables.occupancy(purpose, port) {
        occupancy.mark(epoch);
    }
}
