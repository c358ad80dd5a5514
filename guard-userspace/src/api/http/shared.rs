//! Observations that are shared by everybody who asks at the same time.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use axum::body::Bytes;
use tokio::{
    sync::{Mutex, Semaphore},
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::{
    api::{
        metrics,
        snapshot::{Observe, Snapshot},
    },
    bpf::maps::FlowRow,
};

/// An observation and how Prometheus reads it.
#[derive(Debug)]
pub struct Glance {
    /// What was observed.
    pub observation: Arc<Snapshot>,
    /// The same as an exposition.
    pub metrics: Bytes,
}

/// Where the servers get their observations.
///
/// An observation walks every map, on a thread of its own.
/// One that begins after a question was asked answers it, so a hundred questions asked at once
/// cost one or two walks, and no answer is older than its question.
/// After each walk comes a rest, so no client can keep the guard walking.
#[derive(Clone)]
pub struct Shared {
    source: Arc<dyn Observe>,
    last: Arc<Mutex<Last>>,
    flows: Arc<Semaphore>,
}

impl Shared {
    /// Shares what `source` observes.
    pub fn new(source: Arc<dyn Observe>) -> Self {
        Self {
            source,
            last: Arc::default(),
            flows: Arc::new(Semaphore::new(1)),
        }
    }

    /// An observation that begins now or later.
    ///
    /// # Errors
    /// When observing panicked.
    pub async fn glance(&self) -> anyhow::Result<Arc<Glance>> {
        let asked = Instant::now();
        // The walk holds the lock, even when the client that asked for it goes away: never two at once.
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((begun, glance)) = &last.taken
            && *begun >= asked
        {
            return Ok(Arc::clone(glance));
        }
        if let Some(rested) = last.rested {
            sleep_until(rested).await;
        }
        let source = Arc::clone(&self.source);

        spawn_blocking(move || last.renew(&*source))
            .await
            .context("cannot observe the guard")?
    }

    /// The flows at this moment; one walk at a time.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub async fn flows(&self) -> anyhow::Result<Vec<FlowRow>> {
        let walking = Arc::clone(&self.flows).acquire_owned().await?;
        let source = Arc::clone(&self.source);

        spawn_blocking(move || {
            let _walking = walking;
            source.flows()
        })
        .await
        .context("cannot list the flows")?
    }

    /// Whether every interface is guarded, and nothing is known to be wrong.
    pub fn guarded(&self) -> bool {
        self.source.guarded()
    }
}

#[derive(Default)]
struct Last {
    taken: Option<(Instant, Arc<Glance>)>,
    rested: Option<Instant>,
    read_failures: u64,
}

impl Last {
    /// A rest is twice as long as the walk before it, within these bounds.
    const REST: (Duration, Duration) = (Duration::from_millis(25), Duration::from_millis(250));

    fn renew(&mut self, source: &dyn Observe) -> anyhow::Result<Arc<Glance>> {
        let begun = Instant::now();
        let observation = Arc::new(source.observe());
        self.read_failures = self.read_failures.saturating_add(observation.read_failures);
        let glance = Arc::new(Glance {
            metrics: metrics::exposition(Arc::clone(&observation), self.read_failures)?.into(),
            observation,
        });

        let (shortest, longest) = Self::REST;
        let ended = Instant::now();
        self.rested = Some(ended + ((ended - begun) * 2).clamp(shortest, longest));
        self.taken = Some((begun, Arc::clone(&glance)));

        Ok(glance)
    }
}
