//! Which ports are in force, and what listens on them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use guard_common::frame::transport::Transport;
use ipnet::IpNet;

use crate::{
    base::failure::Failure,
    bpf::maps::StateMemory,
    config::{Exposed, ListenersPolicy, Settings},
    guard::listeners::{
        self, Listener, ListenerDecision, ListenerTerms, ListenerWarning, ListeningPrograms,
        Moment, OwnerNames, Survey,
    },
    host::{
        range::{GuardedPorts, LocalFiles, LocalPorts, PortRange},
        tunnels::TunnelPort,
    },
};

/// So many ranges of ports are named where a change is announced: a host may have thousands.
const MOST_LISTED: usize = 64;

/// How long a start waits for the names of listeners, so that it can say who forbids it.
const NAMES_AT_START: Duration = Duration::from_millis(500);

/// How long it may take to put other ports in force once they have been noticed.
const PROMISED: Duration = Duration::from_millis(250);

/// Warnings about listeners that are given in one run. What comes after is only counted.
const MOST_SAID: usize = 256;

/// Of these, so many may be about one program.
const MOST_ABOUT_ONE: usize = 4;

/// How long a UDP socket that appears is given to send something: what sends is a client.
const SILENT: Duration = Duration::from_secs(9);

/// The ports in force, and why they are what they are.
#[derive(Clone, Debug)]
pub struct PortsInForce {
    /// What the kernel or the user says.
    pub local: LocalPorts,
    /// Where the kernel says it.
    files: Arc<LocalFiles>,
    /// Listeners that unsolicited packets do not reach.
    pub blocked: Vec<Listener>,
    /// What the settings expose.
    configured: Vec<(Transport, PortRange)>,
    /// What stays exposed because somebody was being served there when it became guarded. Only
    /// grows: who was let in is not shut out again.
    kept: Vec<Exposed>,
    /// What is exposed for as long as something listens there.
    listening: Vec<Exposed>,
    /// What is exposed for as long as the kernel receives there.
    kernel: BTreeSet<TunnelPort>,
    /// What was seen of each program.
    programs: ListeningPrograms,
    /// Since when UDP sockets on these ports have been seen to send nothing.
    silent: BTreeMap<(u8, u16), Instant>,
    /// Warnings that were given already.
    said: HashMap<String, Said>,
    /// Whether the last attempt to read the ports failed, and how.
    complaint: Option<String>,
}

/// What was said about one program.
#[derive(Clone, Debug, Default)]
struct Said {
    lines: usize,
    ports: HashSet<(u8, u16)>,
}

impl PortsInForce {
    /// Reads the ports, and checks the listeners on them, beside what an `earlier` run has left in
    /// force.
    ///
    /// # Errors
    /// When the ports cannot be read, or a listener forbids the start: exit code 78.
    pub async fn start(
        settings: &Settings,
        earlier: Option<&StateMemory>,
        names: &mut OwnerNames,
    ) -> Result<Self, Failure> {
        let files = Arc::new(LocalFiles::open()?);
        let mut ports = Self {
            local: files.read(settings.range)?,
            files,
            blocked: Vec::new(),
            configured: settings.exposures().collect(),
            kept: Vec::new(),
            listening: Vec::new(),
            kernel: BTreeSet::new(),
            programs: ListeningPrograms::default(),
            silent: BTreeMap::new(),
            said: HashMap::new(),
            complaint: None,
        };
        // Here: there are no other threads while this one has its privileges.
        let mut found =
            listeners::survey(&ports.regardless(), &trusted(settings), &settings.iface)?;
        names.wait_for(&found.listeners, NAMES_AT_START).await;
        names.name(&mut found.listeners);
        let has_flows =
            |transport, port| earlier.is_some_and(|state| state.has_flows(transport, port));
        found
            .listeners
            .retain(|listener| !listener.is_client(has_flows));
        // These are older than the guard, and nothing tells for how long they have been silent.
        ports.silent = found
            .listeners
            .iter()
            .filter(|listener| listener.transport != Transport::Tcp)
            .filter_map(|listener| Some((key(listener), Instant::now().checked_sub(SILENT)?)))
            .collect();
        let open = |listener: &Listener| {
            earlier.is_some_and(|state| !state.guards(listener.transport, listener.port))
        };
        ports.programs.note(&found.listeners);
        let verdict = listeners::decide_at_start(ports.terms(settings), open, found.listeners)?;
        ports.heed(found.kernel, verdict, names.is_settled());

        Ok(ports)
    }

    /// The guarded ports.
    pub fn guarded(&self) -> GuardedPorts {
        let listening = self.listening.iter().chain(&self.kept);
        let exposed = listening
            .map(|exposed| (exposed.transport, exposed.ports))
            .chain(self.configured.iter().copied());
        let kernel = self.kernel.iter().map(|port| (port.port, port.address));

        GuardedPorts::new(&self.local, exposed).but_for_kernel(kernel)
    }

    /// The ports that would be guarded, whatever listens there at the moment.
    fn regardless(&self) -> GuardedPorts {
        let kept = self
            .kept
            .iter()
            .map(|exposed| (exposed.transport, exposed.ports));

        GuardedPorts::new(&self.local, self.configured.iter().copied().chain(kept))
    }

    /// What unsolicited senders may reach, no matter who said so.
    pub fn exposed(&self) -> Vec<Exposed> {
        let configured = self
            .configured
            .iter()
            .map(|&(transport, ports)| Exposed { transport, ports });
        let kernel = self.kernel.iter().filter_map(|port| {
            Some(Exposed {
                transport: Transport::Udp,
                ports: PortRange::new(port.port, port.port).ok()?,
            })
        });
        let mut exposed: Vec<_> = configured
            .chain(self.kept.iter().copied())
            .chain(self.listening.iter().copied())
            .chain(kernel)
            .collect();
        exposed.sort_by_key(|exposed| (exposed.transport as u8, exposed.ports));
        exposed.dedup();

        exposed
    }

    /// What the kernel and the settings ask for instead, if anything. Who listens on ports that become
    /// guarded is not taken into account yet: see [`admit`](Self::admit).
    ///
    /// # Errors
    /// When the ports cannot be read.
    pub fn wanted(&self, settings: &Settings) -> Result<Option<Self>, Failure> {
        let local = self.files.read(settings.range)?;
        let configured: Vec<_> = settings.exposures().collect();
        if local == self.local && configured == self.configured {
            return Ok(None);
        }

        let mut next = Self {
            local,
            configured,
            ..self.clone()
        };
        let guarded = next.regardless();
        (next.blocked).retain(|listener| guarded.guarded(listener.transport, listener.port));

        Ok(Some(next))
    }

    /// Whether ports become guarded that were not `before`, so that it matters who listens there.
    pub fn grow_from(&self, before: &Self) -> bool {
        self.regardless().without(&before.regardless()).is_some()
    }

    /// Takes in who listens on these ports. Somebody who is being served on one that becomes guarded,
    /// as it was not `before`, keeps it.
    ///
    /// # Errors
    /// When the listeners forbid what the settings ask for.
    pub fn admit(
        &mut self,
        settings: &Settings,
        before: Option<&Self>,
        mut found: Survey,
        names: &mut OwnerNames,
        has_flows: impl Fn(Transport, u16) -> bool,
    ) -> Result<(), Failure> {
        names.ask_about(&found.listeners);
        names.name(&mut found.listeners);
        let kernel = self.notice(found, has_flows);
        let guarded = before.map(Self::regardless);
        let (old, new): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.blocked)
                .into_iter()
                .partition(|listener| {
                    let guards =
                        |guarded: &GuardedPorts| guarded.guarded(listener.transport, listener.port);
                    guarded.as_ref().is_some_and(guards)
                });
        let mut verdict = listeners::decide(self.terms(settings), Moment::Watch, &old)?;
        verdict.add(listeners::decide(
            self.terms(settings),
            Moment::Growth,
            &new,
        )?);
        self.heed(kernel, verdict, names.is_settled());

        Ok(())
    }

    /// Asks for the listeners on ports that are guarded, or would be if nothing listened there.
    pub fn ask_for_listeners(
        &self,
        settings: &Settings,
    ) -> impl FnOnce() -> anyhow::Result<(GuardedPorts, Survey)> + Send + 'static {
        let (guarded, trusted) = (self.regardless(), trusted(settings));
        let interfaces = settings.iface.clone();

        move || {
            let found = listeners::survey(&guarded, &trusted, &interfaces)?;
            Ok((guarded, found))
        }
    }

    /// Takes in what was found on those ports. Returns false where others are guarded by now.
    ///
    /// # Errors
    /// When the listeners forbid what the settings ask for.
    pub fn apply_listeners(
        &mut self,
        settings: &Settings,
        (about, mut found): (GuardedPorts, Survey),
        names: &mut OwnerNames,
        has_flows: impl Fn(Transport, u16) -> bool,
    ) -> Result<bool, Failure> {
        if about != self.regardless() {
            return Ok(false);
        }
        names.ask_about(&found.listeners);
        names.name(&mut found.listeners);
        let kernel = self.notice(found, has_flows);
        let found = std::mem::take(&mut self.blocked);
        let verdict = listeners::decide(self.terms(settings), Moment::Watch, &found)?;
        self.heed(kernel, verdict, names.is_settled());
        self.complaint = None;

        Ok(true)
    }

    /// Asks on which of these ports something has begun to listen by TCP. Who it is, the next survey
    /// tells.
    pub fn ask_for_listening(
        &self,
    ) -> impl FnOnce() -> anyhow::Result<(GuardedPorts, BTreeSet<u16>)> + Send + 'static {
        let guarded = self.regardless();

        move || {
            let listening = listeners::listening(&guarded)?;
            Ok((guarded, listening))
        }
    }

    /// With `--listeners expose`, exposes what has begun to listen since the last look, and takes
    /// back what listens no more. What was found on other ports than those of now says nothing.
    pub fn apply_listening(
        &mut self,
        settings: &Settings,
        (about, listening): (GuardedPorts, BTreeSet<u16>),
    ) {
        if settings.listeners != ListenersPolicy::Expose {
            self.listening.clear();
            return;
        }
        if about != self.regardless() {
            return;
        }
        self.listening = listening
            .into_iter()
            .filter_map(|port| {
                Some(Exposed {
                    transport: Transport::Tcp,
                    ports: PortRange::new(port, port).ok()?,
                })
            })
            .collect();
    }

    /// Exposes what the kernel receives on, and nothing that it does not any more.
    pub fn expose_kernel(&mut self, kernel: BTreeSet<TunnelPort>) {
        let guarded = self.regardless();
        self.kernel = kernel
            .into_iter()
            .filter(|port| guarded.guarded(Transport::Udp, port.port))
            .collect();
        let warnings: Vec<_> = self.kernel.iter().map(listeners::kernel_port).collect();
        for warning in warnings {
            self.say(warning);
        }
    }

    /// Takes in what a survey has found: sets `blocked` to all listeners that are no clients, as
    /// far as is known by now, and returns the kernel's ports.
    fn notice(
        &mut self,
        found: Survey,
        has_flows: impl Fn(Transport, u16) -> bool,
    ) -> BTreeSet<TunnelPort> {
        let before = std::mem::take(&mut self.silent);
        let now = Instant::now();
        let mut listeners = found.listeners;
        listeners.retain(|listener| {
            if listener.transport == Transport::Tcp {
                return true;
            }
            if listener.is_client(&has_flows) {
                return false;
            }
            let since = before.get(&key(listener)).copied().unwrap_or(now);
            self.silent.insert(key(listener), since);
            now.duration_since(since) >= SILENT
        });
        self.programs.note(&listeners);
        self.blocked = listeners;

        found.kernel
    }

    /// Logs what has changed, and that it `took` too long to put in force if it did.
    pub fn announce(&self, before: &Self, took: Duration) {
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
        if took > PROMISED {
            tracing::warn!(
                "that took {} ms: this host has so many sockets or tracked connections that a range \
                 comes into force later than within 300 ms",
                took.as_millis()
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

    fn terms(&self, settings: &Settings) -> ListenerTerms<'_> {
        ListenerTerms {
            policy: settings.listeners,
            mode: settings.mode,
            range: self.local.range,
            programs: &self.programs,
        }
    }

    /// Does what was decided. What is said of listeners that are left as they are waits until their
    /// names are `settled`: it is said at the next look then.
    fn heed(&mut self, kernel: BTreeSet<TunnelPort>, verdict: ListenerDecision, settled: bool) {
        for warning in verdict.warnings {
            if settled || warning.is_final {
                self.say(warning);
            }
        }
        self.expose_kernel(kernel);
        for exposure in verdict.kept {
            if !self.kept.contains(&exposure) {
                self.kept.push(exposure);
            }
        }
        self.listening = verdict.exposures;
        self.blocked = verdict.blocked;
    }

    /// Anyone who opens sockets without end fills neither the log nor the memory.
    fn say(&mut self, warning: ListenerWarning) {
        if !self.said.contains_key(&warning.about) && self.said.len() == MOST_SAID {
            return;
        }
        let said = self.said.entry(warning.about).or_default();
        let mut news = said.lines == 0;
        for (transport, port) in warning.ports {
            news |= said.ports.insert((transport as u8, port));
        }
        if news && said.lines < MOST_ABOUT_ONE {
            said.lines += 1;
            tracing::warn!("{}", warning.text);
        }
    }
}

fn key(listener: &Listener) -> (u8, u16) {
    (listener.transport as u8, listener.port)
}

fn trusted(settings: &Settings) -> Vec<IpNet> {
    settings.trust.iter().copied().collect()
}

fn list<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    let left_out = items.len().saturating_sub(MOST_LISTED);
    let items: Vec<_> = (items.iter().take(MOST_LISTED))
        .map(ToString::to_string)
        .collect();
    let items = items.join(",");
    match left_out {
        0 => items,
        _ => format!("{items} and {left_out} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_of_bounded_length() {
        assert_eq!(list::<u16>(&[]), "none");
        assert_eq!(list(&[1, 2]), "1,2");
        let many: Vec<_> = (32_768..60_999).collect();
        let said = list(&many);
        assert!(
            said.starts_with("32768,32769,") && said.len() < 512,
            "{said}"
        );
        assert!(said.ends_with(" and 28167 more"), "{said}");
    }
}
