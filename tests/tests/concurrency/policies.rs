//! One policy after the other, while packets come that every one of them lets in.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{Family, Verdict};
use guard_tests::frames::{FAR, tcp, udp};

use crate::lab::{EXPOSED, Lab};

/// Changes of policy that the packets meet, at least.
const CHANGES: u32 = 40;

/// Room for the flows.
const ROOM: u32 = 1 << 10;

/// A trusted source, an exposed port and a live flow are let in all along, and what belongs to
/// nothing is dropped all along.
#[test]
fn no_packet_sees_half_of_a_change() -> Result<()> {
    let lab = Lab::new(ROOM)?;
    let mut frames = Vec::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        lab.programs.egress(&udp(40_000, 53).sent(family))?;
        let pass = [
            udp(53, 41_000).from(FAR),
            tcp(443, 41_001).from(FAR).syn(),
            tcp(443, EXPOSED).syn(),
            udp(53, 40_000),
        ];
        let drop = [udp(53, 42_000), tcp(443, 42_001).syn(), udp(54, 40_000)];
        for (verdict, frame) in pass
            .into_iter()
            .map(|frame| (Verdict::Pass, frame))
            .chain(drop.into_iter().map(|frame| (Verdict::Drop, frame)))
        {
            for tags in 0..2 {
                frames.push((verdict, frame.clone().tags(tags).received(family)));
            }
        }
    }

    let ended = AtomicBool::new(false);
    let (changes, wrong) = thread::scope(|scope| {
        let changer = scope.spawn(|| lab.change(&ended, CHANGES));
        let show = || -> Result<u64> {
            let mut wrong = 0;
            // The first policy trusts and exposes, from then on all do.
            while !lab.is_changed() && !changer.is_finished() {
                thread::yield_now();
            }
            while !changer.is_finished() {
                for (verdict, frame) in &frames {
                    wrong += u64::from(lab.programs.ingress(frame)? != *verdict);
                }
            }
            Ok(wrong)
        };
        let wrong = show();
        ended.store(true, Ordering::Relaxed);
        (changer.join().expect("nobody panics"), wrong)
    });
    let (changes, wrong) = (changes?, wrong?);
    println!("{changes} changes, {wrong} wrong verdicts");
    ensure!(changes >= CHANGES, "{changes} changes");
    ensure!(wrong == 0, "{wrong} packets met half of a change");
    Ok(())
}
