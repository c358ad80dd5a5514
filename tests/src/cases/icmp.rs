//! ICMP and ICMPv6: an error is as welcome as the packet it quotes was expected.

use guard_common::outcome::Outcome::{
    DropHeaderDepth, DropIcmpUnrelated, DropMalformed, DropNoFlow, PassIcmpInfo, PassIcmpOutside,
    PassIcmpRelated, PassKnownFlow, PassNewFlow, PassNotRecorded,
};

use super::{Case, case};
use crate::{
    frames::{
        Error,
        Extension::{Atomic, Authentication, Destination, HopByHop, Routing},
        FAR, Frame, G2, MDNS, N, icmp, icmp_error, protocol, tcp, udp, udp_lite,
    },
    setup::{RESERVED, TIMEOUTS, TUNNELS},
};

/// Identification and sequence number of an echo, which read like two ports.
const ID: [u8; 4] = [0x9c, 0x40, 0, 53];

const ERRORS: [Error; 4] = [
    Error::TooBig,
    Error::PortUnreachable,
    Error::TimeExceeded,
    Error::ParameterProblem,
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ERRORS.into_iter().flat_map(of_error).collect();
    cases.extend(quotes());
    cases.extend(state());
    cases.extend(information());
    cases
}

fn unreachable(about: Frame) -> Frame {
    icmp_error(Error::PortUnreachable, about)
}

fn of_error(error: Error) -> Vec<Case> {
    [udp as fn(u16, u16) -> Frame, udp_lite, tcp]
        .into_iter()
        .map(|to| {
            case("an error about a live flow, no matter who reports it")
                .receives(icmp_error(error, to(40_000, 53)), DropIcmpUnrelated)
                .sends(to(40_000, 53), PassNewFlow)
                .receives(icmp_error(error, to(40_000, 53)), PassIcmpRelated)
                .receives(icmp_error(error, to(40_000, 53)).from(FAR), PassIcmpRelated)
                .receives(icmp_error(error, to(40_000, 53)).tags(4), PassIcmpRelated)
                .receives(icmp_error(error, to(40_000, 54)), DropIcmpUnrelated)
                .receives(icmp_error(error, to(40_001, 53)), DropIcmpUnrelated)
                .receives(icmp_error(error, to(40_000, 53).to(N)), DropIcmpUnrelated)
                .receives(
                    icmp_error(error, to(40_000, 53).from(G2)),
                    DropIcmpUnrelated,
                )
                .receives(icmp_error(error, to(53, 40_000)), PassIcmpOutside)
        })
        .chain([
            case("an error about a port that is not guarded")
                .receives(icmp_error(error, tcp(443, 40_000)), PassIcmpOutside)
                .receives(icmp_error(error, udp(RESERVED, 53)), PassIcmpOutside)
                .receives(
                    icmp_error(error, tcp(443, 40_000).from(FAR)),
                    PassIcmpOutside,
                ),
            case("an error about what is not recorded on purpose")
                .sends(udp(40_000, TUNNELS[0]), PassNotRecorded)
                .receives(icmp_error(error, udp(40_000, TUNNELS[0])), PassIcmpOutside)
                .receives(icmp_error(error, udp(40_000, TUNNELS[1])), PassIcmpOutside)
                .receives(
                    icmp_error(error, udp(40_000, TUNNELS[2]).to(FAR)).from(FAR),
                    PassIcmpOutside,
                )
                .receives(
                    icmp_error(error, udp(40_000, TUNNELS[0]).piece(7, ..16)),
                    PassIcmpOutside,
                )
                .receives(udp(TUNNELS[0], 40_000), DropNoFlow),
            case("tunnels are known by their remote port alone, and of UDP alone")
                .receives(icmp_error(error, udp(40_000, 4788)), DropIcmpUnrelated)
                .receives(icmp_error(error, udp(TUNNELS[0], 40_000)), PassIcmpOutside)
                .receives(
                    icmp_error(error, tcp(40_000, TUNNELS[0])),
                    DropIcmpUnrelated,
                )
                .receives(
                    icmp_error(error, udp_lite(40_000, TUNNELS[0])),
                    DropIcmpUnrelated,
                )
                .receives(
                    icmp_error(error, udp(40_000, TUNNELS[0]).piece(7, 8..)),
                    DropIcmpUnrelated,
                ),
            case("an error about a query to a group, while its answers are due")
                .receives(
                    icmp_error(error, udp(40_000, 5353).to(MDNS)),
                    DropIcmpUnrelated,
                )
                .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
                .receives(
                    icmp_error(error, udp(40_000, 5353).to(MDNS)),
                    PassIcmpRelated,
                )
                .receives(
                    icmp_error(error, udp(40_001, 5353).to(MDNS)),
                    DropIcmpUnrelated,
                )
                .receives(icmp_error(error, udp(40_000, 5353)), DropIcmpUnrelated)
                .receives(
                    icmp_error(error, udp_lite(40_000, 5353).to(MDNS)),
                    DropIcmpUnrelated,
                )
                .waits(TIMEOUTS.multicast + 1)
                .receives(
                    icmp_error(error, udp(40_000, 5353).to(MDNS)),
                    DropIcmpUnrelated,
                ),
            case("an error about an echo reply, which only a forger can have met over IPv4")
                .receives(
                    icmp_error(error, icmp([0, 129], ID)).v4(),
                    DropIcmpUnrelated,
                )
                .receives(
                    icmp_error(error, icmp([0, 129], ID)).v4().quoting(0),
                    DropMalformed,
                ),
            case("an error about an echo reply, which may be too long for a link over IPv6")
                .receives(icmp_error(error, icmp([0, 129], ID)).v6(), PassIcmpOutside),
            case("an error about a protocol that is not guarded")
                .receives(icmp_error(error, protocol(132)), PassIcmpOutside)
                .receives(icmp_error(error, protocol(47)), PassIcmpOutside)
                .receives(
                    icmp_error(error, icmp([8, 128], [0x9c, 0x40, 0, 53])),
                    PassIcmpOutside,
                ),
            case("errors that this host reports are not recorded")
                .sends(icmp_error(error, udp(53, 40_000)), PassNotRecorded)
                .receives(udp(53, 40_000), DropNoFlow),
        ])
        .collect()
}

/// How much is quoted, and what stands in front of the quoted ports.
fn quotes() -> Vec<Case> {
    let options = [0x00, 0x50, 0x00, 0x50].repeat(10);
    let about = || udp(40_000, 53);
    let live = |name| case(name).sends(udp(40_000, 53), PassNewFlow);
    let mut cases: Vec<Case> = (0..4)
        .map(|bytes| {
            live("an error must quote both ports")
                .receives(unreachable(about()).quoting(bytes), DropMalformed)
        })
        .collect();
    cases.extend([4, 7, 8, 28].map(|bytes| {
        live("an error need quote no more than both ports")
            .receives(unreachable(about()).quoting(bytes), PassIcmpRelated)
            .receives(
                unreachable(udp(40_001, 53)).quoting(bytes),
                DropIcmpUnrelated,
            )
    }));
    cases.extend([
        live("an error that quotes nothing, or ends before its quote")
            .receives(unreachable(about()).cut_transport(8), DropMalformed)
            .receives(unreachable(about()).cut_transport(1), DropMalformed)
            .receives(unreachable(about()).cut_transport(0), DropMalformed)
            .receives(unreachable(about()).cut_transport(9), DropMalformed)
            .receives(unreachable(about()).cut_transport(27), DropMalformed),
        live("the quote may have IPv4 options")
            .receives(unreachable(about().options(&options)), PassIcmpRelated)
            .receives(
                unreachable(udp(40_001, 53).options(&options)),
                DropIcmpUnrelated,
            ),
        live("the error may have IPv4 options")
            .receives(unreachable(about()).options(&options), PassIcmpRelated)
            .receives(
                unreachable(udp(40_001, 53)).options(&options),
                DropIcmpUnrelated,
            ),
        live("the quote may have extension headers")
            .receives(unreachable(about().behind(HopByHop(0))), PassIcmpRelated)
            .receives(unreachable(about().behind(Routing(0))), PassIcmpRelated)
            .receives(unreachable(about().behind(Atomic)), PassIcmpRelated)
            .receives(
                unreachable(about().behind(Destination(9)).behind(Authentication(3))),
                PassIcmpRelated,
            )
            .receives(
                unreachable(udp(40_001, 53).behind(Atomic)),
                DropIcmpUnrelated,
            ),
        live("the error may have extension headers")
            .receives(unreachable(about()).behind(HopByHop(0)), PassIcmpRelated)
            .receives(
                unreachable(about().behind(Destination(1))).behind(Destination(2)),
                PassIcmpRelated,
            ),
        live("the quote may have eight extension headers")
            .receives(unreachable(deep(about(), 8)), PassIcmpRelated)
            .receives(unreachable(deep(about(), 9)), DropHeaderDepth)
            .receives(deep(unreachable(deep(about(), 8)), 8), PassIcmpRelated)
            .receives(
                deep(unreachable(deep(udp(40_001, 53), 8)), 8),
                DropIcmpUnrelated,
            ),
        live("the quote may be a first piece, not a later one")
            .receives(unreachable(about().piece(7, ..16)), PassIcmpRelated)
            .receives(unreachable(about().piece(7, 8..)), DropIcmpUnrelated),
        live("the quote must be of the error's family")
            .receives(
                unreachable(about().network_bytes(0, &[0x00])),
                DropMalformed,
            )
            .receives(
                unreachable(about().network_bytes(0, &[0x65])).v4(),
                DropMalformed,
            )
            .receives(
                unreachable(about().network_bytes(0, &[0x45])).v6(),
                DropMalformed,
            ),
    ]);
    cases
}

fn deep(frame: Frame, count: usize) -> Frame {
    (0..count).fold(frame, |frame, _| frame.behind(Destination(0)))
}

/// Errors are easily forged: no flow is the worse or the better for one.
fn state() -> Vec<Case> {
    vec![
        case("an error prolongs nothing")
            .sends(udp(40_000, 123), PassNewFlow)
            .waits(TIMEOUTS.udp)
            .receives(unreachable(udp(40_000, 123)), PassIcmpRelated)
            .waits(1)
            .receives(unreachable(udp(40_000, 123)), DropIcmpUnrelated)
            .receives(udp(123, 40_000), DropNoFlow),
        case("an error ends nothing")
            .sends(tcp(40_000, 443), PassNewFlow)
            .receives(unreachable(tcp(40_000, 443)), PassIcmpRelated)
            .receives(
                icmp_error(Error::TimeExceeded, tcp(40_000, 443).rst()),
                PassIcmpRelated,
            )
            .receives(
                unreachable(tcp(40_000, 443).fin()).quoting(20),
                PassIcmpRelated,
            )
            .waits(TIMEOUTS.tcp_established)
            .receives(tcp(443, 40_000), PassKnownFlow),
        case("an error about a connection that opens")
            .sends(tcp(40_000, 443).syn(), PassNewFlow)
            .receives(unreachable(tcp(40_000, 443).syn()), PassIcmpRelated)
            .waits(TIMEOUTS.tcp_syn)
            .receives(unreachable(tcp(40_000, 443).syn()), PassIcmpRelated)
            .waits(1)
            .receives(unreachable(tcp(40_000, 443).syn()), DropIcmpUnrelated),
    ]
}

fn information() -> Vec<Case> {
    // Ports 40000 and 53, where TCP and UDP have theirs.
    let rest = [0x9c, 0x40, 0x00, 0x35];
    // Echo, its reply, timestamp, router advertisement; neighbour discovery and MLD beside them.
    let types = [
        [8, 128],
        [0, 129],
        [13, 135],
        [14, 136],
        [9, 134],
        [10, 133],
        [17, 137],
        [18, 131],
        [40, 143],
    ];
    let mut cases: Vec<Case> = types
        .into_iter()
        .map(|types| {
            case("ICMP that quotes no packet")
                .receives(icmp(types, rest), PassIcmpInfo)
                .receives(icmp(types, rest).cut_transport(1), PassIcmpInfo)
                .receives(icmp(types, rest).cut_transport(0), DropMalformed)
                .sends(icmp(types, rest), PassNotRecorded)
                .sends(icmp(types, rest).from(G2), PassNotRecorded)
                .receives(udp(53, 40_000), DropNoFlow)
        })
        .collect();
    cases.extend([[4, 100], [5, 127], [3, 0], [12, 5]].map(|types| {
        case("ICMP of a type that quotes a packet, without one")
            .receives(icmp(types, rest), DropMalformed)
            .receives(icmp(types, rest).data(&[]), DropMalformed)
    }));
    cases
}
