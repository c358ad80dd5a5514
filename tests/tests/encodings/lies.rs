//! Lengths and checksums that are not true: none of them decides anything.

use guard_common::outcome::{Family, Outcome::DropNoFlow};
use guard_tests::frames::tcp;

use super::case::{Case, case, instead};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [7u16, 2000]
        .into_iter()
        .map(|length| {
            case(
                format!("E08 UDP length {length}"),
                move |plain| vec![plain.transport_bytes(4, &length.to_be_bytes())],
                [(DropNoFlow, 1)],
            )
            .refused_by_the_kernel()
        })
        .collect();
    // Without a checksum, which IPv4 allows, the kernel believes a length that is too short.
    cases.extend([8u16, 16].map(|length| {
        case(
            format!("E08 UDP length {length}, no checksum"),
            move |plain| {
                let [high, low] = length.to_be_bytes();
                vec![plain.transport_bytes(4, &[high, low, 0, 0])]
            },
            [(DropNoFlow, 1)],
        )
        .delivered_only_in(Family::Ipv4)
    }));
    cases.extend([
        case(
            "E08 UDP length 0, as of a jumbogram",
            // What the length loses the data gains, so that the checksum stays right.
            |plain| {
                vec![
                    plain
                        .data(&[0; 20])
                        .transport_bytes(4, &[0, 0])
                        .transport_bytes(8, &[0, 28]),
                ]
            },
            [(DropNoFlow, 1)],
        )
        .delivered_only_in(Family::Ipv6),
        case(
            "E08 a wrong checksum",
            |plain| vec![plain.transport_bytes(6, &[0xba, 0xad])],
            [(DropNoFlow, 1)],
        )
        .refused_by_the_kernel(),
        case("E08 from port 0", |plain| vec![plain], [(DropNoFlow, 1)]).with_source(0),
        case(
            "E08 Ethernet padding",
            |plain| vec![plain.padded(26)],
            [(DropNoFlow, 1)],
        ),
        case(
            "E08 a SYN",
            |plain| vec![instead(&plain, tcp).syn()],
            [(DropNoFlow, 1)],
        ),
        case(
            "E08 a padded ACK",
            |plain| vec![instead(&plain, tcp).data(&[]).padded(6)],
            [(DropNoFlow, 1)],
        ),
    ]);
    cases.extend([0x00, 0xf0].map(|offset| {
        case(
            format!("E08 TCP data offset {}", offset >> 4),
            move |plain| vec![instead(&plain, tcp).syn().transport_bytes(12, &[offset])],
            [(DropNoFlow, 1)],
        )
        .refused_by_the_kernel()
    }));
    cases
}
