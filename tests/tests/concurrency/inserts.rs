//! The same flows, recorded by two processors at once, while the range changes and sweeps run
//! (row L9 of the acceptance matrix).

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::{
    flow::state::{Flow, Phase},
    frame::transport::Transport,
    outcome::{
        Outcome::{DropNoFlow, PassInsertFailed, PassKnownFlow, PassNewFlow, PassRefreshedFlow},
        Verdict,
    },
};
use guard_tests::{processors, soak::Size};
use guard_userspace::{bpf::maps::FlowMap, guard::fault_injection::Parts};

use crate::{conversation::Conversation, lab::Lab};

/// Sweeps after which a port that nothing marks looks free.
const FORGOTTEN: u32 = 3;

/// How much is done.
#[derive(Clone, Copy)]
struct Amount {
    flows: u32,
    /// Of each map, which has a quarter of them: enough that none is ever evicted.
    room: u32,
}

const SHORT: Amount = Amount {
    flows: 20_000,
    room: 1 << 14,
};
const FULL: Amount = Amount {
    flows: 1_000_000,
    room: 1 << 19,
};

/// Opens every flow from one processor, in step with the other, and receives its answer at once.
/// Returns how many answers were dropped, and how often the other was there in time.
fn speak(lab: &Lab, flows: u32, number: usize, steps: &[AtomicU32; 2]) -> Result<(u64, u64)> {
    /// Looks for the other, which may have been taken off its processor.
    const LOOKS: usize = 2_000;

    processors::pin(number)?;
    let mut conversation = Conversation::new(number == 0);
    let (mut lost, mut met) = (0, 0);
    for flow in 0..flows {
        steps[number].store(flow + 1, Ordering::Relaxed);
        let there = || steps[1 - number].load(Ordering::Relaxed) > flow;
        met += u64::from((0..LOOKS).any(|_| there()));
        lab.programs.egress(conversation.sent(flow))?;
        let verdict = lab.programs.ingress(conversation.answer(flow))?;
        lost += u64::from(verdict == Verdict::Drop);
    }
    Ok((lost, met))
}

/// Receives an answer of every flow once more. Returns how many were dropped.
fn answered(lab: &Lab, flows: u32) -> Result<u64> {
    let mut conversation = Conversation::new(true);
    let mut lost = 0;
    for flow in 0..flows {
        let verdict = lab.programs.ingress(conversation.answer(flow))?;
        lost += u64::from(verdict == Verdict::Drop);
    }
    Ok(lost)
}

/// What became of it.
#[derive(Debug)]
struct Outcomes {
    /// Answers that were dropped: at once, and after further sweeps.
    lost: [u64; 2],
    /// Flows that both processors have opened at about the same time.
    met: u64,
    sweeps: u32,
    changes: u32,
}

fn run(lab: &Lab, flows: u32, parts: Parts) -> Result<Outcomes> {
    let (ended, sweeps) = (AtomicBool::new(false), AtomicU32::new(0));
    let steps = [const { AtomicU32::new(0) }; 2];
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| lab.sweep(parts, &ended, &sweeps));
        let changer = scope.spawn(|| lab.change(&ended, u32::MAX));
        let steps = &steps;
        let speakers = [0, 1].map(|number| scope.spawn(move || speak(lab, flows, number, steps)));
        let spoken = speakers.map(|speaker| speaker.join().expect("nobody panics"));
        let enough = sweeps.load(Ordering::Relaxed) + FORGOTTEN;
        while sweeps.load(Ordering::Relaxed) < enough && !sweeper.is_finished() {
            thread::sleep(Duration::from_millis(5));
        }
        let late = answered(lab, flows);
        ended.store(true, Ordering::Relaxed);
        sweeper.join().expect("nobody panics")?;
        let [first, second] = spoken;
        let (first, second) = (first?, second?);
        Ok(Outcomes {
            lost: [first.0 + second.0, late?],
            met: first.1.min(second.1),
            sweeps: sweeps.load(Ordering::Relaxed),
            changes: changer.join().expect("nobody panics")?,
        })
    })
}

/// Whether a flow is in a state that one processor alone could have brought it into.
fn legal(transport: Transport, flow: &Flow, times: (u32, u32)) -> bool {
    let phases: &[Phase] = match transport {
        Transport::Tcp => &[Phase::Opening, Phase::Established],
        Transport::Udp | Transport::UdpLite => &[Phase::Datagram],
    };
    phases.iter().any(|phase| flow.phase == *phase as u8)
        && [flow.fin_in, flow.fin_out, flow.reset] == [0; 3]
        && (times.0..=times.1).contains(&flow.last_seen)
}

#[test]
fn l9_two_processors_record_the_same_flows() -> Result<()> {
    if processors::count() < 2 {
        println!("skipped: there is one processor");
        return Ok(());
    }
    let size = Size::asked();
    let amount = size.choose(SHORT, FULL);
    let lab = Lab::new(amount.room)?;
    let began = lab.programs.now()?;
    let outcomes = run(&lab, amount.flows, Parts::default())?;
    let times = (began, lab.programs.now()?);

    let flows = u64::from(amount.flows);
    let (new, known) = (lab.count(PassNewFlow)?, lab.count(PassRefreshedFlow)?);
    let failed = lab.count(PassInsertFailed)?;
    println!(
        "inserts ({size} size): {flows} flows twice, {new} new, {known} known, {failed} without \
         room, {outcomes:?}"
    );
    ensure!(
        outcomes.lost == [0, 0],
        "answers were dropped: {outcomes:?}"
    );
    ensure!(
        outcomes.met > 0,
        "the processors have never met: {outcomes:?}"
    );
    ensure!(
        outcomes.sweeps > FORGOTTEN && outcomes.changes > 3,
        "{outcomes:?}"
    );
    ensure!(new + known + failed == 2 * flows, "frames are not counted");
    // One of the two was first, and the other has found the flow.
    ensure!(failed > 0 || new == flows, "{new} new flows");
    let answers = lab.count(PassKnownFlow)?;
    ensure!(answers == 3 * flows, "{answers} answers have passed");
    ensure!(lab.count(DropNoFlow)? == 0, "something was dropped");

    let (mut entries, mut illegal) = (0, Vec::new());
    for map in FlowMap::open_all(&lab.pins)? {
        map.walk(|entry| {
            entries += 1;
            if !legal(entry.transport, &entry.flow, times) {
                illegal.push(entry);
            }
        })?;
    }
    ensure!(illegal.is_empty(), "{times:?}: {:?}", illegal[0]);
    ensure!(
        entries == new,
        "{entries} flows in the maps, {new} were new"
    );
    Ok(())
}

/// What is lost is seen: sweeps that mark nothing forget every port.
#[test]
fn l9_sweeps_that_mark_nothing_lose_flows() -> Result<()> {
    if processors::count() < 2 {
        println!("skipped: there is one processor");
        return Ok(());
    }
    let lab = Lab::new(SHORT.room)?;
    let parts = Parts {
        flow_marks: false,
        ..Parts::default()
    };
    let outcomes = run(&lab, SHORT.flows, parts)?;
    println!("inserts, nothing marked: {outcomes:?}");
    ensure!(outcomes.lost[1] > 0, "nothing is lost: {outcomes:?}");
    Ok(())
}
