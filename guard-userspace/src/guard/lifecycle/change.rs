//! A change of what is in force, while the kernel is asked about the flows that it has to know of.

use std::{sync::Arc, time::Duration};

use super::{
    policy::{Learn, Plan, Policy},
    preexisting::{Preexisting, Seeder},
};
use crate::{
    config::Settings,
    host::{
        range::{GuardedPorts, PortBitmap},
        sockets,
    },
};

/// How long the sockets on ports that become guarded may take to be put in before they are. What is
/// left is rescued until it is put in afterwards.
const SEEDED_WITHIN: Duration = Duration::from_millis(50);

/// A change that was begun.
pub struct Change {
    pub(super) settings: Settings,
    pub(super) ports: GuardedPorts,
    pub(super) quickly: bool,
    pub(super) policy: Policy,
    pub(super) plan: Plan,
    pub(super) seeder: Arc<Seeder>,
}

/// What was found out for a change.
#[derive(Debug, Default)]
pub struct Known {
    /// What was learned of flows, which the maps know by now.
    pub learned: Preexisting,
    /// The ports on which there is a socket, where the change asks for them.
    pub in_use: PortBitmap,
}

impl Change {
    /// Whether there is anything to ask the kernel about.
    pub fn asks(&self) -> bool {
        self.plan.learn != Learn::Nothing || self.plan.lists_sockets
    }

    /// Learns of the flows that have to be known before the change is in force. To be asked on a thread
    /// that waits for the kernel.
    ///
    /// # Errors
    /// When something cannot be read that has to be known.
    pub fn question(&self) -> impl FnOnce() -> anyhow::Result<Known> + Send + use<> {
        let (settings, ports) = (self.settings.clone(), self.ports.clone());
        let (plan, quickly) = (self.plan.clone(), self.quickly);
        let seeder = Arc::clone(&self.seeder);

        move || {
            let about = (&settings, &ports);
            let learned = seeder.learn(&plan.learn, about, quickly, Some(SEEDED_WITHIN))?;
            let in_use = if plan.lists_sockets {
                ports_with_sockets()?
            } else {
                PortBitmap::default()
            };
            Ok(Known { learned, in_use })
        }
    }

    /// Learns what there was no time for before the change came into force. To be asked as the
    /// [`question`](Self::question) is.
    ///
    /// # Errors
    /// When something cannot be read. The change stays in force.
    pub fn rest(&self, rest: Learn) -> impl FnOnce() -> anyhow::Result<Preexisting> + Send + use<> {
        let (settings, ports) = (self.settings.clone(), self.ports.clone());
        let seeder = Arc::clone(&self.seeder);

        move || {
            seeder.require_late_list()?;
            seeder.learn(&rest, (&settings, &ports), false, None)
        }
    }
}

/// The ports on which there is a socket.
pub(super) fn ports_with_sockets() -> anyhow::Result<PortBitmap> {
    let sockets = sockets::list()?;

    Ok(sockets.iter().map(|socket| socket.local.port()).collect())
}
