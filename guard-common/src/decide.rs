//! Ingress: what becomes of a frame that an interface receives.

use crate::{
    address::{Address, V4, V6},
    excuse::{excuse, tally_would_drop},
    flow::{Flow, Phase},
    fragment::FragmentKey,
    key::FlowKey,
    link::{self, Payload},
    outcome::{Action, Direction, Family, Judged, Outcome, Protocol},
    packet::Packet,
    parse::{Fragment, Ip, Transport, Tuple},
    plain::{self, Plain},
    subject::{Subject, subject},
    tables::{Socket, Tables, Tally, Use},
    wire::TcpFlags,
};

/// Judges a received frame, cheapest questions first, and takes note of it in the flow it
/// belongs to.
#[inline(always)]
pub fn ingress(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
    match plain::read(frame, Direction::Ingress) {
        Some(Plain::V4(tuple)) => judge_plain(frame, &tuple, tables),
        Some(Plain::V6(tuple)) => judge_plain(frame, &tuple, tables),
        None => judge(frame, tables),
    }
}

#[inline(always)]
fn judge_plain<A: Address>(
    frame: &(impl Packet + ?Sized),
    tuple: &Tuple<A>,
    tables: &impl Tables,
) -> Judged {
    Judged {
        outcome: judge_packet(
            tuple,
            || plain::tcp_flags::<A>(frame, tuple.transport),
            tables,
        ),
        family: A::FAMILY,
        protocol: tuple.transport.label(),
    }
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
            return Judged {
                outcome: unreadable.outcome(),
                family: A::FAMILY,
                protocol: Protocol::Other,
            };
        }
    };

    let outcome = if ip.fragment == Fragment::Later {
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
    match subject(frame, ip) {
        Subject::Packet(tuple) => {
            judge_packet(&tuple, || ip.tcp_flags(frame, tuple.transport), tables)
        }
        Subject::Quote(tuple) => judge_quote(&tuple, ip.source, tables),
        Subject::Itself(outcome) => outcome,
    }
}

/// Judges a packet by its flow. `flags` are read only when it has one.
#[inline(always)]
fn judge_packet<A: Address>(
    tuple: &Tuple<A>,
    flags: impl FnOnce() -> TcpFlags,
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
    if in_use(Use::flow(tuple.transport), port, tables)
        && let Some(outcome) = judge_flow(tuple, port, Some(flags()), tables)
    {
        return outcome;
    }
    if tables.config().asks_before_drop() {
        if let Some(outcome) = excuse(tuple, tuple.remote, tables) {
            return outcome;
        }
        if tables.config().monitor() != 0 {
            tally_would_drop(tuple, tables);
        }
    }

    Outcome::DropNoFlow
}

/// Judges an ICMP error by the flow of the packet it quotes, which this host should have sent.
#[inline(always)]
fn judge_quote<A: Address>(tuple: &Tuple<A>, sender: A, tables: &impl Tables) -> Outcome {
    let port = tables.index(tuple.local_port);
    if !tables.guarded().guards(tuple.transport, port) {
        return Outcome::PassIcmpOutside;
    }
    if in_use(Use::flow(tuple.transport), port, tables)
        && let Some(outcome) = judge_flow(tuple, port, None, tables)
    {
        return outcome;
    }
    if let Some(outcome) = excuse(tuple, sender, tables) {
        return outcome;
    }

    Outcome::DropIcmpUnrelated
}

/// Whether any flow, or any query to a group, uses the port. This is the last question that the
/// flood of a random sprayer reaches.
#[inline(always)]
fn in_use(purpose: Use, port: usize, tables: &impl Tables) -> bool {
    let epoch = tables.config().epoch() as u8;
    tables
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.fresh(epoch))
}

/// Judges a packet by its flow, if that is known, or if the kernel itself proves it.
///
/// A packet that only quotes the flow has no `flags`, and changes nothing: whoever forges an ICMP
/// error must not prolong or shorten anything.
#[inline(always)]
fn judge_flow<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    flags: Option<TcpFlags>,
    tables: &impl Tables,
) -> Option<Outcome> {
    let now = tables.now();
    let key = flow_key(tuple, tables);
    let remembered = tables.flow(tuple.transport, key.sized());
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

/// Whether this answers a query that was sent to a group: from a neighbour, whatever its address
/// and port (mDNS answers by unicast, SSDP from any port).
#[inline(always)]
fn answers_query<A: Address>(
    tuple: &Tuple<A>,
    port: usize,
    now: u32,
    tables: &impl Tables,
) -> bool {
    if !in_use(Use::Query, port, tables) {
        return false;
    }
    let alive = tables
        .flow(tuple.transport, query_key(tuple).sized())
        .is_some_and(|flow| flow.load().alive(now, tables.config().timeouts()));

    alive
        && tables
            .device()
            .is_some_and(|device| tuple.remote.on_link(device))
}

/// The key of a query to a group: any remote may answer.
#[inline(always)]
pub(crate) fn query_key<A: Address>(tuple: &Tuple<A>) -> A::FlowKey {
    A::FlowKey::new(&Tuple {
        remote: A::UNSPECIFIED,
        remote_port: 0,
        ..*tuple
    })
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
