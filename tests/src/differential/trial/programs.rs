//! The loaded programs' side of a trial.

use anyhow::{Context, Result, bail, ensure};
use guard_common::outcome::{Decision, Tally, Verdict};
use guard_reference::memory::Purpose;

use super::{
    Care, Trial,
    remembered::{earlier, same},
};
use crate::differential::{kernel::Kernel, session::Step, translate};

/// What the kernel's counters must read.
pub(super) struct Counted {
    counters: Vec<u64>,
    tallies: [u64; Tally::COUNT],
}

impl Counted {
    /// What they read now.
    pub fn new(kernel: &mut Kernel) -> Result<Self> {
        Ok(Self {
            counters: sums(kernel.counters()?),
            tallies: kernel.tallies()?,
        })
    }
}

fn sums(counters: &[u64]) -> Vec<u64> {
    let slots = Decision::SLOTS as usize;
    let mut sums = counters[..slots].to_vec();
    for processor in counters[slots..].chunks_exact(slots) {
        for (sum, counter) in sums.iter_mut().zip(processor) {
            *sum += counter;
        }
    }
    sums
}

impl Trial {
    /// The same step of the kernel, and what differs.
    pub(super) fn kernel_step(
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

                let (due, _) = self.decision.context("nothing was decided")?;
                let verdict = kernel.receive(frame)?;
                let expected = if due.verdict == "drop" {
                    XDP_DROP
                } else {
                    XDP_PASS
                };
                ensure!(verdict == expected, "XDP returned {verdict} for {due:?}");
            }
            Step::Send(frame) | Step::Forward(frame) => {
                let passes = matches!(step, Step::Forward(_));
                let verdict = kernel.send(frame, passes)? as i32;
                ensure!(verdict == -1, "the classifier returned {verdict}");
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
        if let Some((due, decision)) = self.decision {
            let verdict = match due.verdict {
                "drop" => Verdict::Drop,
                _ => Verdict::Pass,
            };
            counted.counters[decision.slot(verdict) as usize] += 1;
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
            ensure!(
                known == due,
                "{id:?} is {known:?} in the kernel, {due:?} by the reference"
            );
            let port = id.local.1;
            for purpose in PURPOSES {
                let due = self.model.memory.occupancy.get(&(purpose, port));
                let due = due.copied().unwrap_or(0);
                let mark = kernel.mark(translate::purpose(purpose), port);
                ensure!(
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
            ensure!(
                known == due,
                "{id:?} is {known:?} in the kernel, {due:?} by the reference"
            );
        }
        ensure!(
            kernel.occupancy() == self.occupancy(),
            "the occupancy in the kernel is not that of the reference"
        );
        let due = self.tallies();
        let tallies = kernel.tallies()?;
        for tally in Tally::ALL {
            let (name, index) = (tally.name(), *tally as usize);
            let tallied = tallies[index] - counted.tallies[index];
            ensure!(
                tallied == due[index],
                "{name} is {tallied} in the kernel, {} by the reference",
                due[index]
            );
        }
        compare_counters(kernel, counted)
    }

    /// Everything.
    pub(super) fn compare_all(&self, kernel: &mut Kernel, counted: &Counted) -> Result<()> {
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

fn compare_counters(kernel: &mut Kernel, counted: &Counted) -> Result<()> {
    let counters = sums(kernel.counters()?);
    if counters != counted.counters {
        let moved = counters.iter().zip(&counted.counters).enumerate();
        let moved: Vec<_> = moved.filter(|(_, (is, due))| is != due).collect();
        bail!("counters (slot, (is, due)): {moved:?}");
    }
    Ok(())
}
