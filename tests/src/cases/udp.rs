//! UDP and UDP-Lite between two ends.

use guard_common::outcome::Outcome::{
    DropIcmpUnrelated, DropNoFlow, PassIcmpRelated, PassKnownFlow, PassNewFlow, PassRefreshedFlow,
};

use super::{Case, case};
use crate::{
    frames::{Error, Frame, N, icmp_error, tcp, udp, udp_lite},
    setup::TIMEOUTS,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("an answer to our query")
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(udp(53, 40_000), PassKnownFlow)
            .receives(udp(53, 40_000), PassKnownFlow),
        case("one socket, two peers")
            .sends(udp(40_000, 53), PassNewFlow)
            .sends(udp(40_000, 53).to(N), PassNewFlow)
            .sends(udp(40_000, 53).to(N), PassRefreshedFlow)
            .receives(udp(53, 40_000), PassKnownFlow)
            .receives(udp(53, 40_000).from(N), PassKnownFlow),
        case("UDP and UDP-Lite are two protocols")
            .sends(udp(40_000, 53), PassNewFlow)
            .receives(udp_lite(53, 40_000), DropNoFlow)
            .sends(udp_lite(40_000, 53), PassNewFlow)
            .receives(udp_lite(53, 40_000), PassKnownFlow),
        case("a TFTP server answers from a port of its own: refused")
            .sends(udp(40_000, 69), PassNewFlow)
            .receives(udp(2001, 40_000), DropNoFlow),
    ];
    cases.extend(any_remote_port());
    cases
}

/// `--udp-filter address`: a flow admits every port of its peer.
fn any_remote_port() -> Vec<Case> {
    let mode = |name| case(name).set_up(|setup| setup.any_remote_port = true);
    let either = |to: fn(u16, u16) -> Frame| {
        mode("every port of the peer may answer, no other peer")
            .sends(to(40_000, 69), PassNewFlow)
            .receives(to(69, 40_000), PassKnownFlow)
            .receives(to(2001, 40_000), PassKnownFlow)
            .sends(to(40_000, 2001), PassRefreshedFlow)
            .receives(to(2001, 40_001), DropNoFlow)
            .receives(to(69, 40_000).from(N), DropNoFlow)
    };
    vec![
        either(udp),
        either(udp_lite),
        mode("TCP has one remote port all the same")
            .sends(tcp(40_000, 443).syn(), PassNewFlow)
            .receives(tcp(444, 40_000), DropNoFlow)
            .receives(tcp(443, 40_000), PassKnownFlow),
        mode("errors about any port of the peer")
            .sends(udp(40_000, 69), PassNewFlow)
            .receives(
                icmp_error(Error::PortUnreachable, udp(40_000, 2001)),
                PassIcmpRelated,
            )
            .receives(
                icmp_error(Error::PortUnreachable, udp(40_000, 2001).to(N)),
                DropIcmpUnrelated,
            ),
        mode("a flow that stands for many ports is not a short one of DNS")
            .sends(udp(40_000, 53), PassNewFlow)
            .waits(TIMEOUTS.udp)
            .receives(udp(53, 40_000), PassKnownFlow)
            .waits(TIMEOUTS.udp + 1)
            .receives(udp(53, 40_000), DropNoFlow),
    ]
}
