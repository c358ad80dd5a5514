//! One session, step by step, by all who must agree.

use std::{collections::HashMap, fmt};

use anyhow::{Context, Result};
use guard_common::{
    decide,
    flow::Flow,
    fragment::FragmentKey,
    outcome::{Action, Direction, Judged},
    ports::PORTS,
    record,
    tables::{Tally, Use},
};
use guard_reference::{
    judged,
    memory::{FlowId, Purpose},
    model::Model,
    rules::Rules,
};

use super::{
    host::{self, Around},
    kernel::Kernel,
    session::{Session, Step},
    translate,
};
use crate::memory::{Key, MemoryTables};

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

/// What the kernel's counters must read.
struct Counted {
    counters: Vec<u64>,
    tallies: [u64; Tally::COUNT],
}

impl Counted {
    fn new(kernel: &mut Kernel) -> Result<Self> {
        Ok(Self {
            counters: sums(kernel.counters()?),
            tallies: kernel.tallies()?,
        })
    }
}

fn sums(counters: &[u64]) -> Vec<u64> {
    let slots = Judged::SLOTS as usize;
    let mut sums = counters[..slots].to_vec();
    for processor in counters[slots..].chunks_exact(slots) {
        for (sum, counter) in sums.iter_mut().zip(processor) {
            *sum += counter;
        }
    }
    sums
}

/// The reference and the policy in memory, at the same point of a session.
struct Trial {
    model: Model,
    tables: MemoryTables,
    around: Around,
    /// The last frame's judgement, by both.
    judged: Option<(judged::Judged, Judged)>,
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
            judged: None,
            ahead: 0,
        }
    }

    /// One step of both, and what differs.
    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.judged = None;
        match step {
            Step::Receive(frame) => {
                let due = self.model.receive(frame);
                let judged = decide::ingress(&frame[..], &self.tables);
                return self.judge(due, judged, Direction::Ingress);
            }
            Step::Send(frame) | Step::Forward(frame) => {
                let passes = matches!(step, Step::Forward(_));
                self.tables.set_passing(passes);
                let due = self.model.send(frame, passes);
                let judged = record::egress(&frame[..], &self.tables);
                return self.judge(due, judged, Direction::Egress);
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
                let config = translate::config(policy, &self.model.host);
                self.tables.configure(config, translate::ports(policy));
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
    fn judge(
        &mut self,
        due: judged::Judged,
        judged: Judged,
        direction: Direction,
    ) -> Result<(), String> {
        let monitor = self.model.policy.monitor;
        let verdict = if monitor {
            Action::Pass
        } else {
            judged.outcome.action()
        };
        self.judged = Some((due, judged));
        let ours = (due.reason.name(), due.family, due.protocol, due.verdict);
        let theirs = (
            judged.outcome.reason(),
            judged.family.label(),
            judged.protocol.label(),
            verdict.label(),
        );
        if ours != theirs || judged.outcome.direction() != direction {
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

    /// The flows that the last frame was judged by. That of the unspecified address, which nobody
    /// has, would be looked up by the key of a query.
    fn touched(&self) -> impl Iterator<Item = &FlowId> {
        let has_peer = |id: &&FlowId| id.remote.is_none_or(|remote| !remote.is_unspecified());
        self.model.touched.iter().filter(has_peer)
    }

    /// Everything that both remember.
    fn compare_memory(&self) -> Result<(), String> {
        let due = self.flows(0);
        let known: HashMap<Key, Flow> = self.tables.all_flows().collect();
        same("flows", "in memory", &known, &due)?;
        let due = self.refusals(0);
        let known = self.tables.all_refusals().collect();
        same("refusals", "in memory", &known, &due)?;
        if self.tables.occupancy_bytes() != self.occupancy() {
            return Err("the occupancy in memory is not that of the reference".to_owned());
        }
        let due = self.tallies();
        let tallied = TALLIES.map(|(tally, _)| self.tables.tallied(tally));
        if tallied != due {
            return Err(format!(
                "tallies are {tallied:?} in memory, {due:?} by the reference"
            ));
        }
        Ok(())
    }

    /// Flows as the maps hold them, `ahead` ticks earlier.
    fn flows(&self, ahead: u32) -> HashMap<Key, Flow> {
        let flows = self.model.memory.flows.iter();
        flows
            .map(|(id, flow)| (translate::key(id), earlier(translate::flow(flow), ahead)))
            .collect()
    }

    fn refusals(&self, ahead: u32) -> HashMap<FragmentKey, u32> {
        let refused = self.model.memory.refused.iter();
        refused
            .map(|(id, since)| (translate::datagram(id), since.wrapping_sub(ahead)))
            .collect()
    }

    fn occupancy(&self) -> Vec<u8> {
        let mut bytes = vec![0; Use::COUNT * PORTS];
        for ((purpose, port), epoch) in &self.model.memory.occupancy {
            bytes[translate::purpose(*purpose) as usize * PORTS + usize::from(*port)] = *epoch;
        }
        bytes
    }

    fn tallies(&self) -> [u64; Tally::COUNT] {
        let tallies = &self.model.memory.tallies;
        TALLIES.map(|(_, name)| tallies.get(name).copied().unwrap_or(0))
    }

    /// The same step of the kernel, and what differs.
    fn kernel_step(
        &self,
        step: &Step,
        kernel: &mut Kernel,
        counted: &mut Counted,
        care: Care,
    ) -> Result<()> {
        match step {
            Step::Receive(frame) => {
                const XDP_DROP: u32 = 1;
                const XDP_PASS: u32 = 2;

                let (due, _) = self.judged.context("nothing was judged")?;
                let verdict = kernel.receive(frame)?;
                let expected = if due.verdict == "drop" {
                    XDP_DROP
                } else {
                    XDP_PASS
                };
                anyhow::ensure!(verdict == expected, "XDP returned {verdict} for {due:?}");
            }
            Step::Send(frame) | Step::Forward(frame) => {
                let passes = matches!(step, Step::Forward(_));
                let verdict = kernel.send(frame, passes)? as i32;
                anyhow::ensure!(verdict == -1, "the classifier returned {verdict}");
            }
            Step::Wait(ticks) => self.age(kernel, *ticks)?,
            Step::Back(ticks) => self.age(kernel, ticks.wrapping_neg())?,
            Step::Sweep(_) => kernel.set_epoch(self.model.epoch),
            Step::Mark(purpose, port, _) => {
                let epoch = self.model.memory.occupancy[&(*purpose, *port)];
                kernel.set_mark(translate::purpose(*purpose), *port, epoch);
            }
            Step::Reload(policy) => kernel.configure(policy, &self.model.host)?,
        }
        if let Some((due, judged)) = self.judged {
            let verdict = match due.verdict {
                "drop" => Action::Drop,
                _ => Action::Pass,
            };
            counted.counters[judged.slot(verdict) as usize] += 1;
            compare_counters(kernel, counted).with_context(|| format!("{due:?}"))?;
            self.compare_touched(kernel)?;
        }
        if care == Care::Utmost {
            self.compare_shared(kernel, counted)?;
        }
        Ok(())
    }

    fn age(&self, kernel: &mut Kernel, ticks: u32) -> Result<()> {
        let flows = self.model.memory.flows.keys().map(translate::key);
        let refusals = self.model.memory.refused.keys().map(translate::datagram);
        kernel.age(flows, refusals, ticks)
    }

    fn compare_touched(&self, kernel: &Kernel) -> Result<()> {
        const PURPOSES: [Purpose; 4] =
            [Purpose::Tcp, Purpose::Udp, Purpose::UdpLite, Purpose::Query];

        for id in self.touched() {
            let due = self.model.memory.flows.get(id).map(translate::flow);
            let due = due.map(|flow| earlier(flow, self.ahead));
            let known = kernel.flow(&translate::key(id));
            anyhow::ensure!(
                known == due,
                "{id:?} is {known:?} in the kernel, {due:?} by the reference"
            );
            let port = id.local.1;
            for purpose in PURPOSES {
                let due = self.model.memory.occupancy.get(&(purpose, port));
                let due = due.copied().unwrap_or(0);
                let mark = kernel.mark(translate::purpose(purpose), port);
                anyhow::ensure!(
                    mark == due,
                    "port {port} is in use for {purpose:?} since {mark} in the kernel, {due} by \
                     the reference"
                );
            }
        }
        Ok(())
    }

    /// What can be looked at without taking it out.
    fn compare_shared(&self, kernel: &mut Kernel, counted: &Counted) -> Result<()> {
        let keys: Vec<_> = self.model.memory.flows.keys().collect();
        for id in keys {
            let due = self.model.memory.flows.get(id).map(translate::flow);
            let due = due.map(|flow| earlier(flow, self.ahead));
            let known = kernel.flow(&translate::key(id));
            anyhow::ensure!(
                known == due,
                "{id:?} is {known:?} in the kernel, {due:?} by the reference"
            );
        }
        anyhow::ensure!(
            kernel.occupancy() == self.occupancy(),
            "the occupancy in the kernel is not that of the reference"
        );
        let due = self.tallies();
        let tallies = kernel.tallies()?;
        for (index, (tally, name)) in TALLIES.iter().enumerate() {
            let tallied = tallies[*tally as usize] - counted.tallies[*tally as usize];
            anyhow::ensure!(
                tallied == due[index],
                "{name} is {tallied} in the kernel, {} by the reference",
                due[index]
            );
        }
        compare_counters(kernel, counted)
    }

    /// Everything.
    fn compare_all(&self, kernel: &mut Kernel, counted: &Counted) -> Result<()> {
        self.compare_memory().map_err(anyhow::Error::msg)?;
        self.compare_shared(kernel, counted)?;
        let (flows, refused) = kernel.drain()?;
        same("flows", "in the kernel", &flows, &self.flows(self.ahead))
            .and_then(|()| {
                let due = self.refusals(self.ahead);
                same("refusals", "in the kernel", &refused, &due)
            })
            .map_err(anyhow::Error::msg)
    }
}

const TALLIES: [(Tally, &str); Tally::COUNT] = [
    (Tally::RescuedAbsent, "rescued_absent"),
    (Tally::RescuedExpired, "rescued_expired"),
    (Tally::WouldDropConnected, "would_drop_connected"),
    (Tally::WouldDropListener, "would_drop_listener"),
];

fn earlier(flow: Flow, ticks: u32) -> Flow {
    Flow {
        last_seen: flow.last_seen.wrapping_sub(ticks),
        ..flow
    }
}

fn compare_counters(kernel: &mut Kernel, counted: &Counted) -> Result<()> {
    let counters = sums(kernel.counters()?);
    if counters != counted.counters {
        let moved = counters.iter().zip(&counted.counters).enumerate();
        let moved: Vec<_> = moved.filter(|(_, (is, due))| is != due).collect();
        anyhow::bail!("counters (slot, (is, due)): {moved:?}");
    }
    Ok(())
}

fn same<K: Eq + std::hash::Hash + fmt::Debug, V: PartialEq + fmt::Debug>(
    what: &str,
    place: &str,
    known: &HashMap<K, V>,
    due: &HashMap<K, V>,
) -> Result<(), String> {
    if known == due {
        return Ok(());
    }
    let only = |a: &HashMap<K, V>, b: &HashMap<K, V>| {
        let mut only = Vec::new();
        for (key, value) in a {
            if b.get(key) != Some(value) {
                only.push(format!("{key:?}: {value:?}"));
            }
        }
        only
    };
    Err(format!(
        "{what}: only {place} {:?}, only by the reference {:?}",
        only(known, due),
        only(due, known)
    ))
}
