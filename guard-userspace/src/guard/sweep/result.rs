//! What one sweep has come to know.

use std::time::Duration;

use guard_common::flow::adaptive::Scales;

use crate::{
    bpf::maps::Shortage,
    guard::{pressure::Load, repair::Repaired},
};

/// What a sweep has found and done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweepResult {
    /// How full each flow map is.
    pub loads: Vec<Load>,
    /// Connected sockets.
    pub sockets: u64,
    /// Flows of theirs that were put back.
    pub repaired: Repaired,
    /// What timers keep of their length from now on.
    pub scales: Scales,
    /// Expired entries that were taken out.
    pub reclaimed: u64,
    /// Counters that move where a map is too small.
    pub evidence: Shortage,
    /// Whether the tuple filter is as long as it should be. If not, it has a new length, and the
    /// next sweep fills it.
    pub fits: bool,
    /// How long it took.
    pub took: Duration,
    /// For how long of that a processor was busy with it.
    pub busy: Duration,
}

impl SweepResult {
    /// Flows that count by timers of full length.
    pub fn flows(&self) -> u64 {
        self.loads.iter().map(|load| load.live).sum()
    }
}
