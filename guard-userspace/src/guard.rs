//! The guard itself: programs on interfaces, and maps behind them.
//!
//! Egress comes first and goes last on every interface: XDP without egress would drop every
//! answer this host asked for.

mod device;
mod watch;

use std::{os::fd::OwnedFd, sync::Arc};

use guard_common::config::Config;
use rtnetlink::Handle;

use self::device::GuardedDevice;
use crate::{
    attach,
    clock::Clock,
    failure::Failure,
    interfaces::{self, Interface},
    maps::{FlowMap, Maps},
    observation::Attachment,
    pins::{Hook, Pins},
    programs::Programs,
    range::GuardedPorts,
    seed::{self, Seeded},
    settings::{Settings, UdpFilter},
    sockets,
};

/// Programs in force on interfaces. Dropping it takes them off, in the right order.
pub struct Guard {
    pins: Pins,
    maps: Maps,
    clock: Arc<Clock>,
    devices: Vec<GuardedDevice>,
    stays: bool,
}

impl Guard {
    /// Checks the interfaces, then loads the programs and the maps, adopting what an earlier run
    /// has left in force, and attaches egress everywhere. Nothing is dropped yet: see
    /// [`enforce`](Self::enforce).
    ///
    /// Lines for the administrator are added to `notes`.
    ///
    /// # Errors
    /// Names what failed, on what, and the remedy. Nothing is left attached then.
    pub async fn record(
        settings: &Settings,
        ports: &GuardedPorts,
        netlink: &Handle,
        pins: Pins,
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let interfaces = check_interfaces(settings, netlink, &pins).await?;
        pins.prepare()?;
        release_unwanted(&pins, &interfaces, settings, notes)?;

        let mut loaded = load(settings, &pins, &interfaces)?;
        let clock = Clock::measure(loaded.clock)?;
        loaded.maps.state.apply(settings, clock.hertz());
        let mut guard = Self {
            pins,
            maps: loaded.maps,
            clock: Arc::new(clock),
            devices: loaded.devices,
            stays: false,
        };
        guard.guard_ports(settings, ports);
        guard.trust(settings)?;
        guard.refresh(netlink).await?;
        for device in &mut guard.devices {
            notes.extend(device.attach_egress(settings.egress_hook, &guard.pins)?);
        }

        Ok(guard)
    }

    /// Attaches XDP on the interfaces that are to be guarded: from here on strangers are dropped.
    ///
    /// # Errors
    /// Names what failed, on what, and the remedy.
    pub async fn enforce(
        &mut self,
        settings: &Settings,
        netlink: &Handle,
        notes: &mut Vec<String>,
    ) -> Result<(), Failure> {
        for device in &mut self.devices {
            if !device.guarded {
                continue;
            }
            notes.extend(device.attach_xdp(settings.xdp_mode, &self.pins)?);
            let interface = interfaces::find(netlink, &device.name).await?;
            device.xdp_hook = Some(attach::xdp_hook(&interface)?);
        }

        Ok(())
    }

    /// Puts every connected socket on these ports into the maps. Call it before they are guarded.
    ///
    /// # Errors
    /// When the sockets cannot be read.
    pub fn seed(&self, settings: &Settings, ports: &GuardedPorts) -> anyhow::Result<Seeded> {
        let flows = FlowMap::open_all(&self.pins)?;

        Ok(seed::seed(
            &sockets::list()?,
            ports,
            (&flows, &self.maps.state),
            self.clock.now()?,
            settings.udp_filter == UdpFilter::Address,
        ))
    }

    /// Puts other ports in force.
    pub fn guard_ports(&mut self, settings: &Settings, ports: &GuardedPorts) {
        self.maps
            .state
            .guard_ports(ports, settings.unrecorded.iter().copied());
    }

    /// Applies what a reload can change, but for the ports.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn apply(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.trust(settings)?;
        self.maps.state.apply(settings, self.clock.hertz());

        Ok(())
    }

    /// Tells the programs which addresses are this host's and which are on the interfaces' links,
    /// and whether this host forwards.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn refresh(&mut self, netlink: &Handle) -> anyhow::Result<()> {
        let interfaces = interfaces::list(netlink).await?;
        let mut forwards = false;
        for device in &self.devices {
            let described = device.describe(&interfaces);
            forwards |= described.forwards != 0;
            self.maps.set_device(device.slot, described)?;
        }
        // Before the programs ask for it.
        if forwards {
            self.maps
                .local
                .set(&interfaces::local_table(netlink).await?)?;
        }
        self.set_excuse(Config::FORWARDS, forwards);

        Ok(())
    }

    fn trust(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.maps.trusted.set(&settings.trust)?;
        self.set_excuse(Config::TRUSTS, !settings.trust.is_empty());

        Ok(())
    }

    fn set_excuse(&mut self, excuse: u32, applies: bool) {
        let others = self.maps.state.excuses() & !excuse;
        self.maps
            .state
            .set_excuses(others | if applies { excuse } else { 0 });
    }

    /// Where programs are attached, in the order of the settings.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.devices.iter().map(GuardedDevice::attachment).collect()
    }

    /// Whether every interface has the programs it should have.
    pub fn guards_all(&self) -> bool {
        self.devices
            .iter()
            .all(|device| device.egress.is_some() && (device.xdp.is_some() || !device.guarded))
    }

    /// The slots of the interfaces in the device table, with their names.
    pub fn slots(&self) -> Vec<(u32, String)> {
        self.devices
            .iter()
            .map(|device| (device.slot, device.name.clone()))
            .collect()
    }

    /// The clock that flows are stamped by.
    pub fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// Where maps and links are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Leaves both programs in force when this is dropped.
    pub fn stay(&mut self) {
        self.stays = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let released = self
            .devices
            .iter_mut()
            .filter_map(|device| device.xdp.take())
            .map(attach::Hold::release)
            .collect::<Result<Vec<_>, _>>();
        if let Err(error) = released {
            // Egress must not go while XDP stands.
            tracing::error!("{error:#}; left in force, run `portguard detach`");
            return;
        }
        for hold in self
            .devices
            .iter_mut()
            .filter_map(|device| device.egress.take())
        {
            if let Err(error) = hold.release() {
                tracing::error!("{error:#}; left in force, run `portguard detach`");
            }
        }
        if let Err(error) = self.pins.remove_maps() {
            tracing::error!("{error:#}; run `portguard detach`");
        }
    }
}

/// The interfaces of the settings, in their order: guarded ones first.
async fn check_interfaces(
    settings: &Settings,
    netlink: &Handle,
    pins: &Pins,
) -> Result<Vec<Interface>, Failure> {
    let mut interfaces = Vec::new();
    for name in settings.iface.iter().chain(&settings.egress_iface) {
        let interface = interfaces::find(netlink, name).await?;
        interface.require_guardable()?;
        if settings.iface.contains(name) {
            let ours = attach::pinned_program(&pins.link(interface.index, Hook::Xdp));
            interface.require_free(|id| ours == Some(id))?;
        }
        interfaces.push(interface);
    }

    Ok(interfaces)
}

/// Takes off what an earlier run has left on interfaces that are not wanted any more, and
/// everything if its maps do not fit this run.
fn release_unwanted(
    pins: &Pins,
    interfaces: &[Interface],
    settings: &Settings,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let misfit = pins.exist()
        && (Maps::pinned_capacity(pins) != Some(settings.max_flows.get())
            || Maps::open(pins).is_err());
    for (index, hook, path) in pins.links() {
        let wanted = interfaces.iter().any(|interface| {
            interface.index == index
                && (hook == Hook::Egress || settings.iface.contains(&interface.name))
        });
        if misfit || !wanted {
            attach::release_pin(&path)?;
        }
    }
    if misfit {
        notes.push(
            "maps of an earlier run do not fit and are made anew: its flows are forgotten".into(),
        );
        pins.remove_maps()?;
        pins.prepare()?;
    }

    Ok(())
}

/// Programs that are loaded and attached nowhere yet.
struct Loaded {
    maps: Maps,
    clock: OwnedFd,
    devices: Vec<GuardedDevice>,
}

fn load(settings: &Settings, pins: &Pins, interfaces: &[Interface]) -> Result<Loaded, Failure> {
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
        // Takes the slot, so that the next interface finds another.
        maps.set_device(slot, device.describe(interfaces))?;
        devices.push(device);
    }

    match (maps, clock) {
        (Some(maps), Some(clock)) => Ok(Loaded {
            maps,
            clock,
            devices,
        }),
        _ => Err(Failure::usage("no interface to guard").remedy("give --iface IFACE")),
    }
}
