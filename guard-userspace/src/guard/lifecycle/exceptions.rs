//! What else than a flow may let a packet in: it is another host's, or its sender is trusted.

use std::collections::BTreeSet;

use guard_common::abi::{config::Config, device::Device, layout::DIVERTED};
use ipnet::IpNet;

use super::Guard;
use crate::{
    bpf::maps::Entry,
    config::Settings,
    host::interfaces::{self, Interface, Routes, Rules, Topology},
};

impl Guard {
    /// Tells the programs which addresses are this host's and which are its neighbours', and
    /// whether this host forwards, given all its `interfaces`. If one map is full, the others are still
    /// updated: lines for the administrator are added to `notes`, once.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses they accept, or which routes there are.
    pub fn refresh(
        &mut self,
        interfaces: &[Interface],
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let layers = Topology::new(interfaces);
        let (routes, rules) = (Routes::read()?, Rules::read()?);
        let mut local = interfaces::local_table()?;
        let elsewhere = interfaces
            .iter()
            .filter(|one| one.up && layers.is_in_vrf(one));
        let addresses = elsewhere.flat_map(|interface| &interface.addresses);
        local.extend(addresses.map(|net| IpNet::from(net.addr())));
        let routed = |family| {
            let mut devices = self.devices.iter();
            devices.all(|device| device.routes(interfaces, &layers, family))
        };
        let destinations = routes.destinations(&local, &rules, routed);
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
        // Before the programs ask for it.
        if forwards {
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
        self.set_exception(Config::FORWARDS, forwards);

        let untold: Vec<_> = told
            .into_iter()
            .filter_map(Result::err)
            .map(|error| format!("{error:#}"))
            .chain(routes.incomplete)
            .collect();
        let new = untold.iter().filter(|line| !self.untold.contains(line));
        notes.extend(new.cloned());
        self.untold = untold;

        Ok(())
    }

    /// Tells the programs which networks are trusted.
    pub(super) fn trust(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.maps.trusted.set(settings.trust.iter().copied())?;
        self.set_exception(Config::TRUSTS, !settings.trust.is_empty());

        Ok(())
    }

    pub(super) fn set_exception(&mut self, excuse: u32, applies: bool) {
        let others = self.maps.state.exceptions() & !excuse;
        self.maps
            .state
            .set_excuses(others | if applies { excuse } else { 0 });
    }
}
