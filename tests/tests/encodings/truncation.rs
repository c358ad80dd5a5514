//! A frame that ends early: it is dropped for what it lacks, or for where it goes.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{self, DropIcmpUnrelated, DropMalformed, DropNoFlow},
};
use guard_tests::{
    frames::{Error, Extension, Frame, icmp_error, tcp, udp},
    guard::Guard,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

use super::MODES;

/// The shortest frame that a packet socket sends.
const SHORTEST: usize = 14;

/// What is cut, how long its headers are in IPv4 and IPv6, how much of that stands behind the
/// ports, and what becomes of it once the ports are there.
fn headers() -> Vec<(&'static str, Frame, [usize; 2], usize, Outcome)> {
    let plain = || udp(53, 40_000);
    let error = icmp_error(Error::PortUnreachable, udp(40_000, 53));
    vec![
        ("UDP", plain(), [42, 62], 4, DropNoFlow),
        ("tagged UDP", plain().tags(1), [46, 66], 4, DropNoFlow),
        ("twice tagged UDP", plain().tags(2), [50, 70], 4, DropNoFlow),
        ("TCP", tcp(443, 40_000).syn(), [54, 74], 16, DropNoFlow),
        (
            "UDP with options",
            plain().options(&[1; 40]),
            [82, 0],
            4,
            DropNoFlow,
        ),
        (
            "UDP behind options",
            plain().behind(Extension::Destination(1)),
            [0, 78],
            4,
            DropNoFlow,
        ),
        ("an error", error, [70, 110], 4, DropIcmpUnrelated),
    ]
}

#[test]
fn e10_frames_that_end_early() -> Result<()> {
    let tainted = || std::fs::read_to_string("/proc/sys/kernel/tainted");
    let before = tainted()?;
    for mode in MODES {
        let topology = Direct::new()?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        for (name, frame, family, length, _, _) in in_families() {
            let whole = frame.received(family);
            for end in SHORTEST..=length {
                wire.send(&whole[..end])?;
            }
            let delivered = listener.delivered(QUIET);
            ensure!(delivered == 0, "{name}: {delivered} delivered though cut");
        }
        wire.send(&udp(53, 40_000).received(Family::Ipv4))?;
        ensure!(listener.delivered(QUIET) == 1, "nothing is ever delivered");

        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for (name, frame, family, length, behind, outcome) in in_families() {
            let whole = frame.received(family);
            let ports_end = length - behind;
            let due = [
                (DropMalformed, (ports_end - SHORTEST) as u64),
                (outcome, (length + 1 - ports_end) as u64),
            ];
            guard
                .expect(due, || {
                    (SHORTEST..=length).try_for_each(|end| wire.send(&whole[..end]))
                })
                .with_context(|| format!("{mode}, {family:?}: {name}"))?;
        }
        ensure!(listener.delivered(QUIET) == 0, "{mode}: some are delivered");
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    ensure!(tainted()? == before, "the kernel has complained");
    Ok(())
}

fn in_families() -> impl Iterator<Item = (&'static str, Frame, Family, usize, usize, Outcome)> {
    headers()
        .into_iter()
        .flat_map(|(name, frame, lengths, behind, outcome)| {
            [Family::Ipv4, Family::Ipv6]
                .into_iter()
                .zip(lengths)
                .filter(|(_, length)| *length > 0)
                .map(move |(family, length)| (name, frame.clone(), family, length, behind, outcome))
        })
}
