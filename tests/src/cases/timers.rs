//! How long flows and marks of occupancy count.

use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassRefreshedFlow};

use super::{Case, case};
use crate::{
    frames::{Frame, tcp, udp, udp_lite},
    setup::TIMEOUTS,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = [
        datagrams(udp, 123, TIMEOUTS.udp),
        datagrams(udp_lite, 123, TIMEOUTS.udp),
        datagrams(udp, 53, TIMEOUTS.udp_dns),
        datagrams(udp_lite, 53, TIMEOUTS.udp),
    ]
    .concat();
    cases.extend(
        [udp as fn(u16, u16) -> Frame, udp_lite, tcp]
            .into_iter()
            .flat_map(sweeps),
    );
    cases
}

fn datagrams(to: fn(u16, u16) -> Frame, peer: u16, timeout: u32) -> Vec<Case> {
    vec![
        case("a datagram's flow at the edge of its timer")
            .sends(to(40_000, peer), PassNewFlow)
            .waits(timeout)
            .receives(to(peer, 40_000), PassKnownFlow),
        case("a datagram's flow past its timer")
            .sends(to(40_000, peer), PassNewFlow)
            .waits(timeout + 1)
            .receives(to(peer, 40_000), DropNoFlow)
            .sends(to(40_000, peer), PassNewFlow)
            .receives(to(peer, 40_000), PassKnownFlow),
        case("kept alive by this host alone")
            .sends(to(40_000, peer), PassNewFlow)
            .waits(timeout)
            .sends(to(40_000, peer), PassRefreshedFlow)
            .waits(timeout)
            .sends(to(40_000, peer), PassRefreshedFlow)
            .waits(timeout)
            .receives(to(peer, 40_000), PassKnownFlow),
        case("kept alive by the peer alone")
            .sends(to(40_000, peer), PassNewFlow)
            .waits(timeout)
            .receives(to(peer, 40_000), PassKnownFlow)
            .waits(timeout)
            .receives(to(peer, 40_000), PassKnownFlow)
            .waits(timeout + 1)
            .receives(to(peer, 40_000), DropNoFlow),
        case("unsolicited senders keep nothing alive")
            .sends(to(40_000, peer), PassNewFlow)
            .waits(timeout)
            .receives(to(peer + 1, 40_000), DropNoFlow)
            .waits(1)
            .receives(to(peer, 40_000), DropNoFlow),
    ]
}

/// Marks of occupancy are fresh in their own epoch and the next.
fn sweeps(to: fn(u16, u16) -> Frame) -> Vec<Case> {
    vec![
        case("a port that one sweep did not find")
            .sends(to(40_000, 443), PassNewFlow)
            .sweeps(1)
            .receives(to(443, 40_000), PassKnownFlow),
        case("a port that two sweeps did not find, until this host uses it")
            .sends(to(40_000, 443), PassNewFlow)
            .sweeps(2)
            .receives(to(443, 40_000), DropNoFlow)
            .sends(to(40_000, 443), PassRefreshedFlow)
            .receives(to(443, 40_000), PassKnownFlow),
        case("this host's packets keep the mark fresh")
            .sends(to(40_000, 443), PassNewFlow)
            .sweeps(1)
            .sends(to(40_000, 443), PassRefreshedFlow)
            .sweeps(1)
            .receives(to(443, 40_000), PassKnownFlow),
        case("epochs wrap around: a port merely looks busy")
            .sends(to(40_000, 443), PassNewFlow)
            .sweeps(254)
            .receives(to(443, 40_000), DropNoFlow)
            .sweeps(1)
            .receives(to(443, 40_000), PassKnownFlow)
            .receives(to(444, 40_000), DropNoFlow)
            .sweeps(2)
            .receives(to(443, 40_000), PassKnownFlow),
        case("every other port looks idle through all epochs")
            .sweeps(250)
            .receives(to(443, 40_000), DropNoFlow)
            .sends(to(40_001, 443), PassNewFlow)
            .receives(to(443, 40_000), DropNoFlow)
            .receives(to(443, 40_001), PassKnownFlow),
    ]
}
