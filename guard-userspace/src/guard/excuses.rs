//! What else than a flow may let a packet in: it is another host's, or its sender is trusted.

use guard_common::config::Config;
use ipnet::IpNet;

use super::Guard;
use crate::{
    interfaces::{self, Interface, Layers},
    settings::Settings,
};

impl Guard {
    /// Tells the programs which addresses are this host's and which are on the interfaces' links,
    /// and whether this host forwards, given all its `interfaces`. What one map has no room for keeps nobody from hearing the
    /// rest: lines for the administrator are added to `notes`, once.
    ///
    /// # Errors
    /// When the kernel does not tell which link addresses they accept, or which addresses are its
    /// own.
    pub fn refresh(
        &mut self,
        interfaces: &[Interface],
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let layers = Layers::new(interfaces);
        let described = self
            .devices
            .iter()
            .map(|device| Ok((device.slot, device.describe(interfaces, &layers)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let forwards = described.iter().any(|(_, device)| device.forwards != 0);
        let mut told = Vec::new();
        // Before the programs ask for it.
        if forwards {
            let mut local = interfaces::local_table()?;
            let elsewhere = interfaces
                .iter()
                .filter(|one| one.up && layers.is_in_vrf(one));
            let addresses = elsewhere.flat_map(|interface| &interface.addresses);
            local.extend(addresses.map(|net| IpNet::from(net.addr())));
            told.push(self.maps.local.set(&local));
            told.push(self.maps.links.set(layers.own_links()));
        }
        for (slot, device) in described {
            told.push(self.maps.set_device(slot, device));
        }
        self.set_excuse(Config::FORWARDS, forwards);

        let untold: Vec<_> = told
            .into_iter()
            .filter_map(Result::err)
            .map(|error| format!("{error:#}"))
            .collect();
        let new = untold.iter().filter(|line| !self.untold.contains(line));
        notes.extend(new.cloned());
        self.untold = untold;

        Ok(())
    }

    /// Tells the programs which networks are trusted.
    pub(super) fn trust(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.maps.trusted.set(&settings.trust)?;
        self.set_excuse(Config::TRUSTS, !settings.trust.is_empty());

        Ok(())
    }

    fn set_excuse(&mut self, excuse: u32, applies: bool) {
        let others = self.maps.state.excuses() & !excuse;
        self.maps
            .state
            .set_excuses(others | if applies { excuse } else { 0 });
    }
}
