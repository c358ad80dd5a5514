//! What else than a flow may let a packet in: it is another host's, or its sender is trusted.

use guard_common::config::Config;
use rtnetlink::Handle;

use super::Guard;
use crate::{interfaces, settings::Settings};

impl Guard {
    /// Tells the programs which addresses are this host's and which are on the interfaces' links,
    /// and whether this host forwards.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn refresh(&mut self, netlink: &Handle) -> anyhow::Result<()> {
        let interfaces = interfaces::list(netlink).await?;
        let described = self
            .devices
            .iter()
            .map(|device| Ok((device.slot, device.describe(&interfaces)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let forwards = described.iter().any(|(_, device)| device.forwards != 0);
        // Before the programs ask for it.
        if forwards {
            self.maps.local.set(&interfaces::local_table()?)?;
            self.maps.links.set(&interfaces::own_links(&interfaces))?;
        }
        for (slot, device) in described {
            self.maps.set_device(slot, device)?;
        }
        self.set_excuse(Config::FORWARDS, forwards);

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
