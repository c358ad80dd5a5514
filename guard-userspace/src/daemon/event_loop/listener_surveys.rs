//! What listens on guarded ports, asked again and again.

use std::collections::BTreeSet;

use super::{enforcement::Enforcement, surveys::Question};
use crate::{
    base::failure::Failure,
    config::{ListenersPolicy, Mode},
    guard::listeners::Survey,
    host::{
        range::{GuardedPorts, PortBitmap},
        sockets,
        tunnels::{self, TunnelPort},
    },
};

/// Questions about sockets. What they tell of exposures is taken in while no change is under way.
#[derive(Default)]
pub(super) struct ListenerSurveys {
    /// Listeners on the ports that the question was about.
    pub(super) listeners: Question<(GuardedPorts, Survey)>,
    /// The TCP ports of those that something listens on.
    pub(super) listening: Question<(GuardedPorts, BTreeSet<u16>)>,
    /// Ports at which sockets wait for packets of any peer.
    pub(super) waiting: Question<PortBitmap>,
    /// Ports on which the kernel receives.
    pub(super) tunnels: Question<BTreeSet<TunnelPort>>,
}

impl ListenerSurveys {
    /// Looks for listeners on ports that are guarded already.
    pub(super) fn watch(&mut self, enforcement: &Enforcement) {
        let question = enforcement.ports.ask_for_listeners(&enforcement.settings);
        self.listeners.ask(question);
    }

    pub(super) fn apply(
        &mut self,
        found: anyhow::Result<(GuardedPorts, Survey)>,
        enforcement: &mut Enforcement,
    ) {
        let (guard, settings) = (&enforcement.guard, &enforcement.settings);
        let (ports, names) = (&mut enforcement.ports, &mut enforcement.names);
        let has_flows = |transport, port| guard.has_flows(transport, port);
        let applied = found
            .map_err(Failure::from)
            .and_then(|found| ports.apply_listeners(settings, found, names, has_flows));
        match applied {
            Ok(true) => {}
            // The ports have changed meanwhile.
            Ok(false) => return self.watch(enforcement),
            Err(failure) => ports.complain(&failure),
        }
        enforcement.apply_exposures();
        enforcement.show_ports();
    }

    /// With `--listeners expose`, follows what begins and ceases to listen.
    pub(super) fn follow_listening(&mut self, enforcement: &Enforcement) {
        if enforcement.settings.listeners == ListenersPolicy::Expose {
            self.listening.ask(enforcement.ports.ask_for_listening());
        }
    }

    /// In monitor mode, follows what begins to wait for packets.
    pub(super) fn follow_waiting(&mut self, enforcement: &Enforcement) {
        if enforcement.settings.mode == Mode::Monitor {
            self.waiting.ask(|| {
                let waiting = sockets::waiting()?;
                Ok(waiting.iter().map(|socket| socket.local.port()).collect())
            });
        }
    }

    /// Follows the ports on which the kernel receives.
    pub(super) fn follow_tunnels(&mut self) {
        self.tunnels.ask(tunnels::list);
    }
}

/// Exposes what has begun to listen, and guards what does not any more.
pub(super) fn apply_listening(
    found: anyhow::Result<(GuardedPorts, BTreeSet<u16>)>,
    enforcement: &mut Enforcement,
) {
    let Enforcement {
        ports, settings, ..
    } = enforcement;
    match found {
        Ok(found) => ports.apply_listening(settings, found),
        Err(error) => ports.complain(&error.into()),
    }
    if enforcement.apply_exposures() {
        enforcement.show_ports();
    }
}

/// In monitor mode, lets the programs ask about ports on which something has begun to wait.
pub(super) fn apply_waiting(found: anyhow::Result<PortBitmap>, enforcement: &mut Enforcement) {
    match found {
        Ok(ports) => enforcement.guard.note_waiting(&ports),
        Err(error) => enforcement.ports.complain(&error.into()),
    }
}

/// Exposes what the kernel receives on, and guards what it does not any more. What cannot be asked
/// stays as it is until the next look.
pub(super) fn apply_tunnels(
    found: anyhow::Result<BTreeSet<TunnelPort>>,
    enforcement: &mut Enforcement,
) {
    match found {
        Ok(kernel) => enforcement.ports.expose_kernel(kernel),
        Err(error) => enforcement.ports.complain(&error.into()),
    }
    if enforcement.apply_exposures() {
        enforcement.show_ports();
    }
}
