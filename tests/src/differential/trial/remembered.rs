//! What a trial's sides remember.

use std::{collections::HashMap, fmt, hash::Hash};

use guard_common::{
    flow::{fragment::FragmentKey, state::Flow},
    outcome::Tally,
    ports::{class::PORTS, occupancy::Use},
};

use super::Trial;
use crate::{differential::translate, memory::Key};

impl Trial {
    /// Everything that both remember.
    pub(super) fn compare_memory(&self) -> Result<(), String> {
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
        let tallied = std::array::from_fn(|tally| self.tables.tallied(Tally::ALL[tally]));
        if tallied != due {
            return Err(format!(
                "tallies are {tallied:?} in memory, {due:?} by the reference"
            ));
        }
        Ok(())
    }

    /// Flows as the maps hold them, `ahead` ticks earlier.
    pub(super) fn flows(&self, ahead: u32) -> HashMap<Key, Flow> {
        let flows = self.model.memory.flows.iter();
        flows
            .map(|(id, flow)| (translate::key(id), earlier(translate::flow(flow), ahead)))
            .collect()
    }

    pub(super) fn refusals(&self, ahead: u32) -> HashMap<FragmentKey, u32> {
        let refused = self.model.memory.refused.iter();
        refused
            .map(|(id, since)| (translate::datagram(id), since.wrapping_sub(ahead)))
            .collect()
    }

    pub(super) fn occupancy(&self) -> Vec<u8> {
        let mut bytes = vec![0; Use::COUNT * PORTS];
        for ((purpose, port), epoch) in &self.model.memory.occupancy {
            bytes[translate::purpose(*purpose) as usize * PORTS + usize::from(*port)] = *epoch;
        }
        bytes
    }

    pub(super) fn tallies(&self) -> [u64; Tally::COUNT] {
        let tallies = &self.model.memory.tallies;
        std::array::from_fn(|tally| tallies.get(Tally::ALL[tally].name()).copied().unwrap_or(0))
    }
}

/// A flow as it was when the clock was so far behind.
pub(super) fn earlier(flow: Flow, ticks: u32) -> Flow {
    Flow {
        last_seen: flow.last_seen.wrapping_sub(ticks),
        ..flow
    }
}

/// Fails where the sides differ, and says in what.
pub(super) fn same<K: Eq + Hash + fmt::Debug, V: PartialEq + fmt::Debug>(
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
