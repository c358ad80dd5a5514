//! Maps that are only read: for metrics, status and flows.

use std::net::SocketAddr;

use anyhow::Context;
use aya::maps::{Map, MapData, PerCpuArray};
use guard_common::{
    abi::layout::{Counters, MAX_DEVICES},
    flow::timer::{Timeouts, Timer},
    outcome::{Decision, Direction, Family, Outcome, Protocol, Tally, Verdict},
};

use super::{FlowMap, StateMemory, kinds};
use crate::bpf::{clock::Clock, pins::Pins};

/// Packets that the programs of one interface have counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PacketTotals {
    /// Received packets.
    pub received: u64,
    /// Sent packets.
    pub sent: u64,
}

/// Frames of one kind on one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameCount {
    /// The interface's name.
    pub device: String,
    /// What they were decided to be.
    pub decision: Decision,
    /// What was done with them: in monitor mode, drops pass.
    pub verdict: Verdict,
    /// How many.
    pub frames: u64,
}

/// One flow map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowCount {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, or UDP together with UDP-Lite.
    pub protocol: Protocol,
    /// Entries that have not expired.
    pub live: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// What is counted beside the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tallies([u64; Tally::COUNT]);

impl Tallies {
    /// How often this has happened.
    pub const fn of(&self, tally: Tally) -> u64 {
        self.0[tally as usize]
    }
}

/// One flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// The transport protocol.
    pub protocol: Protocol,
    /// This host's end.
    pub local: SocketAddr,
    /// The peer's end; all zero where any peer may answer.
    pub remote: SocketAddr,
    /// The timer that runs, which names the state.
    pub state: Timer,
    /// Time since a packet last counted, in milliseconds, exact to one tick.
    pub idle_ms: u64,
}

/// Counters that move where a map is too small.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shortage {
    /// Flows that found no room, since the guard was started.
    pub insert_failed: u64,
    /// Flows that were rescued because they were not in the map.
    pub rescued_absent: u64,
}

/// What observers read, opened from the pins of one network namespace.
///
/// Its own descriptors and memory: anyone who reads never waits for the daemon, nor it for them.
pub struct Readings {
    state: StateMemory,
    counters: PerCpuArray<MapData, Counters>,
    tallies: PerCpuArray<MapData, u64>,
    flows: Vec<FlowMap>,
}

impl Readings {
    /// Opens the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing or not what it should be.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self {
            state: StateMemory::open(pins)?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(super::open(&pins.map("counters"))?))
                .context("counters: not as this build lays it out")?,
            tallies: PerCpuArray::try_from(Map::PerCpuArray(super::open(&pins.map("tallies"))?))
                .context("tallies: not as this build lays it out")?,
            flows: FlowMap::open_all(pins)?,
        })
    }

    /// The counters of the interface in `slot` that are not 0, under the name `device`, summed
    /// over all processors that there can be.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn frames(&self, slot: u32, device: &str) -> anyhow::Result<Vec<FrameCount>> {
        let processors = self
            .counters
            .get(&slot, 0)
            .context("counters: cannot be read")?;
        let mut counts = Vec::new();
        for (decision, verdict) in kinds() {
            let counter = decision.slot(verdict) as usize;
            let frames = processors.iter().map(|counters| counters[counter]).sum();
            if frames != 0 {
                counts.push(FrameCount {
                    device: device.to_owned(),
                    decision,
                    verdict,
                    frames,
                });
            }
        }

        Ok(counts)
    }

    /// All packets that the programs of the interface in `slot` have counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counted(&self, slot: u32) -> anyhow::Result<PacketTotals> {
        let mut counted = PacketTotals::default();
        for count in self.frames(slot, "")? {
            match count.decision.outcome.direction() {
                Direction::Ingress => counted.received += count.frames,
                Direction::Egress => counted.sent += count.frames,
            }
        }

        Ok(counted)
    }

    /// What is counted beside the frames.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn tallies(&self) -> anyhow::Result<Tallies> {
        let mut tallies = Tallies::default();
        for (&tally, sum) in Tally::ALL.iter().zip(&mut tallies.0) {
            let values = self
                .tallies
                .get(&(tally as u32), 0)
                .context("tallies: cannot be read")?;
            *sum = values.iter().sum();
        }

        Ok(tallies)
    }

    /// What shows that the flow maps are too small.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn evidence(&self) -> anyhow::Result<Shortage> {
        let mut insert_failed = 0;
        for slot in 0..MAX_DEVICES {
            let failed = self.frames(slot, "")?;
            insert_failed += failed
                .iter()
                .filter(|count| count.decision.outcome == Outcome::PassInsertFailed)
                .map(|count| count.frames)
                .sum::<u64>();
        }

        Ok(Shortage {
            insert_failed,
            rescued_absent: self.tallies()?.of(Tally::RescuedAbsent),
        })
    }

    /// How many flows are live in each map, and how many there is room for.
    pub fn flow_counts(&self, clock: &Clock) -> Vec<anyhow::Result<FlowCount>> {
        self.flows
            .iter()
            .map(|map| {
                let live = map.live(clock.now()?, &self.timeouts())?;
                Ok(FlowCount {
                    family: map.family,
                    protocol: map.protocol,
                    live,
                    capacity: u64::from(map.capacity),
                })
            })
            .collect()
    }

    /// Every flow that has not expired.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn flows(&self, clock: &Clock) -> anyhow::Result<Vec<FlowRow>> {
        let timeouts = self.timeouts();
        let mut rows = Vec::new();
        for map in &self.flows {
            let now = clock.now()?;
            map.walk(|entry| {
                if entry.flow.alive(now, &timeouts) {
                    rows.push(FlowRow {
                        protocol: entry.transport.label(),
                        local: entry.local,
                        remote: entry.remote,
                        state: entry.flow.timer(),
                        idle_ms: clock.millis(now.saturating_sub(entry.flow.last_seen)),
                    });
                }
            })?;
        }
        rows.sort_by_key(|row| (row.protocol != Protocol::Tcp, row.local, row.remote));

        Ok(rows)
    }

    fn timeouts(&self) -> Timeouts {
        self.state.timeouts()
    }
}
