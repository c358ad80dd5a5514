//! Ethernet, VLAN tags, and what is not IP.

use guard_common::outcome::Outcome::{
    DropFragmentDenied, DropIcmpUnrelated, DropMalformed, DropNoFlow, DropVlanDepth,
    PassIcmpRelated, PassKnownFlow, PassNewFlow, PassNotIp, PassNotRecorded, PassOtherProtocol,
    PassOutsideRange,
};

use super::{Case, case};
use crate::frames::{
    Error, Frame, P, PPPOE, SERVICE_VLAN, VLAN, ethernet, icmp_error, protocol, raw, tcp, udp,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tags();
    cases.extend(not_ip());
    cases.extend(sessions());
    cases.extend(looped());
    cases.extend(other_protocols());
    cases
}

fn unsolicited() -> Frame {
    udp(53, 40_000)
}

fn tags() -> Vec<Case> {
    let mut cases: Vec<Case> = (1..=4)
        .map(|count| {
            case("an unsolicited datagram behind up to four tags")
                .receives(unsolicited().tags(count), DropNoFlow)
                .receives(udp(53, 80).tags(count), PassOutsideRange)
        })
        .collect();
    cases.extend((5..=6).map(|count| {
        let too_deep = |frame: Frame| frame.tags(count).seen_as_no_ip();
        case("nobody is heard behind five tags or more")
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(too_deep(udp(53, 40_000)), DropVlanDepth)
            .receives(too_deep(udp(53, 80)), DropVlanDepth)
            .receives(too_deep(ethernet(0x0806, &[0; 46])), DropVlanDepth)
            .sends(too_deep(udp(40_001, 53)), PassNotRecorded)
    }));
    cases.extend([
        case("an unsolicited datagram behind a service tag and a customer tag")
            .receives(unsolicited().tag(SERVICE_VLAN, 7).tag(VLAN, 8), DropNoFlow),
        case("an unsolicited datagram behind four service tags").receives(
            (0..4).fold(unsolicited(), |frame, id| frame.tag(SERVICE_VLAN, id)),
            DropNoFlow,
        ),
        case("the tag is no part of the flow")
            .sends(udp(40_000, 53).tag(VLAN, 7), PassNewFlow)
            .receives(udp(53, 40_000), PassKnownFlow)
            .receives(udp(53, 40_000).tag(VLAN, 7), PassKnownFlow)
            .receives(udp(53, 40_000).tag(VLAN, 8), PassKnownFlow),
        case("a tag that the frame ends in")
            .receives(ethernet(VLAN, &[]), DropMalformed)
            .receives(ethernet(VLAN, &[0, 7]), DropMalformed)
            .receives(ethernet(VLAN, &[0, 7, 0x81, 0x00]), DropMalformed)
            .receives(ethernet(SERVICE_VLAN, &[0, 7, 0x81]), DropMalformed),
        case("a tag type that Linux does not strip")
            .receives(ethernet(0x9100, &[0; 46]), PassNotIp),
    ]);
    cases
}

fn not_ip() -> Vec<Case> {
    // ARP, RARP, EAPOL, LLDP, PPPoE discovery, MPLS, MACsec, loopback.
    let types = [
        0x0806, 0x8035, 0x888e, 0x88cc, 0x8863, 0x8847, 0x88e5, 0x9000,
    ];
    let mut cases: Vec<Case> = types
        .into_iter()
        .map(|ether_type| {
            case("what is not IP is none of the guard's business")
                .receives(ethernet(ether_type, &[0; 46]), PassNotIp)
                .receives(ethernet(ether_type, &[]), PassNotIp)
                .receives(ethernet(ether_type, &[0; 46]).tags(4), PassNotIp)
                .sends(ethernet(ether_type, &[0; 46]), PassNotRecorded)
        })
        .collect();
    cases.extend([
        case("spanning tree, whose Ethernet type is a length").receives(
            ethernet(38, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]).from(P),
            PassNotIp,
        ),
        case("an Ethernet type that contradicts the version")
            .receives(
                unread(tcp(443, 40_000).v4().network_bytes(0, &[0x65])),
                DropMalformed,
            )
            .receives(
                unread(tcp(443, 40_000).v4().network_bytes(0, &[0x05])),
                DropMalformed,
            )
            .receives(
                unread(tcp(443, 80).v4().network_bytes(0, &[0x65])),
                DropMalformed,
            )
            .sends(
                unread(tcp(40_000, 443).v4().network_bytes(0, &[0x65])),
                PassNotRecorded,
            ),
        case("an Ethernet type that contradicts the version of IPv6")
            .receives(
                unread(tcp(443, 40_000).v6().network_bytes(0, &[0x45])),
                DropMalformed,
            )
            .sends(
                unread(tcp(40_000, 443).v6().network_bytes(0, &[0x45])),
                PassNotRecorded,
            ),
    ]);
    cases
}

fn sessions() -> Vec<Case> {
    let short = |frame: Frame| frame.in_session_by_one_byte();
    vec![
        case("a PPPoE session is read like another tag")
            .receives(unsolicited().in_session(), DropNoFlow)
            .receives(tcp(443, 40_000).syn().in_session(), DropNoFlow)
            .receives(udp(53, 80).in_session(), PassOutsideRange)
            .sends(udp(40_000, 53).in_session(), PassNewFlow)
            .receives(udp(53, 40_000).in_session(), PassKnownFlow)
            .receives(udp(53, 40_000), PassKnownFlow)
            .receives(udp(54, 40_000).in_session(), DropNoFlow),
        case("a PPPoE session behind tags")
            .receives(unsolicited().tags(1).in_session(), DropNoFlow)
            .receives(unsolicited().tags(4).in_session(), DropNoFlow)
            .sends(udp(40_000, 53).tags(1).in_session(), PassNewFlow)
            .receives(udp(53, 40_000).tags(1).in_session(), PassKnownFlow),
        case("a PPP protocol of one byte, which Linux takes too")
            .receives(short(unsolicited()), DropNoFlow)
            .receives(short(udp(53, 80)), PassOutsideRange)
            .sends(short(udp(40_000, 53)), PassNewFlow)
            .receives(short(udp(53, 40_000)), PassKnownFlow),
        case("an ICMP error and fragments in a PPPoE session")
            .sends(udp(40_000, 53).in_session(), PassNewFlow)
            .receives(
                icmp_error(Error::TooBig, udp(40_000, 53)).in_session(),
                PassIcmpRelated,
            )
            .receives(
                icmp_error(Error::TooBig, udp(40_000, 54)).in_session(),
                DropIcmpUnrelated,
            )
            .receives(udp(54, 40_000).piece(7, ..8).in_session(), DropNoFlow)
            .receives(
                udp(54, 40_000).piece(7, 8..).in_session(),
                DropFragmentDenied,
            ),
        case("what else PPP carries: LCP, its echo, IPv6CP, and what it compresses")
            .receives(
                ethernet(PPPOE, &session(&[0xc0, 0x21, 9, 0, 0, 8])),
                PassNotIp,
            )
            .receives(
                ethernet(PPPOE, &session(&[0x80, 0x57, 1, 0, 0, 4])),
                PassNotIp,
            )
            .receives(
                ethernet(PPPOE, &session(&[0x00, 0x3d, 0, 0, 0, 0])),
                PassNotIp,
            )
            .sends(
                ethernet(PPPOE, &session(&[0xc0, 0x21, 10, 0, 0, 8])),
                PassNotRecorded,
            ),
        case("a PPPoE session that the frame ends in")
            .receives(ethernet(PPPOE, &[]), DropMalformed)
            .receives(ethernet(PPPOE, &[0x11, 0, 0, 1, 0]), DropMalformed)
            .receives(ethernet(PPPOE, &session(&[])), DropMalformed)
            .receives(ethernet(PPPOE, &session(&[0])), DropMalformed)
            .receives(
                ethernet(PPPOE, &session(&[0, 0x21]))
                    .seen_without_protocol()
                    .v4(),
                DropMalformed,
            ),
    ]
}

/// What PPP carries, in a PPPoE session.
fn session(carried: &[u8]) -> Vec<u8> {
    [&[0x11, 0, 0, 1, 0, carried.len() as u8], carried].concat()
}

/// A host that is a member of a group it sends to hears itself, without an Ethernet header where XDP
/// runs in the stack.
fn looped() -> Vec<Case> {
    let from = |address: [u8; 4]| {
        let header = [
            0x45, 0, 0, 48, 0, 7, 0, 0, 1, 17, 0, 0, address[0], address[1], address[2],
            address[3], 239, 255, 255, 250, 0x9c, 0x40, 0x9c, 0x41, 0, 28, 0, 0,
        ];
        [&header[..], &[0; 20]].concat()
    };
    let from_v6 = |group: [u8; 2]| {
        let mut header = vec![0x60, 0, 0, 0, 0, 28, 17, 1, 0x20, 1, 0x0d, 0xb8];
        header.extend(group);
        header.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0xff, 2]);
        header.extend([0; 13]);
        header.extend([0xfb, 0x9c, 0x40, 0x9c, 0x41, 0, 28, 0, 0]);
        header.extend([0; 20]);
        header
    };
    [
        [8, 0, 0, 2],
        [8, 0, 0x44, 2],
        [134, 221, 0, 2],
        [10, 9, 0, 2],
    ]
    .into_iter()
    .map(from)
    .chain([[8, 0], [0x86, 0xdd], [0x12, 0x34]].map(from_v6))
    .map(|packet| {
        case("what this host sends to a group and hears itself").receives(raw(&packet), PassNotIp)
    })
    .collect()
}

/// Not read beyond its Ethernet type.
fn unread(frame: Frame) -> Frame {
    frame.seen_without_protocol()
}

fn other_protocols() -> Vec<Case> {
    // IGMP, IPIP, DCCP, 6in4, RSVP, GRE, ESP, EIGRP, OSPF, PIM, VRRP, L2TP, SCTP.
    let mut cases: Vec<Case> = [2, 4, 33, 41, 46, 47, 50, 88, 89, 103, 112, 115, 132]
        .into_iter()
        .map(|number| {
            case("a protocol without guarded ports")
                .receives(protocol(number), PassOtherProtocol)
                .receives(protocol(number).data(&[]), PassOtherProtocol)
                .sends(protocol(number), PassNotRecorded)
        })
        .collect();
    cases.extend([
        case("the other family's ICMP")
            .receives(protocol(58).v4(), PassOtherProtocol)
            .sends(protocol(58).v4(), PassNotRecorded),
        case("the other family's ICMP in IPv6")
            .receives(protocol(1).v6(), PassOtherProtocol)
            .sends(protocol(1).v6(), PassNotRecorded),
        case("IPv4 knows no extension headers").receives(protocol(60).v4(), PassOtherProtocol),
        case("an IPv6 packet without a next header")
            .receives(protocol(59).v6().data(&[]), PassOtherProtocol),
        case("Mobile IPv6 and HIP, which nothing guarded follows")
            .receives(protocol(135).v6(), PassOtherProtocol)
            .receives(protocol(139).v6(), PassOtherProtocol),
    ]);
    cases
}
