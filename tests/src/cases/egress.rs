//! What is recorded of what this host sends, beyond what the other rows need.

use guard_common::outcome::Outcome::{
    DropNoFlow, PassInsertFailed, PassKnownFlow, PassNewFlow, PassNotRecorded, PassRefreshedFlow,
};

use super::{Case, case};
use crate::{
    frames::{Frame, MDNS, NOBODY, tcp, udp, udp_lite},
    setup::{TIMEOUTS, TUNNELS},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = TUNNELS
        .into_iter()
        .map(|port| {
            case("a tunnel's source ports are spread, never answered")
                .sends(udp(40_000, port), PassNotRecorded)
                .receives(udp(port, 40_000), DropNoFlow)
                .sends(tcp(40_000, port).syn(), PassNewFlow)
                .sends(udp_lite(40_000, port), PassNewFlow)
                .sends(udp(40_000, port - 1), PassNewFlow)
                .sends(udp(40_000, port + 1), PassNewFlow)
        })
        .collect();
    cases.extend([udp as fn(u16, u16) -> Frame, udp_lite, tcp].map(|to| {
        case("a map without room refuses, and the frame leaves all the same")
            .set_up(|setup| setup.no_room = true)
            .sends(to(40_000, 443), PassInsertFailed)
            .receives(to(443, 40_000), DropNoFlow)
    }));
    cases.extend([
        case("a query that finds no room")
            .set_up(|setup| setup.no_room = true)
            .sends(udp(40_000, 5353).to(MDNS), PassInsertFailed)
            .receives(udp(5353, 40_000), DropNoFlow),
        case("a service's answers are not recorded")
            .sends(udp(53, 40_000), PassNotRecorded)
            .sends(tcp(443, 40_000), PassNotRecorded)
            .sends(udp_lite(53, 40_000), PassNotRecorded)
            .receives(udp(40_000, 40_000), DropNoFlow),
        case("what is sent to nobody opens nothing")
            .sends(udp(40_000, 53).to(NOBODY), PassNotRecorded)
            .sends(tcp(40_000, 443).to(NOBODY).syn(), PassNotRecorded)
            .receives(tcp(443, 40_000).from(NOBODY).syn_ack(), DropNoFlow),
        case("a RST is no attempt to open, whatever else it says")
            .sends(tcp(40_000, 443).syn().rst(), PassNotRecorded)
            .sends(tcp(40_000, 443).syn(), PassNewFlow)
            .receives(tcp(443, 40_000).syn_ack(), PassKnownFlow)
            .sends(tcp(40_000, 443).syn().rst(), PassRefreshedFlow)
            .waits(TIMEOUTS.tcp_transitory)
            .receives(tcp(443, 40_000).rst(), PassKnownFlow)
            .waits(1)
            .receives(tcp(443, 40_000), DropNoFlow),
        case("one flow, one entry")
            .sends(udp(40_000, 123), PassNewFlow)
            .sends(udp(40_000, 123), PassRefreshedFlow)
            .sends(udp(40_000, 123).tags(3), PassRefreshedFlow)
            .receives(udp(123, 40_000), PassKnownFlow)
            .sends(udp(40_000, 123), PassRefreshedFlow),
    ]);
    cases
}
