//! Fragments: first ones are decided, later ones share the fate of the last first one.

use guard_common::outcome::{
    Outcome::{
        DropFragmentDenied, DropIcmpUnrelated, DropMalformed, DropNoFlow, PassIcmpInfo,
        PassKnownFlow, PassLaterFragment, PassNewFlow, PassNotRecorded, PassOtherProtocol,
        PassOutsideRange,
    },
    Protocol,
};

use super::{Case, case};
use crate::{
    frames::{
        Error,
        Extension::{Atomic, Destination, HopByHop},
        FAR, Frame, G2, icmp, icmp_error, protocol, tcp, udp, udp_lite,
    },
    setup::TIMEOUTS,
};

/// An identification.
const ID: u16 = 7;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [udp as fn(u16, u16) -> Frame, udp_lite, tcp]
        .into_iter()
        .flat_map(of_transport)
        .collect();
    cases.extend(memory());
    cases.extend(others());
    cases.extend(atomic());
    cases
}

fn first(frame: Frame) -> Frame {
    frame.piece(ID, ..8)
}

fn later(frame: Frame) -> Frame {
    frame.piece(ID, 8..)
}

fn of_transport(to: fn(u16, u16) -> Frame) -> Vec<Case> {
    vec![
        case("an answer in pieces")
            .sends(to(40_000, 53), PassNewFlow)
            .receives(first(to(53, 40_000)), PassKnownFlow)
            .receives(to(53, 40_000).piece(ID, 8..16), PassLaterFragment)
            .receives(to(53, 40_000).piece(ID, 16..), PassLaterFragment),
        case("an answer in pieces, backwards")
            .sends(to(40_000, 53), PassNewFlow)
            .receives(to(53, 40_000).piece(ID, 16..), PassLaterFragment)
            .receives(to(53, 40_000).piece(ID, 8..16), PassLaterFragment)
            .receives(first(to(53, 40_000)), PassKnownFlow),
        case("an unsolicited datagram in pieces")
            .receives(first(to(53, 40_000)), DropNoFlow)
            .receives(to(53, 40_000).piece(ID, 8..16), DropFragmentDenied)
            .receives(to(53, 40_000).piece(ID, 16..), DropFragmentDenied)
            .receives(later(to(53, 40_000)).tags(4), DropFragmentDenied),
        case("an unsolicited datagram in pieces, backwards")
            .receives(later(to(53, 40_000)), PassLaterFragment)
            .receives(first(to(53, 40_000)), DropNoFlow)
            .receives(later(to(53, 40_000)), DropFragmentDenied),
        case("an unguarded port in pieces")
            .receives(first(to(53, 80)), PassOutsideRange)
            .receives(later(to(53, 80)), PassLaterFragment),
        case("a first piece without ports")
            .receives(to(53, 40_000).piece(ID, ..0), DropMalformed)
            .receives(later(to(53, 40_000)), DropFragmentDenied),
        // The kernel goes on with the next piece where this one says that it ends.
        case("a first piece with something like ports behind its end")
            .receives(
                to(53, 40_000)
                    .piece(ID, ..8)
                    .behind(Destination(0))
                    .padded(8),
                DropMalformed,
            )
            .receives(later(to(53, 40_000)).v6(), DropFragmentDenied),
        case("what a later piece carries is not recorded")
            .sends(
                later(to(1, 1).data(&[0x9c, 0x41, 0, 53].repeat(9))),
                PassNotRecorded,
            )
            .sends(
                to(1, 1)
                    .data(&[0x9c, 0x41, 0, 53].repeat(9))
                    .piece(ID, 16..),
                PassNotRecorded,
            )
            .receives(to(53, 40_001), DropNoFlow),
        case("a first piece is recorded")
            .sends(first(to(40_000, 53)), PassNewFlow)
            .sends(later(to(40_000, 53)), PassNotRecorded)
            .receives(to(53, 40_000), PassKnownFlow),
    ]
}

/// What is remembered of refused first pieces.
fn memory() -> Vec<Case> {
    let refused = || {
        case("a refusal is about one datagram")
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .receives(later(udp(53, 40_000)), DropFragmentDenied)
    };
    vec![
        refused()
            .receives(udp(53, 40_000).piece(ID + 1, 8..), PassLaterFragment)
            .receives(later(udp(53, 40_000)).from(FAR), PassLaterFragment)
            .receives(later(udp(53, 40_000)).to(G2), PassLaterFragment),
        case("IPv4 tells datagrams apart by protocol as well")
            .receives(first(udp(53, 40_000)).v4(), DropNoFlow)
            .receives(later(tcp(53, 40_000)).v4(), PassLaterFragment)
            .receives(later(protocol(47)).v4(), PassLaterFragment),
        case("IPv6 reassembles whatever protocol a later piece claims")
            .receives(first(udp(53, 40_000)).v6(), DropNoFlow)
            .receives(later(tcp(53, 40_000)).v6(), DropFragmentDenied)
            .receives(later(protocol(47)).v6(), DropFragmentDenied),
        case("an accepted first piece clears the refusal")
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(first(udp(54, 40_000)), DropNoFlow)
            .receives(later(udp(54, 40_000)), DropFragmentDenied)
            .receives(first(udp(53, 40_000)), PassKnownFlow)
            .receives(later(udp(53, 40_000)), PassLaterFragment)
            .receives(first(udp(54, 40_000)), DropNoFlow)
            .receives(later(udp(53, 40_000)), DropFragmentDenied),
        case("an earlier acceptance does not pass a later first piece")
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(first(udp(53, 40_000)), PassKnownFlow)
            .receives(first(udp(53, 40_001)), DropNoFlow)
            .receives(later(udp(53, 40_001)), DropFragmentDenied),
        case("a refusal lasts as long as the kernel keeps pieces")
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .waits(TIMEOUTS.fragment)
            .receives(later(udp(53, 40_000)), DropFragmentDenied)
            .waits(1)
            .receives(later(udp(53, 40_000)), PassLaterFragment),
        case("a second refusal counts from anew")
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .waits(TIMEOUTS.fragment)
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .waits(TIMEOUTS.fragment)
            .receives(later(udp(53, 40_000)), DropFragmentDenied)
            .waits(1)
            .receives(later(udp(53, 40_000)), PassLaterFragment)
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .receives(later(udp(53, 40_000)), DropFragmentDenied),
        case("refused later pieces do not prolong the refusal")
            .receives(first(udp(53, 40_000)), DropNoFlow)
            .waits(TIMEOUTS.fragment)
            .receives(later(udp(53, 40_000)), DropFragmentDenied)
            .waits(1)
            .receives(later(udp(53, 40_000)), PassLaterFragment),
    ]
}

/// Pieces of what has no ports.
fn others() -> Vec<Case> {
    let error = || icmp_error(Error::PortUnreachable, udp(40_000, 53));
    vec![
        case("an echo in pieces")
            .receives(first(icmp([8, 128], [0x9c, 0x40, 0, 1])), PassIcmpInfo)
            .receives(later(icmp([8, 128], [0x9c, 0x40, 0, 1])), PassLaterFragment),
        case("an unrelated error in pieces")
            .receives(error().piece(ID, ..48).v4(), DropIcmpUnrelated)
            .receives(error().piece(ID, ..8).v4(), DropMalformed)
            .receives(later(error().v4()), DropFragmentDenied),
        case("another protocol in pieces")
            .receives(first(protocol(47)), PassOtherProtocol)
            .receives(later(protocol(47)), PassLaterFragment)
            .sends(later(protocol(47)), PassNotRecorded),
    ]
}

/// Fragment headers that cut nothing, and headers on both sides of those that do.
fn atomic() -> Vec<Case> {
    const ATOMIC_ID: u16 = 0x77;
    vec![
        case("an atomic fragment is a whole datagram")
            .receives(udp(53, 40_000).behind(Atomic), DropNoFlow)
            .receives(udp(53, 40_000).piece(ATOMIC_ID, 8..), PassLaterFragment)
            .receives(udp(53, 80).behind(Atomic), PassOutsideRange)
            .sends(udp(40_000, 53).behind(Atomic), PassNewFlow)
            .receives(udp(53, 40_000).behind(Atomic), PassKnownFlow),
        case("extension headers in front of the pieces")
            .receives(first(udp(53, 40_000).behind(HopByHop(0))), DropNoFlow)
            .receives(
                later(udp(53, 40_000).behind(HopByHop(0))),
                DropFragmentDenied,
            ),
        case("extension headers within the pieces")
            .receives(
                udp(53, 40_000).piece(ID, ..24).behind(Destination(1)),
                DropNoFlow,
            )
            .receives(
                udp(53, 40_000)
                    .piece(ID, 24..)
                    .behind(Destination(1))
                    .seen_as(Protocol::Other),
                DropFragmentDenied,
            ),
        case("an atomic fragment in front of a first piece")
            .receives(first(udp(53, 40_000).behind(Atomic)), DropNoFlow)
            .receives(later(udp(53, 40_000)).v6(), DropFragmentDenied),
        case("a first piece whose extension headers are cut")
            .receives(
                udp(53, 40_000).piece(ID, ..16).behind(Destination(3)),
                DropMalformed,
            )
            .receives(udp(53, 40_000).piece(ID, 16..).v6(), DropFragmentDenied),
    ]
}
