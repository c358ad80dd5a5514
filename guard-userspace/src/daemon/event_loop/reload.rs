//! SIGHUP and `portguard reload`.

use std::{mem, time::Instant};

use super::{Daemon, host_changes::Change, messages};
use crate::{
    api::{
        control::{Action, ActionRequest, Reply},
        snapshot::LoadedConfig,
    },
    base::failure::Failure,
    config::Mode,
    daemon::log,
};

/// What begins the list of keys that a reload leaves as they were.
const RESTART: &str = "takes a restart";

impl Daemon {
    /// Does what somebody asks for who waits for the outcome.
    pub(super) async fn act_for(&mut self, request: ActionRequest) {
        tracing::info!("{}: asked for by {}", request.action.name(), request.peer);
        let done = match request.action {
            Action::Reload => self.reload_file().await,
        };
        // Who has gone away meanwhile finds it in the log.
        let _ = request.answer.send(Reply::from(done));
    }

    async fn reload_file(&mut self) -> Result<String, Failure> {
        if self.start.config.is_none() {
            return Err(
                Failure::usage("the running guard has no configuration file to read")
                    .remedy("start it with --config FILE"),
            );
        }

        self.reload().await
    }

    /// Reads the configuration file anew, and returns what has changed. What cannot be read leaves
    /// everything as it is.
    ///
    /// # Errors
    /// Exit code 78 when the file is at fault. Was logged already.
    pub(super) async fn reload(&mut self) -> Result<String, Failure> {
        let done = self.read_anew().await;
        self.observer.update(|knowledge| {
            let config = &mut knowledge.config;
            match &done {
                Ok(_) => *config = LoadedConfig::now(&self.settings),
                Err(_) => config.last_reload_successful = false,
            }
        });
        match &done {
            Ok(text) if text.contains(RESTART) => tracing::warn!("{text}"),
            Ok(text) => tracing::info!("{text}"),
            Err(failure) => tracing::error!("{failure}"),
        }

        done
    }

    async fn read_anew(&mut self) -> Result<String, Failure> {
        const STAYS: &str = "not reloaded, the running configuration stays";

        let wanted = self
            .start
            .settings()
            .map_err(|failure| failure.within(STAYS))?;
        let changes = self.settings.changes(&wanted);
        let reloaded = self.settings.reloaded(&wanted);
        let before = mem::replace(&mut self.settings, reloaded);
        let (change, other_ports) = match self.change(before.mode).await {
            Ok(change) => change,
            Err(failure) => {
                self.settings = before;
                return Err(failure.within(STAYS));
            }
        };
        let learned = self.learn_rest(&change).await;
        if other_ports {
            self.announce(&change);
            // Where the settings are others too, what is in force is said as a whole.
            if changes.reloadable.is_empty() {
                self.warn_of(&change);
            }
        }
        log::configure(self.settings.log_level, self.settings.log_format);
        // Longer timers bring flows back to life whose ports no sweep has marked since they died.
        self.sweep_now.notify_one();
        self.observer.update(|knowledge| {
            knowledge.mode = self.settings.mode;
            knowledge.trusted = self.settings.trust.iter().copied().collect();
        });
        if !changes.reloadable.is_empty() {
            messages::in_force(&self.guard.attachments(), &self.settings, &self.ports.local);
        }
        learned?;

        let done = match changes.reloadable.as_slice() {
            [] => "reloaded, nothing has changed".to_owned(),
            changed => format!("reloaded: {}", changed.join(", ")),
        };
        Ok(match changes.restart.as_slice() {
            [] => done,
            restart => format!("{done}; {RESTART}: {}", restart.join(", ")),
        })
    }

    /// Puts the settings in force, all of them at once, and the ports that follow from them. `before`
    /// is the mode so far. Returns whether the ports are others, too.
    async fn change(&mut self, before: Mode) -> Result<(Change, bool), Failure> {
        let began = Instant::now();
        let guard = &self.guard;
        let has_flows = |transport, port| guard.has_flows(transport, port);
        let next = self
            .ports
            .next(&self.settings, &mut self.names, has_flows)
            .await?;
        let other_ports = next.is_some();
        let mut next = next.unwrap_or_else(|| self.ports.clone());
        // A listener that somebody is being served by keeps its port, as if the range had grown.
        if before == Mode::Monitor && self.settings.mode == Mode::Enforce {
            next.grow(&self.settings, &mut self.names, has_flows).await;
        }

        Ok((self.put_in_force(next, began).await?, other_ports))
    }
}
