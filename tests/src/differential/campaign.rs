//! Many sessions, one after the other, until one shows a difference.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Error, Result, anyhow, bail};
use guard_reference::rules::Rules;

use super::{
    generate::{self, Audience},
    kernel::Kernel,
    machine::{Machine, Sockets},
    session::{Session, Step},
    shrink,
    trial::{self, Care, Difference, Ending},
};
use crate::programs::Entry;

/// Steps of a session.
pub const LENGTH: usize = 200;

/// How often a session is tried until the kernel's clock stands still meanwhile.
const TRIES: usize = 50;

/// What is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of the first session; the others follow.
    pub seed: u64,
    /// Steps to be tried at least.
    pub steps: u64,
    /// Frames to be received at least.
    pub received: u64,
    /// Frames to be sent at least.
    pub sent: u64,
}

impl Plan {
    /// So many steps from a seed on.
    pub const fn steps(seed: u64, steps: u64) -> Self {
        Self {
            seed,
            steps,
            received: 0,
            sent: 0,
        }
    }
}

/// What was tried.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The number of the session that comes next.
    pub seed: u64,
    /// Steps.
    pub steps: u64,
    /// Frames that were received.
    pub received: u64,
    /// Frames that were sent.
    pub sent: u64,
    /// Sessions that the clock made useless, so that they were tried again.
    pub late: u64,
    /// When it began.
    pub since: Instant,
}

impl Progress {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            steps: 0,
            received: 0,
            sent: 0,
            late: 0,
            since: Instant::now(),
        }
    }

    fn fulfils(&self, plan: &Plan) -> bool {
        self.steps >= plan.steps && self.received >= plan.received && self.sent >= plan.sent
    }

    fn add(&mut self, session: &Session) {
        self.seed += 1;
        self.steps += session.steps.len() as u64;
        for step in &session.steps {
            match step {
                Step::Receive(_) => self.received += 1,
                Step::Send(_) | Step::Forward(_) => self.sent += 1,
                Step::Wait(_)
                | Step::Back(_)
                | Step::Sweep(_)
                | Step::Mark(..)
                | Step::Reload(_) => {}
            }
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            steps,
            received,
            sent,
            late,
            since,
        } = self;
        let seconds = since.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        let rate = *steps as f64 / seconds;
        write!(
            f,
            "{steps} steps ({received} frames received, {sent} sent) in {seconds:.0} s, {rate:.0} a \
             second; {late} sessions tried again; next seed {seed}"
        )
    }
}

/// Tries the policy in memory against the reference.
pub fn in_memory(plan: &Plan, mut report: impl FnMut(&Progress)) -> Result<Progress> {
    let mut progress = Progress::new(plan.seed);
    while !progress.fulfils(plan) {
        let session = generate::session(progress.seed, LENGTH, Audience::Memory);
        let differs = |session: &Session| match trial::in_memory(session, &Rules::default()) {
            Ending::Differs(difference) => Some(difference),
            Ending::Alike | Ending::Late => None,
        };
        if differs(&session).is_some() {
            let again = format!("--memory --seed {}", progress.seed);
            return Err(failure(&again, session, differs));
        }
        progress.add(&session);
        report(&progress);
    }
    Ok(progress)
}

/// Tries the loaded programs as well, by both of their entry points in turn.
pub fn three_ways(
    plan: &Plan,
    entries: &[Entry],
    mut report: impl FnMut(&Progress) + Send,
) -> Result<Progress> {
    let machine = Machine::new()?;
    machine.namespace.run(|| {
        let _sockets = Sockets::open()?;
        let kernels = entries.iter().map(|entry| Kernel::new(*entry));
        let mut kernels: Vec<Kernel> = kernels.collect::<Result<_>>()?;
        let mut progress = Progress::new(plan.seed);
        while !progress.fulfils(plan) {
            let session = generate::session(progress.seed, LENGTH, Audience::Programs);
            let chosen = progress.seed as usize % kernels.len();
            let kernel = &mut kernels[chosen];
            let mut differs = |session: &Session, late: &mut u64| punctual(session, kernel, late);
            if differs(&session, &mut progress.late)?.is_some() {
                let mut late = 0;
                let again = format!("--seed {}", progress.seed);
                return Err(failure(&again, session, |session| {
                    differs(session, &mut late).ok().flatten()
                }));
            }
            progress.add(&session);
            report(&progress);
        }
        Ok(progress)
    })
}

/// Tries a session until the clock stands still meanwhile.
pub fn punctual(
    session: &Session,
    kernel: &mut Kernel,
    late: &mut u64,
) -> Result<Option<Difference>> {
    for _ in 0..TRIES {
        match trial::three_ways(session, kernel, Care::Usual)? {
            Ending::Alike => return Ok(None),
            Ending::Late => *late += 1,
            Ending::Differs(difference) if difference.step < session.steps.len() => {
                return Ok(Some(difference));
            }
            // Where did it begin?
            Ending::Differs(at_the_end) => {
                return Ok(match trial::three_ways(session, kernel, Care::Utmost)? {
                    Ending::Differs(earlier) => Some(earlier),
                    Ending::Alike | Ending::Late => Some(at_the_end),
                });
            }
        }
    }
    bail!("the clock moved on while a session ran, in each of {TRIES} tries");
}

/// A session that shows a difference, made as small as it gets.
fn failure(
    again: &str,
    session: Session,
    mut differs: impl FnMut(&Session) -> Option<Difference>,
) -> Error {
    let small = shrink::shrink(session, |session| differs(session).is_some());
    let again = format!("to see it again: cargo xtask fuzz {again} --steps {LENGTH}");
    match differs(&small) {
        Some(Difference { step, what }) => anyhow!(
            "step {step}: {what}\n\n{again}\nto keep it, in tests/src/cases/found.rs:\n\n{small}"
        ),
        None => anyhow!("a difference that does not show again\n{again}"),
    }
}
