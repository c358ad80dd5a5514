//! Taking over from an earlier run whose maps are of another size or layout.
//!
//! The new egress runs beside the old one, what is in the maps is copied, XDP is swapped in one
//! step, and only then the old egress goes: no packet meets an interface without a guard, and no
//! reply one that does not know its flow.
//!
//! A run that is killed meanwhile leaves several folders, each with programs that may be in
//! force. The next one takes over from all of them: what is newer in one wins.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use guard_common::{flow::state::Phase, ports::occupancy::Use};

use crate::{
    base::failure::Failure,
    bpf::{
        attach,
        maps::{FlowMap, Maps},
        pins::{Hook, Pins},
    },
};

/// How long both egress programs record side by side where flows cannot be copied. Anyone who has
/// asked before the second one did, and is no connected socket, has its answer by then or asks
/// again: the C library's resolver does after as long (`RES_TIMEOUT`, resolv.h).
pub(super) const SIDE_BY_SIDE: Duration = Duration::from_secs(5);

/// What earlier runs have left in force, with maps that this one does not use.
#[derive(Debug)]
pub(super) struct Takeover {
    earlier: Vec<Pins>,
    /// Which of them this run has moved out of its way.
    aside: Option<Pins>,
}

/// What came of copying.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// Lines for the administrator.
    pub(super) notes: Vec<String>,
    /// Whether flows may be missing whose packets only the earlier program would let in.
    pub(super) incomplete: bool,
}

impl Takeover {
    /// Finds what there is to take over from. Maps that do not fit are set aside: they stay in
    /// force under another name.
    pub(super) fn claim(pins: &Pins, max_flows: u32) -> Result<Option<Self>, Failure> {
        let fits = !pins.exist() || Maps::fit(pins, max_flows);
        let aside = if fits { None } else { Some(pins.set_aside()?) };
        let mut earlier = Vec::new();
        for other in pins.others() {
            if other.exist() {
                earlier.push(other);
            } else {
                // Anyone who has emptied it was killed before it could remove it.
                other.remove_maps()?;
            }
        }

        Ok((!earlier.is_empty()).then_some(Self { earlier, aside }))
    }

    /// Undoes [`claim`](Self::claim), while nothing is attached to the new maps. `found` says
    /// whether they were there before.
    pub(super) fn give_back(
        takeover: Option<Self>,
        pins: &Pins,
        found: bool,
    ) -> anyhow::Result<()> {
        match takeover.and_then(|takeover| takeover.aside) {
            Some(aside) => {
                pins.remove_all()?;
                aside.rename_to(pins)
            }
            None if found => Ok(()),
            None => pins.remove_maps(),
        }
    }

    /// Where the earlier maps and links are pinned.
    pub(super) fn earlier(&self) -> &[Pins] {
        &self.earlier
    }

    /// Where an earlier XDP link of this interface may be pinned.
    pub(super) fn xdp(&self, interface: u32) -> impl Iterator<Item = PathBuf> {
        self.earlier
            .iter()
            .map(move |earlier| earlier.link(interface, Hook::Xdp))
    }

    /// Copies flows, the ports they use, and counters, as far as they are laid out as they are
    /// here.
    pub(super) fn copy_to(
        &self,
        maps: &mut Maps,
        pins: &Pins,
        now: u32,
    ) -> anyhow::Result<Carried> {
        let mut carried = Carried::default();
        for earlier in &self.earlier {
            let name = earlier.name();
            let (copied, unread) = copy_flows(earlier, maps, pins, now)?;
            // Of the same layout, a run was killed before it had all maps, and attached nothing.
            let familiar = earlier.share_layout(pins);
            let line = if unread && !familiar {
                carried.incomplete = true;
                format!(
                    "maps of {name}: {copied} flows carried over; those that are kept in another \
                     form there are learned from their sockets"
                )
            } else {
                format!("maps of {name}: {copied} flows carried over")
            };
            let counted = maps.take_over_counters(earlier)?;
            carried.notes.push(if counted || familiar {
                line
            } else {
                format!("{line}; counters that are kept in another form start at 0")
            });
        }

        Ok(carried)
    }

    /// Takes off what is still in force of earlier runs, which is no more than their egress when
    /// all went well.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        for &hook in Hook::ALL {
            let links = self.earlier.iter().flat_map(Pins::links);
            for (_, _, path) in links.filter(|link| link.1 == hook) {
                attach::release_pin(&path)?;
            }
        }

        self.earlier.iter().try_for_each(|earlier| {
            earlier
                .remove_all()
                .context("the maps of an earlier run stay pinned")
        })
    }
}

/// Copies the flows of one folder. Returns how many there were, and whether there may be more in
/// maps that cannot be read.
fn copy_flows(earlier: &Pins, maps: &Maps, pins: &Pins, now: u32) -> anyhow::Result<(u64, bool)> {
    let epoch = maps.state.epoch() as u8;
    let timeouts = maps.state.timeouts();
    let mut copied = 0;
    let mut unread = false;
    for to in FlowMap::open_all(pins)? {
        let Some(from) = to.counterpart(earlier) else {
            unread = true;
            continue;
        };
        from.walk(|entry| {
            if !entry.flow.alive(now, &timeouts) {
                return;
            }
            // A smaller map has no room for all of them: the kernel's sockets have.
            let _ = to.merge(&entry);
            let port = entry.local.port();
            maps.state.mark(Use::flow(entry.transport), port, epoch);
            if entry.flow.phase == Phase::Multicast as u8 {
                maps.state.mark(Use::Multicast, port, epoch);
            }
            copied += 1;
        })?;
    }

    Ok((copied, unread))
}
