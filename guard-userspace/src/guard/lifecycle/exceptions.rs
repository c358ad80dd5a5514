//! What else than a flow may let a packet in: it is another host's, or its sender is trusted.

use std::collections::{BTreeMap, BTreeSet};

use guard_common::abi::{
    device::Device,
    layout::{DIVERTED, LOCAL, MAX_ADDRESSES},
};
use ipnet::IpNet;

use super::{Guard, Waiting, policy::HostFacts};
use crate::{
    bpf::maps::Entry,
    host::{
        interfaces::{Interface, Rules, Topology},
        range::PortBitmap,
    },
};

impl Guard {
    /// Tells the programs which addresses are this host's and which are its neighbours', and
    /// whether this host forwards, given all its `interfaces`. If one map is full, the others are still
    /// updated: lines for the administrator are added to `notes`, once. `changed` says whether any
    /// route may have changed since the last call.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses they accept, or which routes there are.
    pub fn refresh(
        &mut self,
        interfaces: &[Interface],
        changed: bool,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        self.describe(interfaces, changed, notes)?;
        let Some(policy) = self.publisher.in_force() else {
            return Ok(());
        };
        if self.waiting != Waiting::Nothing && policy.host != self.host {
            // Own addresses that the page does not have are looked up, and may come with the change.
            if policy.host.forwards == self.host.forwards {
                return Ok(());
            }
            self.waiting = Waiting::Disturbed;
        }
        let mut policy = policy.clone();
        policy.host.clone_from(&self.host);

        self.publish(policy, &PortBitmap::default())
    }

    /// Tells the programs which addresses are this host's and which are its neighbours', and finds out
    /// what else the policy depends on.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(super) fn describe(
        &mut self,
        interfaces: &[Interface],
        changed: bool,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let layers = Topology::new(interfaces);
        let (routes, rules) = (self.routes.look(changed)?.clone(), Rules::read()?);
        let mut local = routes.local.clone();
        // The routes may have been read some time ago.
        let here = interfaces.iter().filter(|one| one.up);
        let addresses = here.flat_map(|interface| &interface.addresses);
        local.extend(addresses.map(|net| IpNet::from(net.addr())));
        let routed = |family| {
            let mut devices = self.devices.iter();
            devices.all(|device| device.routes(interfaces, &layers, family))
        };
        let forced = self
            .devices
            .iter()
            .any(|device| device.forces_forwarding(interfaces, &layers));
        let mut destinations = routes.destinations(&local, &rules, routed, forced);
        let unguarded = close(&mut destinations);
        let diverts = destinations.values().any(|what| *what == DIVERTED);

        let mut described = Vec::new();
        let mut neighbours = BTreeSet::new();
        for device in &self.devices {
            let slot = device.slot;
            let mut description = device.describe(interfaces, &layers)?;
            if diverts {
                description.forwards |= Device::DIVERTS;
            }
            described.push((slot, description));
            let nets = device.neighbours(interfaces, &layers, &routes);
            neighbours.extend(nets.into_iter().map(|net| Entry {
                slot,
                net,
                value: 1,
            }));
        }
        let forwards = described.iter().any(|(_, device)| device.forwards != 0);
        let mut told = vec![self.maps.neighbours.set(neighbours)];
        let mut host = HostFacts {
            forwards,
            own: BTreeSet::new(),
        };
        // Before the programs ask for it.
        if forwards {
            let own = destinations
                .iter()
                .filter(|(net, what)| **what == LOCAL && net.prefix_len() == net.max_prefix_len());
            host.own = own.map(|(net, _)| net.addr()).collect();
            let destinations = destinations.into_iter().map(|(net, value)| Entry {
                slot: 0,
                net,
                value,
            });
            told.push(self.maps.local.set(destinations));
            told.push(self.maps.links.set(layers.own_links()));
        }
        for (slot, device) in described {
            told.push(self.maps.set_device(slot, device));
        }
        self.host = host;

        let untold: Vec<_> = told
            .into_iter()
            .filter_map(Result::err)
            .map(|error| format!("{error:#}"))
            .chain(unguarded)
            .collect();
        let new = untold.iter().filter(|line| !self.untold.contains(line));
        notes.extend(new.cloned());
        self.untold = untold;

        Ok(())
    }
}

/// Lets no destination be taken for another host's because there is no room for those of this host:
/// packets to it would pass. Returns a line for the administrator where that is so.
fn close(destinations: &mut BTreeMap<IpNet, u32>) -> Option<String> {
    let most = MAX_ADDRESSES as usize;
    if destinations.len() <= most || !destinations.values().any(|what| *what == DIVERTED) {
        return None;
    }
    let many = destinations.len();
    destinations.retain(|_, what| *what != DIVERTED);

    Some(format!(
        "{many} addresses and prefixes of this host, and there is room for {most}: what a transparent \
         proxy takes of other hosts' packets, and what force_forwarding sends on, is guarded as if it \
         were for this host; route prefixes to it instead of single addresses"
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn nothing_is_diverted_where_not_all_of_this_host_fits() {
        let any: IpNet = "0.0.0.0/0".parse().expect("is a prefix");
        let told = |own: u32| {
            let own =
                (0..own).map(|number| (IpNet::from(IpAddr::from(Ipv4Addr::from(number))), LOCAL));
            own.chain([(any, DIVERTED)]).collect::<BTreeMap<_, _>>()
        };
        let mut fit = told(MAX_ADDRESSES - 1);
        assert_eq!(close(&mut fit), None);
        assert_eq!(fit[&any], DIVERTED);
        let mut too_many = told(MAX_ADDRESSES);
        let said = close(&mut too_many).expect("is told");
        assert!(said.contains("room for 16384"), "{said}");
        assert!(!too_many.contains_key(&any));
    }
}
