//! IPv4 options and IPv6 extension headers.

use guard_common::outcome::Outcome::{
    DropHeaderDepth, DropMalformed, DropNoFlow, PassKnownFlow, PassNewFlow, PassNotRecorded,
    PassOutsideRange,
};

use super::{Case, case};
use crate::frames::{
    Extension::{self, Atomic, Authentication, Destination, HopByHop, Routing},
    Frame, tcp, udp,
};

/// As many as are walked.
const WALKED: usize = 8;

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = (1..=10).map(options).collect();
    let kinds = [
        HopByHop(0),
        HopByHop(5),
        Destination(0),
        Destination(7),
        Destination(127),
        Routing(0),
        Routing(2),
        Routing(4),
        Routing(99),
        Authentication(1),
        Authentication(3),
        Atomic,
    ];
    cases.extend(kinds.map(|kind| through("each extension header is skipped", &[kind])));
    cases.extend((2..=WALKED).map(|count| {
        through(
            "up to eight extension headers are skipped",
            &vec![Destination(0); count],
        )
    }));
    cases.extend([
        through(
            "extension headers of every kind",
            &[
                HopByHop(1),
                Destination(2),
                Routing(0),
                Atomic,
                Authentication(3),
                Destination(0),
            ],
        ),
        through("eight atomic fragments", &[Atomic; WALKED]),
        too_deep(&[Destination(0); WALKED + 1]),
        too_deep(&[Atomic; WALKED + 1]),
        too_deep(&[Destination(0); 100]),
        case("an extension header longer than the frame")
            .receives(lying_length(200), DropMalformed)
            .receives(lying_length(255), DropMalformed),
        case("an extension header that says it ends in the data")
            .sends(udp(40_000, 53), PassNewFlow)
            // The ports are then the last bytes of the data, which say "at", "a."
            .receives(lying_length(3), PassOutsideRange),
        case("a jumbogram's length stands in an option")
            .sends(tcp(40_000, 443).syn(), PassNewFlow)
            .receives(jumbo(tcp(443, 40_000)), PassKnownFlow)
            .receives(jumbo(tcp(444, 40_000)), DropNoFlow),
    ]);
    cases
}

/// Options that spell port 80, which is not guarded.
fn options(words: usize) -> Case {
    let options = vec![[0x00, 0x50, 0x00, 0x50]; words].concat();
    case("IPv4 options are skipped, whatever they spell")
        .receives(udp(53, 40_000).options(&options), DropNoFlow)
        .receives(tcp(443, 40_000).syn().options(&options), DropNoFlow)
        .receives(udp(53, 80).options(&options), PassOutsideRange)
        .sends(udp(40_000, 53).options(&options), PassNewFlow)
        .receives(udp(53, 40_000), PassKnownFlow)
        .receives(udp(53, 40_000).options(&options), PassKnownFlow)
        .receives(udp(54, 40_000).options(&options), DropNoFlow)
}

fn behind(frame: Frame, extensions: &[Extension]) -> Frame {
    extensions
        .iter()
        .fold(frame, |frame, extension| frame.behind(*extension))
}

fn through(name: &'static str, extensions: &[Extension]) -> Case {
    case(name)
        .receives(behind(udp(53, 40_000), extensions), DropNoFlow)
        .receives(behind(tcp(443, 40_000).syn(), extensions), DropNoFlow)
        .receives(behind(udp(53, 80), extensions), PassOutsideRange)
        .sends(behind(udp(40_000, 53), extensions), PassNewFlow)
        .receives(udp(53, 40_000), PassKnownFlow)
        .receives(behind(udp(53, 40_000), extensions), PassKnownFlow)
        .receives(behind(udp(53, 40_000), extensions).tags(4), PassKnownFlow)
        .receives(behind(udp(54, 40_000), extensions), DropNoFlow)
}

fn too_deep(extensions: &[Extension]) -> Case {
    let deep = |frame: Frame| behind(frame, extensions).seen_without_protocol();
    case("nobody is heard behind nine extension headers or more")
        .sends(udp(40_000, 53), PassNewFlow)
        .receives(deep(udp(53, 40_000)), DropHeaderDepth)
        .receives(deep(udp(53, 80)), DropHeaderDepth)
        .sends(deep(udp(40_001, 53)), PassNotRecorded)
        .receives(udp(53, 40_001), DropNoFlow)
}

/// A header that is 8 bytes long and says it has so many units more.
fn lying_length(units: u8) -> Frame {
    const LENGTH: usize = 41;
    udp(53, 40_000)
        .behind(Destination(0))
        .network_bytes(LENGTH, &[units])
}

fn jumbo(frame: Frame) -> Frame {
    const PAYLOAD_LENGTH: usize = 4;
    const OPTION: usize = 42;
    frame
        .behind(HopByHop(0))
        .network_bytes(PAYLOAD_LENGTH, &[0, 0])
        .network_bytes(OPTION, &[0xc2, 4, 0, 1, 0, 0])
}
