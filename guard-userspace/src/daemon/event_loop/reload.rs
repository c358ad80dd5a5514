//! SIGHUP and `portguard reload`: who has asked for one, and what comes of it.

use crate::{
    api::control::{ActionRequest, Reply},
    base::failure::Failure,
    config::Changes,
};

/// What begins the list of keys that a reload leaves as they were.
const RESTART: &str = "takes a restart";

/// What is said of a reload that was not done.
pub(super) const STAYS: &str = "not reloaded, the running configuration stays";

/// A reload that is under way.
pub(super) struct Reloading {
    /// Who waits for what comes of it, but for SIGHUP, with which nobody does.
    asked: Option<ActionRequest>,
    /// In what the settings differ.
    changes: Changes,
    other_ports: bool,
}

impl Reloading {
    /// Nothing is known of what it brings.
    pub(super) fn new(asked: Option<ActionRequest>) -> Self {
        Self {
            asked,
            changes: Changes::default(),
            other_ports: false,
        }
    }

    /// As it is once the file was read.
    pub(super) fn brings(self, changes: Changes, other_ports: bool) -> Self {
        Self {
            changes,
            other_ports,
            ..self
        }
    }

    /// As it is once the kernel's ports have changed.
    pub(super) fn with_other_ports(self, other_ports: bool) -> Self {
        Self {
            other_ports,
            ..self
        }
    }

    /// Whether it puts other ports in force.
    pub(super) const fn has_other_ports(&self) -> bool {
        self.other_ports
    }

    /// Whether it puts other settings in force.
    pub(super) fn has_other_settings(&self) -> bool {
        !self.changes.reloadable.is_empty()
    }

    /// Logs what has come of it, and answers who waits for that.
    pub(super) fn over(self, done: Result<(), Failure>) {
        let done = done.map(|()| self.text());
        match &done {
            Ok(text) if text.contains(RESTART) => tracing::warn!("{text}"),
            Ok(text) => tracing::info!("{text}"),
            Err(failure) => tracing::error!("{failure}"),
        }
        self.answer(done);
    }

    /// Answers that nothing can be read.
    pub(super) fn refuse(self, failure: Failure) {
        self.answer(Err(failure));
    }

    fn answer(self, done: Result<String, Failure>) {
        if let Some(asked) = self.asked {
            // Who has gone away meanwhile finds it in the log.
            let _ = asked.answer.send(Reply::from(done));
        }
    }

    fn text(&self) -> String {
        let done = match self.changes.reloadable.as_slice() {
            [] => "reloaded, nothing has changed".to_owned(),
            changed => format!("reloaded: {}", changed.join(", ")),
        };
        match self.changes.restart.as_slice() {
            [] => done,
            restart => format!("{done}; {RESTART}: {}", restart.join(", ")),
        }
    }
}
