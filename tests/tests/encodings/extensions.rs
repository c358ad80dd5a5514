//! IPv6 extension headers: a host walks any number of them, and so must who reads behind them.

use guard_common::outcome::{
    Family,
    Outcome::{DropHeaderDepth, DropMalformed, DropNoFlow},
};
use guard_tests::frames::Extension::{Atomic, Authentication, Destination, HopByHop, Routing};

use super::case::{Case, case};

/// Extension headers that the guard walks.
const WALKED: usize = 8;

pub fn cases() -> Vec<Case> {
    let alone = [
        ("E06 Hop-by-Hop", HopByHop(0)),
        ("E06 Destination", Destination(0)),
        ("E06, A8 routing type 0", Routing(0)),
        ("E06, A8 routing type 99", Routing(99)),
        ("E06, A6 an atomic fragment", Atomic),
        ("A7 a kilobyte of options", Destination(127)),
    ];
    let mut cases: Vec<Case> = alone
        .into_iter()
        .map(|(name, extension)| {
            case(
                name,
                move |plain| vec![plain.behind(extension)],
                [(DropNoFlow, 1)],
            )
        })
        .collect();
    cases.extend([
        case(
            "E06, A8 routing type 2, which a kernel with Mobile IPv6 refuses",
            |plain| vec![plain.behind(Routing(2))],
            [(DropNoFlow, 1)],
        )
        .delivered_by_some_kernels(),
        case(
            "E06 an authentication header of nobody",
            |plain| vec![plain.behind(Authentication(3))],
            [(DropNoFlow, 1)],
        )
        .refused_by_the_kernel(),
        case(
            "E06 four kinds",
            |plain| {
                vec![
                    plain
                        .behind(HopByHop(1))
                        .behind(Destination(2))
                        .behind(Routing(0))
                        .behind(Atomic),
                ]
            },
            [(DropNoFlow, 1)],
        ),
        case(
            "A7 a header that goes beyond the frame",
            |plain| vec![plain.behind(Destination(0)).network_bytes(41, &[200])],
            [(DropMalformed, 1)],
        )
        .refused_by_the_kernel(),
        // IPv4 has none; its plain datagram shows that the listener hears that family.
        case("E06 none", |plain| vec![plain], [(DropNoFlow, 1)]),
    ]);
    cases.extend([2, WALKED, 9, 10, 16, 64, 128].map(|count| {
        let outcome = if count <= WALKED {
            DropNoFlow
        } else {
            DropHeaderDepth
        };
        case(
            format!("A7 {count} headers"),
            move |plain| {
                let headers = 0..count;
                vec![headers.fold(plain, |frame, _| frame.behind(Destination(0)))]
            },
            [(outcome, 1)],
        )
        .delivered_only_in(Family::Ipv6)
    }));
    cases
}
