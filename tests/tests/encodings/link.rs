//! VLAN tags: the stack strips sixteen of id 0, so they hide nothing.

use guard_common::outcome::Outcome::{DropNoFlow, DropVlanDepth};
use guard_tests::frames::{SERVICE_VLAN, VLAN};

use super::case::{Case, case};

/// Tags that the guard walks.
const WALKED: usize = 4;
/// Tags that the stack strips.
const STRIPPED: usize = 16;

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("no tag", |plain| vec![plain], [(DropNoFlow, 1)]),
        case(
            "E01 a service tag of id 0",
            |plain| vec![plain.tag(SERVICE_VLAN, 0)],
            [(DropNoFlow, 1)],
        ),
        case(
            "E01 two kinds of tags of id 0",
            |plain| vec![plain.tag(SERVICE_VLAN, 0).tag(VLAN, 0)],
            [(DropNoFlow, 1)],
        ),
        case(
            "E01 id 7, which no device here has",
            |plain| vec![plain.tag(VLAN, 7)],
            [(DropNoFlow, 1)],
        )
        .refused_by_the_kernel(),
        case(
            "E01 id 7 inside id 0",
            |plain| vec![plain.tag(VLAN, 0).tag(VLAN, 7)],
            [(DropNoFlow, 1)],
        )
        .refused_by_the_kernel(),
    ];
    cases.extend((1..=STRIPPED).map(|count| {
        let outcome = if count <= WALKED {
            DropNoFlow
        } else {
            DropVlanDepth
        };
        case(
            format!("E01, A1 {count} tags of id 0"),
            move |plain| vec![plain.tags(count)],
            [(outcome, 1)],
        )
    }));
    cases
}
