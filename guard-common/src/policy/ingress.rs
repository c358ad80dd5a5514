//! Ingress: what becomes of a frame that an interface receives.

use crate::{
    abi::page::{InForce, PageAddress},
    flow::{
        fragment::FragmentKey,
        key::{FlowAddress, FlowKey},
        state::{Flow, FlowCell, Phase},
    },
    frame::{
        address::{V4, V6},
        bytes::Packet,
        ethernet::{self, Payload},
        fast::{self, FastHeaders, FastPacket, Tag},
        headers::{TcpFlags, VlanTag, ether_type},
        ip::{Fragment, Ip, Tuple},
        subject::{Subject, subject},
        transport::Transport,
    },
    outcome::{Decision, Direction, Family, Outcome, Protocol, Tally, Verdict},
    policy::{
        datapath::{Datapath, RouteKey, SocketMatch},
        exceptions::{count_would_drop, exception, is_for_kernel},
        lookup::{FlowLookup, as_recorded, bloom_insert, in_use, look_up, refresh_time},
        multicast::{answers_multicast, may_answer_multicast, quotes_multicast},
    },
};

/// Decides about a received frame, cheapest questions first, and takes note of it in the flow it
/// belongs to.
#[inline(always)]
pub fn ingress(frame: &(impl Packet + ?Sized), datapath: &impl Datapath) -> Decision {
    ingress_then(frame, datapath, |decision, _| decision)
}

/// Decides about a received frame as [`ingress`] does, and hands the decision to `finish`, with what is to
/// be done.
///
/// `finish` is compiled into each place where a decision is made: what is known of it there need
/// not be computed, and a flood's drop is counted in a third of the time.
#[inline(always)]
pub fn ingress_then<R>(
    frame: &(impl Packet + ?Sized),
    datapath: &impl Datapath,
    finish: impl FnOnce(Decision, Verdict) -> R,
) -> R {
    let mut finish = finish;
    if let Some(start) = FastHeaders::<()>::read(frame) {
        let carried = start.carried();
        if carried == ether_type::IPV4 {
            if let Some(packet) = start.ipv4() {
                match ingress_fast(frame, packet, datapath, finish) {
                    Ok(finished) => return finished,
                    Err(unfinished) => finish = unfinished,
                }
            }
        } else if carried == ether_type::IPV6 {
            if let Some(packet) = start.ipv6(frame) {
                match ingress_fast(frame, packet, datapath, finish) {
                    Ok(finished) => return finished,
                    Err(unfinished) => finish = unfinished,
                }
            }
        } else if carried == ether_type::VLAN || carried == ether_type::SERVICE_VLAN {
            match tagged_no_flow(frame, datapath, finish) {
                Ok(finished) => return finished,
                Err(unfinished) => finish = unfinished,
            }
        }
    }

    let decision = ingress_general(frame, datapath);
    finish(decision, verdict(decision, datapath))
}

/// What is done with a frame: in monitor mode nothing is dropped.
#[inline(always)]
fn verdict(decision: Decision, datapath: &impl Datapath) -> Verdict {
    match decision.outcome.verdict() {
        Verdict::Drop if !datapath.in_force().has(InForce::MONITOR) => Verdict::Drop,
        Verdict::Drop | Verdict::Pass => Verdict::Pass,
    }
}

/// Finishes what nearly all plain packets are: outside the range, of known flows, or lost. What is left
/// over is decided the general way, `finish` with it: every other question would be one more for
/// a verifier to follow here, for each family.
#[inline(always)]
fn ingress_fast<A: FlowAddress + PageAddress, R, F: FnOnce(Decision, Verdict) -> R>(
    frame: &(impl Packet + ?Sized),
    packet: FastPacket<A>,
    datapath: &impl Datapath,
    finish: F,
) -> Result<R, F> {
    match ask_port::<A, ()>(frame, packet, datapath) {
        PortAnswer::Drop => return Ok(finish(no_flow(packet), Verdict::Drop)),
        PortAnswer::NoFlow(verdict) => return Ok(finish(no_flow(packet), verdict)),
        PortAnswer::Outside => {
            let decision = Decision {
                outcome: Outcome::PassOutsideRange,
                ..no_flow(packet)
            };
            return Ok(finish(decision, Verdict::Pass));
        }
        PortAnswer::General => return Err(finish),
        PortAnswer::InUse => {}
    }

    // Read anew: what was read before would have to be kept meanwhile, in registers that there are
    // not.
    let Some(tuple) = FastPacket::<A>::read_tuple(frame, Direction::Ingress) else {
        return Err(finish);
    };
    match look_up(&tuple, datapath) {
        FlowLookup::Found(cell)
            if refresh_on_receive(cell, fast::tcp_flags(frame, &tuple), datapath) =>
        {
            let decision = Decision {
                outcome: Outcome::PassKnownFlow,
                family: A::FAMILY,
                protocol: tuple.transport.label(),
            };
            Ok(finish(decision, Verdict::Pass))
        }
        FlowLookup::Unknown if !may_answer_multicast(&tuple, datapath) => {
            if datapath.in_force().before_a_drop() == 0 {
                return Ok(finish(no_flow(packet), Verdict::Drop));
            }
            match ask_ends::<A, ()>(frame, packet, datapath) {
                Some(verdict) => Ok(finish(no_flow(packet), verdict)),
                None => Err(finish),
            }
        }
        FlowLookup::Found(_) | FlowLookup::Absent | FlowLookup::Unknown => Err(finish),
    }
}

/// Takes note of a packet in its flow, unless that does not count any more.
#[inline(always)]
fn refresh_on_receive(cell: &FlowCell, flags: TcpFlags, datapath: &impl Datapath) -> bool {
    if flags.keeps_state() && refresh_time(cell, datapath).is_some() {
        return true;
    }
    let (flow, now) = (cell.load(), datapath.now());
    let counts = !flow.is_multicast() && flow.alive(now, datapath.timeouts());
    if counts {
        cell.received(flow, flags, now);
    }

    counts
}

/// Decides about a received frame the general way, which takes longer and reads everything.
#[inline(always)]
pub fn ingress_general(frame: &(impl Packet + ?Sized), datapath: &impl Datapath) -> Decision {
    let outcome = match ethernet::payload(frame) {
        Ok(Payload::Ipv4(offset)) => return ingress_ip::<V4>(frame, offset, datapath),
        Ok(Payload::Ipv6(offset)) => return ingress_ip::<V6>(frame, offset, datapath),
        Ok(Payload::NotIp) => Outcome::PassNotIp,
        Err(unreadable) => unreadable.outcome(),
    };

    Decision {
        outcome,
        family: Family::Other,
        protocol: Protocol::Other,
    }
}

#[inline(always)]
fn ingress_ip<A: FlowAddress>(
    frame: &(impl Packet + ?Sized),
    offset: usize,
    datapath: &impl Datapath,
) -> Decision {
    let ip = match A::read_ip(frame, offset) {
        Ok(ip) => ip,
        Err(unreadable) => {
            let (outcome, family) = if ethernet::is_looped(frame, offset, A::begins_with) {
                (Outcome::PassNotIp, Family::Other)
            } else {
                (unreadable.outcome(), A::FAMILY)
            };
            return Decision {
                outcome,
                family,
                protocol: Protocol::Other,
            };
        }
    };

    let outcome = if !ip.has(0) {
        Outcome::DropMalformed
    } else if ip.fragment == Fragment::Later {
        decide_later_fragment(&FragmentKey::new(&ip), datapath)
    } else {
        decide_datagram(frame, &ip, datapath)
    };
    if ip.fragment == Fragment::First {
        note_first_fragment(&FragmentKey::new(&ip), outcome, datapath);
    }

    Decision {
        outcome,
        family: A::FAMILY,
        protocol: ip.protocol_label(),
    }
}

/// Decides about what has a transport header, by its own flow or by that of the packet it quotes.
#[inline(always)]
fn decide_datagram<A: FlowAddress>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    datapath: &impl Datapath,
) -> Outcome {
    let about = match subject(frame, ip) {
        Subject::Packet(tuple) => return decide_packet(frame, ip, &tuple, datapath),
        Subject::Decided(outcome) => return outcome,
        Subject::Quote(tuple) => decide_quote(&tuple, datapath),
        Subject::Unreported => None,
    };
    if let Some(outcome) = about {
        return outcome;
    }

    // A forged error may quote a packet of any host, and be sent here all the same: it is
    // asked where the error itself goes.
    let error = RouteKey::without_ports(ip.source, ip.destination, A::ICMP, ip.class);

    exception(frame, &error, datapath).unwrap_or(Outcome::DropIcmpUnrelated)
}

/// Decides about a packet by its flow.
#[inline(always)]
fn decide_packet<A: FlowAddress>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tuple: &Tuple<A>,
    datapath: &impl Datapath,
) -> Outcome {
    let port = datapath.index(tuple.local_port);
    let guarded = datapath.guarded();
    if !guarded.guards(tuple.transport, port) {
        if datapath.in_force().in_range(port) {
            return Outcome::PassExempt;
        }
        return Outcome::PassOutsideRange;
    }
    if in_use(tuple.transport, tuple.remote, port, datapath) {
        let known = look_up(tuple, datapath);
        let flags = ip.tcp_flags(frame, tuple.transport);
        if let Some(outcome) = decide_by_flow(tuple, port, known, Some(flags), datapath) {
            return outcome;
        }
    }
    let in_force = datapath.in_force();
    if in_force.before_a_drop() != 0 {
        if is_for_kernel(tuple, port, datapath) {
            return Outcome::PassExempt;
        }
        if let Some(outcome) = exception(frame, &RouteKey::received(tuple, ip.class), datapath) {
            return outcome;
        }
        if in_force.has(InForce::MONITOR) {
            count_would_drop(tuple, datapath);
        }
    }

    Outcome::DropNoFlow
}

/// Decides about an ICMP error by the packet it quotes, which this host should have sent: by its flow, or
/// by what is not recorded on purpose. `None` says that there is no reason to believe it.
#[inline(always)]
fn decide_quote<A: FlowAddress>(tuple: &Tuple<A>, datapath: &impl Datapath) -> Option<Outcome> {
    let port = datapath.index(tuple.local_port);
    let guarded = datapath.guarded();
    // The remote ports of tunnels, of whose packets there is no flow.
    if !guarded.guards(tuple.transport, port)
        || guarded.leaves_unrecorded(tuple.transport, datapath.index(tuple.remote_port))
    {
        return Some(Outcome::PassIcmpOutside);
    }
    if in_use(tuple.transport, tuple.remote, port, datapath) {
        if quotes_multicast(tuple, port, datapath) {
            return Some(Outcome::PassIcmpRelated);
        }
        let known = look_up(tuple, datapath);
        if let Some(outcome) = decide_by_flow(tuple, port, known, None, datapath) {
            return Some(outcome);
        }
    }

    is_for_kernel(tuple, port, datapath).then_some(Outcome::PassIcmpOutside)
}

#[inline(always)]
fn decide_later_fragment(key: &FragmentKey, datapath: &impl Datapath) -> Outcome {
    let memory = datapath.timeouts().fragment;
    match datapath.refused(key) {
        Some(refused) if refused.holds(datapath.now(), memory) => Outcome::DropFragmentDenied,
        Some(_) | None => Outcome::PassLaterFragment,
    }
}

/// Remembers a refused first fragment; an accepted one clears the mark, so that forged
/// first fragments cannot cut genuine answers.
#[inline(always)]
fn note_first_fragment(key: &FragmentKey, outcome: Outcome, datapath: &impl Datapath) {
    match (outcome.verdict(), datapath.refused(key)) {
        (Verdict::Drop, Some(refused)) => refused.refuse(datapath.now()),
        (Verdict::Drop, None) => datapath.refuse(key, datapath.now()),
        (Verdict::Pass, Some(refused)) => refused.accept(),
        (Verdict::Pass, None) => {}
    }
}

/// What the local port of a packet says about it, and what the policy says where the port is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PortAnswer {
    /// Not in the range.
    Outside,
    /// In the range, and in use with the sender.
    InUse,
    /// In the range and not in use with the sender, and nothing else is asked. Apart from the next
    /// one, so that what a flood meets is compiled for one verdict.
    Drop,
    /// The same, and nothing of what is asked lets the packet in, unless would-be drops pass.
    NoFlow(Verdict),
    /// The general path has to tell: a rule, a route or a list may let it in.
    General,
}

/// Asks the range, and whom the port is in use with. On most hosts these are the last questions that
/// a flood reaches; where the policy says more, it is asked only as far as the fast path can tell.
#[inline(always)]
pub(crate) fn ask_port<A: FlowAddress + PageAddress, T: Tag>(
    frame: &(impl Packet + ?Sized),
    packet: FastPacket<A>,
    datapath: &impl Datapath,
) -> PortAnswer {
    let in_force = datapath.in_force();
    let port = datapath.index(packet.local_port(Direction::Ingress));
    if in_force.drops_unasked(port) {
        return if in_use(packet.transport, packet.source, port, datapath) {
            PortAnswer::InUse
        } else {
            PortAnswer::Drop
        };
    }
    if !in_force.in_range(port) {
        return PortAnswer::Outside;
    }
    if in_force.has(InForce::SPECIAL) && datapath.page().is_special(port) {
        return PortAnswer::General;
    }
    if in_use(packet.transport, packet.source, port, datapath) {
        return PortAnswer::InUse;
    }

    ask_ends::<A, T>(frame, packet, datapath).map_or(PortAnswer::General, PortAnswer::NoFlow)
}

/// What is done with a packet that belongs to no flow and no socket, and whose port is not special.
/// `None` leaves the packet to the general path.
///
/// Each question has an answer here that costs one or two loads, and is exact where it says that
/// there is nothing more to ask.
#[inline(always)]
pub(crate) fn ask_ends<A: FlowAddress + PageAddress, T: Tag>(
    frame: &(impl Packet + ?Sized),
    packet: FastPacket<A>,
    datapath: &impl Datapath,
) -> Option<Verdict> {
    let in_force = datapath.in_force();
    let page = datapath.page();
    if in_force.has(InForce::FORWARDS)
        && !page
            .own()
            .contain(FastPacket::<A>::destination::<T>(frame)?)
    {
        return None;
    }
    if in_force.has(InForce::SOURCES) && page.sources().may_name(packet.source, page.salt()) {
        return None;
    }

    Some(if in_force.has(InForce::MONITOR) {
        Verdict::Pass
    } else {
        Verdict::Drop
    })
}

/// Finishes a packet behind one VLAN tag to a free port. What is left over is decided the general way,
/// `finish` with it.
#[inline(always)]
pub(crate) fn tagged_no_flow<R, F: FnOnce(Decision, Verdict) -> R>(
    frame: &(impl Packet + ?Sized),
    datapath: &impl Datapath,
    finish: F,
) -> Result<R, F> {
    let Some(start) = FastHeaders::<VlanTag>::read(frame) else {
        return Err(finish);
    };
    let carried = start.carried();
    if carried == ether_type::IPV4 {
        if let Some(packet) = start.ipv4() {
            return no_flow_if_free(frame, packet, datapath, finish);
        }
    } else if carried == ether_type::IPV6
        && let Some(packet) = start.ipv6(frame)
    {
        return no_flow_if_free(frame, packet, datapath, finish);
    }

    Err(finish)
}

#[inline(always)]
fn no_flow_if_free<A: FlowAddress + PageAddress, R, F: FnOnce(Decision, Verdict) -> R>(
    frame: &(impl Packet + ?Sized),
    packet: FastPacket<A>,
    datapath: &impl Datapath,
    finish: F,
) -> Result<R, F> {
    match ask_port::<A, VlanTag>(frame, packet, datapath) {
        PortAnswer::Drop => Ok(finish(no_flow(packet), Verdict::Drop)),
        PortAnswer::NoFlow(verdict) => Ok(finish(no_flow(packet), verdict)),
        PortAnswer::Outside | PortAnswer::InUse | PortAnswer::General => Err(finish),
    }
}

/// The decision about a packet to a free port.
#[inline(always)]
pub(crate) fn no_flow<A: FlowAddress>(packet: FastPacket<A>) -> Decision {
    Decision {
        outcome: Outcome::DropNoFlow,
        family: A::FAMILY,
        protocol: packet.transport.label(),
    }
}

/// Decides about a packet by its flow, if that is known, or if the kernel itself proves it.
///
/// A packet that only quotes the flow has no `flags`, and changes nothing: a forged ICMP
/// error must not prolong or shorten anything.
#[inline(always)]
pub(crate) fn decide_by_flow<A: FlowAddress>(
    tuple: &Tuple<A>,
    port: usize,
    known: FlowLookup<'_>,
    flags: Option<TcpFlags>,
    datapath: &impl Datapath,
) -> Option<Outcome> {
    let now = datapath.now();
    if let FlowLookup::Found(cell) = known {
        let flow = cell.load();
        // The entry of a query names no remote end, and neither does a packet from the unspecified
        // address: it must not be taken for a flow, whose packets prolong it.
        if !flow.is_multicast() && flow.alive(now, datapath.timeouts()) {
            let Some(flags) = flags else {
                return Some(Outcome::PassIcmpRelated);
            };
            cell.received(flow, flags, now);
            return Some(Outcome::PassKnownFlow);
        }
    }
    if flags.is_some()
        && tuple.transport == Transport::Udp
        && answers_multicast(tuple, port, now, datapath)
    {
        return Some(Outcome::PassKnownFlow);
    }
    let entry = match known {
        FlowLookup::Found(cell) => Some(cell),
        FlowLookup::Absent => None,
        FlowLookup::Unknown => return None,
    };

    // The map may have evicted the flow, its timer may have run out, or the guard may be younger
    // than the connection.
    if !datapath.in_force().has(InForce::RESCUE)
        || datapath.socket(tuple.transport, A::FlowKey::new(tuple).sized())
            != SocketMatch::Connected
    {
        return None;
    }
    let Some(flags) = flags else {
        return Some(Outcome::PassIcmpRelated);
    };
    let mut flow = Flow::rescued_by(tuple, flags, now);
    if tuple.transport == Transport::Udp && datapath.in_force().has(InForce::ANY_REMOTE_PORT) {
        // As in what is recorded: one entry stands for every port of the peer.
        flow.phase = Phase::Datagram as u8;
    }
    let recorded = as_recorded(tuple, datapath);
    match entry {
        Some(cell) => {
            cell.restart(flow);
            datapath.tally(Tally::RescuedExpired);
        }
        None => {
            // Without room for it, the next packet is rescued again.
            let key = A::FlowKey::new(&recorded);
            let _ = datapath.insert(tuple.transport, key.sized(), &flow);
            datapath.tally(Tally::RescuedAbsent);
        }
    }
    bloom_insert(&recorded, datapath);

    Some(Outcome::PassRescued)
}
