//! Pieces of a forbidden datagram: the first is decided, the others share its fate.

use guard_common::outcome::{
    Family,
    Outcome::{DropFragmentDenied, DropMalformed, DropNoFlow, PassLaterFragment, PassOutsideRange},
};
use guard_tests::frames::{Extension::Destination, Frame, tcp, udp};

use super::case::{Case, SERVICE, case, instead};

pub fn cases() -> Vec<Case> {
    vec![
        case(
            "E04 two pieces",
            |plain| vec![first(&plain), later(&plain)],
            [(DropNoFlow, 1), (DropFragmentDenied, 1)],
        ),
        case(
            "E04 two pieces, backwards",
            |plain| vec![later(&plain), first(&plain)],
            [(DropNoFlow, 1), (PassLaterFragment, 1)],
        ),
        case(
            "E04 three pieces, the first of 8 bytes",
            |plain| {
                let id = id(&plain);
                vec![
                    plain.clone().piece(id, ..8),
                    plain.clone().piece(id, 8..16),
                    plain.piece(id, 16..),
                ]
            },
            [(DropNoFlow, 1), (DropFragmentDenied, 2)],
        ),
        case(
            "E04, A5 three pieces, the first between the others",
            |plain| {
                let id = id(&plain);
                vec![
                    plain.clone().piece(id, 16..),
                    plain.clone().piece(id, ..8),
                    plain.piece(id, 8..16),
                ]
            },
            [
                (DropNoFlow, 1),
                (DropFragmentDenied, 1),
                (PassLaterFragment, 1),
            ],
        ),
        case(
            "E04 a later piece only",
            |plain| vec![later(&plain)],
            [(PassLaterFragment, 1)],
        )
        .refused_by_the_kernel(),
        case(
            "A5 an empty piece first",
            |plain| {
                let empty = plain.clone().piece(id(&plain), ..0);
                vec![empty, first(&plain), later(&plain)]
            },
            [(DropMalformed, 1), (DropNoFlow, 1), (DropFragmentDenied, 1)],
        ),
        case(
            "A5 then another first piece, to a port that is not guarded",
            |plain| vec![first(&plain), first(&to_service(&plain)), later(&plain)],
            // The rest completes the other datagram, which the service gets.
            [
                (DropNoFlow, 1),
                (PassOutsideRange, 1),
                (PassLaterFragment, 1),
            ],
        ),
        case(
            "A5 before it another first piece, to a port that is not guarded",
            |plain| vec![first(&to_service(&plain)), first(&plain), later(&plain)],
            [
                (DropNoFlow, 1),
                (PassOutsideRange, 1),
                (DropFragmentDenied, 1),
            ],
        )
        .refused_by_the_kernel(),
        case(
            "A5 a SYN whose flags are in the second piece",
            |plain| {
                let syn = instead(&plain, tcp).syn();
                let id = id(&plain);
                vec![syn.clone().piece(id, ..8), syn.piece(id, 8..)]
            },
            [(DropNoFlow, 1), (DropFragmentDenied, 1)],
        )
        .delivered_only_in(Family::Ipv4),
        case(
            "A5, A12 ports in the second piece, and others behind the end of the first",
            |plain| {
                let id = id(&plain);
                let headers = plain
                    .piece(id, ..8)
                    .behind(Destination(0))
                    .behind(Destination(0));
                let rest = headers.clone().piece(id, 8..);
                // In place of the second header, one that UDP from and to port 0 follows.
                vec![headers.padded(16).network_bytes(56, &[17]), rest]
            },
            [(DropMalformed, 1), (DropFragmentDenied, 1)],
        ),
    ]
}

fn first(plain: &Frame) -> Frame {
    plain.clone().piece(id(plain), ..16)
}

fn later(plain: &Frame) -> Frame {
    plain.clone().piece(id(plain), 16..)
}

/// An identification of the case's own: its source port.
fn id(plain: &Frame) -> u16 {
    let bytes = plain.received(Family::Ipv4);
    u16::from_be_bytes([bytes[34], bytes[35]])
}

fn to_service(plain: &Frame) -> Frame {
    udp(id(plain), SERVICE)
}
