//! Which ports are in force, and what listens on them.

use std::{collections::HashSet, time::Duration};

use guard_common::parse::Transport;
use ipnet::IpNet;

use crate::{
    aside::aside,
    failure::Failure,
    listeners::{self, Listener, Moment, Names, Verdict},
    maps::StateMemory,
    range::{GuardedPorts, LocalPorts, PortRange},
    settings::{Exposed, Settings},
};

/// How long a start waits for the names of listeners, so that it can say who forbids it.
const NAMES_AT_START: Duration = Duration::from_millis(500);

/// Warnings about listeners that are given in one run. What comes after is only counted.
const MOST_SAID: usize = 256;

/// The ports in force, and why they are what they are.
#[derive(Clone, Debug)]
pub struct PortsInForce {
    /// What the kernel or the user says.
    pub local: LocalPorts,
    /// Listeners that strangers cannot reach.
    pub blocked: Vec<Listener>,
    /// What the settings expose.
    configured: Vec<(Transport, PortRange)>,
    /// What listeners made us expose. Only grows: who was let in is not shut out again.
    granted: Vec<Exposed>,
    /// Warnings that were given already.
    said: HashSet<String>,
    /// Whether the last attempt to read the ports failed, and how.
    complaint: Option<String>,
}

impl PortsInForce {
    /// Reads the ports, and judges the listeners on them, beside what an `earlier` run has left in
    /// force.
    ///
    /// # Errors
    /// When the ports cannot be read, or a listener forbids the start: exit code 78.
    pub async fn start(
        settings: &Settings,
        earlier: Option<&StateMemory>,
        names: &mut Names,
    ) -> Result<Self, Failure> {
        let local = LocalPorts::read(settings.range)?;
        let mut ports = Self {
            local,
            blocked: Vec::new(),
            configured: settings.exposures().collect(),
            granted: Vec::new(),
            said: HashSet::new(),
            complaint: None,
        };
        // Here: there are no other threads while this one has its privileges.
        let mut found = listeners::survey(&ports.guarded(), &trusted(settings))?;
        names.wait_for(&found, NAMES_AT_START).await;
        names.name(&mut found);
        let open = |listener: &Listener| {
            earlier.is_some_and(|state| !state.guards(listener.transport, listener.port))
        };
        let verdict = listeners::judge_start(settings.listeners, settings.mode, open, found)?;
        ports.heed(verdict, names.is_settled());

        Ok(ports)
    }

    /// The guarded ports.
    pub fn guarded(&self) -> GuardedPorts {
        let granted = self
            .granted
            .iter()
            .map(|exposed| (exposed.transport, exposed.ports));

        GuardedPorts::new(&self.local, self.configured.iter().copied().chain(granted))
    }

    /// What strangers may reach, whoever said so.
    pub fn exposed(&self) -> Vec<Exposed> {
        let configured = self
            .configured
            .iter()
            .map(|&(transport, ports)| Exposed { transport, ports });
        let mut exposed: Vec<_> = configured.chain(self.granted.iter().copied()).collect();
        exposed.sort_by_key(|exposed| (exposed.transport as u8, exposed.ports));
        exposed.dedup();

        exposed
    }

    /// What is to be in force instead, if the kernel or the settings have changed. Somebody who
    /// is being served on a port that becomes guarded keeps it.
    ///
    /// # Errors
    /// When the ports or the sockets cannot be read.
    pub async fn next(
        &mut self,
        settings: &Settings,
        names: &mut Names,
    ) -> Result<Option<Self>, Failure> {
        let local = LocalPorts::read(settings.range)?;
        self.complaint = None;
        let configured: Vec<_> = settings.exposures().collect();
        if local == self.local && configured == self.configured {
            return Ok(None);
        }

        let mut next = Self {
            local,
            configured,
            ..self.clone()
        };
        let (before, after) = (self.guarded(), next.guarded());
        let (old, new): (Vec<_>, Vec<_>) = survey(after, settings, names)
            .await?
            .into_iter()
            .partition(|listener| before.guarded(listener.transport, listener.port));
        next.blocked.clear();
        for (moment, found) in [(Moment::Watch, old), (Moment::Growth, new)] {
            let verdict = listeners::judge(settings.listeners, settings.mode, moment, &found)?;
            next.heed(verdict, names.is_settled());
        }

        Ok(Some(next))
    }

    /// Looks for listeners on ports that are guarded already.
    ///
    /// # Errors
    /// When the sockets cannot be read.
    pub async fn watch_listeners(
        &mut self,
        settings: &Settings,
        names: &mut Names,
    ) -> anyhow::Result<()> {
        let found = survey(self.guarded(), settings, names).await?;
        let verdict = listeners::judge(settings.listeners, settings.mode, Moment::Watch, &found)?;
        self.blocked.clear();
        self.heed(verdict, names.is_settled());

        Ok(())
    }

    /// Judges the listeners as if their ports had only now become guarded.
    pub async fn grow(&mut self, settings: &Settings, names: &mut Names) {
        let judged = survey(self.guarded(), settings, names)
            .await
            .map_err(Failure::from)
            .and_then(|found| {
                listeners::judge(settings.listeners, settings.mode, Moment::Growth, &found)
            });
        match judged {
            Ok(verdict) => {
                self.blocked.clear();
                self.heed(verdict, names.is_settled());
            }
            Err(failure) => self.complain(&failure),
        }
    }

    /// Logs what has changed.
    pub fn announce(&self, before: &Self) {
        if self.local.range != before.local.range {
            tracing::info!("port range {} -> {}", before.local.range, self.local.range);
        }
        if self.local.reserved != before.local.reserved {
            tracing::info!(
                "reserved ports {} -> {}",
                list(&before.local.reserved),
                list(&self.local.reserved)
            );
        }
        if self.exposed() != before.exposed() {
            tracing::info!(
                "exposed ports {} -> {}",
                list(&before.exposed()),
                list(&self.exposed())
            );
        }
    }

    /// Logs a failure once, until it passes or changes.
    pub fn complain(&mut self, failure: &Failure) {
        let complaint = failure.to_string();
        if self.complaint.as_ref() != Some(&complaint) {
            tracing::error!("the ports in force stay: {complaint}");
            self.complaint = Some(complaint);
        }
    }

    /// Does what was decided. What is said of listeners that are left as they are waits until their
    /// names are `settled`: it is said at the next look then.
    fn heed(&mut self, verdict: Verdict, settled: bool) {
        let warnings = verdict.warnings.into_iter();
        for warning in warnings.filter(|warning| settled || warning.is_final) {
            // Whoever opens sockets without end fills neither the log nor the memory.
            if self.said.len() < MOST_SAID && self.said.insert(warning.about) {
                tracing::warn!("{}", warning.text);
            }
        }
        for exposure in verdict.exposures {
            if !self.granted.contains(&exposure) {
                self.granted.push(exposure);
            }
        }
        self.blocked.extend(verdict.blocked);
    }
}

/// Looks for listeners on these ports, on a thread of its own, and names those whose names are known
/// by now. The others are asked for.
async fn survey(
    guarded: GuardedPorts,
    settings: &Settings,
    names: &mut Names,
) -> anyhow::Result<Vec<Listener>> {
    let trusted = trusted(settings);
    let mut found = aside(move || listeners::survey(&guarded, &trusted)).await??;
    names.ask_about(&found);
    names.name(&mut found);

    Ok(found)
}

fn trusted(settings: &Settings) -> Vec<IpNet> {
    settings.trust.iter().copied().collect()
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();

    items.join(",")
}
