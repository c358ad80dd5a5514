//! Keeping the occupancy table true, and the flow maps in order: which ports are still in use,
//! which sockets the maps have forgotten, and what makes room where they fill.

use std::{
    cell::Cell,
    sync::{Arc, atomic},
    time::{Duration, Instant},
};

use guard_common::{
    flow::{adaptive::Scales, state::Phase, timer::Timeouts},
    ports::{class::PORTS, occupancy::Use, peer::PeerHash},
};

use crate::{
    bpf::{
        clock::{Clock, processor_time},
        maps::{FlowEntry, FlowMap, Readings, Shortage, StateMemory, Tuples},
        pins::Pins,
    },
    guard::{
        fault_injection::Parts,
        pressure::Load,
        repair::{
            self, RepairTerms, Repaired,
            nat::{NatContext, NatFlows},
        },
        seed,
        timers::Timers,
    },
    host::{
        port_use::{PortSummary, PortWatch},
        range::LocalPorts,
        sockets::{self, HostSocket},
    },
};

/// A sweep may take this part of a processor's time.
const SHARE: u32 = 20;

/// The rest before a sweep that fills a filter of another length. Longer than any processor takes to
/// write what it has read of the epoch before.
const SOON: Duration = Duration::from_secs(1);

/// The shortest rest where flows expire so soon that sweeps have to look after them.
const BRIEF: Duration = Duration::from_millis(500);

/// Walks all flows and all sockets and marks their ports for the next epoch.
pub struct Sweeper {
    pins: Pins,
    flows: Vec<FlowMap>,
    state: Arc<StateMemory>,
    readings: Readings,
    clock: Arc<Clock>,
    timers: Arc<Timers>,
    parts: Parts,
    /// Whether the kernel lets entries be taken out, as far as is known.
    can_reclaim: bool,
    translated: NatFlows,
    /// Why conntrack could not be asked the last time.
    complaint: Option<String>,
    /// The shortest of the timers that run for flows which nothing but sweeps can put back.
    shortest: Option<Duration>,
    ports: PortWatch,
    /// How long the last sweep took.
    took: Duration,
    /// For how long of that a processor was busy with it.
    busy: Duration,
}

/// What a sweep has found and done.
#[derive(Clone, PartialEq, Debug)]
pub struct SweepResult {
    /// How full each flow map is.
    pub loads: Vec<Load>,
    /// Connected sockets.
    pub sockets: u64,
    /// Flows of theirs that were put back.
    pub repaired: Repaired,
    /// What timers keep of their length from now on.
    pub scales: Scales,
    /// Expired entries that were taken out.
    pub reclaimed: u64,
    /// What of the kernel's port range is in use, where that could be read.
    pub ports: Option<PortSummary>,
    /// Counters that move where a map is too small.
    pub evidence: Shortage,
    /// Whether the tuple filter is as long as it should be. If not, it has a new length, and the
    /// next sweep fills it.
    pub fits: bool,
    /// How long it took.
    pub took: Duration,
    /// For how long of that a processor was busy with it.
    pub busy: Duration,
}

impl SweepResult {
    /// Flows that count by timers of full length.
    pub fn flows(&self) -> u64 {
        self.loads.iter().map(|load| load.live).sum()
    }
}

/// Where a sweep leaves its marks.
struct Marks {
    /// The epoch that begins when it is complete.
    epoch: u8,
    tuples: Tuples,
    users: PortUsers,
}

impl Marks {
    /// Notes that a flow is in use, and its port.
    fn mark(&self, flow: &FlowEntry, parts: Parts) {
        let users = if parts.tuple_marks {
            self.tuples.mark(flow, self.epoch)
        } else {
            PeerHash::MANY
        };
        self.users
            .add(Use::flow(flow.transport), flow.local.port(), users);
    }
}

/// What ports are used for by flows. Queries to groups are anybody's.
const FLOWS: [Use; 3] = [Use::Tcp, Use::Udp, Use::UdpLite];

/// What a sweep has found of each port, before programs are told.
#[derive(Debug)]
struct PortUsers([Box<[Cell<PeerHash>]>; FLOWS.len()]);

impl PortUsers {
    /// Nothing found yet.
    fn none() -> Self {
        Self(FLOWS.map(|_| vec![Cell::new(PeerHash::NONE); PORTS].into()))
    }

    /// Notes that these use a port, given in host byte order.
    fn add(&self, purpose: Use, port: u16, users: PeerHash) {
        if let Some(index) = FLOWS.iter().position(|flow| *flow == purpose) {
            self.0[index][usize::from(port)].update(|before| before.merge(users));
        }
    }

    /// Tells the programs, once the sweep has seen everything: the `epoch` may begin then.
    fn tell(&self, state: &StateMemory, epoch: u8) {
        for (purpose, ports) in FLOWS.into_iter().zip(&self.0) {
            for (port, users) in ports.iter().enumerate() {
                state.take_over_users(purpose, port, users.get(), epoch);
            }
        }
    }
}

impl Sweeper {
    /// A sweeper of the maps that are pinned.
    ///
    /// # Errors
    /// Names the map that is missing.
    pub fn open(
        pins: &Pins,
        state: Arc<StateMemory>,
        clock: Arc<Clock>,
        timers: Arc<Timers>,
        parts: Parts,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            pins: pins.clone(),
            flows: FlowMap::open_all(pins)?,
            state,
            readings: Readings::open(pins)?,
            clock,
            timers,
            parts,
            can_reclaim: true,
            translated: NatFlows::default(),
            complaint: None,
            shortest: None,
            ports: PortWatch::default(),
            took: Duration::ZERO,
            busy: Duration::ZERO,
        })
    }

    /// Sweeps once. Blocks, for about a third of a microsecond a flow and one a socket; the thread
    /// it blocks should have nothing else to do.
    ///
    /// The epoch moves in one store, and only when everything was seen: a sweep that fails leaves
    /// ports looking busy, which costs a look-up and drops nothing.
    ///
    /// # Errors
    /// When a map or the sockets cannot be read.
    pub fn sweep(&mut self) -> anyhow::Result<SweepResult> {
        let (began, busy) = (Instant::now(), processor_time()?);
        let invalidations = self.state.invalidations();
        let next = Marks {
            epoch: (self.state.epoch() as u8).wrapping_add(1),
            // Mapped for the time of a sweep only: between sweeps it would double what the daemon
            // seems to hold in memory.
            tuples: Tuples::open(&self.pins, self.state.filter())?,
            users: PortUsers::none(),
        };
        next.tuples.age(next.epoch);
        let loads = self
            .flows
            .iter()
            .map(|map| self.mark_flows(map, &next))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let translated = self.put_back_translated(&loads, &next)?;
        // After the flows: a connection that is opened meanwhile is in one or the other.
        let sockets = sockets::list()?;
        let connected = self.mark_sockets(&sockets, &next);
        let repaired = self.repair(&sockets, &loads)?.and(translated);
        self.shortest = repaired
            .shortest
            .map(|ticks| Duration::from_millis(self.clock.millis(ticks)));
        next.users.tell(&self.state, next.epoch);
        // Anyone who sees the epoch must see the marks.
        atomic::fence(atomic::Ordering::Release);
        self.state.set_epoch(u32::from(next.epoch));
        let on_ports = sockets.iter().map(|socket| socket.local.port());
        self.state.note_sockets(&on_ports.collect(), true);
        let fits = self.state.fit_filter(next.tuples.marks());
        if fits {
            self.state.validate_filter(invalidations);
        }

        let scales = self.adapt(&loads);
        let reclaimed = self.reclaim(&loads)?;
        // A sweep is worth its while without.
        let ports = LocalPorts::read(None)
            .map(|local| self.ports.look(&local, &sockets, began))
            .ok();
        self.took = began.elapsed();
        self.busy = processor_time()?.saturating_sub(busy);
        Ok(SweepResult {
            loads,
            sockets: connected,
            repaired,
            scales,
            reclaimed,
            ports,
            evidence: self.readings.evidence()?,
            fits,
            took: self.took,
            busy: self.busy,
        })
    }

    /// By timers of full length: ports stay marked that shorter ones would free, since those may
    /// be longer again before the next sweep.
    fn mark_flows(&self, map: &FlowMap, next: &Marks) -> anyhow::Result<Load> {
        let (now, timeouts) = (self.clock.now()?, self.timers.configured());
        let mut load = Load {
            family: map.family,
            protocol: map.protocol,
            live: 0,
            entries: 0,
            capacity: u64::from(map.capacity),
        };
        map.walk(|entry| {
            load.entries += 1;
            if !entry.flow.alive(now, &timeouts) {
                return;
            }
            load.live += 1;
            if !self.parts.flow_marks {
                return;
            }
            let port = entry.local.port();
            next.mark(&entry, self.parts);
            if entry.flow.phase == Phase::Multicast as u8 {
                // Nothing is known of who may answer.
                next.users.add(Use::Udp, port, PeerHash::MANY);
                self.state.mark(Use::Multicast, port, next.epoch);
            }
        })?;

        Ok(load)
    }

    fn mark_sockets(&self, sockets: &[HostSocket], next: &Marks) -> u64 {
        let any_remote_port = self.state.any_remote_port();
        let mut connected = 0;
        for socket in sockets.iter().filter(|socket| socket.connected()) {
            connected += 1;
            if !self.parts.socket_marks {
                continue;
            }
            let (purpose, port) = (Use::flow(socket.transport), socket.local.port());
            // The filter is not asked about other ports, and others open connections to those. It is
            // invalidated before a port becomes guarded.
            if self.state.guards(socket.transport, port) {
                next.mark(&seed::entry(socket, 0, any_remote_port), self.parts);
            } else {
                next.users.add(purpose, port, PeerHash::MANY);
            }
        }

        connected
    }

    /// Puts back flows that NAT translates. Marked as they are: no socket has their ends.
    fn put_back_translated(&mut self, loads: &[Load], next: &Marks) -> anyhow::Result<Repaired> {
        let on = self.parts.conntrack && self.parts.translated;
        if !on || !self.state.rescues() {
            return Ok(Repaired::default());
        }
        let now = self.clock.now()?;
        let period = self.translated.period().max(self.round());
        let surroundings = NatContext {
            flows: &self.flows,
            loads,
            now,
            until: now.saturating_add(self.ticks_to_next_but_one(period)),
            timeouts: self.state.timeouts(),
            any_remote_port: self.state.any_remote_port(),
        };
        let (state, parts) = (&self.state, self.parts);
        let looked = self.translated.look(
            &surroundings,
            |tracked| {
                let (local, remote) = (tracked.local.port(), tracked.remote.port());
                state.records(tracked.transport, local, remote)
            },
            |flow| next.mark(flow, parts),
        );

        // A sweep is worth its while without.
        let complaint = looked.as_ref().err().map(|error| format!("{error:#}"));
        if self.complaint != complaint {
            if let Some(complaint) = &complaint {
                tracing::warn!("{complaint}: flows that NAT translates are not put back");
            }
            self.complaint = complaint;
        }
        Ok(looked.unwrap_or_default())
    }

    fn repair(&self, sockets: &[HostSocket], loads: &[Load]) -> anyhow::Result<Repaired> {
        if !self.parts.repair || !self.state.rescues() {
            return Ok(Repaired::default());
        }
        let roomy = loads.iter().map(|load| load.is_roomy(0));
        let maps: Vec<_> = self.flows.iter().zip(roomy).collect();
        let now = self.clock.now()?;
        let terms = RepairTerms {
            now,
            until: now.saturating_add(self.ticks_to_next_but_one(self.round())),
            timeouts: self.state.timeouts(),
            any_remote_port: self.state.any_remote_port(),
        };
        let guarded = |transport, port| self.state.guards(transport, port);

        let sockets = (sockets, &sockets::waiting()?[..]);
        Ok(repair::repair(sockets, guarded, &maps, &terms))
    }

    /// Shorter timers are worth nothing where what they let expire keeps its place.
    fn adapt(&mut self, loads: &[Load]) -> Scales {
        let loads = if self.can_reclaim { loads } else { &[] };

        self.timers.adapt(loads, &self.state)
    }

    fn reclaim(&mut self, loads: &[Load]) -> anyhow::Result<u64> {
        if !self.parts.reclaim || !self.can_reclaim {
            return Ok(0);
        }
        let (now, timeouts) = (self.clock.now()?, self.state.timeouts());
        let shortened = timeouts != self.timers.configured();
        let mut reclaimed = 0;
        for (map, load) in self.flows.iter().zip(loads) {
            if !load.is_filling() || load.entries == load.live && !shortened {
                continue;
            }
            match remove_expired(map, now, &timeouts) {
                Ok(taken) => reclaimed += taken,
                Err(error) => {
                    tracing::warn!(
                        "{error:#}: full flow maps forget idle flows before expired ones, \
                         run Linux 5.14 or later, or with a larger --max-flows"
                    );
                    self.can_reclaim = false;
                    self.timers.adapt(&[], &self.state);
                    break;
                }
            }
        }

        Ok(reclaimed)
    }

    /// How long it is from one sweep to the next, if that takes as long as the last one.
    fn round(&self) -> Duration {
        self.rest(true) + self.took
    }

    /// Ticks until two rounds are over, each as long as that.
    fn ticks_to_next_but_one(&self, round: Duration) -> u32 {
        let seconds = (2 * round).as_secs().saturating_add(1);

        Timeouts::ticks(seconds.try_into().unwrap_or(u32::MAX), self.clock.hertz())
    }

    /// How long to rest after a sweep before the next. Until the filter is filled, unsolicited senders at
    /// ports in use cost more; and a flow that only sweeps look after must not expire in between.
    pub fn rest(&self, fits: bool) -> Duration {
        let fitting = if fits { Duration::MAX } else { SOON };
        let in_time = self
            .shortest
            .map_or(Duration::MAX, |timer| (timer / 2).max(BRIEF));

        self.parts
            .sweep_rest
            .min(fitting)
            .min(in_time)
            .max(self.busy * SHARE)
    }
}

/// Takes out what has expired at `now`, and returns how much that was.
///
/// A full LRU map evicts what was not looked up for longest. That is an idle flow that counts rather
/// than a short one that has expired since, so what has expired is taken out first.
///
/// # Errors
/// When the kernel refuses, as it does before 5.14.
fn remove_expired(map: &FlowMap, now: u32, timeouts: &Timeouts) -> anyhow::Result<u64> {
    let mut reclaimed = 0;
    let mut refused = None;
    map.walk(|entry| {
        if refused.is_some() || entry.flow.alive(now, timeouts) {
            return;
        }
        match map.take(&entry) {
            // This host has sent again since the walk saw the flow.
            Ok(Some(flow)) if flow.alive(now, timeouts) => {
                let _ = map.insert(&FlowEntry { flow, ..entry });
            }
            Ok(taken) => reclaimed += u64::from(taken.is_some()),
            Err(error) => refused = Some(error),
        }
    })?;

    refused.map_or(Ok(reclaimed), Err)
}
