//! What is counted, taken over from maps that are pinned elsewhere.

use anyhow::Context;
use aya::maps::{Array, IterableMap, Map, MapData, PerCpuArray, PerCpuValues};
use guard_common::{
    abi::{
        device::Device,
        layout::{Counters, MAX_DEVICES},
    },
    outcome::Tally,
};

use super::{Maps, alike, name_of, open};
use crate::bpf::pins::Pins;

impl Maps {
    /// Takes over what is counted elsewhere: for frames, interface by interface. Each counter
    /// becomes the larger of both: while two programs count the same frames a sum would count
    /// them twice, and no counter may go back. Returns whether all of it could be read; what is
    /// laid out in another way cannot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over_counters(&mut self, from: &Pins) -> anyhow::Result<bool> {
        let frames = self.take_over_frames(from)?;
        let tallies = self.take_over_tallies(from)?;

        Ok(frames && tallies)
    }

    fn take_over_frames(&mut self, from: &Pins) -> anyhow::Result<bool> {
        let known = alike("devices", &self.devices.map().info()?, from).is_some()
            && alike("counters", &self.counters.map().info()?, from).is_some();
        if !known {
            return Ok(false);
        }

        let devices: Array<MapData, Device> =
            Array::try_from(Map::Array(open(&from.map("devices"))?))?;
        let counters: PerCpuArray<MapData, Counters> =
            PerCpuArray::try_from(Map::PerCpuArray(open(&from.map("counters"))?))?;
        for slot in 0..MAX_DEVICES {
            let name = self.device_name(slot)?;
            if name.is_empty() {
                continue;
            }
            for other in 0..MAX_DEVICES.min(devices.len()) {
                if name_of(&devices, other)? != name {
                    continue;
                }
                let theirs = counters
                    .get(&other, 0)
                    .context("counters: cannot be read")?;
                let own = self
                    .counters
                    .get(&slot, 0)
                    .context("counters: cannot be read")?;
                let larger: Vec<Counters> = own
                    .iter()
                    .zip(theirs.iter())
                    .map(|(own, other)| std::array::from_fn(|slot| own[slot].max(other[slot])))
                    .collect();
                self.counters
                    .set(slot, PerCpuValues::try_from(larger)?, 0)
                    .context("counters: cannot be written")?;
            }
        }

        Ok(true)
    }

    fn take_over_tallies(&mut self, from: &Pins) -> anyhow::Result<bool> {
        if alike("tallies", &self.tallies.map().info()?, from).is_none() {
            return Ok(false);
        }

        let tallies: PerCpuArray<MapData, u64> =
            PerCpuArray::try_from(Map::PerCpuArray(open(&from.map("tallies"))?))?;
        for tally in 0..(Tally::COUNT as u32).min(tallies.len()) {
            let theirs = tallies.get(&tally, 0).context("tallies: cannot be read")?;
            let own = self
                .tallies
                .get(&tally, 0)
                .context("tallies: cannot be read")?;
            let larger: Vec<u64> = own
                .iter()
                .zip(theirs.iter())
                .map(|(own, other)| *own.max(other))
                .collect();
            self.tallies
                .set(tally, PerCpuValues::try_from(larger)?, 0)
                .context("tallies: cannot be written")?;
        }

        Ok(true)
    }
}
