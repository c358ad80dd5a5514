//! Lengths, checksums and frames that end early.

use guard_common::outcome::Outcome::{
    DropMalformed, DropNoFlow, PassKnownFlow, PassNewFlow, PassNotRecorded, PassOutsideRange,
};

use super::{Case, case};
use crate::frames::{Frame, tcp, udp, udp_lite};

pub(super) fn cases() -> Vec<Case> {
    let udp_lengths = [0, 7, 8, 27, 29, u16::MAX].map(|length: u16| {
        lie("a UDP length decides nothing", udp, move |frame| {
            frame.transport_bytes(4, &length.to_be_bytes())
        })
    });
    let offsets = [0x00, 0x40, 0xf0].map(|offset: u8| {
        lie("a TCP data offset decides nothing", tcp, move |frame| {
            frame.transport_bytes(12, &[offset])
        })
    });
    let total_lengths = [0, 19, 20, 21, u16::MAX].map(|length: u16| {
        lie("an IPv4 length decides nothing", udp, move |frame| {
            frame.v4().network_bytes(2, &length.to_be_bytes())
        })
    });
    let payload_lengths = [0, 1, u16::MAX].map(|length: u16| {
        lie("an IPv6 length decides nothing", udp, move |frame| {
            frame.v6().network_bytes(4, &length.to_be_bytes())
        })
    });
    let paddings = [1, 18, 500].map(|bytes| {
        lie("padding decides nothing", tcp, move |frame| {
            frame.padded(bytes)
        })
    });

    let mut cases: Vec<Case> = udp_lengths.into();
    cases.extend(offsets);
    cases.extend(total_lengths);
    cases.extend(payload_lengths);
    cases.extend(paddings);
    cases.extend([
        lie("a UDP checksum decides nothing", udp, |frame| {
            frame.transport_bytes(6, &[0xde, 0xad])
        }),
        lie("an absent UDP checksum decides nothing", udp, |frame| {
            frame.transport_bytes(6, &[0, 0])
        }),
        lie("a UDP-Lite coverage decides nothing", udp_lite, |frame| {
            frame.transport_bytes(4, &[0, 0])
        }),
        lie("a TCP checksum decides nothing", tcp, |frame| {
            frame.transport_bytes(16, &[0xde, 0xad])
        }),
        lie("an IPv4 checksum decides nothing", udp, |frame| {
            frame.v4().network_bytes(10, &[0xde, 0xad])
        }),
        lie("every TCP flag at once", tcp, |frame| {
            frame.transport_bytes(13, &[!0x04])
        }),
        case("an IPv4 header shorter than a header")
            .receives(header_length(udp(53, 40_000), 4), DropMalformed)
            .receives(header_length(udp(53, 80), 4), DropMalformed)
            .receives(header_length(udp(53, 40_000), 0), DropMalformed)
            .sends(header_length(udp(40_000, 53), 4), PassNotRecorded),
        case("IPv4 options longer than the frame")
            .receives(options_cut(udp(53, 40_000)), DropMalformed)
            .receives(options_cut(tcp(443, 80)), DropMalformed)
            .sends(options_cut(udp(40_000, 53)), PassNotRecorded),
    ]);
    cases.extend([udp, udp_lite, tcp].map(cut_ports));
    cases
}

/// Checks that a frame is decided as if it told the truth.
fn lie(name: &'static str, build: fn(u16, u16) -> Frame, lie: impl Fn(Frame) -> Frame) -> Case {
    case(name)
        .receives(lie(build(53, 40_000)), DropNoFlow)
        .receives(lie(build(53, 80)), PassOutsideRange)
        .sends(build(40_000, 53), PassNewFlow)
        .receives(lie(build(53, 40_000)), PassKnownFlow)
        .receives(lie(build(54, 40_000)), DropNoFlow)
}

fn header_length(frame: Frame, words: u8) -> Frame {
    frame
        .v4()
        .network_bytes(0, &[0x40 | words])
        .seen_without_protocol()
}

/// Fifteen words of header in a frame that holds seven.
fn options_cut(frame: Frame) -> Frame {
    frame.v4().network_bytes(0, &[0x4f]).cut_transport(8)
}

fn cut_ports(build: fn(u16, u16) -> Frame) -> Case {
    let mut cut = case("the ports must be in the frame, and nothing more")
        .sends(build(40_000, 53), PassNewFlow);
    for length in 0..4 {
        cut = cut
            .receives(build(53, 40_000).cut_transport(length), DropMalformed)
            .receives(build(53, 80).cut_transport(length), DropMalformed)
            .sends(build(40_001, 53).cut_transport(length), PassNotRecorded);
    }
    cut.receives(build(53, 40_000).cut_transport(4), PassKnownFlow)
        .receives(build(54, 40_000).cut_transport(4), DropNoFlow)
        .receives(build(53, 80).cut_transport(4), PassOutsideRange)
        .sends(build(40_002, 53).cut_transport(4), PassNewFlow)
}
