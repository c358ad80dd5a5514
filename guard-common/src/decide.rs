//! Ingress: what becomes of a frame that an interface receives.

use crate::{
    address::{Address, V4, V6},
    excuse::{excuse, is_for_kernel, tally_would_drop},
    flood::{Port, ask_window, in_use, lost, lost_behind_tag},
    flow::FlowCell,
    fragment::FragmentKey,
    link::{self, Payload},
    lookup::{Known, judge_flow, look_up},
    outcome::{Action, Direction, Family, Judged, Outcome, Protocol},
    packet::Packet,
    parse::{Fragment, Ip, Tuple},
    plain::{self, Plain, Start},
    query::{is_query, may_answer_query},
    route::RouteKey,
    steady::keeps_up,
    subject::{Subject, subject},
    tables::Tables,
    wire::{TcpFlags, ether_type},
};

/// Judges a received frame, cheapest questions first, and takes note of it in the flow it
/// belongs to.
#[inline(always)]
pub fn ingress(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    ingress_then(frame, tables, |judged, _| judged)
}

/// Judges a received frame as [`ingress`] does, and hands the judgement to `settle`, with what is to
/// be done.
///
/// `settle` is compiled into each place where a judgement falls: what is known of it there need
/// not be computed, and a flood's drop is counted in a third of the time.
#[inline(always)]
pub fn ingress_then<R>(
    frame: &(impl Packet + ?Sized),
    tables: &impl Tables,
    settle: impl FnOnce(Judged, Action) -> R,
) -> R {
    let mut settle = settle;
    if let Some(start) = Start::<()>::read(frame) {
        let carried = start.carried();
        if carried == ether_type::IPV4 {
            if let Some(plain) = start.ipv4() {
                match judge_plain(frame, plain, tables, settle) {
                    Ok(settled) => return settled,
                    Err(unsettled) => settle = unsettled,
                }
            }
        } else if carried == ether_type::IPV6 {
            if let Some(plain) = start.ipv6(frame) {
                match judge_plain(frame, plain, tables, settle) {
                    Ok(settled) => return settled,
                    Err(unsettled) => settle = unsettled,
                }
            }
        } else if (carried == ether_type::VLAN || carried == ether_type::SERVICE_VLAN)
            && let Some(judged) = lost_behind_tag(frame, tables)
        {
            return settle(judged, Action::Drop);
        }
    }

    let judged = judge(frame, tables);
    settle(judged, verdict(judged, tables))
}

/// What is done with a frame: in monitor mode nothing is dropped.
#[inline(always)]
fn verdict(judged: Judged, tables: &impl Tables) -> Action {
    match judged.outcome.action() {
        Action::Drop if tables.config().monitor() == 0 => Action::Drop,
        Action::Drop | Action::Pass => Action::Pass,
    }
}

/// Settles what nearly all plain packets are: outside the range, of known flows, or lost. What is left
/// over is judged the general way, `settle` with it: every other question would be one more for
/// a verifier to follow here, for each family.
#[inline(always)]
fn judge_plain<A: Address, R, F: FnOnce(Judged, Action) -> R>(
    frame: &(impl Packet + ?Sized),
    plain: Plain<A>,
    tables: &impl Tables,
    settle: F,
) -> Result<R, F> {
    let asked = ask_window(plain, tables);
    match asked {
        Port::Free => return Ok(settle(lost(plain), Action::Drop)),
        Port::Busy => {}
        Port::Unknown => {
            let port = tables.index(plain.local_port(Direction::Ingress));
            let guarded = tables.guarded();
            if !guarded.guards(plain.transport, port) {
                if guarded.in_range(port) {
                    return Err(settle);
                }
                let judged = Judged {
                    outcome: Outcome::PassOutsideRange,
                    ..lost(plain)
                };
                return Ok(settle(judged, Action::Pass));
            }
            if !in_use(plain.transport, plain.source, port, tables) {
                return Err(settle);
            }
        }
    }

    // Read anew: what was read before would have to be kept meanwhile, in registers that there are
    // not.
    let Some(tuple) = Plain::<A>::again(frame, Direction::Ingress) else {
        return Err(settle);
    };
    match look_up(&tuple, tables) {
        Known::Flow(cell) if hears(cell, plain::tcp_flags(frame, &tuple), tables) => {
            let judged = Judged {
                outcome: Outcome::PassKnownFlow,
                family: A::FAMILY,
                protocol: tuple.transport.label(),
            };
            Ok(settle(judged, Action::Pass))
        }
        Known::Stranger if asked == Port::Busy && !may_answer_query(&tuple, tables) => {
            Ok(settle(lost(plain), Action::Drop))
        }
        Known::Flow(_) | Known::Absent | Known::Stranger => Err(settle),
    }
}

/// Takes note of a packet in its flow, unless that does not count any more.
#[inline(always)]
fn hears(cell: &FlowCell, flags: TcpFlags, tables: &impl Tables) -> bool {
    if flags.steady() && keeps_up(cell, tables).is_some() {
        return true;
    }
    let (flow, now) = (cell.load(), tables.now());
    let counts = !flow.is_query() && flow.alive(now, tables.config().timeouts());
    if counts {
        cell.received(flow, flags, now);
    }

    counts
}

/// Judges a received frame the general way, which takes longer and reads everything.
#[inline(always)]
pub fn judge(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    let outcome = match link::payload(frame) {
        Ok(Payload::Ipv4(offset)) => return ingress_ip::<V4>(frame, offset, tables),
        Ok(Payload::Ipv6(offset)) => return ingress_ip::<V6>(frame, offset, tables),
        Ok(Payload::NotIp) => Outcome::PassNotIp,
        Err(unreadable) => unreadable.outcome(),
    };

    Judged {
        outcome,
        family: Family::Other,
        protocol: Protocol::Other,
    }
}

#[inline(always)]
fn ingress_ip<A: Address>(
    frame: &(impl Packet + ?Sized),
    offset: usize,
    tables: &impl Tables,
) -> Judged {
    let ip = match A::read_ip(frame, offset) {
        Ok(ip) => ip,
        Err(unreadable) => {
            let (outcome, family) = if link::is_looped(frame, offset, A::begins_with) {
                (Outcome::PassNotIp, Family::Other)
            } else {
                (unreadable.outcome(), A::FAMILY)
            };
            return Judged {
                outcome,
                family,
                protocol: Protocol::Other,
            };
        }
    };

    let outcome = if !ip.has(0) {
        Outcome::DropMalformed
    } else if ip.fragment == Fragment::Later {
        judge_later(&FragmentKey::new(&ip), tables)
    } else {
        judge_datagram(frame, &ip, tables)
    };
    if ip.fragment == Fragment::First {
        remember_first(&FragmentKey::new(&ip), outcome, tables);
    }

    Judged {
        outcome,
        family: A::FAMILY,
        protocol: ip.protocol_label(),
    }
}

/// Judges what has a transport header, by its own flow or by that of the packet it quotes.
#[inline(always)]
fn judge_datagram<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tables: &impl Tables,
) -> Outcome {
    let about = match subject(frame, ip) {
        Subject::Packet(tuple) => return judge_packet(frame, ip, &tuple, tables),
        Subject::Itself(outcome) => return outcome,
        Subject::Quote(tuple) => judge_quote(&tuple, tables),
        Subject::Unreported => None,
    };
    if let Some(outcome) = about {
        return outcome;
    }

    // Whoever forges an error may quote a packet of any host, and send it here all the same: it is
    // asked where the error itself goes.
    let error = RouteKey::without_ports(ip.source, ip.destination, A::ICMP, ip.class);

    excuse(frame, &error, tables).unwrap_or(Outcome::DropIcmpUnrelated)
}

/// Judges a packet by its flow.
#[inline(always)]
fn judge_packet<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tuple: &Tuple<A>,
    tables: &impl Tables,
) -> Outcome {
    let port = tables.index(tuple.local_port);
    let guarded = tables.guarded();
    if !guarded.guards(tuple.transport, port) {
        if guarded.in_range(port) {
            return Outcome::PassExempt;
        }
        return Outcome::PassOutsideRange;
    }
    if in_use(tuple.transport, tuple.remote, port, tables) {
        let known = look_up(tuple, tables);
        let flags = ip.tcp_flags(frame, tuple.transport);
        if let Some(outcome) = judge_flow(tuple, port, known, Some(flags), tables) {
            return outcome;
        }
    }
    if tables.config().asks_before_drop() {
        if is_for_kernel(tuple, port, tables) {
            return Outcome::PassExempt;
        }
        if let Some(outcome) = excuse(frame, &RouteKey::received(tuple, ip.class), tables) {
            return outcome;
        }
        if tables.config().monitor() != 0 {
            tally_would_drop(tuple, tables);
        }
    }

    Outcome::DropNoFlow
}

/// Judges an ICMP error by the packet it quotes, which this host should have sent: by its flow, or
/// by what is not recorded on purpose. `None` says that there is no reason to believe it.
#[inline(always)]
fn judge_quote<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> Option<Outcome> {
    let port = tables.index(tuple.local_port);
    let guarded = tables.guarded();
    // The remote ports of tunnels, of whose packets there is no flow.
    if !guarded.guards(tuple.transport, port)
        || guarded.leaves_unrecorded(tuple.transport, tables.index(tuple.remote_port))
    {
        return Some(Outcome::PassIcmpOutside);
    }
    if in_use(tuple.transport, tuple.remote, port, tables) {
        if is_query(tuple, port, tables) {
            return Some(Outcome::PassIcmpRelated);
        }
        let known = look_up(tuple, tables);
        if let Some(outcome) = judge_flow(tuple, port, known, None, tables) {
            return Some(outcome);
        }
    }

    is_for_kernel(tuple, port, tables).then_some(Outcome::PassIcmpOutside)
}

#[inline(always)]
fn judge_later(key: &FragmentKey, tables: &impl Tables) -> Outcome {
    let memory = tables.config().timeouts().fragment;
    match tables.refused(key) {
        Some(refused) if refused.holds(tables.now(), memory) => Outcome::DropFragmentDenied,
        Some(_) | None => Outcome::PassLaterFragment,
    }
}

/// Remembers a refused first fragment; an accepted one clears the mark, so that whoever forges
/// first fragments cannot cut genuine answers.
#[inline(always)]
fn remember_first(key: &FragmentKey, outcome: Outcome, tables: &impl Tables) {
    match (outcome.action(), tables.refused(key)) {
        (Action::Drop, Some(refused)) => refused.refuse(tables.now()),
        (Action::Drop, None) => tables.refuse(key, tables.now()),
        (Action::Pass, Some(refused)) => refused.accept(),
        (Action::Pass, None) => {}
    }
}
