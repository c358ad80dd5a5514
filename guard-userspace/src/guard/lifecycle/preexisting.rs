//! Flows that are older than what guards them.

use std::{
    net::SocketAddr,
    ops::ControlFlow,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use guard_common::{
    flow::state::{Flow, Phase},
    frame::transport::Transport,
    outcome::Protocol,
};

use super::policy::Learn;
use crate::{
    base::slow_answers::{self, Subject},
    bpf::{
        clock::Clock,
        maps::{FlowEntry, FlowMap, StateMemory},
        pins::Pins,
    },
    config::Settings,
    guard::{
        fault_injection::Parts,
        seed::{self, Target},
    },
    host::{
        range::GuardedPorts,
        sockets::{self, HostSocket},
    },
};

/// What was learned of older flows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Preexisting {
    /// From the kernel's sockets.
    pub sockets: seed::Seeded,
    /// From its connection tracking.
    pub tracked: seed::conntrack::ConntrackSeeded,
    /// Whether there was no time for all sockets.
    pub incomplete: bool,
}

impl Preexisting {
    /// Adds what was learned later.
    pub fn add(&mut self, later: Self) {
        self.sockets.add(later.sockets);
        self.tracked.add(later.tracked);
        self.incomplete = later.incomplete;
    }
}

/// Puts older flows into the maps. Has whatever that takes, so that it can do it on any thread.
pub(super) struct Seeder {
    flows: Vec<FlowMap>,
    state: Arc<StateMemory>,
    clock: Arc<Clock>,
    parts: Parts,
}

impl Seeder {
    /// A seeder of the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing.
    pub(super) fn open(
        pins: &Pins,
        state: Arc<StateMemory>,
        clock: Arc<Clock>,
        parts: Parts,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            flows: FlowMap::open_all(pins)?,
            state,
            clock,
            parts,
        })
    }

    /// Fails where a test says that sockets cannot be listed once a change is in force.
    pub(super) fn require_late_list(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.parts.late_list, "the sockets cannot be listed");

        Ok(())
    }

    /// Whether egress is to record what the next policy guards, which tests switch off.
    pub(super) fn records_both(&self) -> bool {
        self.parts.both_recorded
    }

    /// Puts every connected socket on these ports into the maps, and what the kernel tracks of
    /// flows without one. Call it before they are guarded.
    ///
    /// Where `until` says so, sockets that a look-up finds may be left out from then on.
    ///
    /// # Errors
    /// When the sockets cannot be read. That conntrack cannot is part of what is returned.
    pub(super) fn seed(
        &self,
        settings: &Settings,
        ports: &GuardedPorts,
        until: Option<Instant>,
    ) -> anyhow::Result<Preexisting> {
        let target = Target {
            flows: &self.flows,
            state: &self.state,
            now: self.clock.now()?,
            any_remote_port: settings.udp_filter.any_remote_port(),
        };
        let mut preexisting = Preexisting::default();
        if self.parts.seeding {
            if until.is_some() {
                preexisting.sockets = seed_unfindable(ports, target)?;
            }
            let (seeded, complete) = seed_sockets(ports, target, until)?;
            preexisting.sockets.add(seeded);
            preexisting.incomplete = !complete || until.is_some() && !self.parts.late_list;
        }
        // Last, so that these are the youngest where there is little room: nothing else can bring
        // them back.
        if self.parts.conntrack {
            preexisting.tracked = seed::conntrack::seed(ports, &settings.unrecorded, target);
        }
        slow_answers::wait(Subject::Flows);
        if preexisting.is_any() {
            self.state.invalidate_filter();
        }

        Ok(preexisting)
    }

    /// Learns of the flows that a change of `ports` has to know of: `quickly`, of connected sockets
    /// alone, or of everything that the kernel knows. Where there is a `time` and lost flows are rescued,
    /// sockets have no more than that: a look-up finds those that are left out as soon as their ports
    /// are guarded. Call it before they are.
    ///
    /// # Errors
    /// When the sockets or a map cannot be read. That conntrack cannot is part of what is returned.
    pub(super) fn learn(
        &self,
        what: &Learn,
        (settings, ports): (&Settings, &GuardedPorts),
        quickly: bool,
        time: Option<Duration>,
    ) -> anyhow::Result<Preexisting> {
        let until = time
            .filter(|_| !settings.no_rescue)
            .map(|time| Instant::now() + time);
        match what {
            Learn::Nothing => Ok(Preexisting::default()),
            Learn::Ports(added) if quickly => {
                self.seed_sockets(settings, added)?;
                self.state.invalidate_filter();
                Ok(Preexisting::default())
            }
            Learn::Ports(added) => self.seed(settings, added, until),
            // What the maps know is looked up otherwise, too.
            Learn::All => {
                let preexisting = self.seed(settings, ports, None)?;
                self.widen(settings)?;
                Ok(preexisting)
            }
        }
    }

    /// Puts every connected socket on these ports into the maps, as [`seed`](Self::seed) does.
    ///
    /// # Errors
    /// When the sockets cannot be read.
    fn seed_sockets(&self, settings: &Settings, ports: &GuardedPorts) -> anyhow::Result<()> {
        let target = Target {
            flows: &self.flows,
            state: &self.state,
            now: self.clock.now()?,
            any_remote_port: settings.udp_filter.any_remote_port(),
        };
        seed_sockets(ports, target, None)?;

        Ok(())
    }

    /// Where UDP flows are to admit every port of their peer, puts every live one in as that is looked
    /// up: an earlier configuration or an earlier run may have recorded it by its remote port.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub(super) fn widen(&self, settings: &Settings) -> anyhow::Result<()> {
        if !settings.udp_filter.any_remote_port() {
            return Ok(());
        }
        let timeouts = self.state.timeouts();
        let now = self.clock.now()?;
        let udp = |map: &&FlowMap| map.protocol == Protocol::Udp;
        for map in self.flows.iter().filter(udp) {
            map.walk(|entry| {
                let query = entry.flow.phase == Phase::Multicast as u8;
                if query || entry.remote.port() == 0 || !entry.flow.alive(now, &timeouts) {
                    return;
                }
                // One entry stands for every port of the peer, so no single port's timer fits it.
                let flow = Flow {
                    phase: Phase::Datagram as u8,
                    ..entry.flow
                };
                let remote = SocketAddr::new(entry.remote.ip(), 0);
                // Without room for it, it is as if it had been evicted.
                let _ = map.merge(&FlowEntry {
                    remote,
                    flow,
                    ..entry
                });
            })?;
        }
        self.state.invalidate_filter();

        Ok(())
    }
}

/// Puts in the connected sockets on these ports that no look-up finds.
fn seed_unfindable(ports: &GuardedPorts, target: Target<'_>) -> anyhow::Result<seed::Seeded> {
    let mut seeded = seed::Seeded::default();
    sockets::visit_unfindable_on(&ports.ranges(), |sockets| {
        seeded.add(seed::seed(sockets, ports, target));
        ControlFlow::Continue(())
    })?;

    Ok(seeded)
}

/// Puts in the connected sockets on these ports while another thread has the kernel list them: each
/// takes as long as the other. Stops when the time has come. Returns whether it has put in all of them.
fn seed_sockets(
    ports: &GuardedPorts,
    target: Target<'_>,
    until: Option<Instant>,
) -> anyhow::Result<(seed::Seeded, bool)> {
    /// Lists of some hundreds that may wait to be put in.
    const WAITING: usize = 64;
    let ranges = &ports.ranges();
    // The kernel walks over every socket of a transport it is asked about.
    let concerned = |transport: &Transport| !ports.bitmap(*transport).is_empty();
    let transports: &Vec<_> = &sockets::ALL.into_iter().filter(concerned).collect();
    let is_over = || until.is_some_and(|until| Instant::now() >= until);
    let (mut seeded, mut complete) = (seed::Seeded::default(), true);
    let (tell, listed) = mpsc::sync_channel::<Vec<HostSocket>>(WAITING);
    let done = thread::scope(|scope| {
        let list = move || {
            sockets::visit_connected_on(ranges, transports, |sockets| {
                match tell.send(sockets.to_vec()) {
                    Ok(()) => ControlFlow::Continue(()),
                    // The time has come.
                    Err(_) => ControlFlow::Break(()),
                }
            })
        };
        let listing = thread::Builder::new().spawn_scoped(scope, list).ok()?;
        for sockets in listed {
            seeded.add(seed::seed(&sockets, ports, target));
            if is_over() {
                complete = false;
                break;
            }
        }
        listing.join().ok()
    });
    match done {
        Some(listed) => listed?,
        // The kernel has started no thread.
        None => sockets::visit_connected_on(ranges, transports, |sockets| {
            seeded.add(seed::seed(sockets, ports, target));
            if is_over() {
                complete = false;
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?,
    }

    Ok((seeded, complete))
}

impl Preexisting {
    /// Whether there was anything to be put in.
    fn is_any(&self) -> bool {
        let (sockets, tracked) = (self.sockets, &self.tracked);

        sockets.new + sockets.failed + tracked.new + tracked.left_out > 0
    }
}
