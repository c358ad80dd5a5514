//! IPv4 options: ports are where the header's length says, not where it usually ends.

use guard_common::outcome::Outcome::DropNoFlow;

use super::case::{Case, case};

pub fn cases() -> Vec<Case> {
    // To who reads ports behind the shortest header, this comes from port 80 and goes there.
    let spelling = [0x00, 0x50, 0x00, 0x50];
    let mut cases: Vec<Case> = (1..=10)
        .map(|words| {
            case(
                format!("E03 {words} words of padding"),
                move |plain| vec![plain.options(&vec![1; words * 4])],
                [(DropNoFlow, 1)],
            )
        })
        .collect();
    cases.extend([1, 10].map(|words| {
        case(
            format!("E03 {words} words that spell ports"),
            move |plain| vec![plain.options(&spelling.repeat(words))],
            [(DropNoFlow, 1)],
        )
    }));
    // IPv6 has none; its plain datagram shows that the listener hears that family.
    cases.push(case("E03 none", |plain| vec![plain], [(DropNoFlow, 1)]));
    cases
}
