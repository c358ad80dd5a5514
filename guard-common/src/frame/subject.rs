//! Which flow a packet belongs to: its own, or that of the packet which an ICMP error quotes.

use crate::{
    frame::{
        bytes::{Packet, Unreadable},
        headers::Ports,
        ip::{Fragment, Ip, Network, Tuple},
        transport::Transport,
    },
    outcome::{Direction, Outcome},
};

/// Where the quoted packet starts in an ICMP message (RFC 792; RFC 4443, section 3).
const ICMP_QUOTE: usize = 8;

/// What the decision about a packet depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject<A> {
    /// The flow that it belongs to.
    Packet(Tuple<A>),
    /// The flow of the packet that it quotes.
    Quote(Tuple<A>),
    /// It quotes a packet about which no error is ever reported to this host.
    Unreported,
    /// The packet alone: this is the outcome.
    Decided(Outcome),
}

/// Finds what the decision about a packet depends on. It must not be a later fragment.
#[inline(always)]
pub fn subject<A: Network>(frame: &(impl Packet + ?Sized), ip: &Ip<A>) -> Subject<A> {
    if let Some(transport) = Transport::from_number(ip.protocol) {
        return match ports(frame, ip, transport, Direction::Ingress) {
            Ok(tuple) => Subject::Packet(tuple),
            Err(unreadable) => Subject::Decided(unreadable.outcome()),
        };
    }
    if ip.protocol == A::ICMP {
        return quoted(frame, ip);
    }

    Subject::Decided(Outcome::PassOtherProtocol)
}

/// An ICMP error is about a packet that this host sent, so the local end is its source.
#[inline(always)]
fn quoted<A: Network>(frame: &(impl Packet + ?Sized), ip: &Ip<A>) -> Subject<A> {
    let icmp_type = frame.read::<u8>(ip.transport);
    let Some(icmp_type) = icmp_type.filter(|_| ip.has(size_of::<u8>())) else {
        return Subject::Decided(Outcome::DropMalformed);
    };
    if !A::icmp_quotes(icmp_type) {
        return Subject::Decided(Outcome::PassIcmpInfo);
    }

    let quoted = match A::read_ip(frame, ip.transport + ICMP_QUOTE) {
        // Whatever it says about itself, it is quoted only as far as the message goes.
        Ok(quoted) => Ip {
            end: ip.end,
            ..quoted
        },
        Err(unreadable) => return Subject::Decided(unreadable.outcome()),
    };
    if !quoted.has(0) {
        return Subject::Decided(Outcome::DropMalformed);
    }
    let Some(transport) = Transport::from_number(quoted.protocol) else {
        return quoted_other(frame, &quoted);
    };
    // What is quoted of a later fragment is payload, and not about any port. Linux takes it for
    // ports all the same over IPv4 (`icmp_socket_deliver`, net/ipv4/icmp.c), and can make nothing of
    // it over IPv6 (`icmpv6_notify`, net/ipv6/icmp.c).
    if quoted.fragment == Fragment::Later {
        return Subject::Unreported;
    }

    match ports(frame, &quoted, transport, Direction::Egress) {
        Ok(tuple) => Subject::Quote(tuple),
        Err(unreadable) => Subject::Decided(unreadable.outcome()),
    }
}

/// An error about a protocol without guarded ports says nothing about one.
///
/// An error about an echo reply would be believed: a forged one could make a path narrow or lead it elsewhere (`icmp_err`, net/ipv4/icmp.c), because nothing in it has to be guessed.
#[inline(always)]
fn quoted_other<A: Network>(frame: &(impl Packet + ?Sized), quoted: &Ip<A>) -> Subject<A> {
    if let Some(unreported) = A::ICMP_UNREPORTED
        && quoted.protocol == A::ICMP
    {
        match frame.read::<u8>(quoted.transport) {
            // Fewer than the 8 bytes that every error quotes (RFC 792).
            None => return Subject::Decided(Outcome::DropMalformed),
            Some(kind) if kind == unreported => return Subject::Unreported,
            Some(_) => {}
        }
    }

    Subject::Decided(Outcome::PassIcmpOutside)
}

/// The ports must be the packet's own.
#[inline(always)]
fn ports<A: Network>(
    frame: &(impl Packet + ?Sized),
    ip: &Ip<A>,
    transport: Transport,
    direction: Direction,
) -> Result<Tuple<A>, Unreadable> {
    if !ip.has(size_of::<Ports>()) {
        return Err(Unreadable::Truncated);
    }
    ip.tuple(frame, transport, direction)
}
