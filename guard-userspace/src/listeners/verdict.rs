//! What is done about listeners on guarded ports. Pure.

use std::collections::BTreeMap;

use guard_common::parse::Transport;

use super::{Listener, Owner};
use crate::{
    failure::Failure,
    settings::{Exposed, ListenersPolicy, Mode},
};

/// When listeners are judged.
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
pub struct Verdict {
    /// Lines for the log.
    pub warnings: Vec<Warning>,
    /// Ports to leave open although the user did not say so.
    pub exposures: Vec<Exposed>,
    /// Listeners that strangers cannot reach.
    pub blocked: Vec<Listener>,
}

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What it is about, equal for the same listener at the next survey: say it once.
    pub about: String,
    /// The line.
    pub text: String,
    /// Whether the next survey says nothing of it: then it must be said now, with a name or without.
    pub is_final: bool,
}

/// What is to be done about one listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Block,
    Expose,
    Refuse,
}

/// Judges the listeners of one survey.
///
/// The kernel's own UDP sockets are exposed whatever the policy. Other UDP sockets may be
/// clients, so they are warned about and no more.
///
/// # Errors
/// At the start, when the policy or a connection in use forbids it: names the listeners and the
/// flags that expose them, exit code 78. Never in monitor mode, which cuts nobody off.
pub fn judge(
    policy: ListenersPolicy,
    mode: Mode,
    moment: Moment,
    listeners: &[Listener],
) -> Result<Verdict, Failure> {
    let mut verdict = Verdict::default();
    let mut refused = Vec::new();
    for listener in listeners {
        match fate(policy, mode, moment, listener) {
            Fate::Block => verdict.blocked.push(listener.clone()),
            Fate::Expose => {
                verdict.exposures.extend(listener.exposure());
                verdict.warnings.push(exposed(listener));
            }
            Fate::Refuse => refused.push(listener),
        }
    }
    if let Some(failure) = refusal(&refused) {
        return Err(failure);
    }
    verdict.warnings.extend(blocked(&verdict.blocked, mode));

    Ok(verdict)
}

/// Judges the listeners that a start finds. Those on ports that an earlier run has left `open`, and
/// that is still in force, are judged as when its range had grown over them: a start must not fail
/// over what that run allowed.
///
/// # Errors
/// As [`judge`].
pub fn judge_start(
    policy: ListenersPolicy,
    mode: Mode,
    open: impl Fn(&Listener) -> bool,
    listeners: Vec<Listener>,
) -> Result<Verdict, Failure> {
    let (open, guarded): (Vec<_>, Vec<_>) = listeners.into_iter().partition(open);
    let mut verdict = judge(policy, mode, Moment::Start, &guarded)?;
    let grown = judge(policy, mode, Moment::Growth, &open)?;
    verdict.warnings.extend(grown.warnings);
    verdict.exposures.extend(grown.exposures);
    verdict.blocked.extend(grown.blocked);

    Ok(verdict)
}

fn fate(policy: ListenersPolicy, mode: Mode, moment: Moment, listener: &Listener) -> Fate {
    match listener.transport {
        Transport::Udp | Transport::UdpLite if listener.owner == Owner::Kernel => Fate::Expose,
        Transport::Udp | Transport::UdpLite => Fate::Block,
        Transport::Tcp => match (policy, mode, moment) {
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
                Fate::Expose
            }
            (ListenersPolicy::Auto | ListenersPolicy::Refuse, Mode::Enforce, _) => Fate::Block,
        },
    }
}

fn refusal(refused: &[&Listener]) -> Option<Failure> {
    let listener = refused
        .iter()
        .find(|listener| listener.serves.is_some())
        .or(refused.first())?;
    let why = match listener.serves {
        Some(peer) => format!("serves {peer} now and would be cut off from its like"),
        None => "listens in the guarded range and would be cut off".to_owned(),
    };
    let more = match refused.len() {
        1 => String::new(),
        many => format!(", and so would {} more", many - 1),
    };
    let flags: Vec<_> = refused.iter().map(|listener| listener.flag()).collect();

    Some(
        Failure::bad_configuration(format!("{listener}: {why}{more}")).remedy(format!(
            "{} leaves it open, --listeners warn guards it all the same",
            flags.join(" ")
        )),
    )
}

fn exposed(listener: &Listener) -> Warning {
    let why = match (&listener.owner, listener.serves) {
        (Owner::Kernel, _) => "WireGuard, VXLAN or the like needs it".to_owned(),
        (_, Some(peer)) => format!("it serves {peer} now"),
        (_, None) => "--listeners expose asks for it".to_owned(),
    };

    Warning {
        about: format!(
            "open {}/{}",
            listener.port,
            listener.transport.label().label()
        ),
        text: format!(
            "{listener}: left open to strangers, {why}; {} says so for good",
            listener.flag()
        ),
        is_final: true,
    }
}

/// One line for each TCP listener, and one for all UDP sockets of a process: a busy resolver has
/// hundreds.
fn blocked(listeners: &[Listener], mode: Mode) -> Vec<Warning> {
    let fate = match mode {
        Mode::Enforce => "strangers cannot reach it",
        Mode::Monitor => "strangers could not reach it in enforce mode",
    };
    let mut warnings = Vec::new();
    let mut sockets = BTreeMap::<String, Vec<&Listener>>::new();
    for listener in listeners {
        match listener.transport {
            Transport::Tcp => warnings.push(Warning {
                about: listener.to_string(),
                text: format!(
                    "{listener}: listens in the guarded range, {fate}; {} lets them",
                    listener.flag()
                ),
                is_final: false,
            }),
            Transport::Udp | Transport::UdpLite => {
                let about = format!("{} {}", listener.transport.label().label(), listener.owner);
                sockets.entry(about).or_default().push(listener);
            }
        }
    }
    warnings.extend(sockets.into_iter().filter_map(|(about, sockets)| {
        let first = sockets.first()?;
        let more = match sockets.len() {
            1 => String::new(),
            many => format!(" and {} more", many - 1),
        };
        let text = format!(
            "{first}{more}: open in the guarded range; if it is a server and no client, {fate}; {} lets them",
            first.flag()
        );
        Some(Warning {
            about,
            text,
            is_final: false,
        })
    }));

    warnings
}

#[cfg(test)]
mod tests;
