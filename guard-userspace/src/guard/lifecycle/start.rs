//! What stands before anything is attached: the interfaces, what an earlier run has left, and
//! the programs.

use std::{cmp::Reverse, os::fd::OwnedFd};

use anyhow::Context;
use rtnetlink::Handle;

use super::{
    device::{self, GuardedDevice},
    takeover::Takeover,
    wanted::{Wanted, find_wanted},
};
use crate::{
    base::failure::Failure,
    bpf::{
        attach,
        clock::Clock,
        maps::Maps,
        pins::{Hook, Pins},
        programs::Programs,
    },
    config::Settings,
    host::interfaces::{self, Interface, Topology},
};

/// The interfaces of the settings, in the order in which they are attached to. Adds a line to
/// `notes` about each that is not there.
pub(super) async fn check_interfaces(
    settings: &Settings,
    netlink: &Handle,
    pins: &Pins,
    notes: &mut Vec<String>,
) -> Result<Vec<Wanted>, Failure> {
    let all = interfaces::list(netlink).await?;
    let mut found = find_wanted(settings, &all)?;
    for wanted in &found {
        match &wanted.interface {
            Some(interface) if wanted.guarded => {
                let ours = attach::pinned_xdp(pins, interface.index);
                interface.require_free(|id| ours.contains(&id))?;
            }
            Some(_) => {}
            None => notes.push(waiting(&wanted.asked, &all)),
        }
    }
    // The kernel refuses XDP below an interface that has it.
    let layers = Topology::new(&all);
    found.sort_by_key(|wanted| {
        let above = |interface| layers.above(interface).len();
        Reverse(wanted.interface.as_ref().map(above))
    });

    Ok(found)
}

/// What is said about an interface that is not there.
fn waiting(asked: &str, all: &[Interface]) -> String {
    let advice = if asked.contains(',') {
        "; name each interface by itself"
    } else {
        ""
    };

    format!(
        "{asked}: no such interface, waiting for it; {}{advice}",
        interfaces::names(all)
    )
}

/// Takes off what earlier runs have left on interfaces that this one does not want. Returns what
/// there is to take over from.
pub(super) async fn release_unwanted(
    pins: &Pins,
    wanted: &[Wanted],
    settings: &Settings,
    netlink: &Handle,
) -> Result<Option<Takeover>, Failure> {
    let find = |index| {
        wanted.iter().find_map(|wanted| {
            let interface = wanted.interface.as_ref()?;
            (interface.index == index).then_some(wanted.guarded)
        })
    };
    let everywhere = [vec![pins.clone()], pins.others()].concat();
    let mut links: Vec<_> = everywhere.iter().flat_map(Pins::links).collect();
    links.sort_by_key(|link| link.1);
    for (index, hook, path) in links {
        let wanted = find(index).is_some_and(|guarded| match hook {
            Hook::Egress | Hook::EgressLast => true,
            // What it was to take the place of is in force.
            Hook::Moving => false,
            Hook::Xdp => guarded,
        });
        if !wanted {
            attach::release_pin(&path)?;
        }
    }
    for other in interfaces::list(netlink).await? {
        // With an XDP program there, whosever it is, the filter may be its egress.
        let unwanted = find(other.index).is_none() && other.xdp.is_empty();
        if unwanted && attach::has_filter(other.index).context("list filters")? {
            attach::release_clsact(&other.name)?;
        }
    }

    Takeover::claim(pins, settings.max_flows.get())
}

/// XDP programs that are loaded at a time.
pub(super) const LOADING: usize = 3;

/// What there is before anything is attached, to be left as it was by a start that ends here: by a
/// failure, or a signal.
pub(super) struct Before<'a> {
    pins: &'a Pins,
    found: bool,
    takeover: Option<Takeover>,
    begun: bool,
}

impl<'a> Before<'a> {
    /// `found` says whether there were maps.
    pub(super) const fn new(pins: &'a Pins, found: bool, takeover: Option<Takeover>) -> Self {
        Self {
            pins,
            found,
            takeover,
            begun: false,
        }
    }

    /// Whether programs of an earlier run are in force.
    pub(super) const fn is_relieved(&self) -> bool {
        self.found || self.takeover.is_some()
    }

    /// From here on another value takes care of what there is.
    pub(super) fn begin(mut self) -> Option<Takeover> {
        self.begun = true;

        self.takeover.take()
    }

    /// Leaves everything as it was.
    pub(super) fn give_back(mut self) -> anyhow::Result<()> {
        self.begun = true;

        Takeover::give_back(self.takeover.take(), self.pins, self.found)
    }
}

impl Drop for Before<'_> {
    fn drop(&mut self) {
        if !self.begun
            && let Err(error) = Takeover::give_back(self.takeover.take(), self.pins, self.found)
        {
            tracing::error!("{error:#}; run `portguard detach`");
        }
    }
}

/// Programs that are loaded and attached nowhere yet.
pub(super) struct Loaded {
    pub(super) maps: Maps,
    pub(super) devices: Vec<GuardedDevice>,
}

/// Loads the programs for interfaces that are there, and the clock that they read. Where another
/// run's guard is `relieved`, all of them, so that it stays if the kernel refuses one; else XDP
/// programs may still be on their way. It may be dropped at any moment.
pub(super) async fn load_with_clock(
    settings: &Settings,
    pins: &Pins,
    wanted: &[Wanted],
    relieved: bool,
) -> Result<(Loaded, Clock), Failure> {
    let (mut loaded, clock) = load(settings, pins, wanted, relieved).await?;
    if relieved {
        for device in &mut loaded.devices {
            if device.is_loaded() {
                device.loaded().await?;
            }
        }
    }

    Ok((loaded, Clock::new(clock)?))
}

async fn load(
    settings: &Settings,
    pins: &Pins,
    wanted: &[Wanted],
    relieved: bool,
) -> Result<(Loaded, OwnedFd), Failure> {
    let names: Vec<_> = (0_u32..)
        .zip(wanted)
        .map(|(number, wanted)| name_of_slot(number, wanted.name()))
        .collect();
    let mut maps = pins.exist().then(|| Maps::open(pins)).transpose()?;
    let mut clock = None;
    let mut devices: Vec<GuardedDevice> = Vec::new();
    for ((number, wanted), name) in (0_u32..).zip(wanted).zip(&names) {
        let slot = match &mut maps {
            Some(maps) => maps.slot(name, &names)?,
            None => number,
        };
        // Those that are missing, which come last, are loaded for when the others are guarded. Where
        // all are, the first one makes the maps.
        let programs = if wanted.interface.is_some() || clock.is_none() {
            // What is sent is recorded everywhere before anything is dropped anywhere, so these come
            // first; few XDP programs are loaded meanwhile, as each has its maps open.
            let wanted_now = relieved || devices.len() < LOADING;
            if wanted_now && let Some(loading) = devices.iter_mut().rev().nth(LOADING - 1) {
                loading.loaded().await?;
            }
            let (slot, most) = ((slot, wanted.frags), settings.max_flows.get());
            let mut programs = Programs::load(slot, pins, most, wanted_now).await?;
            if clock.is_none() {
                clock = Some(programs.clock()?);
            }
            // What every copy has open would soon be more than a process may have.
            programs.close_maps();
            Some(programs)
        } else {
            None
        };
        let device = GuardedDevice::new(wanted, slot, programs);
        let maps = match &mut maps {
            Some(maps) => maps,
            // The first load has created and pinned them.
            none => none.insert(Maps::open(pins)?),
        };
        // Takes the slot, so that the next interface finds another. Programs that are in force keep
        // what they know until all there is to tell is known.
        if maps.device_name(slot)? != *name {
            maps.set_device(slot, device::unknown(name))?;
        }
        devices.push(device);
    }

    match (maps, clock) {
        (Some(maps), Some(clock)) => Ok((Loaded { maps, devices }, clock)),
        _ => Err(Failure::usage("no interface to guard").remedy("give --iface IFACE")),
    }
}

/// What a slot of the device table is called: as the interface, whose name fits, or after one of its
/// other names, which may not, while it is not there.
fn name_of_slot(number: u32, name: &str) -> String {
    const LONGEST: usize = 15;
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let start: String = name.chars().filter(char::is_ascii).take(11).collect();

    format!("{start}~{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_of_long_names_differ() {
        let long = "a-name-that-does-not-fit";
        assert_eq!(name_of_slot(3, "eth0"), "eth0");
        assert_eq!(name_of_slot(3, "fifteen-letters"), "fifteen-letters");
        assert_eq!(name_of_slot(3, long), "a-name-that~3");
        assert!((0..32).all(|number| name_of_slot(number, long).len() <= 15));
        assert_ne!(name_of_slot(1, long), name_of_slot(2, long));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        assert_eq!(
            waiting("eth7", &[]),
            "eth7: no such interface, waiting for it; interfaces here: none"
        );
        assert!(waiting("eth0,eth1", &[]).ends_with("; name each interface by itself"));
    }
}
