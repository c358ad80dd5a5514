//! Flows that are older than what guards them.

use super::Guard;
use crate::{
    conntrack,
    maps::FlowMap,
    range::GuardedPorts,
    seed::{self, Target},
    settings::{Settings, UdpFilter},
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
            any_remote_port: settings.udp_filter == UdpFilter::Address,
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
