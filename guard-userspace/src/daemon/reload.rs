//! SIGHUP.

use super::{Daemon, announce};
use crate::{log, settings::Mode};

impl Daemon {
    /// Reads the configuration file anew. What cannot be read leaves everything as it is.
    pub(super) async fn reload(&mut self) {
        let wanted = match self.start.settings() {
            Ok(wanted) => wanted,
            Err(failure) => {
                tracing::error!("not reloaded, the running configuration stays: {failure}");
                return;
            }
        };
        let changes = self.settings.changes(&wanted);
        if !changes.restart.is_empty() {
            tracing::warn!("takes a restart: {}", changes.restart.join(", "));
        }
        let reloaded = self.settings.reloaded(&wanted);
        let before = std::mem::replace(&mut self.settings, reloaded);
        if let Err(failure) = self.apply_ports().await {
            tracing::error!("not reloaded, the running configuration stays: {failure}");
            self.settings = before;
            return;
        }
        // A listener that somebody is being served by keeps its port, as if the range had grown.
        if before.mode == Mode::Monitor && self.settings.mode == Mode::Enforce {
            let guard = &self.guard;
            let has_flows = |transport, port| guard.has_flows(transport, port);
            self.ports
                .grow(&self.settings, &mut self.names, has_flows)
                .await;
        }
        let guarded = self.ports.guarded();
        self.guard.guard_ports(&self.settings, &guarded);
        self.show_ports();
        if let Err(error) = self.guard.apply(&self.settings, &guarded).await {
            tracing::error!("not all of the configuration is in force: {error:#}");
        }
        log::configure(self.settings.log_level, self.settings.log_format);
        // Longer timers bring flows back to life whose ports no sweep has marked since they died.
        self.sweep_now.notify_one();
        self.observer.update(|knowledge| {
            knowledge.mode = self.settings.mode;
            knowledge.trusted = self.settings.trust.iter().copied().collect();
        });
        match changes.reloadable.as_slice() {
            [] => tracing::info!("reloaded, nothing has changed"),
            changed => {
                tracing::info!("reloaded: {}", changed.join(", "));
                announce::in_force(&self.guard.attachments(), &self.settings, &self.ports.local);
            }
        }
    }
}
