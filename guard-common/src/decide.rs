//! Ingress: what becomes of a frame that an interface receives.

use crate::{
    address::{Address, V4, V6},
    config::Config,
    flow::Flow,
    fragment::FragmentKey,
    key::{AddressKey, FlowKey},
    link::{self, Payload},
    outcome::{Action, Direction, Family, Judged, Outcome, Protocol},
    packet::Packet,
    parse::{Fragment, Ip, Transport, Tuple},
    tables::{Socket, Tables, Tally, Use},
};

/// Where the quoted packet starts in an ICMP message (RFC 792; RFC 4443, section 3).
const ICMP_QUOTE: usize = 8;

/// Judges a received frame, cheapest questions first, and takes note of it in the flow it
/// belongs to.
#[inline(always)]
pub fn ingress(frame: &(impl Packet + ?Sized), tables: &impl Tables) -> Judged {
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

    let outcome = match ip.fragment {
        Fragment::Whole => judge_datagram(frame, &ip, tables),
        Fragment::First => {
            let outcome = judge_datagram(frame, &ip, tables);
            remember_first(&FragmentKey::new(&ip), outcome, tables);
            outcome
        }
        Fragment::Later => judge_later(&FragmentKey::new(&ip), tables),
    };

    Judged {
        outcome,
        family: A::FAMILY,
        protocol: ip.protocol_label(),
    }
}

/// Judges what has a transport header.
#[inline(always)]
fn judge_datagram<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tables: &impl Tables,
) -> Outcome {
    if let Some(transport) = Transport::from_number(ip.protocol) {
        return judge_transport(frame, ip, transport, tables);
    }
    if ip.protocol == A::ICMP {
        return judge_icmp(frame, ip, tables);
    }

    Outcome::PassOtherProtocol
}

#[inline(always)]
fn judge_transport<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    transport: Transport,
    tables: &impl Tables,
) -> Outcome {
    let tuple = match ip.tuple(frame, transport, Direction::Ingress) {
        Ok(tuple) => tuple,
        Err(unreadable) => return unreadable.outcome(),
    };
    let port = u16::from_be(tuple.local_port);
    if !tables.guarded().guards(transport, port) {
        if tables.guarded().in_range(port) {
            return Outcome::PassExempt;
        }
        return Outcome::PassOutsideRange;
    }
    if !in_use(Use::flow(transport), port, tables) {
        return judge_stranger(&tuple, tables);
    }

    let now = tables.now();
    let flags = ip.tcp_flags(frame, transport);
    let key = flow_key(&tuple, tables);
    let remembered = tables.flow(transport, key.sized());
    if let Some(cell) = remembered {
        let flow = cell.load();
        if flow.alive(now, tables.config().timeouts()) {
            cell.received(flow, flags, now);
            return Outcome::PassKnownFlow;
        }
    }
    if transport == Transport::Udp && answers_query(&tuple, port, now, tables) {
        return Outcome::PassKnownFlow;
    }
    if has_socket(&tuple, tables) {
        let flow = Flow::rescued_by(&tuple, flags, now);
        match remembered {
            Some(cell) => {
                cell.restart(flow);
                tables.tally(Tally::RescuedExpired);
            }
            None => {
                // Without room for it, the next packet is rescued again.
                let _ = tables.insert(transport, key.sized(), &flow);
                tables.tally(Tally::RescuedAbsent);
            }
        }
        return Outcome::PassRescued;
    }

    judge_stranger(&tuple, tables)
}

/// Whether the kernel itself proves the flow: the map may have evicted it, the timer may have run
/// out, or the guard may be younger than the connection.
#[inline(always)]
fn has_socket<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    tables.config().rescue() != 0
        && tables.socket(tuple.transport, A::FlowKey::new(tuple).sized()) == Socket::Connected
}

/// Drops what answers nothing, unless it is none of this host's business or the user trusts the
/// sender. Neither is asked where it cannot apply.
#[inline(always)]
fn judge_stranger<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> Outcome {
    let excuses = tables.config().excuses();
    if excuses & Config::FORWARDS != 0 && is_for_another(tuple, tables) {
        return Outcome::PassNotLocal;
    }
    if excuses & Config::TRUSTS != 0 && tables.trusts(&AddressKey::new(tuple.remote)) {
        return Outcome::PassTrusted;
    }
    if tables.config().monitor() != 0 {
        tally_would_drop(tuple, tables);
    }

    Outcome::DropNoFlow
}

/// Whether the packet goes through this host to another. Broadcast, multicast and anycast count
/// as local, and so does whatever the routes do not clearly send on.
#[inline(always)]
fn is_for_another<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let Some(device) = tables.device() else {
        return false;
    };
    device.forwards != 0
        && !tuple.local.is_own(device)
        && !tuple.local.is_group()
        && !tables.is_local(&AddressKey::new(tuple.local))
        && tables.forwards(tuple.transport, A::FlowKey::new(tuple).sized())
}

/// In monitor mode the packet passes, and whoever takes it would have lost it.
#[inline(always)]
fn tally_would_drop<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) {
    match tables.socket(tuple.transport, A::FlowKey::new(tuple).sized()) {
        Socket::None => {}
        Socket::Connected => tables.tally(Tally::WouldDropConnected),
        Socket::Listener => tables.tally(Tally::WouldDropListener),
    }
}

/// Whether any flow, or any query to a group, uses the port. This is the last question that the
/// flood of a random sprayer reaches.
#[inline(always)]
fn in_use(purpose: Use, port: u16, tables: &impl Tables) -> bool {
    let epoch = tables.config().epoch() as u8;
    tables
        .occupancy(purpose, port)
        .is_some_and(|occupancy| occupancy.fresh(epoch))
}

/// Whether the flow is in the map and counts.
#[inline(always)]
fn is_known<A: Address>(tuple: &Tuple<A>, tables: &impl Tables) -> bool {
    let key = flow_key(tuple, tables);
    tables
        .flow(tuple.transport, key.sized())
        .is_some_and(|cell| cell.load().alive(tables.now(), tables.config().timeouts()))
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
fn answers_query<A: Address>(tuple: &Tuple<A>, port: u16, now: u32, tables: &impl Tables) -> bool {
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

/// Judges ICMP. An error is about a packet that this host sent, so its source is the local end.
/// No flow changes: whoever forges an error must not prolong or shorten anything.
#[inline(always)]
fn judge_icmp<A: Address>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    tables: &impl Tables,
) -> Outcome {
    let Some(icmp_type) = frame.read::<u8>(ip.transport) else {
        return Outcome::DropMalformed;
    };
    if !A::icmp_quotes(icmp_type) {
        return Outcome::PassIcmpInfo;
    }

    let quoted = match A::read_ip(frame, ip.transport + ICMP_QUOTE) {
        Ok(quoted) => quoted,
        Err(unreadable) => return unreadable.outcome(),
    };
    let Some(transport) = Transport::from_number(quoted.protocol) else {
        return Outcome::PassIcmpOutside;
    };
    if quoted.fragment == Fragment::Later {
        return Outcome::DropIcmpUnrelated;
    }
    let tuple = match quoted.tuple(frame, transport, Direction::Egress) {
        Ok(tuple) => tuple,
        Err(unreadable) => return unreadable.outcome(),
    };
    let port = u16::from_be(tuple.local_port);
    if !tables.guarded().guards(transport, port) {
        return Outcome::PassIcmpOutside;
    }
    if in_use(Use::flow(transport), port, tables)
        && (is_known(&tuple, tables) || has_socket(&tuple, tables))
    {
        return Outcome::PassIcmpRelated;
    }

    Outcome::DropIcmpUnrelated
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
