//! Frames with every kind of header, and how much of each is needed to decide it.

use guard_common::outcome::{
    Family,
    Outcome::{
        self, DropFragmentDenied, DropHeaderDepth, DropIcmpUnrelated, DropNoFlow, DropVlanDepth,
        PassIcmpInfo, PassLaterFragment, PassNotIp, PassOtherProtocol, PassOutsideRange,
    },
};

use crate::frames::{
    Error,
    Extension::{self, Atomic, Authentication, Destination, HopByHop, Routing},
    Frame, SERVICE_VLAN, VLAN, ethernet, icmp, icmp_error, protocol, tcp, udp, udp_lite,
};

/// A received frame with some kind of header.
#[derive(Clone, Debug)]
pub struct Headers {
    /// What is special about it.
    pub name: &'static str,
    /// The frame, from an unsolicited sender.
    pub frame: Frame,
    /// Bytes at its end that are no header.
    pub data: usize,
    /// Bytes of headers in front of them that say nothing to the guard.
    pub unread: usize,
    /// What becomes of it once the rest is there.
    pub outcome: Outcome,
}

/// Bytes behind the transport header of a frame that is not told otherwise.
const DATA: usize = 20;

/// Bytes of UDP and TCP headers behind the ports.
const BEHIND_UDP: usize = 4;
const BEHIND_TCP: usize = 16;

/// Bytes of a tag behind its type of what follows, and in front of that.
const TAG: usize = 4;

impl Headers {
    /// How long the frame is up to the end of its headers.
    pub fn length(&self, family: Family) -> usize {
        self.frame.received(family).len() - self.data
    }

    /// How much of it decides.
    pub fn needed(&self, family: Family) -> usize {
        self.length(family) - self.unread
    }

    /// The families in which it exists.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        let frame = self.frame.clone();
        [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .filter(move |family| frame.exists_in(*family))
    }
}

fn headers(name: &'static str, frame: Frame, unread: usize, outcome: Outcome) -> Headers {
    Headers {
        name,
        frame,
        data: DATA,
        unread,
        outcome,
    }
}

/// One of each kind.
pub fn every_kind() -> Vec<Headers> {
    [plain(), tagged(), extended(), pieces(), messages()].concat()
}

fn unsolicited() -> Frame {
    udp(53, 40_000)
}

fn plain() -> Vec<Headers> {
    let udp_like = |name, frame, outcome| headers(name, frame, BEHIND_UDP, outcome);
    vec![
        udp_like("UDP", unsolicited(), DropNoFlow),
        udp_like("UDP-Lite", udp_lite(53, 40_000), DropNoFlow),
        headers("TCP", tcp(443, 40_000).syn(), BEHIND_TCP, DropNoFlow),
        udp_like("UDP to a service", udp(53, 80), PassOutsideRange),
        headers(
            "TCP to a service",
            tcp(40_000, 80).syn(),
            BEHIND_TCP,
            PassOutsideRange,
        ),
        udp_like("options", unsolicited().options(&[1; 4]), DropNoFlow),
        udp_like("many options", unsolicited().options(&[1; 40]), DropNoFlow),
        headers("another protocol", protocol(47), 0, PassOtherProtocol),
        Headers {
            data: 46,
            ..headers("no IP", ethernet(0x0806, &[0; 46]), 0, PassNotIp)
        },
    ]
}

fn tagged() -> Vec<Headers> {
    let row = |name, frame| headers(name, frame, BEHIND_UDP, DropNoFlow);
    let deep = |frame: Frame, family| frame.received(family).len();
    let five = unsolicited().tags(5);
    vec![
        row("a tag", unsolicited().tags(1)),
        row("two tags", unsolicited().tags(2)),
        row("three tags", unsolicited().tags(3)),
        row("four tags", unsolicited().tags(4)),
        row(
            "a service tag",
            unsolicited().tag(SERVICE_VLAN, 7).tag(VLAN, 8),
        ),
        row("a tag and options", unsolicited().tags(1).options(&[1; 40])),
        row("a tag and extensions", {
            unsolicited().tags(1).behind(Destination(1)).behind(Atomic)
        }),
        // The type of what follows the fourth tag decides.
        Headers {
            data: deep(five.clone(), Family::Ipv4) - (14 + 4 * TAG),
            ..headers("five tags", five.v4(), 0, DropVlanDepth)
        },
    ]
}

fn extended() -> Vec<Headers> {
    let row = |name, extension: Extension| {
        headers(
            name,
            unsolicited().behind(extension),
            BEHIND_UDP,
            DropNoFlow,
        )
    };
    let eight = (0..8).fold(unsolicited(), |frame, _| frame.behind(Destination(0)));
    let nine = eight.clone().behind(HopByHop(0));
    let behind_eight = nine.received(Family::Ipv6).len() - (14 + 40 + 8 * 8);
    vec![
        row("hop-by-hop options", HopByHop(0)),
        row("destination options", Destination(2)),
        row("a routing header", Routing(0)),
        row("an unknown routing header", Routing(99)),
        row("an authentication header", Authentication(3)),
        row("an atomic fragment", Atomic),
        headers("eight extension headers", eight, BEHIND_UDP, DropNoFlow),
        Headers {
            data: behind_eight + 6,
            ..headers("nine extension headers", nine, 0, DropHeaderDepth)
        },
    ]
}

fn pieces() -> Vec<Headers> {
    const ID: u16 = 7;

    vec![
        Headers {
            data: 0,
            ..headers(
                "a first piece",
                unsolicited().piece(ID, ..8),
                BEHIND_UDP,
                DropNoFlow,
            )
        },
        Headers {
            data: 0,
            ..headers(
                "a first piece behind options",
                unsolicited().behind(HopByHop(0)).piece(ID, ..8),
                BEHIND_UDP,
                DropNoFlow,
            )
        },
        // The first piece above was refused, and this is another datagram's.
        headers(
            "a later piece",
            unsolicited().piece(ID + 1, 8..),
            0,
            PassLaterFragment,
        ),
        headers(
            "a later piece of a refused datagram",
            unsolicited().piece(ID, 8..),
            0,
            DropFragmentDenied,
        ),
    ]
}

fn messages() -> Vec<Headers> {
    let about = |name, quoted: Frame| Headers {
        data: 0,
        ..headers(
            name,
            icmp_error(Error::PortUnreachable, quoted),
            4,
            DropIcmpUnrelated,
        )
    };
    let sent = || udp(40_000, 53);
    vec![
        about("an error about UDP", sent()),
        about("an error about TCP", tcp(40_000, 443).syn()),
        about("an error about options", sent().options(&[1; 40])),
        about(
            "an error about extension headers",
            sent().behind(HopByHop(0)).behind(Destination(1)),
        ),
        about("an error about a first piece", sent().piece(9, ..8)),
        Headers {
            frame: icmp_error(Error::TimeExceeded, sent()).tags(2),
            ..about("an error behind tags", sent())
        },
        // The type of an ICMP message decides that it is none.
        headers(
            "an echo",
            icmp([8, 128], [0x9c, 0x40, 0, 1]),
            7,
            PassIcmpInfo,
        ),
    ]
}
