//! What received frames cost.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use guard_common::{
    abi::page::InForce,
    outcome::Outcome::{
        DropFragmentDenied, DropHeaderDepth, DropIcmpUnrelated, DropMalformed, DropNoFlow,
        DropVlanDepth, PassExempt, PassIcmpInfo, PassIcmpOutside, PassIcmpRelated, PassKnownFlow,
        PassLaterFragment, PassNotIp, PassNotLocal, PassOtherProtocol, PassOutsideRange,
        PassRescued, PassTrusted,
    },
};
use guard_tests::{
    frames::{Error, Extension, FAR, Frame, N, ethernet, icmp, icmp_error, protocol, tcp, udp},
    setup::RESERVED,
};

use super::row::{FLOW_PORT, Refill, Row, Variety, row};
use crate::shape::Shape::{Ipv4, Ipv6};

/// The prefixes of somebody behind a router.
const THEM: [(IpAddr, u32); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), 24),
    (
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)),
        64,
    ),
];

/// Prefixes of others than any frame is from.
const OTHERS: [(IpAddr, u32); 3] = [
    (IpAddr::V4(Ipv4Addr::new(172, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 32),
    (
        IpAddr::V6(Ipv6Addr::new(0x2a00, 0x7, 0x1, 0, 0, 0, 0, 0)),
        48,
    ),
];

/// Sockets that are rescued in turn.
pub const SOCKETS: u32 = 256;

pub fn rows() -> Vec<Row> {
    let mut rows = plain();
    rows.extend(fragments());
    rows.extend(errors());
    rows.extend(others());
    rows
}

fn plain() -> Vec<Row> {
    vec![
        row("no_flow, UDP, idle port", DropNoFlow, udp(53, 40_000)),
        row(
            "no_flow, SYN, idle port",
            DropNoFlow,
            tcp(443, 40_000).syn(),
        ),
        row("no_flow, UDP, random ports", DropNoFlow, udp(53, 40_000))
            .varied(Variety::Unsolicited, Refill::Never),
        row("no_flow, UDP, port in use", DropNoFlow, udp(54, 40_000))
            .after_sending(udp(40_000, 53)),
        row(
            "no_flow, SYN, port in use",
            DropNoFlow,
            tcp(444, 40_000).syn(),
        )
        .after_sending(tcp(40_000, 443)),
        row("no_flow, ACK, port in use", DropNoFlow, tcp(444, 40_000))
            .after_sending(tcp(40_000, 443)),
        row(
            "no_flow, UDP, port in use, filter invalid",
            DropNoFlow,
            udp(54, 40_000),
        )
        .after_sending(udp(40_000, 53))
        .configured(|config| config.filter.size = config.filter.size.invalidated()),
        row(
            "no_flow, SYN, port in use, filter invalid",
            DropNoFlow,
            tcp(444, 40_000).syn(),
        )
        .after_sending(tcp(40_000, 443))
        .configured(|config| config.filter.size = config.filter.size.invalidated()),
        row(
            "no_flow, UDP, port in use, no rescue",
            DropNoFlow,
            udp(54, 40_000),
        )
        .after_sending(udp(40_000, 53))
        .configured(|config| config.in_force = config.in_force.with(InForce::RESCUE, false)),
        row("known_flow, UDP", PassKnownFlow, udp(53, 40_000)).after_sending(udp(40_000, 53)),
        row("known_flow, TCP", PassKnownFlow, tcp(443, 40_000)).after_sending(tcp(40_000, 443)),
        row(
            "known_flow, UDP, 10,000 flows",
            PassKnownFlow,
            udp(53, FLOW_PORT),
        )
        .after_sending(udp(FLOW_PORT, 53))
        .varied(Variety::Flows(10_000), Refill::Never),
        row("rescued, UDP", PassRescued, udp(53, FLOW_PORT))
            .after_sending(udp(FLOW_PORT, 53))
            .varied(Variety::Flows(SOCKETS), Refill::Forget),
        row("rescued, TCP", PassRescued, tcp(53, FLOW_PORT))
            .after_sending(tcp(FLOW_PORT, 53))
            .varied(Variety::Flows(SOCKETS), Refill::Forget),
        row("outside_range", PassOutsideRange, tcp(40_000, 443)),
        row("exempt", PassExempt, tcp(443, RESERVED)).with_exemptions(),
        row("trusted", PassTrusted, udp(53, 40_000).from(FAR)).trusting(&THEM),
        row("not_local", PassNotLocal, udp(53, 40_000).to(N)).routing(),
        row(
            "no_flow, on a host that routes",
            DropNoFlow,
            udp(53, 40_000),
        )
        .routing(),
        row("no_flow, trusting others", DropNoFlow, udp(53, 40_000)).trusting(&OTHERS),
        row("no_flow, ten exposed ports", DropNoFlow, udp(53, 40_000)).exposing(),
        row("no_flow, monitor mode", DropNoFlow, udp(53, 40_000)).monitoring(),
        row("no_flow, all of these at once", DropNoFlow, udp(53, 40_000))
            .routing()
            .trusting(&OTHERS)
            .exposing()
            .monitoring(),
    ]
}

fn fragments() -> Vec<Row> {
    let first = |frame: Frame| frame.piece(7, ..8);
    let later = |frame: Frame| frame.piece(7, 8..);

    vec![
        row("later_fragment", PassLaterFragment, later(udp(53, 40_000))),
        row(
            "fragment_denied",
            DropFragmentDenied,
            later(udp(53, 40_000)),
        )
        .after_receiving(first(udp(53, 40_000))),
        row(
            "no_flow, first fragment",
            DropNoFlow,
            first(udp(53, 40_000)),
        ),
        row(
            "known_flow, first fragment",
            PassKnownFlow,
            first(udp(53, 40_000)),
        )
        .after_sending(udp(40_000, 53)),
    ]
}

fn errors() -> Vec<Row> {
    let unreachable = |about| icmp_error(Error::PortUnreachable, about);

    vec![
        row(
            "icmp_related",
            PassIcmpRelated,
            unreachable(udp(40_000, 53)),
        )
        .after_sending(udp(40_000, 53)),
        row(
            "icmp_unrelated, idle port",
            DropIcmpUnrelated,
            unreachable(udp(40_000, 53)),
        ),
        row(
            "icmp_unrelated, port in use",
            DropIcmpUnrelated,
            unreachable(udp(40_000, 54)),
        )
        .after_sending(udp(40_000, 53)),
        row(
            "icmp_outside",
            PassIcmpOutside,
            unreachable(tcp(443, 40_000)),
        ),
        row("icmp_info", PassIcmpInfo, icmp([0, 129], [0, 7, 0, 1])),
    ]
}

fn others() -> Vec<Row> {
    const SCTP: u8 = 132;
    const ARP: u16 = 0x0806;

    let deep = (0..9).fold(udp(53, 40_000), |frame, _| {
        frame.behind(Extension::Destination(0))
    });
    vec![
        row("other_protocol", PassOtherProtocol, protocol(SCTP)),
        row("not_ip", PassNotIp, ethernet(ARP, &[0; 28])).only(&[Ipv4]),
        row("malformed", DropMalformed, udp(53, 40_000).cut_transport(3)).only(&[Ipv4, Ipv6]),
        row("vlan_depth", DropVlanDepth, udp(53, 40_000).tags(5)).only(&[Ipv4]),
        row("header_depth", DropHeaderDepth, deep).only(&[Ipv6]),
    ]
}
