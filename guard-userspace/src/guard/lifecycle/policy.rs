//! Everything that the programs are told by the administrator, as a value: what it is made of, what
//! has to happen between one and the next, and the page that says it.

use std::{collections::BTreeSet, net::IpAddr};

use guard_common::{
    abi::page::{InForce, OwnAddresses, Page},
    flow::{adaptive::Adaptive, timer::Timeouts},
    frame::{
        address::{V4, V6},
        transport::Transport,
    },
};
use ipnet::IpNet;

use crate::{
    config::{Mode, Settings},
    guard::timers,
    host::range::{GuardedPorts, PortBitmap},
};

/// What the host is, as far as the policy depends on it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostFacts {
    /// Whether some interface forwards or bridges.
    pub forwards: bool,
    /// This host's own addresses, where some interface does.
    pub own: BTreeSet<IpAddr>,
}

/// What the programs are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policy {
    /// The range, which of its ports are guarded, and where the kernel itself receives.
    pub ports: GuardedPorts,
    /// Remote ports of tunnels.
    pub unrecorded: BTreeSet<u16>,
    /// Prefixes that are trusted.
    pub trusted: BTreeSet<IpNet>,
    /// Whether would-be drops pass.
    pub monitor: bool,
    /// Whether a UDP flow admits every port of the peer's address.
    pub any_remote_port: bool,
    /// Whether flows may be rescued.
    pub rescue: bool,
    /// Timers at their full length.
    pub timeouts: Timeouts,
    /// How they become shorter while the flow maps fill.
    pub adaptive: Option<Adaptive>,
    /// The host.
    pub host: HostFacts,
}

/// What has to be known of flows before a policy is in force, and again once it is, for flows that
/// began meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Learn {
    /// Nothing new.
    Nothing,
    /// The flows of these ports, which become guarded.
    Ports(GuardedPorts),
    /// All flows: they are looked up otherwise.
    All,
}

/// What has to happen between one policy and the next, in this order: learn, add what both of them
/// need to the maps, invalidate the Bloom filter, flip, invalidate it again, take out of the maps what
/// the next one does not need, learn again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// What has to be known before the flip, and again after it.
    pub learn: Learn,
    /// Whether the Bloom filter may lack something that counts under the next policy.
    pub invalidates: bool,
    /// Whether the sockets have to be listed, whose ports monitor mode asks about.
    pub lists_sockets: bool,
    /// Prefixes that the map of trusted ones has to hold while either policy may be in force.
    pub trusted: BTreeSet<IpNet>,
    /// Where the kernel receives under either.
    pub kernel: BTreeSet<(u16, IpAddr)>,
    /// Whether there is anything to publish.
    pub flips: bool,
}

impl Policy {
    /// What these settings mean for these ports on this host, whose kernel counts `hertz` jiffies a
    /// second.
    pub fn of(settings: &Settings, ports: &GuardedPorts, host: &HostFacts, hertz: u32) -> Self {
        Self {
            ports: ports.clone(),
            unrecorded: settings.unrecorded.clone(),
            trusted: settings.trust.clone(),
            monitor: settings.mode == Mode::Monitor,
            any_remote_port: settings.udp_filter.any_remote_port(),
            rescue: !settings.no_rescue,
            timeouts: timers::configured(settings, hertz),
            adaptive: settings.adaptive_timeouts.0,
            host: host.clone(),
        }
    }

    /// What has to happen between `old`, or none, and `new`.
    pub fn plan(old: Option<&Self>, new: &Self) -> Plan {
        let Some(old) = old else {
            return Plan {
                learn: Learn::Nothing,
                invalidates: true,
                lists_sockets: new.monitor,
                trusted: new.trusted.clone(),
                kernel: new.ports.kernel().clone(),
                flips: true,
            };
        };
        let added = new.ports.without(&old.ports);
        let refiltered = old.any_remote_port != new.any_remote_port;
        let learn = match added {
            _ if refiltered => Learn::All,
            Some(added) => Learn::Ports(added),
            None => Learn::Nothing,
        };
        // What the host is and whom the administrator trusts makes no tuple known.
        let same_flows = Self {
            host: new.host.clone(),
            trusted: new.trusted.clone(),
            ..old.clone()
        };

        Plan {
            learn,
            invalidates: same_flows != *new,
            lists_sockets: new.monitor && !old.monitor,
            trusted: old.trusted.union(&new.trusted).copied().collect(),
            kernel: old
                .ports
                .kernel()
                .union(new.ports.kernel())
                .copied()
                .collect(),
            flips: old != new,
        }
    }

    /// The page that says this, with these timers, and the word by which it is read. `secret` is an
    /// odd number that is secret, and on the ports of `sockets` there are some.
    pub fn page(
        &self,
        timeouts: Timeouts,
        secret: u64,
        sockets: &PortBitmap,
    ) -> (Box<Page>, InForce) {
        let mut page = Box::new(Page::EMPTY);
        page.ports.tcp = *self.ports.bitmap(Transport::Tcp).words();
        page.ports.udp = *self.ports.bitmap(Transport::Udp).words();
        page.ports.unrecorded = *bitmap(self.unrecorded.iter().copied()).words();
        page.ports.kernel = *bitmap(self.ports.kernel().iter().map(|(port, _)| *port)).words();
        page.timeouts = timeouts;
        page.own = self.own(secret);
        let salt = page.own.salt;
        for net in &self.trusted {
            let length = u32::from(net.prefix_len());
            let sources = &mut page.sources;
            match net.addr() {
                IpAddr::V4(address) => sources.add_v4(V4::from(address.octets()), length),
                IpAddr::V6(address) => sources.add_v6(V6::from(address.octets()), length, salt),
            }
        }

        let mut special = self.ports.exempt_ports();
        if self.monitor {
            special.insert_all(sockets);
        }
        page.special = *special.words();
        let range = self.ports.range();
        let in_force = InForce::new(range.first(), range.last(), 0)
            .with(InForce::FORWARDS, self.host.forwards)
            .with(InForce::SOURCES, !self.trusted.is_empty())
            .with(InForce::SPECIAL, self.monitor || !special.is_empty())
            .with(InForce::MONITOR, self.monitor)
            .with(InForce::KERNEL_PORTS, !self.ports.kernel().is_empty())
            .with(InForce::ANY_REMOTE_PORT, self.any_remote_port)
            .with(InForce::RESCUE, self.rescue);

        (page, in_force)
    }

    /// This host's addresses, hashed by whichever of some numbers leaves out the fewest.
    fn own(&self, secret: u64) -> OwnAddresses {
        const TRIES: u32 = 16;

        let mut best = (usize::MAX, Page::EMPTY.own);
        for round in 0..TRIES {
            let mut own = Page::EMPTY.own;
            // Multiples of one number would share its weakness for addresses in a row.
            own.salt = secret.rotate_left(round * u64::BITS / TRIES) | 1;
            let added = self.host.own.iter().filter(|address| match address {
                IpAddr::V4(address) => own.add_v4(V4::from(address.octets())),
                IpAddr::V6(address) => own.add_v6(V6::from(address.octets())),
            });
            let left_out = self.host.own.len() - added.count();
            if left_out < best.0 {
                best = (left_out, own);
            }
            if left_out == 0 {
                break;
            }
        }

        best.1
    }
}

fn bitmap(ports: impl Iterator<Item = u16>) -> PortBitmap {
    ports.collect()
}

#[cfg(test)]
mod tests;
