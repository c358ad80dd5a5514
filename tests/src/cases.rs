//! The specification as a table: what the guard has seen, what it is shown, what it must say.
//!
//! The same table is tried on the packet logic in memory and on the loaded programs.

mod discovery;
mod egress;
mod found;
mod fragments;
mod headers;
mod icmp;
mod lies;
mod link;
mod ports;
mod tcp;
mod timers;
mod udp;

use std::collections::HashSet;

use guard_common::outcome::{Decision, Direction, Family, Outcome};

use crate::{frames::Frame, setup::Setup};

pub use found::found;

/// One row: everything that happens to one guard, and what it says to each frame.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the row is about.
    pub name: &'static str,
    /// What differs from the usual guard.
    pub setup: Setup,
    /// What happens.
    pub steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame meets a hook.
    Frame(Direction, Box<Frame>, Outcome),
    /// So many ticks pass.
    Waits(u32),
    /// So many sweeps complete, none of which finds a port in use.
    Sweeps(u32),
}

/// Every row.
pub fn table() -> Vec<Case> {
    [
        link::cases(),
        ports::cases(),
        headers::cases(),
        lies::cases(),
        fragments::cases(),
        icmp::cases(),
        tcp::cases(),
        udp::cases(),
        discovery::cases(),
        timers::cases(),
        egress::cases(),
    ]
    .concat()
}

/// A row that nothing happens in yet.
fn case(name: &'static str) -> Case {
    Case {
        name,
        setup: Setup::default(),
        steps: Vec::new(),
    }
}

impl Case {
    /// A frame that the guarded host sends.
    fn sends(self, frame: Frame, outcome: Outcome) -> Self {
        self.step(Step::Frame(Direction::Egress, Box::new(frame), outcome))
    }

    /// A frame that the guarded host receives.
    fn receives(self, frame: Frame, outcome: Outcome) -> Self {
        self.step(Step::Frame(Direction::Ingress, Box::new(frame), outcome))
    }

    /// So many ticks without a frame.
    fn waits(self, ticks: u32) -> Self {
        self.step(Step::Waits(ticks))
    }

    /// So many sweeps that find no port in use.
    fn sweeps(self, sweeps: u32) -> Self {
        self.step(Step::Sweeps(sweeps))
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn set_up(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut self.setup);
        self
    }

    /// The families the row is about. A row that mixes both happens once.
    pub fn families(&self) -> Vec<Family> {
        let both = [Family::Ipv4, Family::Ipv6];
        let families: Vec<Family> = both
            .into_iter()
            .filter(|family| self.frames().all(|frame| frame.exists_in(*family)))
            .collect();
        if families.is_empty() {
            vec![Family::Ipv4]
        } else {
            families
        }
    }

    fn frames(&self) -> impl Iterator<Item = &Frame> {
        self.steps.iter().filter_map(|step| match step {
            Step::Frame(_, frame, _) => Some(&**frame),
            Step::Waits(_) | Step::Sweeps(_) => None,
        })
    }
}

/// The bytes of every frame in the table, each once.
pub fn frames() -> Vec<(Direction, Vec<u8>)> {
    let mut seen = HashSet::new();
    let mut frames = Vec::new();
    for case in table() {
        for family in case.families() {
            for step in &case.steps {
                if let Step::Frame(direction, frame, _) = step {
                    let bytes = bytes(frame, *direction, family);
                    if seen.insert((*direction == Direction::Egress, bytes.clone())) {
                        frames.push((*direction, bytes));
                    }
                }
            }
        }
    }
    frames
}

/// The bytes that meet the hook.
pub fn bytes(frame: &Frame, direction: Direction, family: Family) -> Vec<u8> {
    match direction {
        Direction::Ingress => frame.received(family),
        Direction::Egress => frame.sent(family),
    }
}

/// The assessment that is due.
pub fn due(frame: &Frame, outcome: Outcome, family: Family) -> Decision {
    let (family, protocol) = frame.labels(family);
    Decision {
        outcome,
        family,
        protocol,
    }
}
