//! Putting back what the maps have forgotten of flows that NAT translates.
//!
//! The program looks for a socket by the ends that a packet has on the wire. The socket of a translated
//! flow has others, or is another host's, so that nothing rescues such a flow: conntrack alone knows both.
//! Sweeps go through its table, within a share of a processor's time, and go on where they were where that
//! is not enough.

use std::{
    io,
    time::{Duration, Instant},
};

use anyhow::Context;
use guard_common::flow::timer::Timeouts;

use super::cpu_share::CpuShare;
use crate::{
    bpf::{
        clock::processor_time,
        maps::{FlowEntry, FlowMap},
    },
    guard::{
        pressure::Load,
        repair::{self, Repaired},
        seed,
    },
    host::{
        conntrack::{self, Tracked, begin, read, tracks_any},
        interfaces::{LocalAddresses, RouteLookup},
        netlink::{Dump, Progress},
    },
};

/// Of a map that has no room, one part in so many may be kept for translated flows. The rest is for
/// those that have no other means either, such as queries of unconnected sockets.
const ALL: u64 = 2;

/// The same for those that are not answered yet, and all before them.
const UNANSWERED: u64 = 4;

/// Keeps the flows that NAT translates in the maps.
pub struct NatFlows {
    dump: Option<Dump>,
    /// Flows of each map that this walk through the table has found there or put back.
    kept: Vec<u64>,
    allowance: CpuShare,
    /// When this walk began.
    began: Instant,
    /// How long it was from the beginning of the last walk to that of this one.
    period: Duration,
    /// Of the flows that were kept, the timer that is the shortest, in ticks. Of this walk, and of the
    /// last.
    shortest: [Option<u32>; 2],
}

/// What the maps are like, and how flows are made, and when they expire.
pub struct NatContext<'a> {
    /// The flow maps.
    pub flows: &'a [FlowMap],
    /// How full each of them is.
    pub loads: &'a [Load],
    /// The time in ticks.
    pub now: u32,
    /// Until when nothing looks after the same flow again, in ticks.
    pub until: u32,
    /// The timers in force.
    pub timeouts: Timeouts,
    /// Whether a UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
}

impl Default for NatFlows {
    /// One that has looked at nothing yet.
    fn default() -> Self {
        let now = Instant::now();

        Self {
            dump: None,
            kept: Vec::new(),
            allowance: CpuShare::new(now),
            began: now,
            period: Duration::ZERO,
            shortest: [None; 2],
        }
    }
}

impl NatFlows {
    /// How long it takes until the same flow is looked at again.
    pub fn period(&self) -> Duration {
        match self.dump {
            Some(_) => self.period.max(self.began.elapsed()),
            None => self.period,
        }
    }

    /// Looks at as much of the table as there is time for. Flows are put back that are `recorded`, go
    /// on, and were opened by this host or by one behind it; `mark` is told of each before.
    ///
    /// # Errors
    /// When conntrack or the routes cannot be read. The next look begins anew.
    pub fn look(
        &mut self,
        surroundings: &NatContext<'_>,
        recorded: impl Fn(&Tracked) -> bool,
        mark: impl Fn(&FlowEntry),
    ) -> anyhow::Result<Repaired> {
        let mut repaired = Repaired::default();
        if let Some(granted) = self.allowance.granted(Instant::now()) {
            let before = processor_time()?;
            let looked = self.look_for(granted, before, surroundings, recorded, mark);
            self.allowance
                .spend(processor_time()?.saturating_sub(before));
            if looked.is_err() {
                self.dump = None;
            }
            repaired = looked?;
        }
        repaired.shortest = self.shortest.into_iter().flatten().min();

        Ok(repaired)
    }

    fn look_for(
        &mut self,
        granted: Duration,
        before: Duration,
        surroundings: &NatContext<'_>,
        recorded: impl Fn(&Tracked) -> bool,
        mark: impl Fn(&FlowEntry),
    ) -> anyhow::Result<Repaired> {
        let mut repaired = Repaired::default();
        // Asked again in the middle of the table, too: a reader of it keeps nothing alive.
        if !tracks_any().context("conntrack: how much it tracks cannot be read")? {
            (self.dump, self.shortest) = (None, [None; 2]);
            (self.began, self.period) = (Instant::now(), Duration::ZERO);
            return Ok(repaired);
        }
        if self.dump.is_none() {
            self.dump = begin().context("conntrack: cannot be asked")?;
            self.begin_walk(surroundings.flows.len());
        }
        let Some(dump) = &mut self.dump else {
            return Ok(repaired);
        };
        let addresses = LocalAddresses::read()?;
        let mut routes = RouteLookup::open().context("rtnetlink: open a socket")?;
        let (kept, shortest) = (&mut self.kept, &mut self.shortest[0]);
        let mut put = vec![0; surroundings.flows.len()];
        let mut visit = |kind, payload: &[u8]| -> io::Result<()> {
            // Most entries of most hosts are plain.
            if conntrack::untranslated(kind, payload).is_some() {
                return Ok(());
            }
            let Some(tracked) = read(kind, payload)? else {
                return Ok(());
            };
            let due = tracked.is_translated()
                && tracked.goes_on()
                && recorded(&tracked)
                && tracked.opened_inside(&addresses, |address| routes.forwards(address));
            if due {
                let counts = (&mut kept[..], &mut put[..]);
                surroundings.keep(&tracked, counts, shortest, &mut repaired, &mark);
            }
            Ok(())
        };
        loop {
            match dump.next(&mut visit).context("conntrack: cannot be read")? {
                Progress::More if processor_time()?.saturating_sub(before) < granted => {}
                Progress::More => break,
                Progress::Done => {
                    self.dump = None;
                    break;
                }
            }
        }

        Ok(repaired)
    }

    fn begin_walk(&mut self, maps: usize) {
        self.period = self.began.elapsed();
        self.began = Instant::now();
        self.kept = vec![0; maps];
        self.shortest = [None, self.shortest[0]];
    }
}

impl NatContext<'_> {
    fn keep(
        &self,
        tracked: &Tracked,
        (kept, put): (&mut [u64], &mut [u64]),
        shortest: &mut Option<u32>,
        repaired: &mut Repaired,
        mark: &impl Fn(&FlowEntry),
    ) {
        let holder = self
            .flows
            .iter()
            .position(|map| map.holds(tracked.transport, tracked.local));
        let Some(number) = holder else { return };
        if !takes(
            &self.loads[number],
            (kept[number], put[number]),
            tracked.answered,
        ) {
            return;
        }
        let entry = seed::between(
            tracked.transport,
            (tracked.local, tracked.remote),
            self.any_remote_port,
            self.now,
            tracked.tcp.flow(self.now),
        );
        kept[number] += 1;
        let timer = self.timeouts.of(entry.flow.timer());
        *shortest = Some(shortest.map_or(timer, |shortest| shortest.min(timer)));
        // What cannot be written now may be at the next look.
        let due = (self.until, &self.timeouts);
        let absent = repaired.absent;
        let _ = repair::put_back(&self.flows[number], &entry, due, repaired, mark);
        put[number] += repaired.absent - absent;
    }
}

/// Whether a map may hold one more translated flow, beside those that were `kept`. So many were `put`
/// back since the map was counted.
///
/// Nothing else brings such a flow back, so it may cost another flow its place, up to a bound. That is
/// lower for what is not answered: a host behind this one may ask as many as it likes.
fn takes(load: &Load, (kept, put): (u64, u64), answered: bool) -> bool {
    let part = if answered { ALL } else { UNANSWERED };

    load.is_roomy(put) || kept < load.capacity / part
}

#[cfg(test)]
mod tests {
    use guard_common::outcome::{Family, Protocol};

    use super::*;

    #[test]
    fn translated_flows_never_fill_a_map() {
        // live, kept, put back since, answered, whether one more is
        let table = [
            (0, 0, 0, false, true),
            (599, 599, 0, false, true),
            (600, 249, 0, false, true),
            (600, 250, 0, false, false),
            (600, 250, 0, true, true),
            (1_000, 499, 499, true, true),
            (1_000, 500, 0, true, false),
            // Those that were put back since the map was counted take room as well.
            (300, 599, 299, false, true),
            (300, 600, 300, false, false),
            (300, 300, 300, true, true),
            (0, 600, 600, true, false),
        ];
        for (live, kept, put, answered, expected) in table {
            let load = Load {
                family: Family::Ipv4,
                protocol: Protocol::Tcp,
                live,
                entries: live,
                capacity: 1_000,
            };
            let found = takes(&load, (kept, put), answered);
            assert_eq!(found, expected, "{live} live, {kept} kept, {put} put");
        }
    }
}
