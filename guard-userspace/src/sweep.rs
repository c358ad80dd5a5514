//! Keeping the occupancy table true: which ports are still in use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use guard_common::{flow::Phase, tables::Use};
use nix::time::{ClockId, clock_gettime};

use crate::{
    clock::Clock,
    maps::{FlowMap, StateMemory},
    pins::Pins,
    repair::{self, Repaired, Terms},
    sockets::{self, Socket},
    workings::Workings,
};

/// A sweep may take this part of a processor's time.
const SHARE: u32 = 20;

/// A map has room while live flows take no more of it than this.
const ROOMY_PERCENT: u64 = 60;

/// Walks all flows and all sockets and marks their ports for the next epoch.
pub struct Sweeper {
    flows: Vec<FlowMap>,
    state: StateMemory,
    clock: Arc<Clock>,
    workings: Workings,
}

/// What a sweep has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Flows that have not expired.
    pub flows: u64,
    /// Connected sockets.
    pub sockets: u64,
    /// Flows of theirs that were put back.
    pub repaired: Repaired,
    /// How long it took.
    pub took: Duration,
    /// For how long of that a processor was busy with it.
    pub busy: Duration,
}

impl Sweeper {
    /// A sweeper of the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing.
    pub fn open(pins: &Pins, clock: Arc<Clock>, workings: Workings) -> anyhow::Result<Self> {
        Ok(Self {
            flows: FlowMap::open_all(pins)?,
            state: StateMemory::open(pins)?,
            clock,
            workings,
        })
    }

    /// Sweeps once. Blocks, for about a third of a microsecond a flow and one a socket; the thread
    /// it blocks should have nothing else to do.
    ///
    /// The epoch moves last, in one store, and only when everything was seen: a sweep that fails
    /// leaves ports looking busy, which costs a look-up and drops nothing.
    ///
    /// # Errors
    /// When a map or the sockets cannot be read.
    pub fn sweep(&mut self) -> anyhow::Result<Swept> {
        let (began, busy) = (Instant::now(), processor_time()?);
        let next = (self.state.epoch() as u8).wrapping_add(1);
        let timeouts = self.state.timeouts();
        let mut swept = Swept::default();
        let mut live = Vec::new();
        for map in &self.flows {
            let now = self.clock.now()?;
            let before = swept.flows;
            map.walk(|entry| {
                if !entry.flow.alive(now, &timeouts) {
                    return;
                }
                swept.flows += 1;
                if !self.workings.flow_marks {
                    return;
                }
                let port = entry.local.port();
                self.state.mark(Use::flow(entry.transport), port, next);
                if entry.flow.phase == Phase::Query as u8 {
                    self.state.mark(Use::Query, port, next);
                }
            })?;
            live.push(swept.flows - before);
        }
        // After the flows: a connection that is opened meanwhile is in one or the other.
        let sockets = sockets::list()?;
        for socket in sockets.iter().filter(|socket| socket.connected()) {
            swept.sockets += 1;
            if self.workings.socket_marks {
                self.state
                    .mark(Use::flow(socket.transport), socket.local.port(), next);
            }
        }
        if self.workings.repair && self.state.rescue() != 0 {
            swept.repaired = self.repair(&sockets, &live)?;
        }
        self.state.set_epoch(u32::from(next));
        swept.took = began.elapsed();
        swept.busy = processor_time()?.saturating_sub(busy);

        Ok(swept)
    }

    fn repair(&self, sockets: &[Socket], live: &[u64]) -> anyhow::Result<Repaired> {
        let maps: Vec<_> = self
            .flows
            .iter()
            .zip(live)
            .map(|(map, live)| (map, live * 100 < u64::from(map.capacity) * ROOMY_PERCENT))
            .collect();
        let terms = Terms {
            now: self.clock.now()?,
            timeouts: self.state.timeouts(),
            any_remote_port: self.state.any_remote_port() != 0,
        };
        let guarded = |transport, port| self.state.guards(transport, port);

        Ok(repair::repair(sockets, guarded, &maps, &terms))
    }

    /// How long to rest after a sweep before the next.
    fn rest(&self, swept: Swept) -> Duration {
        self.workings.sweep_rest.max(swept.busy * SHARE)
    }
}

/// How long the calling thread has kept processors busy. On a host with much else to do, the time
/// by the clock would make sweeps rare.
fn processor_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .context("cannot tell how long a sweep takes")?;

    Ok(time.into())
}

/// Sweeps until `stop`, on a thread of its own.
pub async fn run(mut sweeper: Sweeper, stop: impl Future<Output = ()>) {
    tokio::pin!(stop);
    loop {
        let swept = tokio::task::spawn_blocking(move || (sweeper.sweep(), sweeper)).await;
        let Ok((swept, back)) = swept else {
            tracing::error!("the sweep has failed: ports in use are not told apart any more");
            return;
        };
        sweeper = back;
        let swept = swept.unwrap_or_else(|error| {
            tracing::warn!("ports stay marked as in use: {error:#}");
            Swept::default()
        });
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(sweeper.rest(swept)) => {}
        }
    }
}
