//! The maps, as the daemon writes them ([`Maps`]) and everybody reads them ([`Readings`]).

mod bloom;
mod flows;
mod prefixes;
mod readings;
mod sets;
mod state;
mod takeover;

use std::{ffi::c_void, num::NonZeroUsize, path::Path, ptr::NonNull, sync::Arc};

use anyhow::{Context, ensure};
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray, PerCpuValues};
use guard_common::{
    abi::{
        device::Device,
        layout::{Counters, MAX_DEVICES},
        state::Element,
    },
    outcome::{Decision, Family, Outcome, Protocol, Verdict},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};

pub use self::{
    bloom::Tuples,
    flows::{FLOW_MAPS, FlowEntry, FlowMap, is_flow_map},
    prefixes::{Entry, Prefixes},
    readings::{FlowCount, FlowRow, FrameCount, PacketTotals, Readings, Shortage, Tallies},
    sets::{MacAddresses, TunnelPorts},
    state::StateMemory,
};
use crate::bpf::pins::{MAPS, Pins};

/// What the daemon writes, opened from the pins of one network namespace.
pub struct Maps {
    /// What both programs ask of every frame.
    pub state: Arc<StateMemory>,
    /// Addresses of this host, and those of others that may end here.
    pub local: Prefixes,
    /// Prefixes of each interface's neighbours.
    pub neighbours: Prefixes,
    /// Link addresses of this host.
    pub links: MacAddresses,
    /// Prefixes that the user trusts.
    pub trusted: Prefixes,
    /// Where the kernel itself receives.
    pub kernel_ports: TunnelPorts,
    devices: Array<MapData, Device>,
    counters: PerCpuArray<MapData, Counters>,
    tallies: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Opens the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing or not what it should be.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self {
            state: Arc::new(StateMemory::open(pins)?),
            local: Prefixes::open(pins, "local")?,
            neighbours: Prefixes::open(pins, "neighbours")?,
            links: MacAddresses::open(pins)?,
            trusted: Prefixes::open(pins, "trusted")?,
            kernel_ports: TunnelPorts::open(pins)?,
            devices: Array::try_from(Map::Array(open(&pins.map("devices"))?))
                .context("devices: not as this build lays it out")?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(&pins.map("counters"))?))
                .context("counters: not as this build lays it out")?,
            tallies: PerCpuArray::try_from(Map::PerCpuArray(open(&pins.map("tallies"))?))
                .context("tallies: not as this build lays it out")?,
        })
    }

    /// Takes over what is counted elsewhere: for frames, interface by interface. Each counter
    /// becomes the larger of both: while two programs count the same frames a sum would count
    /// them twice, and no counter may go back. Returns whether all of it could be read; what is
    /// laid out in another way cannot.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over_counters(&mut self, from: &Pins) -> anyhow::Result<bool> {
        takeover::counters(self, from)
    }

    /// Whether every map is pinned, as this build lays it out, with room for so many flows.
    pub fn fit(pins: &Pins, max_flows: u32) -> bool {
        let room = |(name, _, _): &(&str, Family, Protocol)| {
            MapInfo::from_pin(pins.map(name)).is_ok_and(|info| info.max_entries() == max_flows)
        };

        MAPS.iter().all(|name| pins.map(name).exists())
            && FLOW_MAPS.iter().all(room)
            && Self::open(pins).is_ok()
    }

    /// The slot of the interface called `name`: the one it had, or a free one, whose counters
    /// start at 0.
    ///
    /// # Errors
    /// When every slot is taken by an interface in `wanted`, or the kernel refuses.
    pub fn slot(&mut self, name: &str, wanted: &[String]) -> anyhow::Result<u32> {
        let mut free = None;
        for slot in 0..MAX_DEVICES {
            let holder = self.device_name(slot)?;
            if holder == name {
                return Ok(slot);
            }
            if holder.is_empty() || !wanted.contains(&holder) {
                // One that was never used is better than one with another's counters.
                let better = free.is_none_or(|(_, used)| used && holder.is_empty());
                if better {
                    free = Some((slot, !holder.is_empty()));
                }
            }
        }
        let (slot, used) =
            free.with_context(|| format!("{name}: one guard serves {MAX_DEVICES} interfaces"))?;
        if used {
            self.clear_counters(slot)?;
        }

        Ok(slot)
    }

    /// Tells the programs about the interface in `slot`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_device(&mut self, slot: u32, device: Device) -> anyhow::Result<()> {
        self.devices
            .set(slot, device, 0)
            .context("devices: cannot be written")
    }

    /// The name of the interface in `slot`, empty when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn device_name(&self, slot: u32) -> anyhow::Result<String> {
        name_of(&self.devices, slot)
    }

    fn clear_counters(&mut self, slot: u32) -> anyhow::Result<()> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let zeroes = vec![[0; Decision::SLOTS as usize]; processors];

        self.counters
            .set(slot, PerCpuValues::try_from(zeroes)?, 0)
            .context("counters: cannot be written")
    }
}

/// The maps themselves, to pin them anew where others remove their pins.
#[derive(Debug)]
pub struct SyncedMaps(Vec<(&'static str, MapData)>);

impl SyncedMaps {
    /// Opens all that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let maps = MAPS.map(|name| Ok((name, open(&pins.map(name))?)));

        Ok(Self(maps.into_iter().collect::<anyhow::Result<_>>()?))
    }

    /// Pins those of these names, which must not be pinned there.
    ///
    /// # Errors
    /// Names the map that the kernel refuses to pin.
    pub fn pin(&self, pins: &Pins, names: &[&str]) -> anyhow::Result<()> {
        for (name, map) in self.0.iter().filter(|(name, _)| names.contains(name)) {
            let path = pins.map(name);
            map.pin(&path)
                .with_context(|| format!("{}: cannot be pinned", path.display()))?;
        }

        Ok(())
    }
}

/// Every kind of frame that has a counter. Passing outcomes never drop.
fn kinds() -> impl Iterator<Item = (Decision, Verdict)> {
    let outcomes = Outcome::ALL.iter().flat_map(|&outcome| {
        Verdict::ALL
            .into_iter()
            .filter(move |&verdict| verdict == Verdict::Pass || outcome.verdict() == Verdict::Drop)
            .map(move |verdict| (outcome, verdict))
    });
    outcomes.flat_map(|(outcome, verdict)| {
        Family::ALL.into_iter().flat_map(move |family| {
            Protocol::ALL.into_iter().map(move |protocol| {
                let decision = Decision {
                    outcome,
                    family,
                    protocol,
                };
                (decision, verdict)
            })
        })
    })
}

fn name_of(devices: &Array<MapData, Device>, slot: u32) -> anyhow::Result<String> {
    let device = devices.get(&slot, 0).context("devices: cannot be read")?;
    let name = device.name.split(|&byte| byte == 0).next();

    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// Shares the first `length` bytes of the map `state`, or all of it, and returns how many elements
/// it has.
///
/// # Errors
/// When there is none, it is another build's, or the kernel refuses, as it does before 5.5.
fn share(pins: &Pins, length: Option<usize>) -> anyhow::Result<(NonNull<c_void>, u32)> {
    let map = open(&pins.map("state"))?;
    let info = map.info().context("state: cannot be read")?;
    ensure!(
        info.value_size() as usize == size_of::<Element>(),
        "state: not as this build lays it out"
    );
    let elements = info.max_entries();
    let length = length.unwrap_or(elements as usize * size_of::<Element>());
    let length = NonZeroUsize::new(length).context("empty")?;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let memory = unsafe {
        mmap(
            None,
            length,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
            map.fd(),
            0,
        )
    };

    let memory = memory.context("state: cannot be mapped into memory")?;

    Ok((memory, elements))
}

fn open(path: &Path) -> anyhow::Result<MapData> {
    MapData::from_pin(path).with_context(|| format!("{}: cannot be opened", path.display()))
}

/// What the kernel tells of the map called `name` that is pinned in `pins`, if it is of the same
/// kind as `ours`, with keys and values as long.
///
/// Anyone who changes what is in a map, but not how long it is, has to call it by another name.
fn alike(name: &str, ours: &MapInfo, pins: &Pins) -> Option<MapInfo> {
    let theirs = MapInfo::from_pin(pins.map(name)).ok()?;
    let same = theirs.map_type().ok()? == ours.map_type().ok()?
        && theirs.key_size() == ours.key_size()
        && theirs.value_size() == ours.value_size();

    same.then_some(theirs)
}
