//! One session, step by step, by all who must agree.

mod programs;
mod remembered;

use std::fmt;

use anyhow::Result;
use guard_common::{
    outcome::{Decision, Direction, Verdict},
    policy::{egress, ingress},
};
use guard_reference::{decision, memory::FlowId, model::Model, rules::Rules};

use programs::Counted;

use super::{
    host::{self, Around},
    kernel::Kernel,
    session::{Session, Step},
    translate,
};
use crate::memory::MemoryDatapath;

/// When a session starts without a kernel: far from 0, so that flows can be aged.
const START: u32 = 1 << 24;

/// What somebody did otherwise than the reference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The step at which it showed; the number of steps where it showed at the end.
    pub step: usize,
    /// What it is.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {}", self.step, self.what)
    }
}

/// How a session ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// All agreed.
    Alike,
    /// Somebody differed.
    Differs(Difference),
    /// The kernel's clock moved on meanwhile, which says nothing.
    Late,
}

/// How often the kernel's side is looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Care {
    /// What each step touches, and everything at the end.
    Usual,
    /// Everything after each step.
    Utmost,
}

/// Runs a session by the reference, with these rules, and in memory.
pub fn in_memory(session: &Session, rules: &Rules) -> Ending {
    let mut trial = Trial::new(session, rules, START);
    for (number, step) in session.steps.iter().enumerate() {
        if let Err(what) = trial.step(step) {
            return Ending::Differs(Difference { step: number, what });
        }
    }
    match trial.compare_memory() {
        Ok(()) => Ending::Alike,
        Err(what) => Ending::Differs(Difference {
            step: session.steps.len(),
            what,
        }),
    }
}

/// Runs a session by the reference, in memory, and by the loaded programs.
pub fn three_ways(session: &Session, kernel: &mut Kernel, care: Care) -> Result<Ending> {
    kernel.reset(session)?;
    let now = kernel.now()?;
    let mut trial = Trial::new(session, &Rules::default(), now);
    let mut counted = Counted::new(kernel)?;
    let mut difference = None;
    for (number, step) in session.steps.iter().enumerate() {
        let outcome = trial
            .step(step)
            .map_err(anyhow::Error::msg)
            .and_then(|()| trial.kernel_step(step, kernel, &mut counted, care));
        if let Err(error) = outcome {
            let what = format!("{error:#}");
            difference = Some(Difference { step: number, what });
            break;
        }
    }
    if difference.is_none()
        && let Err(error) = trial.compare_all(kernel, &counted)
    {
        difference = Some(Difference {
            step: session.steps.len(),
            what: format!("{error:#}"),
        });
    }
    if kernel.now()? != now {
        return Ok(Ending::Late);
    }
    Ok(difference.map_or(Ending::Alike, Ending::Differs))
}

/// The reference and the policy in memory, at the same point of a session.
struct Trial {
    model: Model,
    tables: MemoryDatapath,
    around: Around,
    /// The last frame's assessment, by both.
    decision: Option<(decision::Decision, Decision)>,
    /// Ticks by which the reference's clock is ahead of the kernel's.
    ahead: u32,
}

impl Trial {
    fn new(session: &Session, rules: &Rules, now: u32) -> Self {
        let (mut tables, around) = host::tables(session);
        tables.set_now(now);
        let (policy, host) = (session.policy.clone(), session.host.clone());
        Self {
            model: Model::with(rules.clone(), policy, host, now),
            tables,
            around,
            decision: None,
            ahead: 0,
        }
    }

    /// One step of both, and what differs.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.decision = None;
        match step {
            Step::Receive(frame) => {
                let due = self.model.receive(frame);
                let decision = ingress::ingress(&frame[..], &self.tables);
                return self.check(due, decision, Direction::Ingress);
            }
            Step::Send(frame) | Step::Forward(frame) => {
                let passes = matches!(step, Step::Forward(_));
                self.tables.set_forwarded(passes);
                let due = self.model.send(frame, passes);
                let decision = egress::egress(&frame[..], &self.tables);
                return self.check(due, decision, Direction::Egress);
            }
            Step::Wait(ticks) => self.shift(*ticks),
            Step::Back(ticks) => self.shift(ticks.wrapping_neg()),
            Step::Sweep(sweeps) => {
                self.model.epoch = self.model.epoch.wrapping_add(*sweeps);
                self.tables.sweep(u32::from(*sweeps));
            }
            Step::Mark(purpose, port, epochs) => {
                let epoch = self.model.epoch.wrapping_add(*epochs);
                self.model.memory.occupancy.insert((*purpose, *port), epoch);
                let purpose = translate::purpose(*purpose);
                self.tables.set_mark(purpose, *port, epoch);
            }
            Step::Reload(policy) => {
                self.model.policy = (**policy).clone();
                self.around.borrow_mut().1.clone_from(&policy.trusted);
                self.around.borrow_mut().2.clone_from(&policy.kernel);
                let config = translate::config(policy, &self.model.host);
                let page = translate::page(policy, &self.model.host);
                self.tables.configure(config, page);
            }
        }
        Ok(())
    }

    fn shift(&mut self, ticks: u32) {
        self.model.now = self.model.now.wrapping_add(ticks);
        self.tables.set_now(self.model.now);
        self.ahead = self.ahead.wrapping_add(ticks);
    }

    /// Compares by the names that the outside knows.
    fn check(
        &mut self,
        due: decision::Decision,
        decision: Decision,
        direction: Direction,
    ) -> Result<(), String> {
        let monitor = self.model.policy.monitor;
        let verdict = if monitor {
            Verdict::Pass
        } else {
            decision.outcome.verdict()
        };
        self.decision = Some((due, decision));
        let ours = (due.reason.name(), due.family, due.protocol, due.verdict);
        let theirs = (
            decision.outcome.reason(),
            decision.family.label(),
            decision.protocol.label(),
            verdict.label(),
        );
        if ours != theirs || decision.outcome.direction() != direction {
            return Err(format!("in memory {theirs:?}, by the reference {ours:?}"));
        }
        for id in self.touched() {
            let due = self.model.memory.flows.get(id).map(translate::flow);
            let known = self.tables.known(&translate::key(id));
            if known != due {
                return Err(format!(
                    "{id:?} is {known:?} in memory, {due:?} by the reference"
                ));
            }
        }
        Ok(())
    }

    /// The flows that the last frame was decided by. That of the unspecified address, which nobody
    /// has, would be looked up by the key of a query.
    fn touched(&self) -> impl Iterator<Item = &FlowId> {
        let has_peer = |id: &&FlowId| id.remote.is_none_or(|remote| !remote.is_unspecified());
        self.model.touched.iter().filter(has_peer)
    }
}
