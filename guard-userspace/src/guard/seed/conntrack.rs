//! Telling the maps about flows that conntrack knows, and that no socket stands for.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use guard_common::frame::transport::Transport;

use crate::{
    guard::seed::{self, Target},
    host::{
        conntrack::{Tracked, walk},
        interfaces::{LocalAddresses, RouteLookup},
        range::GuardedPorts,
    },
};

/// What came of seeding from conntrack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ConntrackSeeded {
    /// Whether the kernel tracks anything here.
    pub tracks: bool,
    /// Flows that are in the maps from now on.
    pub new: usize,
    /// Flows that the maps have no room for.
    pub left_out: usize,
    /// Why conntrack could not be asked.
    pub failure: Option<String>,
}

impl ConntrackSeeded {
    /// Adds what came of seeding once more.
    pub fn add(&mut self, later: Self) {
        self.tracks |= later.tracks;
        self.new += later.new;
        self.left_out = self.left_out.max(later.left_out);
        self.failure = later.failure.or(self.failure.take());
    }
}

/// Puts every flow of a guarded port into the maps that was opened from here and is tracked by the
/// kernel, and marks its port as in use. Remote UDP ports that are `unrecorded` are left alone.
///
/// What is in the maps stays there: of flows beyond a map's capacity, the last are left out.
pub fn seed(
    guarded: &GuardedPorts,
    unrecorded: &BTreeSet<u16>,
    target: Target<'_>,
) -> ConntrackSeeded {
    let mut seeded = ConntrackSeeded::default();
    let walked = LocalAddresses::read().and_then(|addresses| {
        let mut routes = RouteLookup::open().context("rtnetlink: open a socket")?;
        let mut put = vec![0; target.flows.len()];
        seeded.tracks = walk(|tracked| {
            let forwarded = |address| routes.forwards(address);
            if !concerns(tracked, guarded, unrecorded, &addresses, forwarded) {
                return;
            }
            let holder = target
                .flows
                .iter()
                .position(|map| map.holds(tracked.transport, tracked.local));
            let Some(number) = holder else { return };
            if put[number] == target.flows[number].capacity {
                seeded.left_out += 1;
                return;
            }
            let entry = seed::between(
                tracked.transport,
                (tracked.local, tracked.remote),
                target.any_remote_port,
                target.now,
                tracked.tcp.flow(target.now),
            );
            match target.put(&entry) {
                Ok(true) => {
                    seeded.new += 1;
                    put[number] += 1;
                }
                Ok(false) => {}
                Err(_) => seeded.left_out += 1,
            }
        })?;
        Ok(())
    });
    if let Err(error) = walked {
        seeded.failure = Some(format!("{error:#}"));
    }

    seeded
}

/// Whether its answers would be dropped: the port, which tells most of them apart, comes first.
pub fn concerns(
    tracked: &Tracked,
    guarded: &GuardedPorts,
    unrecorded: &BTreeSet<u16>,
    addresses: &LocalAddresses,
    forwarded: impl FnOnce(IpAddr) -> bool,
) -> bool {
    guarded.guarded(tracked.transport, tracked.local.port())
        && tracked.opened_here(addresses, forwarded)
        && !(tracked.transport == Transport::Udp && unrecorded.contains(&tracked.remote.port()))
}
