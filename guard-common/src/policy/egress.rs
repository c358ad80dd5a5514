//! Egress: what is recorded of a frame that this host sends.

use crate::{
    abi::page::InForce,
    flow::{
        key::{FlowAddress, FlowKey},
        state::{Flow, FlowCell, Phase},
    },
    frame::{
        address::{V4, V6},
        bytes::{Packet, Unreadable},
        ethernet::{self, Payload},
        fast::{self, FastHeaders, FastPacket},
        headers::{TcpFlags, ether_type},
        ip::{Fragment, Ip, Tuple},
        transport::Transport,
    },
    outcome::{Decision, Direction, Family, Outcome, Protocol},
    policy::{
        datapath::Datapath,
        forwarding::{belongs_to_another_host, is_bridged},
        lookup::{Tick, as_recorded, bloom_insert, insert, mark_flow, mark_port, refresh_time},
        multicast::record_multicast,
    },
};

/// Records a sent frame. Every frame passes.
#[inline(always)]
pub fn egress(frame: &(impl Packet + ?Sized), datapath: &impl Datapath) -> Decision {
    let again = |_| egress_general(frame, datapath);

    egress_then(frame, datapath, |decision| decision, again)
}

/// Records a sent frame as [`egress`] does, and hands the decision to `finish`. If the frame ends inside a header, nothing is recorded and the decision goes to `retry`, which may read more of the frame. Likewise if it would have to be recorded by [both keys](InForce::BOTH_KEYS), which [`egress_general`] alone does: a verifier follows that once then.
///
/// `finish` is compiled into each place where a decision is made, as in
/// [`ingress_then`](crate::policy::ingress::ingress_then).
#[inline(always)]
pub fn egress_then<R>(
    frame: &(impl Packet + ?Sized),
    datapath: &impl Datapath,
    finish: impl FnOnce(Decision) -> R,
    retry: impl FnOnce(Decision) -> R,
) -> R {
    let mut finish = finish;
    if let Some(start) = FastHeaders::<()>::read(frame) {
        let carried = start.carried();
        if carried == ether_type::IPV4 {
            if let Some(packet) = start.ipv4() {
                match egress_fast(frame, packet, datapath, finish) {
                    Ok(finished) => return finished,
                    Err(unfinished) => finish = unfinished,
                }
            }
        } else if carried == ether_type::IPV6
            && let Some(packet) = start.ipv6(frame)
        {
            match egress_fast(frame, packet, datapath, finish) {
                Ok(finished) => return finished,
                Err(unfinished) => finish = unfinished,
            }
        }
    }

    if datapath.in_force().has(InForce::BOTH_KEYS) {
        return retry(UNREAD);
    }
    match try_egress_general::<false>(frame, datapath) {
        Ok(decision) => finish(decision),
        Err(decision) => retry(decision),
    }
}

/// Records a sent frame by the general parser, which reads everything and is slower.
#[inline(always)]
pub fn egress_general(frame: &(impl Packet + ?Sized), datapath: &impl Datapath) -> Decision {
    match try_egress_general::<true>(frame, datapath) {
        Ok(decision) | Err(decision) => decision,
    }
}

/// The decision about a frame of which nothing was read.
const UNREAD: Decision = Decision {
    outcome: Outcome::PassNotRecorded,
    family: Family::Other,
    protocol: Protocol::Other,
};

/// `BOTH_KEYS` says whether the frame is recorded by both keys where it has to be.
#[inline(always)]
fn try_egress_general<const BOTH_KEYS: bool>(
    frame: &(impl Packet + ?Sized),
    datapath: &impl Datapath,
) -> Result<Decision, Decision> {
    match ethernet::payload(frame) {
        Ok(Payload::Ipv4(offset)) => egress_ip::<V4, BOTH_KEYS>(frame, offset, datapath),
        Ok(Payload::Ipv6(offset)) => egress_ip::<V6, BOTH_KEYS>(frame, offset, datapath),
        Ok(Payload::NotIp) => Ok(UNREAD),
        Err(unreadable) => ended(unreadable, UNREAD),
    }
}

/// The fast path: plain packets from a port that is not guarded, or of a known flow, which are most. For any other, `finish` is given back and the general parser is used, for the reason given in `ingress`.
#[inline(always)]
fn egress_fast<A: FlowAddress, R, F: FnOnce(Decision) -> R>(
    frame: &(impl Packet + ?Sized),
    packet: FastPacket<A>,
    datapath: &impl Datapath,
    finish: F,
) -> Result<R, F> {
    let decision = |outcome, transport: Transport| Decision {
        outcome,
        family: A::FAMILY,
        protocol: transport.label(),
    };
    let port = datapath.index(packet.local_port(Direction::Egress));
    let in_force = datapath.in_force();
    if !in_force.in_range(port) {
        return Ok(finish(decision(Outcome::PassNotRecorded, packet.transport)));
    }
    // One question on hosts where neither applies.
    if in_force.has(InForce::SPECIAL | InForce::BOTH_PAGES) {
        if in_force.has(InForce::BOTH_PAGES) {
            return Err(finish);
        }
        if !datapath.guarded().guards(packet.transport, port) {
            return Ok(finish(decision(Outcome::PassNotRecorded, packet.transport)));
        }
    }
    // Read anew, for the reason given in `ingress`.
    if !datapath.is_forwarded()
        && let Some(tuple) = FastPacket::<A>::read_tuple(frame, Direction::Egress)
        && !goes_to_group(frame, &tuple)
    {
        let recorded = as_recorded(&tuple, datapath);
        let found = datapath.flow(tuple.transport, A::FlowKey::new(&recorded).sized());
        if let Some(cell) = found {
            let flags = fast::tcp_flags(frame, &tuple);
            let tick = flags
                .keeps_state()
                .then(|| refresh_time(cell, datapath))
                .flatten();
            if tick.is_some() || refresh_on_send(cell, flags, datapath) {
                mark_port(&tuple, port, datapath);
                if tick != Some(Tick::Same) {
                    bloom_insert(&recorded, datapath);
                }
                return Ok(finish(decision(
                    Outcome::PassRefreshedFlow,
                    tuple.transport,
                )));
            }
        }
    }

    Err(finish)
}

/// Updates the flow of a packet, if the flow still counts.
#[inline(always)]
fn refresh_on_send(cell: &FlowCell, flags: TcpFlags, datapath: &impl Datapath) -> bool {
    let (flow, now) = (cell.load(), datapath.now());
    // A packet to the unspecified address would find the entry for multicast, which names no remote end.
    let counts = !flow.is_multicast() && flow.alive(now, datapath.timeouts());
    if counts {
        cell.sent(flow, flags, now);
    }

    counts
}

/// More of the frame helps only where it was too short.
#[inline(always)]
fn ended(unreadable: Unreadable, decision: Decision) -> Result<Decision, Decision> {
    match unreadable {
        Unreadable::Truncated => Err(decision),
        Unreadable::TooManyTags | Unreadable::TooManyHeaders => Ok(decision),
    }
}

#[inline(always)]
fn egress_ip<A: FlowAddress, const BOTH_KEYS: bool>(
    frame: &(impl Packet + ?Sized),
    offset: usize,
    datapath: &impl Datapath,
) -> Result<Decision, Decision> {
    let decision = |outcome, protocol| Decision {
        outcome,
        family: A::FAMILY,
        protocol,
    };
    let ip = match A::read_ip(frame, offset) {
        Ok(ip) => ip,
        Err(unreadable) => {
            let unread = decision(Outcome::PassNotRecorded, Protocol::Other);
            return ended(unreadable, unread);
        }
    };

    let protocol = ip.protocol_label();
    match record::<A, BOTH_KEYS>(frame, &ip, datapath) {
        Ok(outcome) => Ok(decision(outcome, protocol)),
        Err(unreadable) => ended(unreadable, decision(Outcome::PassNotRecorded, protocol)),
    }
}

/// A later fragment has payload where the ports would be, and payload must not decide what is recorded. ICMP is not recorded either: an error that this host sends quotes an unsolicited packet.
#[inline(always)]
fn record<A: FlowAddress, const BOTH_KEYS: bool>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    datapath: &impl Datapath,
) -> Result<Outcome, Unreadable> {
    let Some(transport) = Transport::from_number(ip.protocol) else {
        return Ok(Outcome::PassNotRecorded);
    };
    if ip.fragment == Fragment::Later {
        return Ok(Outcome::PassNotRecorded);
    }
    let tuple = ip.tuple(frame, transport, Direction::Egress)?;
    let flags = || ip.tcp_flags(frame, transport);

    Ok(record_packet::<A, BOTH_KEYS>(
        frame, &tuple, flags, datapath,
    ))
}

/// Records a packet in its flow.
#[inline(always)]
fn record_packet<A: FlowAddress, const BOTH_KEYS: bool>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    flags: impl FnOnce() -> TcpFlags,
    datapath: &impl Datapath,
) -> Outcome {
    let port = datapath.index(tuple.local_port);
    if !is_recorded(tuple.transport, port, datapath) {
        return Outcome::PassNotRecorded;
    }
    if datapath.is_forwarded() && belongs_to_another_host(tuple, datapath) {
        return Outcome::PassNotRecorded;
    }
    if goes_to_group(frame, tuple) {
        if is_bridged(frame, tuple, datapath) {
            return Outcome::PassNotRecorded;
        }
        return record_multicast(tuple, port, datapath);
    }
    let recorded = as_recorded(tuple, datapath);
    if BOTH_KEYS && datapath.in_force().has(InForce::BOTH_KEYS) {
        record_other_key(tuple, &recorded, datapath);
    }
    let found = datapath.flow(tuple.transport, A::FlowKey::new(&recorded).sized());

    record_flow(frame, tuple, port, found, flags(), datapath)
}

/// Whether what is sent from this port is recorded: it is guarded, or about to be.
#[inline(always)]
fn is_recorded(transport: Transport, port: usize, datapath: &impl Datapath) -> bool {
    datapath.guarded().guards(transport, port)
        || datapath.in_force().has(InForce::BOTH_PAGES)
            && datapath.other_page().ports().guards(transport, port)
}

/// Records a UDP flow as it will be looked up once the next policy is in force, beside how it is now.
/// What a guest behind a bridge sends is recorded too, which lets nothing in that would not pass.
#[inline(always)]
fn record_other_key<A: FlowAddress>(
    tuple: &Tuple<A>,
    recorded: &Tuple<A>,
    datapath: &impl Datapath,
) {
    if tuple.transport == Transport::Tcp || tuple.remote == A::UNSPECIFIED {
        return;
    }
    let other = Tuple {
        // The port where the flow is recorded without, and none where it is recorded with it.
        remote_port: tuple.remote_port ^ recorded.remote_port,
        ..*tuple
    };
    let now = datapath.now();
    let key = A::FlowKey::new(&other);
    match datapath.flow(tuple.transport, key.sized()) {
        Some(cell) => cell.seen(now),
        None => {
            let flow = Flow::new(Phase::Datagram, now);
            // Without room for it, it is as if it had been evicted.
            let _ = datapath.insert(tuple.transport, key.sized(), &flow);
        }
    }
    bloom_insert(&other, datapath);
}

/// Whether any neighbour may answer.
#[inline(always)]
fn goes_to_group<A: FlowAddress>(frame: &(impl Packet + ?Sized), tuple: &Tuple<A>) -> bool {
    tuple.transport == Transport::Udp && (tuple.remote.is_group() || ethernet::is_broadcast(frame))
}

#[inline(always)]
fn record_flow<A: FlowAddress>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    port: usize,
    known: Option<&FlowCell>,
    flags: TcpFlags,
    datapath: &impl Datapath,
) -> Outcome {
    if known.is_some_and(|cell| refresh_on_send(cell, flags, datapath)) {
        mark_flow(tuple, port, datapath);
        return Outcome::PassRefreshedFlow;
    }

    if is_bridged(frame, tuple, datapath) {
        return Outcome::PassNotRecorded;
    }
    let Some(mut flow) = Flow::opened_by(tuple, flags, datapath.now()) else {
        return Outcome::PassNotRecorded;
    };
    if tuple.remote == A::UNSPECIFIED {
        return Outcome::PassNotRecorded;
    }
    if tuple.transport == Transport::Udp && datapath.in_force().has(InForce::ANY_REMOTE_PORT) {
        // One entry stands for every port of the peer, so no single port's timer fits it.
        flow.phase = Phase::Datagram as u8;
    }
    if let Some(cell) = known {
        cell.restart(flow);
        mark_flow(tuple, port, datapath);
        return Outcome::PassNewFlow;
    }
    let remote_port = datapath.index(tuple.remote_port);
    if datapath
        .guarded()
        .leaves_unrecorded(tuple.transport, remote_port)
    {
        return Outcome::PassNotRecorded;
    }

    let recorded = as_recorded(tuple, datapath);
    let outcome = insert(
        tuple.transport,
        A::FlowKey::new(&recorded).sized(),
        &flow,
        datapath,
    );
    // Also when the map had no room: the kernel's socket may still prove the flow.
    mark_flow(tuple, port, datapath);
    outcome
}
