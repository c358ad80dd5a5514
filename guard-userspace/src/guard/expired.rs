//! Making room for new flows.
//!
//! A full LRU map evicts what was not looked up for longest. That is an idle flow that counts
//! rather than a short one that has expired since, so what has expired is taken out first.

use guard_common::flow::timer::Timeouts;

use crate::bpf::maps::{FlowEntry, FlowMap};

/// Takes out what has expired at `now`, and returns how much that was.
///
/// # Errors
/// When the kernel refuses, as it does before 5.14.
pub fn remove_expired(map: &FlowMap, now: u32, timeouts: &Timeouts) -> anyhow::Result<u64> {
    let mut reclaimed = 0;
    let mut refused = None;
    map.walk(|entry| {
        if refused.is_some() || entry.flow.alive(now, timeouts) {
            return;
        }
        match map.take(&entry) {
            // This host has sent again since the walk saw the flow.
            Ok(Some(flow)) if flow.alive(now, timeouts) => {
                let _ = map.insert(&FlowEntry { flow, ..entry });
            }
            Ok(taken) => reclaimed += u64::from(taken.is_some()),
            Err(error) => refused = Some(error),
        }
    })?;

    refused.map_or(Ok(reclaimed), Err)
}
