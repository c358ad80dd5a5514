//! Following the interfaces: what they are, what they count, and whether programs are on them.

use rtnetlink::Handle;

use super::{enforcement::Enforcement, messages, surveys::Question};
use crate::{
    guard::alarms::AlarmKind,
    host::interfaces::{self, Counted, Interface},
};

/// Questions about interfaces.
pub(super) struct InterfaceSurveys {
    netlink: Handle,
    /// The interfaces, and whether the kernel had told of a change before.
    pub(super) interfaces: Question<(Vec<Interface>, bool)>,
    /// What guarded interfaces have counted, by their indices.
    pub(super) statistics: Question<Vec<(u32, Counted)>>,
    /// What the service manager shows of the guard.
    told: String,
}

impl InterfaceSurveys {
    pub(super) fn new(netlink: Handle) -> Self {
        Self {
            netlink,
            interfaces: Question::default(),
            statistics: Question::default(),
            told: String::new(),
        }
    }

    /// Says that every interface that is there is guarded.
    pub(super) fn ready(&mut self, enforcement: &Enforcement) {
        self.told = messages::ready(
            &enforcement.guard.attachments(),
            &enforcement.settings,
            &enforcement.ports.local,
        );
    }

    /// Looks at the interfaces. `changed` says whether the kernel has told of a change.
    pub(super) fn look(&mut self, changed: bool) {
        let netlink = self.netlink.clone();
        self.interfaces
            .send(async move { Ok((interfaces::list(&netlink).await?, changed)) });
    }

    /// Puts programs back where they are missing, and tells them about addresses.
    pub(super) async fn follow(
        &mut self,
        found: anyhow::Result<(Vec<Interface>, bool)>,
        enforcement: &mut Enforcement,
    ) {
        let mut notes = Vec::new();
        let looked = match found {
            Ok((interfaces, changed)) => {
                let guarded = enforcement.ports.guarded();
                let around = (&self.netlink, interfaces.as_slice());
                let Enforcement {
                    guard, settings, ..
                } = enforcement;
                let followed = guard
                    .follow_interfaces(settings, &guarded, around, &mut notes)
                    .await;
                followed.and(guard.refresh(&interfaces, changed, &mut notes))
            }
            Err(error) => Err(error),
        };
        let alarms = enforcement.guard.alarms();
        match looked {
            Ok(()) => alarms.clear("", AlarmKind::Unwatched),
            // What is shown is as old as the last look that did not fail.
            Err(error) => {
                let text = format!("the interfaces cannot be looked at: {error:#}");
                alarms.raise("", AlarmKind::Unwatched, &text);
            }
        }
        self.show(notes, enforcement);
    }

    /// Asks what the interfaces have counted.
    pub(super) fn count(&mut self, enforcement: &Enforcement) {
        let (netlink, devices) = (self.netlink.clone(), enforcement.guard.indices());
        self.statistics.send(async move {
            let mut statistics = Vec::new();
            for index in devices {
                statistics.push((index, interfaces::look(&netlink, index).await));
            }
            Ok(statistics)
        });
    }

    /// Looks whether the programs see what the interfaces have counted.
    pub(super) fn compare(
        &mut self,
        statistics: anyhow::Result<Vec<(u32, Counted)>>,
        enforcement: &mut Enforcement,
    ) {
        // Each of them fails by itself.
        let statistics = statistics.unwrap_or_default();
        let mut notes = Vec::new();
        let Enforcement {
            guard,
            settings,
            observer,
            ..
        } = enforcement;
        let counted = |slot| observer.counted(slot);
        guard.compare(settings, statistics, counted, &mut notes);
        self.show(notes, enforcement);
    }

    /// Shows where programs are attached, and logs these notes.
    pub(super) fn show(&mut self, notes: Vec<String>, enforcement: &Enforcement) {
        for note in notes {
            tracing::warn!("{note}");
        }
        let Enforcement {
            guard, observer, ..
        } = enforcement;
        observer.update(|knowledge| {
            knowledge.interfaces = guard.attachments();
            knowledge.slots = guard.slots();
            knowledge.links = guard.links();
        });
        observer.set_guarded(guard.guards_all());
        messages::state_changed(
            &mut self.told,
            &guard.attachments(),
            &enforcement.settings,
            &enforcement.ports.local,
        );
    }

    /// Puts back at once what somebody else has taken off.
    pub(super) fn follow_links(&mut self, enforcement: &Enforcement) {
        if enforcement.guard.has_lost_a_link() {
            enforcement.observer.set_guarded(false);
            self.look(false);
        }
    }
}
