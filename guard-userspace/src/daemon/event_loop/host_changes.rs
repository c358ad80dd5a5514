//! Following what changes while the daemon runs: the range, the listeners and the interfaces.

use std::{
    collections::BTreeSet,
    mem,
    time::{Duration, Instant},
};

use super::{Daemon, messages, ports::PortsInForce};
use crate::{
    base::failure::Failure,
    config,
    guard::{
        alarms::AlarmKind,
        lifecycle::{Learn, Preexisting},
        listeners::Survey,
    },
    host::{
        interfaces::{self, Counted, Interface},
        range::{GuardedPorts, PortBitmap},
        sockets,
        tunnels::TunnelPort,
    },
};

/// A change that is in force.
pub(super) struct Change {
    /// The ports that were in force before.
    before: PortsInForce,
    /// How long it took since it was noticed.
    took: Duration,
    /// What was learned of flows for it.
    learned: Preexisting,
    /// What is left to learn.
    rest: Learn,
}

impl Daemon {
    /// Puts the kernel's range in force when it has changed.
    pub(super) async fn follow_range(&mut self) {
        match self.apply_ports().await {
            Ok(()) => self.guard.alarms().clear("", AlarmKind::Range),
            Err(failure) => {
                let text = format!("the ports in force stay: {failure}");
                self.guard.alarms().raise("", AlarmKind::Range, &text);
            }
        }
    }

    pub(super) async fn apply_ports(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let guard = &self.guard;
        let has_flows = |transport, port| guard.has_flows(transport, port);
        let next = self
            .ports
            .next(&self.settings, &mut self.names, has_flows)
            .await?;
        let Some(next) = next else {
            return Ok(());
        };
        let changed = self.put_in_force(next, began).await?;
        let learned = self.learn_rest(&changed).await;
        self.announce(&changed);
        self.warn_of(&changed);
        if let Err(failure) = learned {
            tracing::error!("{failure}");
        }

        Ok(())
    }

    /// Puts the settings and these ports in force, in one step. The change was noticed when it `began`.
    /// Then [`learn_rest`](Self::learn_rest), so that the log says what was learned before it
    /// [says](Self::announce) what has changed.
    pub(super) async fn put_in_force(
        &mut self,
        next: PortsInForce,
        began: Instant,
    ) -> Result<Change, Failure> {
        let guarded = next.guarded();
        let (learned, rest) = self.guard.change(&self.settings, &guarded, false).await?;
        let took = began.elapsed();
        let before = mem::replace(&mut self.ports, next);
        self.show_ports();

        Ok(Change {
            before,
            took,
            learned,
            rest,
        })
    }

    /// Says which ports have changed.
    pub(super) fn announce(&self, change: &Change) {
        self.ports.announce(&change.before, change.took);
    }

    /// Says what is left open or shut by the ports that are in force now.
    pub(super) fn warn_of(&self, change: &Change) {
        let before = &change.before;
        let told = config::warnings(&self.settings, &before.local);
        for warning in config::warnings(&self.settings, &self.ports.local) {
            if !told.contains(&warning) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Learns of sockets that there was no time for before a change came into force, and says what was
    /// learned.
    pub(super) async fn learn_rest(&mut self, change: &Change) -> Result<(), Failure> {
        let mut preexisting = change.learned.clone();
        let guarded = self.ports.guarded();
        let rest = (self.guard).learn_rest(&self.settings, &guarded, &change.rest);
        let learned = rest.await.map(|rest| preexisting.add(rest));
        messages::learned_more(&preexisting);

        learned.map_err(|error| {
            Failure::from(error).within("the change is in force, but not all flows are known")
        })
    }

    /// Looks for listeners on ports that are guarded already.
    pub(super) fn watch_listeners(&mut self) {
        let question = self.ports.ask_for_listeners(&self.settings);
        self.surveys.listeners.ask(question);
    }

    pub(super) async fn apply_listeners(&mut self, found: anyhow::Result<(GuardedPorts, Survey)>) {
        let guard = &self.guard;
        let has_flows = |transport, port| guard.has_flows(transport, port);
        let applied = found.map_err(Failure::from).and_then(|found| {
            self.ports
                .apply_listeners(&self.settings, found, &mut self.names, has_flows)
        });
        match applied {
            Ok(true) => {}
            // The ports have changed meanwhile.
            Ok(false) => return self.watch_listeners(),
            Err(failure) => self.ports.complain(&failure),
        }
        self.apply_exposures().await;
        self.show_ports();
    }

    /// With `--listeners expose`, follows what begins and ceases to listen.
    pub(super) fn follow_listening(&mut self) {
        let question = self.ports.ask_for_listening();
        self.surveys.listening.ask(question);
    }

    pub(super) async fn apply_listening(
        &mut self,
        found: anyhow::Result<(GuardedPorts, BTreeSet<u16>)>,
    ) {
        match found {
            Ok(found) => self.ports.apply_listening(&self.settings, found),
            Err(error) => self.ports.complain(&error.into()),
        }
        if self.apply_exposures().await {
            self.show_ports();
        }
    }

    /// In monitor mode, follows what begins to wait for packets.
    pub(super) fn follow_waiting(&mut self) {
        self.surveys.waiting.ask(|| {
            let waiting = sockets::waiting()?;
            Ok(waiting.iter().map(|socket| socket.local.port()).collect())
        });
    }

    pub(super) fn apply_waiting(&mut self, found: anyhow::Result<PortBitmap>) {
        match found {
            Ok(ports) => self.guard.note_waiting(&ports),
            Err(error) => self.ports.complain(&error.into()),
        }
    }

    /// Exposes what the kernel receives on, and guards what it does not any more. What cannot be
    /// asked stays as it is until the next look.
    pub(super) async fn apply_tunnels(&mut self, found: anyhow::Result<BTreeSet<TunnelPort>>) {
        match found {
            Ok(kernel) => self.ports.expose_kernel(kernel),
            Err(error) => self.ports.complain(&error.into()),
        }
        if self.apply_exposures().await {
            self.show_ports();
        }
    }

    /// Puts exposures in force when they are others than those in force, and returns whether they
    /// are.
    async fn apply_exposures(&mut self) -> bool {
        let guarded = self.ports.guarded();
        if self.guard.ports() == Some(&guarded) {
            return false;
        }
        // What a listener has accepted outlives it.
        let changed = self.guard.change(&self.settings, &guarded, true).await;
        if let Err(error) = changed {
            self.ports.complain(&error.into());
        }

        true
    }

    pub(super) fn show_ports(&self) {
        self.observer.update(|knowledge| {
            knowledge.local = self.ports.local.clone();
            knowledge.exposed = self.ports.exposed();
            knowledge.blocked = self.ports.blocked.clone();
        });
    }

    /// Looks at the interfaces. `changed` says whether the kernel has told of a change.
    pub(super) fn look_at_interfaces(&mut self, changed: bool) {
        let netlink = self.netlink.clone();
        self.surveys
            .interfaces
            .send(async move { Ok((interfaces::list(&netlink).await?, changed)) });
    }

    /// Puts programs back where they are missing, and tells them about addresses.
    pub(super) async fn follow_interfaces(
        &mut self,
        found: anyhow::Result<(Vec<Interface>, bool)>,
    ) {
        let mut notes = Vec::new();
        let looked = match found {
            Ok((interfaces, changed)) => self.follow(&interfaces, changed, &mut notes).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(()) => self.guard.alarms().clear("", AlarmKind::Unwatched),
            // What is shown is as old as the last look that did not fail.
            Err(error) => {
                let text = format!("the interfaces cannot be looked at: {error:#}");
                self.guard.alarms().raise("", AlarmKind::Unwatched, &text);
            }
        }
        self.show_interfaces(notes);
    }

    /// Asks what the interfaces have counted.
    pub(super) fn count(&mut self) {
        let (netlink, devices) = (self.netlink.clone(), self.guard.indices());
        self.surveys.statistics.send(async move {
            let mut statistics = Vec::new();
            for index in devices {
                statistics.push((index, interfaces::look(&netlink, index).await));
            }
            Ok(statistics)
        });
    }

    /// Looks whether the programs see what the interfaces have counted.
    pub(super) fn compare(&mut self, statistics: anyhow::Result<Vec<(u32, Counted)>>) {
        // Each of them fails by itself.
        let statistics = statistics.unwrap_or_default();
        let mut notes = Vec::new();
        let counted = |slot| self.observer.counted(slot);
        self.guard
            .compare(&self.settings, statistics, counted, &mut notes);
        self.show_interfaces(notes);
    }

    pub(super) fn show_interfaces(&mut self, notes: Vec<String>) {
        for note in notes {
            tracing::warn!("{note}");
        }
        self.observer.update(|knowledge| {
            knowledge.interfaces = self.guard.attachments();
            knowledge.slots = self.guard.slots();
            knowledge.links = self.guard.links();
        });
        self.observer.set_guarded(self.guard.guards_all());
        messages::state_changed(
            &mut self.told,
            &self.guard.attachments(),
            &self.settings,
            &self.ports.local,
        );
    }

    /// Puts back at once what somebody else has taken off.
    pub(super) fn follow_links(&mut self) {
        if self.guard.has_lost_a_link() {
            self.observer.set_guarded(false);
            self.look_at_interfaces(false);
        }
    }

    async fn follow(
        &mut self,
        interfaces: &[Interface],
        changed: bool,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<()> {
        let guarded = self.ports.guarded();
        let around = (&self.netlink, interfaces);
        let followed = self
            .guard
            .follow_interfaces(&self.settings, &guarded, around, notes)
            .await;

        followed.and(self.guard.refresh(interfaces, changed, notes))
    }
}
