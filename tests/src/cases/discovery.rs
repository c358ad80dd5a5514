//! Queries to a group, which any neighbour may answer.

use guard_common::outcome::Outcome::{
    DropNoFlow, PassKnownFlow, PassNewFlow, PassNotRecorded, PassRefreshedFlow,
};

use super::{Case, case};
use crate::{
    frames::{
        EVERYBODY, End, FAR, G2, GATEWAYS, MDNS, N, NOBODY, SSDP, SUBNET, tcp, udp, udp_lite,
    },
    setup::{EXPOSED_UDP, TIMEOUTS, TUNNELS},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [MDNS, SSDP, EVERYBODY, SUBNET]
        .into_iter()
        .flat_map(of_group)
        .collect();
    cases.extend([
        case("an ordinary flow keeps its own timer beside a query")
            .sends(udp(40_000, 123), PassNewFlow)
            .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
            .waits(TIMEOUTS.multicast + 1)
            .receives(udp(5353, 40_000).from(N), DropNoFlow)
            .receives(udp(123, 40_000), PassKnownFlow),
        case("a query, then an ordinary flow from the same port")
            .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow)
            .sends(udp(40_000, 5353).to(N), PassNewFlow)
            .waits(TIMEOUTS.multicast + 1)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow)
            .receives(udp(5353, 40_000), DropNoFlow),
        case("gateways that share a group's link address are one host's way")
            .sends(udp(40_000, 5000).to(GATEWAYS), PassNewFlow)
            .receives(udp(5000, 40_000).from(FAR), PassKnownFlow)
            .receives(udp(5001, 40_000).from(FAR), DropNoFlow)
            .receives(udp(5000, 40_000).from(N), DropNoFlow),
        case("two groups, one query")
            .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
            .sends(udp(40_000, 1900).to(SSDP), PassRefreshedFlow),
        case("a tunnel that floods a group asks nothing")
            .sends(udp(40_000, TUNNELS[0]).to(MDNS), PassNotRecorded)
            .receives(udp(TUNNELS[0], 40_000).from(N), DropNoFlow),
        case("what is sent to nobody is no query, and prolongs none")
            .sends(udp(40_000, 0).to(NOBODY), PassNotRecorded)
            .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
            .waits(TIMEOUTS.multicast)
            .sends(udp(40_000, 0).to(NOBODY), PassNotRecorded)
            .receives(udp(9, 40_000).from(N), PassKnownFlow)
            .waits(1)
            .sends(udp(40_000, 0).to(NOBODY), PassNotRecorded)
            .receives(udp(9, 40_000).from(N), DropNoFlow),
        case("queries where a flow admits every port of its peer")
            .set_up(|setup| setup.any_remote_port = true)
            .sends(udp(40_000, 5353).to(MDNS), PassNewFlow)
            .receives(udp(9, 40_000).from(N), PassKnownFlow)
            .receives(udp(9, 40_000).from(FAR), DropNoFlow)
            .waits(TIMEOUTS.multicast + 1)
            .receives(udp(9, 40_000).from(N), DropNoFlow),
    ]);
    cases
}

fn of_group(group: End) -> Vec<Case> {
    vec![
        case("any neighbour may answer a query, from any port")
            .receives(udp(5353, 40_000).from(N), DropNoFlow)
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(udp(5353, 40_000), PassKnownFlow)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow)
            .receives(udp(9, 40_000).from(N), PassKnownFlow)
            .receives(udp(5353, 40_001).from(N), DropNoFlow)
            .receives(udp(5353, 40_000).to(G2), DropNoFlow),
        case("nobody from behind a router may answer")
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(udp(5353, 40_000).from(FAR), DropNoFlow),
        case("nobody without an address may answer")
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(udp(5353, 40_000).from(NOBODY), DropNoFlow)
            .receives(udp(0, 40_000).from(NOBODY), DropNoFlow),
        case("nobody without an address may answer, whatever the mode")
            .set_up(|setup| setup.any_remote_port = true)
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(udp(5353, 40_000).from(NOBODY), DropNoFlow),
        case("a query is answered in time, and answers do not prolong it")
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .waits(TIMEOUTS.multicast)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow)
            .waits(1)
            .receives(udp(5353, 40_000).from(N), DropNoFlow)
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow),
        case("a repeated query counts from anew")
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .waits(TIMEOUTS.multicast)
            .sends(udp(40_000, 5353).to(group), PassRefreshedFlow)
            .waits(TIMEOUTS.multicast)
            .receives(udp(5353, 40_000).from(N), PassKnownFlow),
        case("only UDP asks groups")
            .sends(tcp(40_000, 443).to(group).syn(), PassNewFlow)
            .receives(tcp(443, 40_000).syn_ack(), DropNoFlow)
            .sends(udp_lite(40_000, 443).to(group), PassNewFlow)
            .receives(udp_lite(443, 40_000), DropNoFlow),
        case("a query admits no other protocol")
            .sends(udp(40_000, 5353).to(group), PassNewFlow)
            .receives(tcp(5353, 40_000), DropNoFlow)
            .receives(udp_lite(5353, 40_000), DropNoFlow),
        case("a query from a port that is not guarded")
            .sends(udp(5353, 5353).to(group), PassNotRecorded)
            .sends(udp(EXPOSED_UDP, 5353).to(group), PassNotRecorded),
        case("a query behind VLAN tags")
            .sends(udp(40_000, 5353).to(group).tags(2), PassNewFlow)
            .receives(udp(5353, 40_000).from(N).tags(1), PassKnownFlow),
    ]
}
