//! How many new flows a second egress can record, on one processor and on two.

use std::{fmt, os::fd::AsFd, sync::Barrier, thread, time::Instant};

use anyhow::{Result, anyhow};
use aya::util::nr_cpus;
use guard_common::outcome::{Direction, Family};
use guard_tests::{
    frames::udp,
    programs::{Entry, Programs},
    setup::Setup,
};
use serde::Serialize;

use super::MAX_FLOWS;
use crate::{
    bpf, fields, processor,
    programs::{BenchPrograms, Varying},
    recipe::Recipe,
    rounds::{Summary, take_turns},
};

/// Flows that each processor opens in one turn: all find room.
const FLOWS: u32 = 200_000;

/// What it takes to record new flows.
#[derive(Clone, Debug, Serialize)]
pub struct Fresh {
    /// Processors that record at the same time.
    pub processors: usize,
    /// Nanoseconds from one flow to the next, of all processors together.
    #[serde(flatten)]
    pub cost: Summary,
}

/// What stands above the lines.
pub const HEADING: &str = "
new flows, by test-run             M/s";

impl fmt::Display for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "on {} processors {:21.2}",
            self.processors,
            1e3 / self.cost.low
        )
    }
}

/// Lets one processor and two take turns.
pub fn measure(rounds: usize) -> Result<Vec<Fresh>> {
    let mut guard = Programs::load_with(Entry::Frags, MAX_FLOWS)?;
    guard.reset(Setup::default())?;
    let mut varied = BenchPrograms::load()?;
    varied.show_to(Varying::Sent, guard.descriptor("egress")?)?;
    let frame = udp(40_000, 443).sent(Family::Ipv4);
    varied.follow(Recipe {
        known_share: Recipe::ALL,
        flows: u32::MAX,
        flow_ports: 20_000,
        flow_port: 40_000,
        remote_port: 443,
        in_order: 1,
        ..fields::of(&frame, Direction::Egress)
    })?;

    let possible = nr_cpus().map_err(|(file, error)| anyhow!("{file}: {error}"))?;
    let counts: Vec<usize> = [1, 2]
        .into_iter()
        .filter(|count| *count <= processor::count())
        .collect();
    let samples = take_turns(rounds.min(7), counts.len(), |index| {
        guard.forget()?;
        // Each processor has flows of its own.
        let numbers = (0..).map(|processor| processor * FLOWS);
        varied.number_from(numbers.take(possible).collect())?;
        record(&varied, &frame, counts[index])
    })?;
    let lines = counts.into_iter().zip(samples);
    Ok(lines
        .map(|(processors, sample)| Fresh {
            processors,
            cost: sample.summary(),
        })
        .collect())
}

/// Returns nanoseconds from one flow to the next.
fn record(varied: &BenchPrograms, frame: &[u8], processors: usize) -> Result<f64> {
    let program = varied.descriptor(Varying::Sent.name())?.as_fd();
    let start = Barrier::new(processors);
    let chosen = [processor::measured(), processor::other()];
    thread::scope(|scope| {
        let record = |processor: usize| {
            let start = &start;
            scope.spawn(move || -> Result<f64> {
                processor::pin(processor)?;
                start.wait();
                let began = Instant::now();
                bpf::run(program, frame, FLOWS)?;
                Ok(began.elapsed().as_nanos() as f64)
            })
        };
        let threads: Vec<_> = chosen.into_iter().take(processors).map(record).collect();
        let mut longest: f64 = 0.0;
        for thread in threads {
            let took = thread.join().expect("a thread that does not panic")?;
            longest = longest.max(took);
        }
        Ok(longest / (f64::from(FLOWS) * processors as f64))
    })
}
