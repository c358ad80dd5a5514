//! Following the interfaces: they are deleted and created anew, renamed, moved away, and others
//! take our filters off.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use rtnetlink::Handle;

use super::{Guard, device::GuardedDevice};
use crate::{
    base::{background::in_background, failure::Failure},
    bpf::{
        attach::{self, Attached, XdpHook},
        pins::{Hook, Pins},
    },
    config::{Mode, Settings},
    guard::alarms::{AlarmKind, Alarms},
    host::{
        interfaces::{self, Interface, Topology},
        range::GuardedPorts,
    },
};

/// How long an alarm about a program that was taken off stays up at least, so that a monitoring system
/// that asks every few seconds sees it.
const ROBBED_FOR: Duration = Duration::from_secs(3);

impl Guard {
    /// Whether some link does not hold its program any more, as far as that can be seen. The kernel
    /// tells nobody when a link is detached.
    pub fn has_lost_a_link(&self) -> bool {
        self.links()
            .iter()
            .any(|(_, _, link)| matches!(link.is_in_force(), Ok(false)))
    }

    /// Puts programs back where they are missing, and lets go of interfaces that are gone. Lines
    /// for the administrator are added to `notes`.
    ///
    /// # Errors
    /// When the kernel does not tell about filters. What goes wrong on one interface is noted,
    /// tried again at the next call, and leaves the others as they are.
    pub async fn follow_interfaces(
        &mut self,
        settings: &Settings,
        ports: &GuardedPorts,
        (netlink, interfaces): (&Handle, &[Interface]),
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        self.pin_again(notes)?;
        for number in 0..self.devices.len() {
            let located = locate(number, &self.devices, interfaces);
            let device = &mut self.devices[number];
            match located {
                Located::Here(interface) => {
                    if device.name != interface.name {
                        notes.push(format!("{}: is called {} now", device.name, interface.name));
                        self.alarms.rename(&device.name, &interface.name);
                        device.name.clone_from(&interface.name);
                        // It is taken off by name when the time comes.
                        if let Some(Attached::Clsact(name)) = &mut device.egress {
                            name.clone_from(&interface.name);
                        }
                    }
                    check_hooks(device, interface, &self.alarms)?;
                    device.arrange_egress(settings, &self.pins, false, (&self.alarms, notes));
                    let around = (interface, interfaces);
                    match device.follow_mtu(settings.xdp_mode, &self.pins, around) {
                        Ok(None) => {}
                        Ok(Some(note)) => {
                            notes.push(note);
                            if let Err(failure) = device.look_at_xdp(netlink).await {
                                notes.push(failure.to_string());
                            }
                        }
                        Err(failure) => notes.push(format!("{}: {failure}", device.name)),
                    }
                }
                Located::Anew(interface) => {
                    let_go(device, &self.pins);
                    self.alarms.forget(&device.name);
                    device.cure = None;
                    notes.push(arrival(device, interface));
                    device.name.clone_from(&interface.name);
                    device.index = interface.index;
                }
                Located::Gone => {
                    let_go(device, &self.pins);
                    self.alarms.forget(&device.name);
                    if device.is_there() {
                        notes.push(format!("{}: is gone, waiting for it", device.name));
                    }
                    device.index = 0;
                    continue;
                }
            }
            self.restore(number, interfaces, settings, ports, netlink, notes)
                .await;
            let device = &self.devices[number];
            let shown = |robbed: Instant| robbed.elapsed() >= ROBBED_FOR;
            if device.is_complete() && device.robbed.is_none_or(shown) {
                self.alarms.clear(&device.name, AlarmKind::Detached);
            }
        }

        Ok(())
    }

    /// Pins the maps anew that somebody else has unpinned. Links that went with their pins are
    /// attached anew where they are looked for.
    fn pin_again(&mut self, notes: &mut Vec<String>) -> anyhow::Result<()> {
        let missing = self.pins.missing_maps();
        if missing.is_empty() {
            return Ok(());
        }
        self.pins.prepare()?;
        if !self.pins.is_held_by(&self.held) {
            self.held = self.pins.hold()?;
        }
        self.kept.pin(&self.pins, &missing)?;
        notes.push(format!(
            "{}: another program has removed maps from it, which are pinned again; find out which one does this",
            self.pins.folder().display()
        ));

        Ok(())
    }

    /// Attaches what is missing, egress first.
    async fn restore(
        &mut self,
        number: usize,
        interfaces: &[Interface],
        settings: &Settings,
        ports: &GuardedPorts,
        netlink: &Handle,
        notes: &mut Vec<String>,
    ) {
        let device = &self.devices[number];
        // It is looked at again when its programs are loaded.
        if device.is_complete() || !device.is_loaded() {
            return;
        }

        let name = device.name.clone();
        match self
            .attach_missing(number, interfaces, settings, ports, netlink, notes)
            .await
        {
            Ok(()) => {
                let device = &mut self.devices[number];
                let done = match (device.guarded, settings.mode) {
                    (true, Mode::Enforce) => "guarded",
                    (true, Mode::Monitor) => "monitored",
                    (false, _) => "recorded",
                };
                let again = if device.seen { " again" } else { "" };
                notes.push(format!("{name}: {done}{again}"));
                device.seen = true;
            }
            Err(failure) => {
                let device = &mut self.devices[number];
                let complaint = failure.about(&device.name);
                // XDP must not stand without egress, whatever went wrong.
                if device.egress.is_none()
                    && let Some(hold) = device.xdp.take()
                    && let Err(error) = hold.release()
                {
                    notes.push(format!("{name}: {error:#}"));
                }
                // Logged where it is new.
                let done = if device.guarded {
                    "guarded"
                } else {
                    "recorded"
                };
                let text = format!("not {done}: {complaint}");
                self.alarms.raise(&name, AlarmKind::Detached, &text);
            }
        }
    }

    async fn attach_missing(
        &mut self,
        number: usize,
        interfaces: &[Interface],
        settings: &Settings,
        ports: &GuardedPorts,
        netlink: &Handle,
        notes: &mut Vec<String>,
    ) -> Result<(), Failure> {
        let device = &mut self.devices[number];
        interfaces::find(netlink, &device.name)
            .await?
            .require_guardable()?;
        if device.egress.is_none() {
            // Nobody has recorded what was sent meanwhile.
            device.unseeded = true;
            notes.extend(device.attach_egress(settings, &self.pins, false)?);
            device.neighbours.own.earlier.clear();
            device.arrange_egress(settings, &self.pins, false, (&self.alarms, notes));
        }
        if device.unseeded {
            let (settings, ports) = (settings.clone(), ports.clone());
            let seeder = Arc::clone(&self.seeder);
            in_background(move || seeder.seed(&settings, &ports, None)).await??;
        }
        let device = &mut self.devices[number];
        device.unseeded = false;
        if device.is_complete() {
            return Ok(());
        }

        let device = &mut self.devices[number];
        // The rest is told to the programs in a moment; this must be true from the first frame on.
        let described = device.describe(interfaces, &Topology::new(interfaces))?;
        self.maps.set_device(device.slot, described)?;
        notes.extend(
            device
                .enforce(settings.xdp_mode, &self.pins, &[], netlink)
                .await?,
        );

        Ok(())
    }
}

/// Where an interface is now.
enum Located<'a> {
    /// It is still there, perhaps under another name.
    Here(&'a Interface),
    /// Its name belongs to an interface that is new.
    Anew(&'a Interface),
    /// It was deleted, or moved to another namespace.
    Gone,
}

/// Looks for an interface that is gone by what the settings call it, and by its last name. One that
/// another of the settings' names stands for is left to that.
fn locate<'a>(
    number: usize,
    devices: &[GuardedDevice],
    interfaces: &'a [Interface],
) -> Located<'a> {
    let device = &devices[number];
    let same = interfaces
        .iter()
        .find(|interface| interface.index == device.index);
    if let Some(interface) = same {
        return Located::Here(interface);
    }

    let free =
        |interface: &&Interface| devices.iter().all(|device| device.index != interface.index);
    let called = |name: &str| {
        interfaces
            .iter()
            .filter(free)
            .find(|interface| interface.is_called(name))
    };
    match called(&device.asked).or_else(|| called(&device.name)) {
        Some(interface) => Located::Anew(interface),
        None => Located::Gone,
    }
}

/// What is said of an interface that is there now and was not before, under this index.
fn arrival(device: &GuardedDevice, interface: &Interface) -> String {
    let asked = &device.asked;
    if device.is_there() {
        format!("{}: is another interface now", device.name)
    } else if interface.name == *asked {
        format!("{asked}: is there now")
    } else {
        format!("{asked}: is there now, called {}", interface.name)
    }
}

/// Looks whether the programs are where they should be, forgets those that somebody else has taken
/// off, and raises an alarm about them.
fn check_hooks(
    device: &mut GuardedDevice,
    interface: &Interface,
    alarms: &Alarms,
) -> anyhow::Result<()> {
    let mut lost = Vec::new();
    if let Some(Attached::Clsact(_)) = device.egress
        && !attach::has_program(device.index, device.neighbours.own.egress)
            .with_context(|| format!("{}: list its filters", device.name))?
    {
        device.egress = None;
        lost.push("egress");
    }
    let links: Vec<_> = device
        .links()
        .map(|(hook, link)| (hook, link.clone()))
        .collect();
    for (hook, link) in links {
        let in_force = link
            .is_in_force()
            .with_context(|| format!("{}: cannot be looked at", link.path.display()))?;
        let shown = match hook {
            Hook::Xdp => shown_mode(interface, link.linked.program),
            Hook::Egress | Hook::EgressLast | Hook::Moving => None,
        };
        if in_force && (shown.is_some() || hook != Hook::Xdp) {
            device.xdp_hook = shown.or(device.xdp_hook);
            continue;
        }
        // The pin of a link that holds nothing is in the way of the next.
        attach::release_pin(&link.path)?;
        match hook {
            Hook::Xdp => device.xdp = None,
            Hook::Egress | Hook::EgressLast | Hook::Moving => device.egress = None,
        }
        lost.push(hook.label());
    }
    if !lost.is_empty() {
        device.robbed = Some(Instant::now());
        let text = format!(
            "another program has taken off the {} program; it is put back, and what passed meanwhile \
             was not seen; find out which program does this",
            lost.join(" program and the ")
        );
        alarms.raise(&device.name, AlarmKind::Detached, &text);
    }

    Ok(())
}

/// The mode in which rtnetlink shows our program on an interface.
fn shown_mode(interface: &Interface, program: u32) -> Option<XdpHook> {
    let shown = interface.xdp.iter().find(|shown| shown.id == program)?;

    Some(shown.hook.unwrap_or(XdpHook::Native))
}

/// Takes off what is left on an interface that is no longer ours: one that was moved to another
/// namespace keeps its programs otherwise. XDP goes first.
fn let_go(device: &mut GuardedDevice, pins: &Pins) {
    let released = match device.xdp.take() {
        Some(hold) => hold.release(),
        None => Ok(()),
    };
    let released = released.and_then(|()| device.release_egress_links(pins));
    if let Err(error) = released {
        tracing::warn!("{}: {error:#}", device.name);
    }
    device.xdp_hook = None;
}
