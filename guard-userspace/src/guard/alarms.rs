//! What is wrong with the guard at this moment, in the administrator's words.
//!
//! An alarm is raised where something is found to be wrong and cleared where it is found to be
//! right again. While one is up, `/healthz` and `/readyz` answer 503 and `status` shows it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::base::text::one_line;

/// The longest text of an alarm, in characters.
const LONGEST: usize = 512;

/// What an alarm is about. There is one at most of a kind and an interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum AlarmKind {
    /// A program was taken off the interface by somebody else.
    Detached,
    /// Packets that the interface has received do not meet the XDP program.
    UnseenReceived,
    /// Packets that the interface sends do not meet the egress program.
    UnseenSent,
    /// Somebody stands before the egress program and ends its chain.
    Chain,
    /// The kernel does not tell what is attached to the interfaces.
    Unwatched,
    /// What the interfaces count cannot be compared with what the programs count.
    Uncompared,
    /// The ports in force could not follow the kernel's range or the settings.
    Range,
    /// The sweeps have failed, without which ports and tuples in use are not told apart.
    Sweep,
}

impl AlarmKind {
    /// The kind in JSON.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::UnseenReceived => "unseen_received",
            Self::UnseenSent => "unseen_sent",
            Self::Chain => "chain",
            Self::Unwatched => "unwatched",
            Self::Uncompared => "uncompared",
            Self::Range => "range",
            Self::Sweep => "sweep",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// The interface, or empty where it is about the guard as a whole.
    pub device: String,
    /// What it is about.
    pub kind: AlarmKind,
    /// What is wrong, why as far as that is known, and the remedy. Without control characters.
    pub text: String,
}

/// The alarms that are up. Shared by everybody who finds out that something is wrong.
#[derive(Debug, Default)]
pub struct Alarms(Mutex<BTreeMap<(String, AlarmKind), String>>);

impl Alarms {
    /// Raises an alarm, or changes the text of one that is up. It is logged when it is new or its
    /// text has changed, so the text must not hold a number that runs.
    pub fn raise(&self, device: &str, kind: AlarmKind, text: &str) {
        let text = plain(text);
        let before = self.lock().insert((device.to_owned(), kind), text.clone());
        if before.as_ref() != Some(&text) {
            tracing::error!("{}{text}", prefix(device));
        }
    }

    /// Ends an alarm, which is logged. Nothing happens where it is not up.
    pub fn clear(&self, device: &str, kind: AlarmKind) {
        if let Some(text) = self.lock().remove(&(device.to_owned(), kind)) {
            tracing::info!("{}over: {text}", prefix(device));
        }
    }

    /// Keeps the alarms of an interface that has another name now.
    pub fn rename(&self, from: &str, to: &str) {
        let mut alarms = self.lock();
        let moved: Vec<_> = alarms
            .extract_if(.., |(device, _), _| device == from)
            .collect();
        alarms.extend(
            moved
                .into_iter()
                .map(|((_, kind), text)| ((to.to_owned(), kind), text)),
        );
    }

    /// Ends the alarms of an interface that is gone. That it is gone shows by itself.
    pub fn forget(&self, device: &str) {
        self.lock().retain(|(about, _), _| about != device);
    }

    /// Whether this alarm is up.
    pub fn is_up(&self, device: &str, kind: AlarmKind) -> bool {
        self.lock().contains_key(&(device.to_owned(), kind))
    }

    /// Whether no alarm is up.
    pub fn is_quiet(&self) -> bool {
        self.lock().is_empty()
    }

    /// Those that are up, by interface.
    pub fn list(&self) -> Vec<Alarm> {
        self.lock()
            .iter()
            .map(|((device, kind), text)| Alarm {
                device: device.clone(),
                kind: *kind,
                text: text.clone(),
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, AlarmKind), String>> {
        // No change of the map can be left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn prefix(device: &str) -> String {
    if device.is_empty() {
        String::new()
    } else {
        format!("{device}: ")
    }
}

/// `text` in one line of bounded length: it may name programs, whose names others choose.
fn plain(text: &str) -> String {
    one_line(text).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_kind_and_an_interface() {
        let alarms = Alarms::default();
        assert!(alarms.is_quiet());
        alarms.raise("eth0", AlarmKind::Chain, "first");
        alarms.raise("eth0", AlarmKind::Chain, "second\nerror: forged");
        alarms.raise("eth0", AlarmKind::Uncompared, &"x".repeat(10_000));
        alarms.raise("", AlarmKind::Unwatched, "no answer");
        let list = alarms.list();
        let of = |alarm: &Alarm| (alarm.device.clone(), alarm.kind.label());
        assert_eq!(
            list.iter().map(of).collect::<Vec<_>>(),
            [
                (String::new(), "unwatched"),
                ("eth0".to_owned(), "chain"),
                ("eth0".to_owned(), "uncompared"),
            ]
        );
        assert_eq!(list[1].text, "second?error: forged");
        assert_eq!(list[2].text.len(), LONGEST);

        alarms.clear("eth1", AlarmKind::Chain);
        alarms.rename("eth0", "lan0");
        alarms.clear("lan0", AlarmKind::Chain);
        alarms.clear("lan0", AlarmKind::Uncompared);
        assert!(!alarms.is_quiet());
        alarms.clear("", AlarmKind::Unwatched);
        assert!(alarms.is_quiet());
    }
}
