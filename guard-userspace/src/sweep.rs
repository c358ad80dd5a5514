//! Keeping the occupancy table true: which ports are still in use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::{flow::Phase, tables::Use};

use crate::{
    clock::Clock,
    maps::{FlowMap, StateMemory},
    pins::Pins,
    sockets,
    workings::Workings,
};

/// A sweep may take this part of the time.
const SHARE: u32 = 20;

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
    /// How long it took.
    pub took: Duration,
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

    /// Sweeps once. Blocks, for about half a microsecond a flow and one a socket.
    ///
    /// The epoch moves last, in one store, and only when everything was seen: a sweep that fails
    /// leaves ports looking busy, which costs a look-up and drops nothing.
    ///
    /// # Errors
    /// When a map or the sockets cannot be read.
    pub fn sweep(&mut self) -> anyhow::Result<Swept> {
        let began = Instant::now();
        let next = (self.state.epoch() as u8).wrapping_add(1);
        let timeouts = self.state.timeouts();
        let mut swept = Swept::default();
        for map in &self.flows {
            let now = self.clock.now()?;
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
        }
        // After the flows: a connection that is opened meanwhile is in one or the other.
        for socket in sockets::list()?.iter().filter(|socket| socket.connected()) {
            swept.sockets += 1;
            if self.workings.socket_marks {
                self.state
                    .mark(Use::flow(socket.transport), socket.local.port(), next);
            }
        }
        self.state.set_epoch(u32::from(next));
        swept.took = began.elapsed();

        Ok(swept)
    }

    /// How long to rest after a sweep before the next.
    fn rest(&self, swept: Swept) -> Duration {
        self.workings.sweep_rest.max(swept.took * SHARE)
    }
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
