//! Which ports are guarded, and which unsolicited senders are told apart.

use std::net::Ipv6Addr;

use guard_common::outcome::Outcome::{
    DropIcmpUnrelated, DropNoFlow, PassExempt, PassKnownFlow, PassNewFlow, PassNotRecorded,
    PassOutsideRange, PassRefreshedFlow, PassTrusted,
};

use super::{Case, case};
use crate::{
    frames::{
        EVERYBODY, End, Error, FAR, Frame, G, G2, MDNS, N, P, SUBNET, icmp_error, tcp, udp,
        udp_lite,
    },
    setup::{EXPOSED_TCP, EXPOSED_UDP, FIRST, LAST, RESERVED},
};

type Build = fn(u16, u16) -> Frame;

const TRANSPORTS: [Build; 4] = [udp, udp_lite, tcp, |source, destination| {
    tcp(source, destination).syn()
}];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = TRANSPORTS.into_iter().flat_map(of_transport).collect();
    cases.extend([
        case("a port exposed for TCP alone")
            .receives(tcp(443, EXPOSED_TCP), PassExempt)
            .receives(udp(443, EXPOSED_TCP), DropNoFlow)
            .receives(udp_lite(443, EXPOSED_TCP), DropNoFlow)
            .sends(tcp(EXPOSED_TCP, 443).syn_ack(), PassNotRecorded)
            .sends(udp(EXPOSED_TCP, 443), PassNewFlow),
        case("a port exposed for UDP alone")
            .receives(udp(443, EXPOSED_UDP), PassExempt)
            .receives(udp_lite(443, EXPOSED_UDP), PassExempt)
            .receives(tcp(443, EXPOSED_UDP).syn(), DropNoFlow)
            .sends(udp(EXPOSED_UDP, 443), PassNotRecorded)
            .sends(tcp(EXPOSED_UDP, 443).syn(), PassNewFlow),
        case("would-be drops pass in monitor mode")
            .set_up(|setup| setup.monitor = true)
            .receives(udp(53, 40_000), DropNoFlow)
            .receives(tcp(443, 40_000).syn(), DropNoFlow)
            .receives(udp(53, 80), PassOutsideRange)
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(udp(53, 40_000), PassKnownFlow),
        trusted(udp),
        trusted(tcp),
        case("the page in force is the one that counts")
            .set_up(|setup| setup.second_page = true)
            .receives(udp(53, 40_000), DropNoFlow)
            .receives(udp(53, RESERVED), PassExempt)
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(udp(53, 40_000), PassKnownFlow),
        mapped_addresses(),
    ]);
    cases
}

fn of_transport(to: Build) -> Vec<Case> {
    vec![
        case("the range begins and ends with a guarded port")
            .receives(to(443, FIRST - 1), PassOutsideRange)
            .receives(to(443, FIRST), DropNoFlow)
            .receives(to(443, LAST), DropNoFlow)
            .receives(to(443, LAST + 1), PassOutsideRange)
            .receives(to(443, 0), PassOutsideRange)
            .receives(to(443, u16::MAX), PassOutsideRange)
            .sends(to(FIRST - 1, 443), PassNotRecorded)
            .sends(to(FIRST, 443), PassNewFlow)
            .sends(to(LAST, 443), PassNewFlow)
            .sends(to(LAST + 1, 443), PassNotRecorded)
            .receives(to(443, FIRST), PassKnownFlow)
            .receives(to(443, LAST), PassKnownFlow),
        case("both ports in the range")
            .receives(to(41_000, 40_000), DropNoFlow)
            .sends(to(40_000, 41_000), PassNewFlow)
            .receives(to(41_000, 40_000), PassKnownFlow)
            .receives(to(40_000, 41_000), DropNoFlow),
        case("a port in network order is not mistaken for another")
            .receives(to(443, 0x8000u16.swap_bytes()), PassOutsideRange)
            .receives(to(443, 0x8000), DropNoFlow),
        case("a reserved port")
            .receives(to(443, RESERVED), PassExempt)
            .receives(to(443, RESERVED - 1), DropNoFlow)
            .receives(to(443, RESERVED + 1), DropNoFlow)
            .sends(to(RESERVED, 443), PassNotRecorded),
        case("a live flow admits its own peer alone")
            .sends(to(40_000, 443), PassNewFlow)
            .receives(to(443, 40_000), PassKnownFlow)
            .receives(to(444, 40_000), DropNoFlow)
            .receives(to(443, 40_001), DropNoFlow)
            .receives(to(443, 40_000).from(N), DropNoFlow)
            .receives(to(443, 40_000).from(FAR), DropNoFlow)
            .receives(to(443, 40_000).to(G2), DropNoFlow)
            .receives(to(443, 40_000), PassKnownFlow),
        case("a live flow does not make a group of its host")
            .sends(to(40_000, 443), PassNewFlow)
            .receives(to(443, 40_000).to(EVERYBODY), DropNoFlow)
            .receives(to(443, 40_000).to(SUBNET), DropNoFlow)
            .receives(to(443, 40_000).to(MDNS), DropNoFlow),
        case("unsolicited senders, no matter whom they pretend to be")
            .receives(to(443, 40_000).from(G), DropNoFlow)
            .receives(to(40_000, 40_000).from(G), DropNoFlow)
            .receives(to(443, 40_000).from(MDNS), DropNoFlow)
            .receives(to(443, 40_000).from(EVERYBODY), DropNoFlow)
            .receives(to(0, 40_000), DropNoFlow),
        case("other protocols of a live flow's ports")
            .sends(to(40_000, 443), PassNewFlow)
            .sends(to(40_000, 443), PassRefreshedFlow)
            .receives(foreign(to)(443, 40_000), DropNoFlow),
        case("a flow of the host's second address")
            .sends(to(40_000, 443).from(G2), PassNewFlow)
            .receives(to(443, 40_000).to(G2), PassKnownFlow)
            .receives(to(443, 40_000), DropNoFlow),
    ]
}

fn trusted(to: Build) -> Case {
    case("anyone who is trusted passes, and opens nothing")
        .set_up(|setup| setup.trusts = true)
        .receives(to(443, 40_000).from(FAR), PassTrusted)
        .receives(to(443, 40_000).from(N), DropNoFlow)
        .receives(to(443, 80).from(FAR), PassOutsideRange)
        .sends(to(40_000, 443).to(FAR), PassNewFlow)
        .receives(to(443, 40_000).from(FAR), PassKnownFlow)
        .receives(to(444, 40_000).from(FAR), PassTrusted)
        .receives(
            icmp_error(Error::PortUnreachable, to(40_001, 443)).from(FAR),
            PassTrusted,
        )
        .receives(
            icmp_error(Error::PortUnreachable, to(40_001, 443).to(FAR)),
            DropIcmpUnrelated,
        )
}

/// Another transport than this one.
fn foreign(build: Build) -> Build {
    let udp_label = udp(1, 1).labels(guard_common::outcome::Family::Ipv4);
    if build(1, 1).labels(guard_common::outcome::Family::Ipv4) == udp_label {
        udp_lite
    } else {
        udp
    }
}

/// An IPv6 address that spells an IPv4 one is another address.
fn mapped_addresses() -> Case {
    let mapped = |end: End| End {
        ipv6: Ipv6Addr::from_bits(0xffff << 32 | u128::from(end.ipv4.to_bits())),
        ..end
    };
    let forged = udp(53, 40_000).from(mapped(P)).to(mapped(G)).v6();
    case("an IPv4 flow does not admit its addresses in IPv6")
        .sends(udp(40_000, 53).v4(), PassNewFlow)
        .receives(forged, DropNoFlow)
        .receives(udp(53, 40_000).v4(), PassKnownFlow)
}
