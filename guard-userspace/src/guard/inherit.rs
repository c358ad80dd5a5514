//! Taking over from an earlier run whose maps are of another size.
//!
//! The new egress runs beside the old one, the flows are copied, XDP is swapped in one step, and
//! only then the old egress goes: no packet meets an interface without a guard, and no reply one
//! that does not know its flow.

use std::path::PathBuf;

use anyhow::Context;
use guard_common::{flow::Phase, tables::Use};

use crate::{
    attach,
    failure::Failure,
    maps::{FlowMap, Maps},
    pins::{Hook, Pins},
};

/// What an earlier run has left in force, with maps that do not fit.
#[derive(Debug)]
pub(super) struct Inheritance {
    pins: Pins,
}

impl Inheritance {
    /// Makes room for new maps. The old ones and their links stay in force under another name.
    pub(super) fn set_aside(pins: &Pins) -> Result<Self, Failure> {
        let pins = pins.set_aside()?;

        Ok(Self { pins })
    }

    /// What was set aside and never finished, if anything.
    pub(super) fn left(pins: &Pins) -> Option<Self> {
        let pins = pins.aside();

        pins.exist().then_some(Self { pins })
    }

    /// Undoes [`set_aside`](Self::set_aside), while nothing is attached to the new maps.
    pub(super) fn put_back(self, pins: &Pins) -> anyhow::Result<()> {
        pins.remove_all()?;

        self.pins.rename_to(pins)
    }

    /// Where the earlier maps and links are pinned now.
    pub(super) fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Where an earlier XDP link of this interface is pinned.
    pub(super) fn xdp(&self, interface: u32) -> PathBuf {
        self.pins.link(interface, Hook::Xdp)
    }

    /// Copies flows, the ports they use, and counters. Returns how many flows there were.
    pub(super) fn copy_to(&self, maps: &mut Maps, pins: &Pins, now: u32) -> anyhow::Result<u64> {
        let epoch = maps.state.epoch() as u8;
        let timeouts = maps.state.timeouts();
        let mut copied = 0;
        for (from, to) in FlowMap::open_all(&self.pins)?
            .iter()
            .zip(FlowMap::open_all(pins)?)
        {
            from.walk(|entry| {
                if !entry.flow.alive(now, &timeouts) {
                    return;
                }
                // The smaller map has no room for all of them: the kernel's sockets have.
                let _ = to.insert(&entry);
                let port = entry.local.port();
                maps.state.mark(Use::flow(entry.transport), port, epoch);
                if entry.flow.phase == Phase::Query as u8 {
                    maps.state.mark(Use::Query, port, epoch);
                }
                copied += 1;
            })?;
        }
        maps.take_over_counters(&self.pins)?;

        Ok(copied)
    }

    /// Takes off what is still in force of the earlier run, which is no more than its egress when
    /// all went well.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        for (_, _, path) in self.pins.links() {
            attach::release_pin(&path)?;
        }

        self.pins
            .remove_all()
            .context("the maps of the earlier run stay pinned")
    }
}
