//! E10, by test-run: every kind of header, cut off at every byte, to both programs.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Decision, Direction, Family,
    Outcome::{self, DropMalformed, PassNewFlow, PassNotRecorded, PassRefreshedFlow},
    Verdict,
};
use guard_tests::{
    frames::{
        Extension::{Atomic, Authentication, Destination, HopByHop, Routing},
        Frame, tcp, udp, udp_lite,
    },
    headers, kernel,
    programs::{Entry, FRAGS, Programs, can_be_sent},
    setup::{self, Setup},
};

/// The shortest frame that test-run gives to XDP.
const SHORTEST: usize = 14;

#[test]
fn e10_received_frames_that_end_early() -> Result<()> {
    received(Entry::Whole)
}

#[test]
fn e10_received_frames_that_end_early_and_may_be_split() -> Result<()> {
    if FRAGS.is_missing("XDP on frames in several pieces") {
        return Ok(());
    }
    received(Entry::Frags)
}

fn received(entry: Entry) -> Result<()> {
    let complaints = kernel::complaints();
    let mut programs = Programs::load(entry)?;
    programs.reset(Setup::default())?;
    let mut frames = 0;
    for headers in headers::every_kind() {
        for family in headers.families() {
            let whole = headers.frame.received(family);
            let needed = headers.needed(family);
            ensure!(needed > SHORTEST || headers.data > 0, "{}", headers.name);
            for end in SHORTEST..=whole.len() {
                let due = if end < needed {
                    DropMalformed
                } else {
                    headers.outcome
                };
                let context = || format!("{}, {family:?}, {end} bytes", headers.name);
                check(&programs, Direction::Ingress, &whole[..end], &[due])
                    .with_context(context)?;
                frames += 1;
            }
        }
    }
    println!("{frames} frames");
    ensure!(
        programs.flows(0)?.is_empty(),
        "an unsolicited sender has opened a flow"
    );
    ensure!(
        complaints == kernel::complaints(),
        "the kernel has complained"
    );
    Ok(())
}

#[test]
fn e10_sent_frames_that_end_early() -> Result<()> {
    let complaints = kernel::complaints();
    let mut programs = Programs::load(Entry::Whole)?;
    type Build = fn(u16, u16) -> Frame;

    let transports: [(Build, usize); 3] = [(udp, 4), (udp_lite, 4), (tcp, 16)];
    let mut frames = 0;
    for (build, unread) in transports {
        for (name, frame) in dressed(build(40_000, 443).data(&[])) {
            for family in [Family::Ipv4, Family::Ipv6] {
                if !frame.exists_in(family) {
                    continue;
                }
                programs.reset(Setup::default())?;
                let whole = frame.sent(family);
                let needed = whole.len() - unread;
                for end in (0..=whole.len()).filter(|end| can_be_sent(&whole[..*end])) {
                    let due: &[Outcome] = if end < needed {
                        &[PassNotRecorded]
                    } else {
                        &[PassNewFlow, PassRefreshedFlow]
                    };
                    let context = || format!("{name}, {family:?}, {end} bytes");
                    check(&programs, Direction::Egress, &whole[..end], due)
                        .with_context(context)?;
                    let flows = programs.flows(0)?.len();
                    ensure!(flows == usize::from(end >= needed), "{}", context());
                    frames += 1;
                }
            }
        }
    }
    println!("{frames} frames");
    ensure!(
        complaints == kernel::complaints(),
        "the kernel has complained"
    );
    Ok(())
}

/// A frame in everything that it may be sent in.
fn dressed(frame: Frame) -> Vec<(&'static str, Frame)> {
    let behind = |extension| frame.clone().behind(extension);
    let eight = (0..8).fold(frame.clone(), |frame, _| frame.behind(Destination(0)));
    vec![
        ("plain", frame.clone()),
        ("a tag", frame.clone().tags(1)),
        ("four tags", frame.clone().tags(4)),
        ("options", frame.clone().options(&[1; 40])),
        ("tags and options", frame.clone().tags(2).options(&[1; 4])),
        ("hop-by-hop options", behind(HopByHop(1))),
        ("a routing header", behind(Routing(0))),
        ("an authentication header", behind(Authentication(3))),
        ("an atomic fragment", behind(Atomic)),
        ("eight extension headers", eight),
    ]
}

/// Shows one frame to one program: it does what is due, and counts once.
fn check(programs: &Programs, hook: Direction, frame: &[u8], due: &[Outcome]) -> Result<()> {
    let before = programs.counters(setup::DEVICE)?;
    let action = match hook {
        Direction::Ingress => programs.ingress(frame)?,
        Direction::Egress => programs.egress(frame)?,
    };
    let after = programs.counters(setup::DEVICE)?;
    let moved: Vec<(Outcome, Verdict, u64)> = before
        .iter()
        .zip(&after)
        .enumerate()
        .filter(|(_, (before, after))| before != after)
        .map(|(slot, (before, after))| {
            // Slots run by outcome, verdict, family and protocol.
            let outcome = Outcome::ALL[slot / Decision::SLOTS_OF_ONE];
            (outcome, Verdict::ALL[slot / (3 * 5) % 2], after - before)
        })
        .collect();
    let [(outcome, verdict, 1)] = moved[..] else {
        anyhow::bail!("counted {moved:?}");
    };
    ensure!(due.contains(&outcome), "{outcome:?}, not {due:?}");
    ensure!(
        verdict == action && action == outcome.verdict(),
        "{action:?}"
    );
    Ok(())
}
