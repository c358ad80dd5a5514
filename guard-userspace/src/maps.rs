//! The maps, as the daemon writes them ([`Maps`]) and everybody reads them ([`Readings`]).

mod config;
mod flows;
mod occupancy;
mod prefixes;
mod readings;

use std::path::Path;

use anyhow::Context;
use aya::maps::{Array, Map, MapData, MapInfo, PerCpuArray};
use guard_common::{
    config::Device,
    layout::MAX_DEVICES,
    outcome::{Action, Family, Judged, Outcome, Protocol},
    parse::Transport,
    ports::{GuardedPorts as PortPage, PORTS},
};

pub use self::{
    config::ConfigMemory,
    flows::{FlowEntry, FlowMap},
    occupancy::OccupancyMemory,
    prefixes::Prefixes,
    readings::Readings,
};
use crate::{pins::Pins, range::GuardedPorts};

/// What the daemon writes, opened from the pins of one network namespace.
pub struct Maps {
    /// What the daemon tells the programs.
    pub config: ConfigMemory,
    /// Addresses of this host.
    pub local: Prefixes,
    /// Prefixes that the user trusts.
    pub trusted: Prefixes,
    guarded: Array<MapData, PortPage>,
    devices: Array<MapData, Device>,
    counters: PerCpuArray<MapData, u64>,
}

impl Maps {
    /// Opens the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing or not what it should be.
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        Ok(Self {
            config: ConfigMemory::open(&pins.map("config"))?,
            local: Prefixes::open(pins, "local")?,
            trusted: Prefixes::open(pins, "trusted")?,
            guarded: Array::try_from(Map::Array(open(&pins.map("guarded"))?))
                .context("guarded: not as this build lays it out")?,
            devices: Array::try_from(Map::Array(open(&pins.map("devices"))?))
                .context("devices: not as this build lays it out")?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open(&pins.map("counters"))?))
                .context("counters: not as this build lays it out")?,
        })
    }

    /// The capacity of the flow maps that are pinned, if any is.
    pub fn pinned_capacity(pins: &Pins) -> Option<u32> {
        MapInfo::from_pin(pins.map("flows_tcp4"))
            .ok()
            .map(|info| info.max_entries())
    }

    /// Puts other ports in force, as one whole: fills the page that is not in use, then flips.
    ///
    /// # Errors
    /// When the kernel refuses; the ports in force stay so.
    pub fn guard_ports(
        &mut self,
        ports: &GuardedPorts,
        unrecorded: impl IntoIterator<Item = u16>,
    ) -> anyhow::Result<()> {
        let mut page = PortPage {
            first: u32::from(ports.range().first()),
            last: u32::from(ports.range().last()),
            tcp: *ports.bitmap(Transport::Tcp).words(),
            udp: *ports.bitmap(Transport::Udp).words(),
            unrecorded: [0; PORTS / 32],
        };
        for port in unrecorded {
            page.unrecorded[usize::from(port / 32)] |= 1 << (port % 32);
        }

        let next = 1 - (self.config.page() & 1);
        self.guarded
            .set(next, page, 0)
            .context("guarded: cannot be written")?;
        self.config.set_page(next);

        Ok(())
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
        let device = self
            .devices
            .get(&slot, 0)
            .context("devices: cannot be read")?;
        let name = device.name.split(|&byte| byte == 0).next();

        Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
    }

    fn clear_counters(&mut self, slot: u32) -> anyhow::Result<()> {
        let processors = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for (judged, verdict) in kinds() {
            let zeroes = aya::maps::PerCpuValues::try_from(vec![0; processors])?;
            self.counters
                .set(judged.slot(slot, verdict), zeroes, 0)
                .context("counters: cannot be written")?;
        }

        Ok(())
    }
}

/// Every kind of frame that has a counter. Passing outcomes never drop.
fn kinds() -> impl Iterator<Item = (Judged, Action)> {
    let outcomes = Outcome::ALL.iter().flat_map(|&outcome| {
        Action::ALL
            .into_iter()
            .filter(move |&verdict| verdict == Action::Pass || outcome.action() == Action::Drop)
            .map(move |verdict| (outcome, verdict))
    });
    outcomes.flat_map(|(outcome, verdict)| {
        Family::ALL.into_iter().flat_map(move |family| {
            Protocol::ALL.into_iter().map(move |protocol| {
                let judged = Judged {
                    outcome,
                    family,
                    protocol,
                };
                (judged, verdict)
            })
        })
    })
}

fn open(path: &Path) -> anyhow::Result<MapData> {
    MapData::from_pin(path).with_context(|| format!("{}: cannot be opened", path.display()))
}
