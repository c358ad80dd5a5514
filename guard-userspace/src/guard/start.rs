//! What stands before anything is attached: the interfaces, what an earlier run has left, and
//! the programs.

use std::{cmp::Reverse, os::fd::OwnedFd};

use rtnetlink::Handle;

use super::{device::GuardedDevice, inherit::Inheritance};
use crate::{
    attach,
    clock::Clock,
    failure::Failure,
    interfaces::{self, AttachedMode, Interface, Layers},
    maps::Maps,
    pins::{Hook, Pins},
    programs::Programs,
    settings::{Settings, XdpMode},
};

/// The interfaces of the settings, in the order in which they are attached to.
pub(super) async fn check_interfaces(
    settings: &Settings,
    netlink: &Handle,
    pins: &Pins,
) -> Result<Vec<Interface>, Failure> {
    let all = interfaces::list(netlink).await?;
    let mut interfaces = Vec::new();
    for name in settings.iface.iter().chain(&settings.egress_iface) {
        let interface = interfaces::pick(all.clone(), name)?;
        interface.require_guardable()?;
        if settings.iface.contains(name) {
            let ours = attach::pinned_xdp(pins, interface.index);
            interface.require_free(|id| ours.contains(&id))?;
        }
        interfaces.push(interface);
    }
    // The kernel refuses XDP below an interface that has it.
    let layers = Layers::new(&all);
    interfaces.sort_by_key(|interface| Reverse(layers.above(interface).len()));

    Ok(interfaces)
}

/// Takes off what earlier runs have left and this one does not want: on other interfaces, and
/// XDP in another mode than was asked for. Returns what there is to take over from.
pub(super) async fn release_unwanted(
    pins: &Pins,
    interfaces: &[Interface],
    settings: &Settings,
    netlink: &Handle,
) -> Result<Option<Inheritance>, Failure> {
    let everywhere = [vec![pins.clone()], pins.others()].concat();
    let links = |hook| {
        let links = everywhere.iter().flat_map(Pins::links);
        links.filter(move |link| link.1 == hook)
    };
    for (index, hook, path) in links(Hook::Xdp).chain(links(Hook::Egress)) {
        let wanted = interfaces
            .iter()
            .find(|interface| interface.index == index)
            .is_some_and(|interface| match hook {
                Hook::Egress => true,
                Hook::Xdp => {
                    settings.iface.contains(&interface.name)
                        && in_mode(interface, settings.xdp_mode)
                }
            });
        if !wanted {
            attach::release_pin(&path)?;
        }
    }
    for other in interfaces::list(netlink).await? {
        let wanted = interfaces.iter().any(|own| own.index == other.index);
        // With an XDP program there, whosever it is, the filter may be its egress.
        let unwanted = !wanted && other.xdp.is_empty();
        if unwanted && attach::has_filter(netlink, other.index).await? {
            attach::release_clsact(&other.name)?;
        }
    }

    Inheritance::claim(pins, settings.max_flows.get())
}

fn in_mode(interface: &Interface, mode: XdpMode) -> bool {
    interface.xdp.iter().all(|program| match mode {
        XdpMode::Auto => true,
        XdpMode::Native => program.mode == AttachedMode::Native,
        XdpMode::Generic => program.mode == AttachedMode::Generic,
    })
}

/// Programs that are loaded and attached nowhere yet.
pub(super) struct Loaded {
    pub(super) maps: Maps,
    pub(super) devices: Vec<GuardedDevice>,
}

/// Loads the programs, and the clock that they read. Where another run's guard is `relieved`, all
/// of them, so that it stays if the kernel refuses one; else XDP programs may still be on their way.
pub(super) fn load_with_clock(
    settings: &Settings,
    pins: &Pins,
    interfaces: &[Interface],
    relieved: bool,
) -> Result<(Loaded, Clock), Failure> {
    let (mut loaded, clock) = load(settings, pins, interfaces)?;
    if relieved {
        loaded
            .devices
            .iter_mut()
            .try_for_each(GuardedDevice::wait)?;
    }

    Ok((loaded, Clock::new(clock)?))
}

fn load(
    settings: &Settings,
    pins: &Pins,
    interfaces: &[Interface],
) -> Result<(Loaded, OwnedFd), Failure> {
    let names: Vec<_> = interfaces
        .iter()
        .map(|interface| interface.name.clone())
        .collect();
    let mut maps = pins.exist().then(|| Maps::open(pins)).transpose()?;
    let mut clock = None;
    let mut devices = Vec::new();
    for (number, interface) in (0_u32..).zip(interfaces) {
        let slot = match &mut maps {
            Some(maps) => maps.slot(&interface.name, &names)?,
            None => number,
        };
        let mut programs = Programs::load(slot, pins, settings.max_flows.get())?;
        if clock.is_none() {
            clock = Some(programs.clock()?);
        }
        let guarded = settings.iface.contains(&interface.name);
        let device = GuardedDevice::new(interface, slot, guarded, programs);
        let maps = match &mut maps {
            Some(maps) => maps,
            // The first load has created and pinned them.
            none => none.insert(Maps::open(pins)?),
        };
        // Takes the slot, so that the next interface finds another. Programs that are in force keep
        // what they know until all there is to tell is known.
        if maps.device_name(slot)? != interface.name {
            maps.set_device(slot, device.unknown())?;
        }
        devices.push(device);
    }

    match (maps, clock) {
        (Some(maps), Some(clock)) => Ok((Loaded { maps, devices }, clock)),
        _ => Err(Failure::usage("no interface to guard").remedy("give --iface IFACE")),
    }
}
