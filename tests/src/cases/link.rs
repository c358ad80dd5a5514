//! Ethernet, VLAN tags, and what is not IP.

use guard_common::outcome::Outcome::{
    DropMalformed, DropNoFlow, DropVlanDepth, PassKnownFlow, PassNewFlow, PassNotIp,
    PassNotRecorded, PassOtherProtocol, PassOutsideRange,
};

use super::{Case, case};
use crate::frames::{Frame, P, SERVICE_VLAN, VLAN, ethernet, protocol, tcp, udp};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tags();
    cases.extend(not_ip());
    cases.extend(other_protocols());
    cases
}

fn stranger() -> Frame {
    udp(53, 40_000)
}

fn tags() -> Vec<Case> {
    let mut cases: Vec<Case> = (1..=4)
        .map(|count| {
            case("a stranger behind up to four tags")
                .receives(stranger().tags(count), DropNoFlow)
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
        case("a stranger behind a service tag and a customer tag")
            .receives(stranger().tag(SERVICE_VLAN, 7).tag(VLAN, 8), DropNoFlow),
        case("a stranger behind four service tags").receives(
            (0..4).fold(stranger(), |frame, id| frame.tag(SERVICE_VLAN, id)),
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
    // ARP, RARP, EAPOL, LLDP, PPPoE discovery and session, MPLS, MACsec, loopback.
    let types = [
        0x0806, 0x8035, 0x888e, 0x88cc, 0x8863, 0x8864, 0x8847, 0x88e5, 0x9000,
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
