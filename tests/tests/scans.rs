//! Scans and floods of the guarded range (rows U01, U02, U05, U06 and U08 of the acceptance
//! matrix): every frame is dropped, nothing is answered, and nothing is remembered.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow},
};
use guard_tests::{
    frames::{EVERYBODY, End, FAR, Frame, G, P, tcp, udp},
    guard::Guard,
    metrics,
    mode::Mode,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
const FIRST: u16 = 32_768;
const LAST: u16 = 60_999;
/// Ports that are tried in each other way than by SYN, beside the first and the last.
const TRIED: u16 = 200;
/// Frames of each kind in a flood.
const FLOOD: u16 = 5_000;

/// A frame to a port.
type Probe = fn(u16) -> Frame;
/// What makes a segment one of its kind.
type Kind = fn(Frame) -> Frame;

/// A guarded host and an unsolicited sender.
struct Lab {
    topology: Direct,
    wire: Wire,
    mode: Mode,
}

impl Lab {
    /// One for each mode.
    fn every() -> impl Iterator<Item = Result<Self>> {
        Mode::every().map(Self::new)
    }

    fn new(mode: Mode) -> Result<Self> {
        let topology = mode.topology()?;
        Ok(Self {
            wire: Wire::open(&topology.peer, topology.peer_interface())?,
            topology,
            mode,
        })
    }

    fn guard(&self) -> Result<Guard<'_>> {
        let flags = ["--xdp-mode", self.mode.xdp];
        Guard::start(&self.topology.guarded, self.topology.interface(), &flags)
    }

    fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        frames.iter().try_for_each(|frame| self.wire.send(frame))
    }

    /// Has the guard drop all of `frames`, without a word or a memory of it.
    fn dies(&self, guard: &Guard, what: &str, frames: &[Vec<u8>]) -> Result<()> {
        let mode = self.mode;
        guard
            .expect([(DropNoFlow, frames.len() as u64)], || self.send(frames))
            .with_context(|| format!("{mode}: {what}"))?;
        let answers = self.answers();
        ensure!(answers == 0, "{mode}: {answers} answers to {what}");
        let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[]);
        ensure!(flows == 0, "{mode}: {flows} flows after {what}");
        Ok(())
    }

    /// Segments and ICMP errors that come back.
    fn answers(&self) -> usize {
        /// Destination unreachable, over IPv4 and over IPv6.
        const ERRORS: [(usize, u8, usize, u8); 2] = [(23, 1, 34, 3), (20, 58, 54, 1)];
        /// The place of the protocol's number, and that of TCP.
        const SEGMENTS: [(usize, u8); 2] = [(23, 6), (20, 6)];

        let frames = self.wire.heard(QUIET);
        let is = |frame: &Vec<u8>, place: usize, byte| frame.get(place) == Some(&byte);
        frames
            .iter()
            .filter(|frame| {
                let version = usize::from(is(frame, 12, 0x86));
                let (protocol, tcp) = SEGMENTS[version];
                let (_, icmp, kind, unreachable) = ERRORS[version];
                is(frame, protocol, tcp)
                    || is(frame, protocol, icmp) && is(frame, kind, unreachable)
            })
            .count()
    }
}

/// One frame a port, over both families.
fn to_ports(ports: impl Iterator<Item = u16>, frame: impl Fn(u16) -> Frame) -> Vec<Vec<u8>> {
    let both = |port| FAMILIES.map(|family| frame(port).received(family));
    ports.flat_map(both).collect()
}

fn some() -> impl Iterator<Item = u16> {
    (FIRST..=LAST)
        .step_by(usize::from((LAST - FIRST) / TRIED))
        .chain([LAST])
}

#[test]
fn u01_a_scan_of_the_whole_range_meets_silence() -> Result<()> {
    for lab in Lab::every() {
        let lab = lab?;
        let syn = |port| tcp(443, port).syn();
        let sample = to_ports(some().take(20), syn);
        lab.send(&sample)?;
        let answers = lab.answers();
        ensure!(answers == sample.len(), "U01: {answers} without a guard");
        let guard = lab.guard()?;
        lab.dies(&guard, "U01: SYN", &to_ports(FIRST..=LAST, syn))?;
    }
    Ok(())
}

#[test]
fn u02_other_scans_meet_silence_too() -> Result<()> {
    // name                     frame to a port
    let kinds: [(&str, Probe); 6] = [
        ("U02: ACK, window", |port| tcp(443, port)),
        ("U02: FIN", |port| tcp(443, port).no_flags().fin()),
        ("U02: FIN and ACK", |port| tcp(443, port).fin()),
        ("U02: no flag", |port| tcp(443, port).no_flags()),
        ("U02: all flags", |port| {
            tcp(443, port).no_flags().christmas()
        }),
        ("U02: UDP", |port| udp(53, port)),
    ];
    for lab in Lab::every() {
        let lab = lab?;
        for (what, frame) in kinds {
            // The kernel limits how many ICMP errors it sends, so some must do.
            lab.send(&to_ports(some().take(20), frame))?;
            ensure!(lab.answers() > 0, "{what}: no answer without a guard");
        }
        let guard = lab.guard()?;
        for (what, frame) in kinds {
            lab.dies(&guard, what, &to_ports(some(), frame))?;
        }
    }
    Ok(())
}

#[test]
fn u05_another_protocol_of_the_same_ports_is_unsolicited() -> Result<()> {
    for lab in Lab::every() {
        let lab = lab?;
        let listener = Listener::new(&lab.topology.guarded, 40_000)?;
        let _server = Listener::new(&lab.topology.peer, 53)?;
        for family in FAMILIES {
            lab.wire.send(&tcp(53, 40_000).syn().received(family))?;
        }
        ensure!(lab.answers() == 2, "U05: no answers without a guard");
        let guard = lab.guard()?;
        for family in FAMILIES {
            let peer: std::net::IpAddr = match family {
                Family::Ipv6 => P.ipv6.into(),
                // The listener is one socket for both families.
                Family::Ipv4 | Family::Other => P.ipv4.to_ipv6_mapped().into(),
            };
            guard.expect([(PassNewFlow, 1)], || {
                listener.socket().send_to(b"query", (peer, 53))?;
                Ok(())
            })?;
            guard
                .expect([(DropNoFlow, 1), (PassKnownFlow, 1)], || {
                    lab.wire.send(&tcp(53, 40_000).syn().received(family))?;
                    lab.wire.send(&udp(53, 40_000).received(family))
                })
                .with_context(|| format!("U05, {}, {family:?}", lab.mode))?;
            ensure!(listener.delivered(QUIET) == 1, "U05: the answer is lost");
        }
    }
    Ok(())
}

/// Numbers without a pattern, the same in each run.
fn numbers() -> impl Iterator<Item = u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    })
}

/// A port of the range, any port and somebody far away.
fn anybody(number: u64) -> (u16, u16, End) {
    let bytes = number.to_be_bytes();
    let port = FIRST + u16::from_be_bytes([bytes[0], bytes[1]]) % (LAST - FIRST + 1);
    let remote = u16::from_be_bytes([bytes[2], bytes[3]]).max(1);
    let somebody = End {
        ipv4: [11 + bytes[4] % 100, bytes[5], bytes[6], bytes[7] | 1].into(),
        ipv6: (0x2001_0db8 << 96 | u128::from(number)).into(),
        ..FAR
    };
    (port, remote, somebody)
}

#[test]
fn u06_floods_of_random_segments_die_unanswered() -> Result<()> {
    let kinds: [(&str, Kind); 5] = [
        ("U06: SYN", Frame::syn),
        ("U06: ACK", |frame| frame),
        ("U06: RST", Frame::rst),
        ("U06: FIN", Frame::fin),
        ("U06: SYN and ACK", Frame::syn_ack),
    ];
    for lab in Lab::every() {
        let lab = lab?;
        lab.topology.guarded.ip("route add default via 10.9.0.1")?;
        lab.topology.guarded.ip("route add default via fd09::1")?;
        let flood = |kind: Kind| -> Vec<_> {
            let frame = |number| {
                let (port, remote, somebody) = anybody(number);
                let frame = kind(tcp(remote, port)).from(somebody);
                frame.received(FAMILIES[usize::from(port % 2)])
            };
            numbers().take(usize::from(FLOOD)).map(frame).collect()
        };
        for (what, kind) in kinds {
            lab.send(&flood(kind)[..20])?;
            // A RST is never answered.
            let due = if what.ends_with("RST") { 0 } else { 20 };
            let answers = lab.answers();
            ensure!(answers == due, "{what}: {answers} answers without a guard");
        }
        let guard = lab.guard()?;
        for (what, kind) in kinds {
            lab.dies(&guard, what, &flood(kind))?;
        }
    }
    Ok(())
}

#[test]
fn u08_forged_senders_are_unsolicited_senders() -> Result<()> {
    const PORT: u16 = 40_000;
    // name, sender, how many of its datagrams, one a family, the kernel itself delivers
    let senders = [
        ("U08: a neighbour", P, 2),
        ("U08: somebody far away", FAR, 2),
        ("U08: the host itself", G, 1),
        ("U08: a group", EVERYBODY, 0),
    ];
    for lab in Lab::every() {
        let lab = lab?;
        let listener = Listener::new(&lab.topology.guarded, PORT)?;
        lab.topology.guarded.ip("route add default via 10.9.0.1")?;
        lab.topology.guarded.ip("route add default via fd09::1")?;
        let frames = |sender: End| {
            let forged = End {
                mac: P.mac,
                ..sender
            };
            FAMILIES.map(|family| udp(PORT, PORT).from(forged).received(family))
        };
        for (what, sender, due) in senders {
            lab.send(&frames(sender))?;
            let delivered = listener.delivered(QUIET);
            ensure!(delivered == due, "{what}: {delivered} without a guard");
        }
        let guard = lab.guard()?;
        for (what, sender, _) in senders {
            lab.dies(&guard, what, &frames(sender))?;
            ensure!(listener.delivered(QUIET) == 0, "{what}: delivered");
        }
    }
    Ok(())
}
