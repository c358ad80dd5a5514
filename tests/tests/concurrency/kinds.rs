//! Frames of every sort that is decided without a socket.

use guard_common::outcome::{
    Family,
    Outcome::{
        self, DropFragmentDenied, DropHeaderDepth, DropIcmpUnrelated, DropMalformed, DropNoFlow,
        DropVlanDepth, PassExempt, PassIcmpInfo, PassIcmpOutside, PassIcmpRelated, PassKnownFlow,
        PassLaterFragment, PassNotIp, PassOtherProtocol, PassOutsideRange, PassTrusted,
    },
};
use guard_tests::frames::{
    Error, Extension, FAR, Frame, ethernet, icmp, icmp_error, protocol, tcp, udp, udp_lite,
};

/// What the guard has to be told for these frames to be decided so.
pub const FLAGS: [&str; 4] = ["--expose", "41000/udp", "--trust", "192.0.2.0/24"];
/// The port of the flow that some of them belong to, whose remote end is the peer's port 53.
pub const LIVE: u16 = 40_100;
/// The kind whose numbers a socket on [`SERVICE`] checks: it comes first.
pub const NUMBERED: usize = 0;
/// A port outside the range.
pub const SERVICE: u16 = 5_000;
/// Where in a numbered frame the number stands: behind the headers.
pub const NUMBER_AT: usize = 42;

/// The frames, and what becomes of them. A later fragment is refused where a first one of its
/// kind has been.
pub fn kinds() -> Vec<(Vec<u8>, Outcome)> {
    let deep = (0..9).fold(udp(53, 40_000), |frame, _| {
        frame.behind(Extension::Destination(0))
    });
    let both: Vec<(Frame, Outcome)> = vec![
        (udp(53, 40_000), DropNoFlow),
        (tcp(443, 40_000), DropNoFlow),
        (udp_lite(53, 40_000), DropNoFlow),
        (udp(53, 40_000).tags(2), DropNoFlow),
        (udp(53, 40_000).tags(5), DropVlanDepth),
        (udp(53, 40_000).cut_transport(3), DropMalformed),
        (udp(53, 41_000), PassExempt),
        (tcp(443, 5_001).rst(), PassOutsideRange),
        (icmp([0, 129], [0x9c, 0x40, 0, 53]), PassIcmpInfo),
        (protocol(132), PassOtherProtocol),
        (
            icmp_error(Error::PortUnreachable, udp(40_000, 53)),
            DropIcmpUnrelated,
        ),
        (
            icmp_error(Error::TimeExceeded, udp(443, 53)),
            PassIcmpOutside,
        ),
        (udp(53, 40_000).piece(9, ..8), DropNoFlow),
        (udp(53, 40_000).piece(9, 8..), DropFragmentDenied),
        (udp(53, 5_001).piece(8, 8..), PassLaterFragment),
    ];
    let numbered = udp(53, SERVICE).transport_bytes(6, &[0, 0]).v4();
    let one = [
        (numbered, PassOutsideRange),
        (ethernet(0x88cc, &[0; 46]), PassNotIp),
        (deep.v6(), DropHeaderDepth),
        (udp(53, LIVE).v4(), PassKnownFlow),
        (udp(53, 40_000).from(FAR).v4(), PassTrusted),
        (
            icmp_error(Error::TimeExceeded, udp(LIVE, 53)).v4(),
            PassIcmpRelated,
        ),
    ];
    let in_its_family = |(frame, outcome): &(Frame, Outcome)| {
        let family = if frame.exists_in(Family::Ipv4) {
            Family::Ipv4
        } else {
            Family::Ipv6
        };
        (frame.received(family), *outcome)
    };
    let in_both = |(frame, outcome): &(Frame, Outcome)| {
        [Family::Ipv4, Family::Ipv6].map(|family| (frame.received(family), *outcome))
    };
    one.iter()
        .map(in_its_family)
        .chain(both.iter().flat_map(in_both))
        .collect()
}
