//! What is done about listeners on guarded ports. Pure.

use guard_common::frame::transport::Transport;

use super::{
    Listener, ListenerTerms,
    messages::{self, ListenerWarning},
};
use crate::{
    base::failure::Failure,
    config::{Exposed, ListenersPolicy, Mode},
};

/// When listeners are decided about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the guard comes into force: it can still be refused.
    Start,
    /// While the guard is in force, and these ports have just become guarded.
    Growth,
    /// While the guard is in force, and these ports were guarded before.
    Watch,
}

/// What is done about the listeners of one survey.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerDecision {
    /// Lines for the log.
    pub warnings: Vec<ListenerWarning>,
    /// Ports to leave open for the rest of the run, although the user did not say so.
    pub kept: Vec<Exposed>,
    /// Ports to leave open for as long as something listens there, as the user has said.
    pub exposures: Vec<Exposed>,
    /// Listeners that unsolicited packets do not reach.
    pub blocked: Vec<Listener>,
}

impl ListenerDecision {
    /// Adds another one.
    pub fn add(&mut self, other: Self) {
        self.warnings.extend(other.warnings);
        self.kept.extend(other.kept);
        self.exposures.extend(other.exposures);
        self.blocked.extend(other.blocked);
    }
}

/// What is to be done about one listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Block,
    /// Leave it open while it listens.
    Expose,
    /// Leave it open, because it serves a peer now.
    Keep,
    Refuse,
}

/// Decides about the listeners of one survey.
///
/// UDP sockets may be clients, so they are warned about and no more.
///
/// # Errors
/// At the start, when the policy or a connection in use forbids it: names the listeners and the
/// flags that expose them, exit code 78. Never in monitor mode, which drops nothing.
pub fn decide(
    terms: ListenerTerms<'_>,
    moment: Moment,
    listeners: &[Listener],
) -> Result<ListenerDecision, Failure> {
    let mut verdict = ListenerDecision::default();
    let (mut refused, mut open) = (Vec::new(), Vec::new());
    for listener in listeners {
        match fate(terms, moment, listener) {
            Fate::Block => verdict.blocked.push(Listener {
                advice: messages::advice(listener, terms),
                ..listener.clone()
            }),
            Fate::Expose => {
                verdict.exposures.extend(listener.exposure());
                open.push(listener);
            }
            Fate::Keep => {
                verdict.kept.extend(listener.exposure());
                open.push(listener);
            }
            Fate::Refuse => refused.push(listener),
        }
    }
    if let Some(failure) = messages::refusal(&refused) {
        return Err(failure);
    }
    verdict.warnings.extend(messages::exposed(&open));
    verdict
        .warnings
        .extend(messages::blocked(&verdict.blocked, terms));

    Ok(verdict)
}

/// Decides about the listeners that a start finds. Those on ports that an earlier run has left `open`, and
/// that is still in force, are treated as when its range had grown over them: a start must not fail
/// over what that run allowed.
///
/// # Errors
/// As [`decide`].
pub fn decide_at_start(
    terms: ListenerTerms<'_>,
    open: impl Fn(&Listener) -> bool,
    listeners: Vec<Listener>,
) -> Result<ListenerDecision, Failure> {
    let (open, guarded): (Vec<_>, Vec<_>) = listeners.into_iter().partition(open);
    let mut verdict = decide(terms, Moment::Start, &guarded)?;
    verdict.add(decide(terms, Moment::Growth, &open)?);

    Ok(verdict)
}

fn fate(terms: ListenerTerms<'_>, moment: Moment, listener: &Listener) -> Fate {
    match listener.transport {
        Transport::Udp | Transport::UdpLite => Fate::Block,
        Transport::Tcp => match (terms.policy, terms.mode, moment) {
            (ListenersPolicy::Expose, _, _) => Fate::Expose,
            (ListenersPolicy::Warn, _, _) => Fate::Block,
            (ListenersPolicy::Auto | ListenersPolicy::Refuse, Mode::Monitor, _) => Fate::Block,
            (ListenersPolicy::Refuse, Mode::Enforce, Moment::Start) => Fate::Refuse,
            (ListenersPolicy::Auto, Mode::Enforce, Moment::Start) if listener.serves.is_some() => {
                Fate::Refuse
            }
            (ListenersPolicy::Auto | ListenersPolicy::Refuse, Mode::Enforce, Moment::Growth)
                if listener.serves.is_some() =>
            {
                Fate::Keep
            }
            (ListenersPolicy::Auto | ListenersPolicy::Refuse, Mode::Enforce, _) => Fate::Block,
        },
    }
}

#[cfg(test)]
mod tests;
