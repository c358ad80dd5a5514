//! What is counted, taken over from maps that are pinned elsewhere.

use std::path::Path;

use anyhow::Context;
use aya::maps::{Array, IterableMap, Map, MapData, MapInfo, MapType, PerCpuArray, PerCpuValues};
use guard_common::{
    abi::{
        device::Device,
        layout::{Counters, MAX_DEVICES},
    },
    outcome::{Decision, Tally},
};

use super::{Maps, alike, name_of, open};
use crate::bpf::{pins::Pins, syscalls};

/// As [`Maps::take_over_counters`].
pub(super) fn counters(maps: &mut Maps, from: &Pins) -> anyhow::Result<bool> {
    let all_frames = frames(maps, from)?;
    let all_tallies = tallies(maps, from)?;

    Ok(all_frames && all_tallies)
}

fn frames(maps: &mut Maps, from: &Pins) -> anyhow::Result<bool> {
    let counters = from.map("counters");
    let known = alike("devices", &maps.devices.map().info()?, from).is_some();
    if !known || !has_counters(&counters) {
        return Ok(false);
    }

    let devices: Array<MapData, Device> = Array::try_from(Map::Array(open(&from.map("devices"))?))?;
    let counters = open(&counters)?;
    for slot in 0..MAX_DEVICES {
        let name = maps.device_name(slot)?;
        if name.is_empty() {
            continue;
        }
        for other in 0..MAX_DEVICES.min(devices.len()) {
            if name_of(&devices, other)? != name {
                continue;
            }
            let theirs = syscalls::words_by_processor(&counters, other)
                .context("counters: cannot be read")?;
            let own = maps
                .counters
                .get(&slot, 0)
                .context("counters: cannot be read")?;
            let larger: Vec<Counters> = own
                .iter()
                .zip(theirs.iter())
                .map(|(own, other)| larger(own, other))
                .collect();
            maps.counters
                .set(slot, PerCpuValues::try_from(larger)?, 0)
                .context("counters: cannot be written")?;
        }
    }

    Ok(true)
}

fn tallies(maps: &mut Maps, from: &Pins) -> anyhow::Result<bool> {
    if alike("tallies", &maps.tallies.map().info()?, from).is_none() {
        return Ok(false);
    }

    let tallies: PerCpuArray<MapData, u64> =
        PerCpuArray::try_from(Map::PerCpuArray(open(&from.map("tallies"))?))?;
    for tally in 0..(Tally::COUNT as u32).min(tallies.len()) {
        let theirs = tallies.get(&tally, 0).context("tallies: cannot be read")?;
        let own = maps
            .tallies
            .get(&tally, 0)
            .context("tallies: cannot be read")?;
        let larger: Vec<u64> = own
            .iter()
            .zip(theirs.iter())
            .map(|(own, other)| *own.max(other))
            .collect();
        maps.tallies
            .set(tally, PerCpuValues::try_from(larger)?, 0)
            .context("tallies: cannot be written")?;
    }

    Ok(true)
}

/// Whether counters of frames are pinned there, for whatever number of outcomes.
fn has_counters(path: &Path) -> bool {
    const OF_ONE_OUTCOME: usize = Decision::SLOTS_OF_ONE * size_of::<u64>();

    MapInfo::from_pin(path).is_ok_and(|info| {
        info.map_type()
            .is_ok_and(|kind| kind == MapType::PerCpuArray)
            && (info.value_size() as usize).is_multiple_of(OF_ONE_OUTCOME)
    })
}

/// The larger of each counter and the one of the same number in another version, which may know of
/// more outcomes or of fewer: their numbers are the same in all.
fn larger(own: &Counters, other: &[u64]) -> Counters {
    let mut larger = *own;
    for (own, other) in larger.iter_mut().zip(other) {
        *own = (*own).max(*other);
    }

    larger
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_versions_with_more_and_fewer_outcomes_keep_their_numbers() {
        let own: Counters = std::array::from_fn(|slot| 10 * slot as u64);
        let last = own.len() - 1;
        let fewer: Vec<u64> = vec![75; Decision::SLOTS_OF_ONE];
        let both = larger(&own, &fewer);
        assert_eq!((both[0], both[7], both[8]), (75, 75, 80));
        assert_eq!(both[fewer.len()..], own[fewer.len()..]);
        let more: Vec<u64> = vec![u64::MAX; own.len() + Decision::SLOTS_OF_ONE];
        assert_eq!(larger(&own, &more)[last], u64::MAX);
    }
}
