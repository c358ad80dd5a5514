//! Flows that are older than what guards them.

use std::net::SocketAddr;

use guard_common::{
    flow::{Flow, Phase},
    outcome::Protocol,
};

use super::Guard;
use crate::{
    conntrack,
    maps::{FlowEntry, FlowMap},
    range::GuardedPorts,
    seed::{self, Target},
    settings::Settings,
    sockets,
};

/// What was learned of older flows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Older {
    /// From the kernel's sockets.
    pub sockets: seed::Seeded,
    /// From its connection tracking.
    pub tracked: conntrack::Seeded,
}

impl Older {
    /// Adds what was learned later.
    pub fn add(&mut self, later: Self) {
        self.sockets.new += later.sockets.new;
        self.sockets.failed += later.sockets.failed;
        self.tracked.add(later.tracked);
    }
}

impl Guard {
    /// Puts the flows of UDP into the maps as another filter looks them up: those of sockets, what
    /// the kernel tracks and, where the new filter asks for less, what the maps know.
    ///
    /// # Errors
    /// When the sockets or a map cannot be read.
    pub(super) fn learn_again(
        &mut self,
        settings: &Settings,
        ports: &GuardedPorts,
    ) -> anyhow::Result<()> {
        self.seed(settings, ports)?;

        self.widen(settings)
    }

    /// Puts every live flow of UDP in as the wider filter looks it up, where that is in force:
    /// an earlier configuration or an earlier run may have recorded it by its remote port.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub(super) fn widen(&mut self, settings: &Settings) -> anyhow::Result<()> {
        if !settings.udp_filter.any_remote_port() {
            return Ok(());
        }
        let (now, timeouts) = (self.clock.now()?, self.maps.state.timeouts());
        let flows = FlowMap::open_all(&self.pins)?;
        for map in flows.iter().filter(|map| map.protocol == Protocol::Udp) {
            map.walk(|entry| {
                let query = entry.flow.phase == Phase::Query as u8;
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
        self.maps.state.doubt_filter();

        Ok(())
    }

    /// Puts every connected socket on these ports into the maps, and what the kernel tracks of
    /// flows without one. Call it before they are guarded.
    ///
    /// # Errors
    /// When the sockets cannot be read. That conntrack cannot is part of what is returned.
    pub fn seed(&mut self, settings: &Settings, ports: &GuardedPorts) -> anyhow::Result<Older> {
        let flows = FlowMap::open_all(&self.pins)?;
        let target = Target {
            flows: &flows,
            state: &self.maps.state,
            now: self.clock.now()?,
            any_remote_port: settings.udp_filter.any_remote_port(),
        };
        let mut older = Older::default();
        if self.workings.seeding {
            older.sockets = seed::seed(&sockets::list()?, ports, target);
        }
        // Last, so that these are the youngest where there is little room: nothing else can bring
        // them back.
        if self.workings.conntrack {
            older.tracked = conntrack::seed(ports, &settings.unrecorded, target);
        }
        let (sockets, tracked) = (older.sockets, &older.tracked);
        if sockets.new + sockets.failed + tracked.new + tracked.left_out > 0 {
            self.maps.state.doubt_filter();
        }

        Ok(older)
    }
}
