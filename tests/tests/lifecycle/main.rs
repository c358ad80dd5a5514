//! Starts, ends, crashes and reloads. Nothing here needs more than the harness and iproute2.

mod absent;
mod capabilities;
mod crash;
mod end;
mod faults;
mod features;
mod hooks;
mod interfaces;
mod killed;
mod layouts;
mod log;
mod memory;
mod monitor;
mod neighbours;
mod pins;
mod reload;
mod reload_flows;
mod reload_refused;
mod requests;
mod resize;
mod restarts;
mod scale;
mod slow_answers;
mod unfinished;
mod upgrade;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::udp,
    guard::Guard,
    kernel::Kernel,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// How long a busy machine may take to deliver a packet.
const PATIENCE: Duration = Duration::from_secs(5);
/// A port of the range that somebody listens on.
const PORT: u16 = 40_000;

/// Where recording can happen on this kernel.
fn egress_hooks() -> &'static [&'static str] {
    // tcx needs 6.6: https://github.com/torvalds/linux/commit/e420bed02507
    if Kernel::running() < Kernel::new(6, 6) {
        &["clsact"]
    } else {
        &["tcx", "clsact"]
    }
}

/// Every way to attach here.
fn attachments() -> impl Iterator<Item = [&'static str; 4]> {
    MODES.into_iter().flat_map(|mode| {
        egress_hooks()
            .iter()
            .map(move |hook| ["--xdp-mode", mode, "--egress-hook", hook])
    })
}

/// Two hosts, a listener on a guarded port, and an unsolicited sender who knows of it.
struct Lab {
    topology: Direct,
    listener: Listener,
    wire: Wire,
}

impl Lab {
    /// Shows that the unsolicited packet is delivered where nobody guards.
    fn new() -> Result<Self> {
        let topology = Direct::new()?;
        let lab = Self {
            listener: Listener::new(&topology.guarded, PORT)?,
            wire: Wire::open(&topology.peer, topology.peer_interface())?,
            topology,
        };
        ensure!(
            lab.hears(1)?,
            "unsolicited packets are not delivered without a guard"
        );
        Ok(lab)
    }

    fn guard(&self, flags: &[&str]) -> Result<Guard<'_>> {
        Guard::start(&self.topology.guarded, self.topology.interface(), flags)
    }

    /// Sends so many unsolicited senders' datagrams over either family, and returns how many arrive.
    fn scan(&self, count: usize) -> Result<usize> {
        for family in FAMILIES {
            let unsolicited = udp(53, PORT).received(family);
            for _ in 0..count {
                self.wire.send(&unsolicited)?;
            }
        }
        Ok(self.listener.delivered(QUIET))
    }

    /// Scans likewise, and waits until all of a scan has arrived: a busy machine loses frames of
    /// its own accord.
    fn hears(&self, count: usize) -> Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.scan(count)? >= count * FAMILIES.len();
            if heard || Instant::now() > deadline {
                return Ok(heard);
            }
        }
    }
}
