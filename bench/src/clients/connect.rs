//! Connections that are opened, used once and closed, one after the other.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::{
    frames::P,
    load::{self, Servers},
    netns::Direct,
};
use serde::Serialize;

use crate::{
    clients::limit,
    contender::Contender,
    processor,
    rig::Lane,
    rounds::{Latencies, Ratio, Summary, take_turns},
};

/// Connections of one turn.
const CONNECTIONS: u32 = 200;

/// What a client that opens many connections gets.
#[derive(Clone, Debug, Serialize)]
pub struct Connects {
    /// What stands between it and the server.
    pub contender: Contender,
    /// Nanoseconds from one connection to the next.
    #[serde(flatten)]
    pub cost: Summary,
    /// How many a second, of those through a program that passes everything.
    pub of_limit: Ratio,
    /// How long single ones take.
    pub latencies: Latencies,
}

/// What stands above the lines.
pub const HEADING: &str = "
connect, ask, close                 a second  of limit   p50, us   p99, us";

impl fmt::Display for Connects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contender = self.contender.to_string();
        write!(
            f,
            "{contender:32} {:11.0} {:9.3} {:9.0} {:9.0}",
            1e9 / self.cost.low,
            self.of_limit.value(),
            self.latencies.p50,
            self.latencies.p99,
        )
    }
}

/// Lets the hosts of all lanes take turns.
pub fn measure(lanes: &[Lane<'_>], rounds: usize) -> Result<Vec<Connects>> {
    let hosts: Vec<&Direct> = lanes.iter().map(|lane| lane.hosts).collect();
    let servers = thread::scope(|scope| {
        // The threads of the servers stay where this one is.
        let start = || -> Result<Vec<Servers>> {
            processor::pin(processor::measured())?;
            let start = |hosts: &&Direct| Servers::start(&hosts.peer);
            hosts.iter().map(start).collect()
        };
        scope
            .spawn(start)
            .join()
            .expect("a thread that does not panic")
    })?;
    let mut latencies: Vec<Vec<Duration>> = vec![Vec::new(); lanes.len()];
    let samples = take_turns(rounds, lanes.len(), |index| {
        let (cost, each) = round(&lanes[index])
            .with_context(|| format!("a client through {}", lanes[index].contender))?;
        latencies[index].extend(each);
        Ok(cost)
    })?;
    drop(servers);

    let limit = limit(lanes, &samples)?;
    let lines = lanes.iter().zip(&samples).zip(latencies);
    Ok(lines
        .map(|((lane, sample), latencies)| Connects {
            contender: lane.contender,
            cost: sample.summary(),
            of_limit: sample.of_limit(limit),
            latencies: Latencies::of(latencies),
        })
        .collect())
}

fn round(lane: &Lane<'_>) -> Result<(f64, Vec<Duration>)> {
    lane.hosts.guarded.run(|| {
        processor::pin(processor::measured())?;
        let start = Instant::now();
        let latencies = (0..CONNECTIONS)
            .map(|_| {
                let start = Instant::now();
                load::get(P.ipv4.into())?;
                Ok(start.elapsed())
            })
            .collect::<Result<_>>()?;
        let cost = start.elapsed().as_nanos() as f64 / f64::from(CONNECTIONS);
        Ok((cost, latencies))
    })
}
