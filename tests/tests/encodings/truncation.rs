//! A frame that ends early, on the wire: it is dropped for what it lacks, or for where it goes.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{self, DropMalformed, PassIcmpInfo, PassNotIp},
};
use guard_tests::{
    frames::udp,
    guard::Guard,
    headers::{self, Headers},
    kernel,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

use super::MODES;

/// The shortest frame that a packet socket sends.
const SHORTEST: usize = 14;

/// Every kind, but those that hosts send unasked: their counters move by themselves.
fn kinds() -> impl Iterator<Item = (Headers, Family)> {
    headers::every_kind()
        .into_iter()
        .filter(|headers| ![PassIcmpInfo, PassNotIp].contains(&headers.outcome))
        .flat_map(|headers| {
            let families: Vec<Family> = headers.families().collect();
            families
                .into_iter()
                .map(move |family| (headers.clone(), family))
        })
}

/// Sends each kind, cut off at every byte of its headers. Each single one is looked at in test-run.
fn send(wire: &Wire) -> Result<()> {
    for (headers, family) in kinds() {
        let whole = headers.frame.received(family);
        (SHORTEST..=headers.length(family)).try_for_each(|end| wire.send(&whole[..end]))?;
    }
    Ok(())
}

/// How often each outcome is due for them.
fn due() -> Vec<(Outcome, u64)> {
    let mut due: Vec<(Outcome, u64)> = Vec::new();
    for (headers, family) in kinds() {
        let (needed, length) = (headers.needed(family), headers.length(family));
        for (outcome, frames) in [
            (DropMalformed, needed - SHORTEST),
            (headers.outcome, length + 1 - needed),
        ] {
            match due.iter_mut().find(|(known, _)| *known == outcome) {
                Some((_, sum)) => *sum += frames as u64,
                None => due.push((outcome, frames as u64)),
            }
        }
    }
    due
}

#[test]
fn e10_frames_that_end_early() -> Result<()> {
    let complaints = kernel::complaints();
    for mode in MODES {
        let topology = Direct::new()?;
        let listener = Listener::new(&topology.guarded, 40_000)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        send(&wire)?;
        let delivered = listener.delivered(QUIET);
        ensure!(delivered == 0, "{delivered} delivered though cut");
        wire.send(&udp(53, 40_000).received(Family::Ipv4))?;
        ensure!(listener.delivered(QUIET) == 1, "nothing is ever delivered");

        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        guard.expect(due(), || send(&wire)).context(mode)?;
        ensure!(listener.delivered(QUIET) == 0, "{mode}: some are delivered");
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    ensure!(
        kernel::complaints() == complaints,
        "the kernel has complained"
    );
    Ok(())
}
