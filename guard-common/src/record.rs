//! Egress: what is remembered of a frame that this host sends.

use crate::{
    address::{Address, V4, V6},
    filter::remember,
    flow::{Flow, FlowCell, Phase},
    key::{FlowKey, SizedKey},
    link::{self, Payload},
    lookup::as_recorded,
    marks::{mark_flow, mark_port},
    onward::{is_carried, is_of_another},
    outcome::{Direction, Family, Judged, Outcome, Protocol},
    packet::Packet,
    parse::{Fragment, Ip, Transport, Tuple, Unreadable},
    plain::{self, Plain, Start},
    query::record_query,
    steady::{Tick, keeps_up},
    tables::{Inserted, Tables},
    wire::{TcpFlags, ether_type},
};

/// Takes note of a sent frame. It passes whatever it is.
#[inline(always)]
pub fn egress(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    egress_then(frame, tables, |judged| judged, |judged| judged)
}

/// Takes note of a sent frame as [`egress`] does, and hands the judgement to `settle`, or to `retry`
/// when the frame ends inside a header: then nothing was noted, and whoever knows more of the frame
/// may try again.
///
/// `settle` is compiled into each place where a judgement falls, as in
/// [`ingress_then`](crate::decide::ingress_then).
#[inline(always)]
pub fn egress_then<R>(
    frame: &(impl Packet + ?Sized),
    tables: &impl Tables,
    settle: impl FnOnce(Judged) -> R,
    retry: impl FnOnce(Judged) -> R,
) -> R {
    let mut settle = settle;
    if let Some(start) = Start::<()>::read(frame) {
        let carried = start.carried();
        if carried == ether_type::IPV4 {
            if let Some(plain) = start.ipv4() {
                match record_plain(frame, plain, tables, settle) {
                    Ok(settled) => return settled,
                    Err(unsettled) => settle = unsettled,
                }
            }
        } else if carried == ether_type::IPV6
            && let Some(plain) = start.ipv6(frame)
        {
            match record_plain(frame, plain, tables, settle) {
                Ok(settled) => return settled,
                Err(unsettled) => settle = unsettled,
            }
        }
    }

    match try_general(frame, tables) {
        Ok(judged) => settle(judged),
        Err(judged) => retry(judged),
    }
}

/// Takes note of a sent frame the general way, which takes longer and reads everything.
#[inline(always)]
pub fn general(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    match try_general(frame, tables) {
        Ok(judged) | Err(judged) => judged,
    }
}

#[inline(always)]
fn try_general(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Result<Judged, Judged> {
    let unread = Judged {
        outcome: Outcome::PassNotRecorded,
        family: Family::Other,
        protocol: Protocol::Other,
    };
    match link::payload(frame) {
        Ok(Payload::Ipv4(offset)) => egress_ip::<V4>(frame, offset, tables),
        Ok(Payload::Ipv6(offset)) => egress_ip::<V6>(frame, offset, tables),
        Ok(Payload::NotIp) => Ok(unread),
        Err(unreadable) => ended(unreadable, unread),
    }
}

/// Settles what most plain packets are: from a port that is not guarded, or of flows that are known.
/// What is left over is recorded the general way, for the reason given in `decide`.
#[inline(always)]
fn record_plain<A: Address, R, F: FnOnce(Judged) -> R>(
    frame: &(impl Packet + ?Sized),
    plain: Plain<A>,
    tables: &impl Tables,
    settle: F,
) -> Result<R, F> {
    let judged = |outcome, transport: Transport| Judged {
        outcome,
        family: A::FAMILY,
        protocol: transport.label(),
    };
    let port = tables.index(plain.local_port(Direction::Egress));
    if !tables.config().window().contains(port) && !tables.guarded().guards(plain.transport, port) {
        return Ok(settle(judged(Outcome::PassNotRecorded, plain.transport)));
    }
    // Read anew, for the reason given in `decide`.
    if !tables.passes_through()
        && let Some(tuple) = Plain::<A>::again(frame, Direction::Egress)
        && !goes_to_group(frame, &tuple)
    {
        let recorded = as_recorded(&tuple, tables);
        let found = tables.flow(tuple.transport, A::FlowKey::new(&recorded).sized());
        if let Some(cell) = found {
            let flags = plain::tcp_flags(frame, &tuple);
            let steady = flags.steady().then(|| keeps_up(cell, tables)).flatten();
            if steady.is_some() || speaks(cell, flags, tables) {
                mark_port(&tuple, port, tables);
                if steady != Some(Tick::Same) {
                    remember(&recorded, tables);
                }
                return Ok(settle(judged(Outcome::PassRefreshedFlow, tuple.transport)));
            }
        }
    }

    Err(settle)
}

/// Takes note of a packet in its flow, unless that does not count any more.
#[inline(always)]
fn speaks(cell: &FlowCell, flags: TcpFlags, tables: &impl Tables) -> bool {
    let (flow, now) = (cell.load(), tables.now());
    // What is sent to nobody may look like the entry of a query, which names no remote end.
    let counts = !flow.is_query() && flow.alive(now, tables.config().timeouts());
    if counts {
        cell.sent(flow, flags, now);
    }

    counts
}

/// More of the frame helps only where it was too short.
#[inline(always)]
fn ended(unreadable: Unreadable, judged: Judged) -> Result<Judged, Judged> {
    match unreadable {
        Unreadable::Truncated => Err(judged),
        Unreadable::TooManyTags | Unreadable::TooManyHeaders => Ok(judged),
    }
}

#[inline(always)]
fn egress_ip<A: Address>(
    frame: &(impl Packet + ?Sized),
    offset: usize,
    tables: &impl Tables,
) -> Result<Judged, Judged> {
    let judged = |outcome, protocol| Judged {
        outcome,
        family: A::FAMILY,
        protocol,
    };
    let ip = match A::read_ip(frame, offset) {
        Ok(ip) => ip,
        Err(unreadable) => {
            let unread = judged(Outcome::PassNotRecorded, Protocol::Other);
            return ended(unreadable, unread);
        }
    };

    let protocol = ip.protocol_label();
    match record(frame, &ip, tables) {
        Ok(outcome) => Ok(judged(outcome, protocol)),
        Err(unreadable) => ended(unreadable, judged(Outcome::PassNotRecorded, protocol)),
    }
}

/// A later fragment's bytes are payload: who chooses the payload must not choose what is recorded.
/// ICMP is not recorded either: an error that this host sends quotes what a stranger sent.
#[inline(always)]
fn record<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tables: &impl Tables,
) -> Result<Outcome, Unreadable> {
    let Some(transport) = Transport::from_number(ip.protocol) else {
        return Ok(Outcome::PassNotRecorded);
    };
    if ip.fragment == Fragment::Later {
        return Ok(Outcome::PassNotRecorded);
    }
    let tuple = ip.tuple(frame, transport, Direction::Egress)?;
    let flags = || ip.tcp_flags(frame, transport);

    Ok(record_packet(frame, &tuple, flags, tables))
}

/// Records a packet in its flow.
#[inline(always)]
fn record_packet<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    flags: impl FnOnce() -> TcpFlags,
    tables: &impl Tables,
) -> Outcome {
    let port = tables.index(tuple.local_port);
    if !tables.guarded().guards(tuple.transport, port) {
        return Outcome::PassNotRecorded;
    }
    if tables.passes_through() && is_of_another(tuple, tables) {
        return Outcome::PassNotRecorded;
    }
    if goes_to_group(frame, tuple) {
        if is_carried(frame, tuple, tables) {
            return Outcome::PassNotRecorded;
        }
        return record_query(tuple, port, tables);
    }
    let recorded = as_recorded(tuple, tables);
    let found = tables.flow(tuple.transport, A::FlowKey::new(&recorded).sized());

    record_flow(frame, tuple, port, found, flags(), tables)
}

/// Whether any neighbour may answer.
#[inline(always)]
fn goes_to_group<A: Address>(frame: &(impl Packet + ?Sized), tuple: &Tuple<A>) -> bool {
    tuple.transport == Transport::Udp && (tuple.remote.is_group() || link::to_everybody(frame))
}

#[inline(always)]
fn record_flow<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    port: usize,
    known: Option<&FlowCell>,
    flags: TcpFlags,
    tables: &impl Tables,
) -> Outcome {
    if known.is_some_and(|cell| speaks(cell, flags, tables)) {
        mark_flow(tuple, port, tables);
        return Outcome::PassRefreshedFlow;
    }

    if is_carried(frame, tuple, tables) {
        return Outcome::PassNotRecorded;
    }
    let Some(mut flow) = Flow::opened_by(tuple, flags, tables.now()) else {
        return Outcome::PassNotRecorded;
    };
    if tuple.remote == A::UNSPECIFIED {
        return Outcome::PassNotRecorded;
    }
    if tuple.transport == Transport::Udp && tables.config().any_remote_port() != 0 {
        // One entry stands for every port of the peer, so no single port's timer fits it.
        flow.phase = Phase::Datagram as u8;
    }
    if let Some(cell) = known {
        cell.restart(flow);
        mark_flow(tuple, port, tables);
        return Outcome::PassNewFlow;
    }
    let remote_port = tables.index(tuple.remote_port);
    if tables
        .guarded()
        .leaves_unrecorded(tuple.transport, remote_port)
    {
        return Outcome::PassNotRecorded;
    }

    let recorded = as_recorded(tuple, tables);
    let outcome = insert(
        tuple.transport,
        A::FlowKey::new(&recorded).sized(),
        &flow,
        tables,
    );
    // Also when the map had no room: the kernel's socket may still prove the flow.
    mark_flow(tuple, port, tables);
    outcome
}

#[inline(always)]
pub(crate) fn insert(
    transport: Transport,
    key: SizedKey<'_>,
    flow: &Flow,
    tables: &impl Tables,
) -> Outcome {
    match tables.insert(transport, key, flow) {
        Inserted::New => Outcome::PassNewFlow,
        Inserted::Exists => Outcome::PassRefreshedFlow,
        Inserted::Failed => Outcome::PassInsertFailed,
    }
}
