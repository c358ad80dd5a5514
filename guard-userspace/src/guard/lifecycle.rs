//! The guard itself: programs on interfaces, and maps behind them.
//!
//! Egress comes first and goes last on every interface: XDP without egress would drop every
//! answer this host asked for.

mod change;
mod compare;
mod device;
mod egress_order;
mod exceptions;
mod known_routes;
mod later;
mod policy;
mod preexisting;
mod publish;
mod start;
mod takeover;
mod wanted;
mod watch;

use std::{fs::File, mem, sync::Arc};

use anyhow::Context;
use guard_common::{abi::layout::LAYOUT_VERSION, frame::transport::Transport};
use nix::fcntl::Flock;
use rtnetlink::Handle;
use tokio::task::yield_now;

use self::preexisting::Seeder;
use self::{
    change::ports_with_sockets,
    device::GuardedDevice,
    known_routes::KnownRoutes,
    later::Later,
    start::{Before, LOADING, check_interfaces, load_with_clock, release_unwanted},
    takeover::{SIDE_BY_SIDE, Takeover},
};
pub use self::{
    change::{Change, Known},
    preexisting::Preexisting,
};
pub use self::{
    policy::{HostFacts, Learn, Plan, Policy},
    publish::{Lists, Publisher},
    wanted::{Wanted, find_wanted},
};
use crate::{
    base::failure::Failure,
    bpf::{
        attach::{self, Link},
        clock::Clock,
        maps::{Maps, PacketTotals, StateMemory, SyncedMaps},
        pins::{Hook, Pins},
        programs::Programs,
    },
    config::Settings,
    guard::{
        alarms::{AlarmKind, Alarms},
        attachment::Attachment,
        fault_injection::Parts,
        timers::Timers,
    },
    host::{
        interfaces::{self, Counted},
        range::{GuardedPorts, PortBitmap},
    },
};

/// Whether a change waits until the flows are known that it has to know of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Waiting {
    /// None does.
    #[default]
    Nothing,
    /// One does, and egress records what it guards.
    ForFlows,
    /// One does, and something else has come into force meanwhile, so that egress does not.
    Disturbed,
}

/// Programs in force on interfaces. Dropping it takes them off, in the right order.
pub struct Guard {
    pins: Pins,
    maps: Maps,
    kept: SyncedMaps,
    clock: Arc<Clock>,
    timers: Arc<Timers>,
    seeder: Arc<Seeder>,
    publisher: Publisher,
    /// What the policy depends on, as far as interfaces tell.
    host: HostFacts,
    waiting: Waiting,
    devices: Vec<GuardedDevice>,
    takeover: Option<Takeover>,
    preexisting: Preexisting,
    /// Whether there is nothing left to take off.
    ended: bool,
    alarms: Arc<Alarms>,
    /// What the programs could not be told, as far as the administrator knows.
    untold: Vec<String>,
    routes: KnownRoutes,
    /// What loads programs for interfaces that were missing.
    later: Option<Later>,
    // Last, so that it is let go of last.
    held: Flock<File>,
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
        parts: Parts,
        notes: &mut Vec<String>,
    ) -> Result<Self, Failure> {
        let wanted = check_interfaces(settings, netlink, &pins, notes).await?;
        pins.prepare()?;
        let held = pins.hold()?;
        notes.extend(pins.passing());
        match pins.remove_abandoned() {
            Ok(removed) => notes.extend(removed.iter().map(|folder| {
                let shown = folder.display();
                format!("{shown}: removed, its network namespace or interfaces are gone")
            })),
            Err(error) => notes.push(format!("{error:#}; left where it is")),
        }
        let found = pins.exist();
        let takeover = release_unwanted(&pins, &wanted, settings, netlink).await?;
        let before = Before::new(&pins, found, takeover);
        let relieved = before.is_relieved();
        let (loaded, clock) = match load_with_clock(settings, &pins, &wanted, relieved).await {
            Ok(loaded) => loaded,
            Err(failure) => {
                before.give_back()?;
                return Err(failure);
            }
        };
        let takeover = before.begin();
        let state = Arc::clone(&loaded.maps.state);
        state.begin(secrets()?);
        let timers = Arc::new(Timers::new(settings, clock.hertz()));
        let publisher = Publisher::new(Arc::clone(&state), Arc::clone(&timers));
        let clock = Arc::new(clock);
        let kept = SyncedMaps::open(&pins)?;
        let seeder = Seeder::open(&pins, state, Arc::clone(&clock), parts)?;
        let mut guard = Self {
            pins,
            maps: loaded.maps,
            kept,
            clock,
            seeder: Arc::new(seeder),
            publisher,
            host: HostFacts::default(),
            waiting: Waiting::default(),
            timers,
            devices: loaded.devices,
            takeover,
            preexisting: Preexisting::default(),
            ended: false,
            alarms: Arc::default(),
            untold: Vec::new(),
            routes: KnownRoutes::default(),
            later: None,
            held,
        };
        // An earlier run's programs may enforce what is published here.
        if found {
            // What only interfaces tell changes nothing about what is recorded.
            let next = guard.policy(settings, ports);
            guard.publisher.record_both(&next)?;
            guard.preexisting = guard.seeder.seed(settings, ports, None)?;
            guard.seeder.widen(settings)?;
        }
        guard.routes.start()?;
        guard.describe(&interfaces::list(netlink).await?, false, notes)?;
        let policy = guard.policy(settings, ports);
        let in_use = if policy.monitor {
            ports_with_sockets()?
        } else {
            PortBitmap::default()
        };
        guard.publish(policy, &in_use)?;
        guard.maps.state.set_layout(LAYOUT_VERSION);
        if found {
            // For flows that have been recorded meanwhile.
            guard.seeder.widen(settings)?;
        }
        let beside = guard.takeover.is_some();
        for device in guard.devices.iter_mut().filter(|device| device.is_there()) {
            // Signals are looked at in between.
            yield_now().await;
            match device.attach_egress(settings, &guard.pins, beside) {
                Ok(note) => notes.extend(note),
                Err(failure) => unless_changed(device, netlink, failure, notes).await?,
            }
            device.arrange_egress(settings, &guard.pins, false, (&guard.alarms, notes));
        }
        if let Some(takeover) = &guard.takeover
            && parts.carrying
        {
            let now = guard.clock.now()?;
            let carried = takeover.copy_to(&mut guard.maps, &guard.pins, now)?;
            notes.extend(carried.notes);
            guard.seeder.widen(settings)?;
            if carried.incomplete {
                tokio::time::sleep(SIDE_BY_SIDE).await;
            }
        }

        Ok(guard)
    }

    /// Learns of older flows, whose hosts need not speak first then, and attaches XDP on the
    /// interfaces that are to be guarded: from here on unsolicited packets are dropped. Returns what was
    /// learned.
    ///
    /// # Errors
    /// Names what failed, on what, and the remedy.
    pub async fn enforce(
        &mut self,
        settings: &Settings,
        ports: &GuardedPorts,
        netlink: &Handle,
        notes: &mut Vec<String>,
    ) -> Result<Preexisting, Failure> {
        let mut preexisting = mem::take(&mut self.preexisting);
        preexisting.add(self.seeder.seed(settings, ports, None)?);
        for number in 0..self.devices.len() {
            // Signals are looked at in between.
            yield_now().await;
            let next = self.devices.iter_mut().skip(number).take(LOADING);
            for device in next.filter(|device| device.is_loaded()) {
                device.begin_ingress(&self.pins, settings)?;
            }
            let device = &mut self.devices[number];
            // XDP never stands without egress. What is missing is put there when the interfaces are
            // looked at.
            if !device.guarded || device.egress.is_none() {
                device.seen = device.is_complete();
                if device.is_loaded() {
                    device.loaded().await?;
                }
                continue;
            }
            let pin = self.pins.link(device.index, Hook::Xdp);
            let left = self.takeover.iter();
            let left = left.flat_map(|takeover| takeover.xdp(device.index));
            let left: Vec<_> = left.chain([pin]).collect();
            match device
                .enforce(settings.xdp_mode, &self.pins, &left, netlink)
                .await
            {
                Ok(note) => notes.extend(note),
                Err(failure) => unless_changed(device, netlink, failure, notes).await?,
            }
            device.seen = device.is_complete();
        }
        if let Some(takeover) = self.takeover.take() {
            for device in &mut self.devices {
                device.settle(&self.pins)?;
            }
            takeover.finish()?;
        }
        for device in &mut self.devices {
            device.neighbours.own.earlier.clear();
        }

        Ok(preexisting)
    }

    /// What these settings mean for these ports on this host.
    fn policy(&self, settings: &Settings, ports: &GuardedPorts) -> Policy {
        Policy::of(settings, ports, &self.host, self.clock.hertz())
    }

    /// Puts a policy in force at once, without learning of any flow.
    fn publish(&mut self, policy: Policy, in_use: &PortBitmap) -> anyhow::Result<()> {
        let plan = Policy::plan(self.publisher.in_force(), &policy);

        self.carry_out(policy, &plan, in_use)
    }

    fn carry_out(
        &mut self,
        policy: Policy,
        plan: &Plan,
        in_use: &PortBitmap,
    ) -> anyhow::Result<()> {
        let before = if plan.flips && policy.monitor && !plan.lists_sockets {
            // Monitor mode that goes on keeps asking about what it asks about.
            self.maps.state.special()
        } else {
            PortBitmap::default()
        };
        let in_use = if plan.lists_sockets { in_use } else { &before };
        let lists = Lists {
            trusted: &mut self.maps.trusted,
            kernel_ports: &mut self.maps.kernel_ports,
        };

        self.publisher.publish(policy, plan, in_use, lists)
    }

    /// Begins to put in force what settings and ports say. Once the [question](Change::question) about
    /// flows is answered, [`finish`](Self::finish) it, or [`give_up`](Self::give_up); it waits for as
    /// long as the kernel does, and one change waits at a time. `quickly` says that of flows it is enough
    /// to know those of connected sockets.
    ///
    /// # Errors
    /// When programs may still read the page that is to be written.
    pub fn begin(
        &mut self,
        settings: &Settings,
        ports: &GuardedPorts,
        quickly: bool,
    ) -> anyhow::Result<Change> {
        let policy = self.policy(settings, ports);
        let plan = Policy::plan(self.publisher.in_force(), &policy);
        // What is sent during the look is recorded.
        if plan.learn != Learn::Nothing && self.seeder.records_both() {
            self.publisher.record_both(&policy)?;
        }
        self.waiting = Waiting::ForFlows;

        Ok(Change {
            settings: settings.clone(),
            ports: ports.clone(),
            quickly,
            policy,
            plan,
            seeder: Arc::clone(&self.seeder),
        })
    }

    /// Puts a change in force, now that flows are known. Returns what is [left](Change::rest) to learn,
    /// or nothing where something else has come into force meanwhile: then begin again.
    ///
    /// # Errors
    /// When the kernel refuses. What was in force stays in force then.
    pub fn finish(&mut self, change: &Change, known: &Known) -> anyhow::Result<Option<Learn>> {
        let disturbed = mem::take(&mut self.waiting) == Waiting::Disturbed;
        if disturbed && change.asks() {
            self.publisher.give_up();
            return Ok(None);
        }
        let policy = Policy {
            host: self.host.clone(),
            ..change.policy.clone()
        };
        let plan = Policy::plan(self.publisher.in_force(), &policy);
        let published = self.carry_out(policy, &plan, &known.in_use);
        if published.is_err() {
            self.publisher.give_up();
        }
        published?;

        Ok(Some(if known.learned.incomplete {
            plan.learn
        } else {
            Learn::Nothing
        }))
    }

    /// Leaves in force what is, instead of the change that was begun.
    pub fn give_up(&mut self) {
        self.waiting = Waiting::Nothing;
        self.publisher.give_up();
    }

    /// In monitor mode, lets the programs ask about these ports, on which something has begun to wait.
    pub fn note_waiting(&self, ports: &PortBitmap) {
        self.maps.state.note_sockets(ports, false);
    }

    /// The indices of the interfaces that are there.
    pub fn indices(&self) -> Vec<u32> {
        let there = self.devices.iter().filter(|device| device.is_there());

        there.map(|device| device.index).collect()
    }

    /// Compares what the interfaces with these indices have counted, as far as the kernel tells, with
    /// what `counted` says that the programs in a slot have. Where a program sees nothing, or nothing
    /// can be compared, an alarm is raised, and the cure is tried. Lines for the administrator are
    /// added to `notes`.
    pub fn compare(
        &mut self,
        settings: &Settings,
        statistics: Vec<(u32, Counted)>,
        counted: impl Fn(u32) -> anyhow::Result<PacketTotals>,
        notes: &mut Vec<String>,
    ) {
        for (index, found) in statistics {
            // It may be gone since.
            let Some(device) = (self.devices.iter_mut()).find(|device| device.index == index)
            else {
                continue;
            };
            let mut around = compare::Around {
                settings,
                pins: &self.pins,
                alarms: &self.alarms,
                notes,
            };
            let compared = found.and_then(|found| match found {
                Some(found) => compare::look(device, &found, &counted, &mut around),
                None => Ok(()),
            });
            match compared {
                Ok(()) => self.alarms.clear(&device.name, AlarmKind::Uncompared),
                Err(error) => {
                    let text = format!(
                        "what it counts cannot be compared with what the programs have seen: {error:#}"
                    );
                    self.alarms
                        .raise(&device.name, AlarmKind::Uncompared, &text);
                }
            }
        }
    }

    /// Whether something on this port has flows.
    pub fn has_flows(&self, transport: Transport, port: u16) -> bool {
        self.maps.state.has_flows(transport, port)
    }

    /// Where programs are attached, in the order of the settings.
    pub fn attachments(&self) -> Vec<Attachment> {
        self.devices.iter().map(GuardedDevice::attachment).collect()
    }

    /// Begins to load programs for interfaces that are missing, on a thread that keeps the
    /// privileges that it takes. Returns the thread's number where there are such interfaces; it
    /// waits until [`load_missing`](Self::load_missing) is called.
    ///
    /// # Errors
    /// When there is no thread, or it cannot give up its other privileges.
    pub fn prepare_missing(&mut self, settings: &Settings) -> Result<Option<i32>, Failure> {
        let missing: Vec<_> = (self.devices.iter().enumerate())
            .filter(|(_, device)| !device.is_loaded())
            .map(|(number, device)| (number, device.copy()))
            .collect();
        if missing.is_empty() {
            return Ok(None);
        }
        let (later, thread) = Later::begin(missing, self.pins.clone(), settings.max_flows.get())?;
        self.later = Some(later);

        Ok(Some(thread))
    }

    /// Lets the thread load that [`prepare_missing`](Self::prepare_missing) has made.
    pub fn load_missing(&mut self) {
        if let Some(later) = &mut self.later {
            later.go();
        }
    }

    /// Waits until programs of an interface that was missing are loaded; for ever where there are
    /// none to wait for.
    pub async fn next_loaded(&mut self) -> (usize, Result<Programs, Failure>) {
        if let Some(later) = &mut self.later {
            if let Some(loaded) = later.next().await {
                return loaded;
            }
            self.later = None;
        }

        std::future::pending().await
    }

    /// Takes programs from [`next_loaded`](Self::next_loaded). Look at the interfaces then. What the
    /// kernel has refused is a line in `notes`.
    pub fn equip(
        &mut self,
        (number, programs): (usize, Result<Programs, Failure>),
        notes: &mut Vec<String>,
    ) {
        let Some(device) = self.devices.get_mut(number) else {
            return;
        };
        match programs {
            Ok(programs) => device.equip(programs),
            Err(failure) => notes.push(format!(
                "{}: will not be guarded when it comes: {failure}; then start again",
                device.name
            )),
        }
    }

    /// Whether every interface has the programs it should have.
    pub fn guards_all(&self) -> bool {
        self.devices.iter().all(GuardedDevice::is_complete)
    }

    /// The links that should hold programs, by interface and hook.
    pub fn links(&self) -> Vec<(String, Hook, Link)> {
        let of_device = |device: &GuardedDevice| {
            let name = device.name.clone();
            let links = device.links().map(|(hook, link)| (hook, link.clone()));
            links
                .map(|(hook, link)| (name.clone(), hook, link))
                .collect::<Vec<_>>()
        };

        self.devices.iter().flat_map(of_device).collect()
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

    /// The ports in force.
    pub fn ports(&self) -> Option<&GuardedPorts> {
        self.publisher.in_force().map(|policy| &policy.ports)
    }

    /// What both programs ask of every frame.
    pub fn state(&self) -> Arc<StateMemory> {
        Arc::clone(&self.maps.state)
    }

    /// What the timers in force follow from.
    pub fn timers(&self) -> Arc<Timers> {
        Arc::clone(&self.timers)
    }

    /// What is found to be wrong.
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Where maps and links are pinned.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Takes the programs off, unless both are `kept` in force.
    pub fn end(mut self, kept: bool) -> Ending {
        if kept {
            self.ended = true;
            // A change may have been under way.
            self.publisher.give_up();
            return Ending::Kept;
        }

        self.detach()
    }

    /// Takes the programs off, in the right order, once.
    fn detach(&mut self) -> Ending {
        if mem::replace(&mut self.ended, true) {
            return Ending::Detached;
        }
        let mut end = Ending::Detached;
        let mut fails = |error: anyhow::Error, what: &str| {
            tracing::error!("{error:#}; {what}run `portguard detach`");
            end = Ending::Failed;
        };
        let left = "left in force, ";
        // Also what a failed start has not come to adopt: its egress may be ours by now.
        let earlier = self.takeover.iter().flat_map(Takeover::earlier);
        let released = earlier
            .chain([&self.pins])
            .flat_map(Pins::links)
            .filter(|(_, hook, _)| *hook == Hook::Xdp)
            .try_for_each(|(_, _, path)| attach::release_pin(&path));
        if let Err(error) = released {
            // Egress must not go while XDP stands.
            fails(error, left);
            return end;
        }
        // An earlier run's XDP may stand yet, and our filters may be its egress.
        if let Some(Err(error)) = self.takeover.take().map(Takeover::finish) {
            fails(error, left);
            return end;
        }
        for device in &mut self.devices {
            if device.egress.is_some()
                && let Err(error) = device.release_egress(&self.pins)
            {
                fails(error, left);
            }
        }
        // It would pin what is removed here anew.
        self.later = None;
        if let Err(error) = self.pins.remove_maps() {
            fails(error, "");
        }

        end
    }
}

/// How a guard has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Both programs are off.
    Detached,
    /// Both are in force still.
    Kept,
    /// Not everything could be taken off, which was logged.
    Failed,
}

/// Passes on the failure to attach to an interface, unless that has got another name or is gone since
/// it was found, as happens while a host boots: it is looked for again when the guard runs.
async fn unless_changed(
    device: &GuardedDevice,
    netlink: &Handle,
    failure: Failure,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let all = interfaces::list(netlink).await?;
    let found = all.iter().find(|found| found.index == device.index);
    if found.is_some_and(|found| found.name == device.name) {
        return Err(failure);
    }
    notes.push(format!("{}: changes meanwhile: {failure}", device.name));

    Ok(())
}

/// Numbers that nobody outside can guess.
fn secrets() -> anyhow::Result<[u64; 3]> {
    let mut secrets = [0; 3];
    for secret in &mut secrets {
        *secret = getrandom::u64().context("no random numbers")?;
    }

    Ok(secrets)
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.detach();
    }
}
