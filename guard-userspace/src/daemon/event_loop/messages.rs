//! What the daemon tells those who started it.

use sd_notify::NotifyState;

use super::Turned;
use crate::{
    bpf::attach::{EgressHook, XdpHook},
    config::{self, Settings},
    guard::{
        attachment::Attachment,
        lifecycle::{Ending, Preexisting},
    },
    host::range::{LocalPorts, PortRange},
};

/// Says that every interface that is there is guarded: to stderr, and to systemd. Those that are not
/// there may be made by what waits for this, as the network does at boot. Returns what systemd shows
/// from now on.
pub fn ready(attachments: &[Attachment], settings: &Settings, local: &LocalPorts) -> String {
    in_force(attachments, settings, local);
    let state = state(attachments, settings, local.range);
    // Nobody listens where systemd did not start this.
    let _ = sd_notify::notify(&[NotifyState::Status(&state), NotifyState::Ready]);

    state
}

/// Tells systemd what is in force where that is not what it was `told` last.
pub fn state_changed(
    told: &mut String,
    attachments: &[Attachment],
    settings: &Settings,
    local: &LocalPorts,
) {
    let state = state(attachments, settings, local.range);
    if *told != state {
        let _ = sd_notify::notify(&[NotifyState::Status(&state)]);
        *told = state;
    }
}

/// Says what is in force on which interface, and what is left open.
pub fn in_force(attachments: &[Attachment], settings: &Settings, local: &LocalPorts) {
    for attachment in attachments {
        if let Some(line) = headline(attachment, settings, local.range) {
            tracing::info!("{line}");
        }
    }
    for warning in config::warnings(settings, local) {
        tracing::warn!("{warning}");
    }
}

/// What `systemctl status` shows.
fn state(attachments: &[Attachment], settings: &Settings, range: PortRange) -> String {
    let (there, missing): (Vec<_>, Vec<_>) = attachments
        .iter()
        .partition(|attachment| attachment.xdp.is_some() || attachment.egress.is_some());
    let list = |attachments: Vec<&Attachment>| -> String {
        let names: Vec<_> = attachments
            .iter()
            .map(|attachment| attachment.interface.as_str())
            .collect();
        names.join(", ")
    };
    let there = if there.is_empty() {
        "nothing".to_owned()
    } else {
        list(there)
    };
    let state = config::headline(settings, &there, range);
    if missing.is_empty() {
        return state;
    }

    format!("{state}; waiting for {}", list(missing))
}

/// Says what the guard knows of flows that are older than it, and what it cannot know.
pub fn learned(preexisting: &Preexisting) {
    tracing::info!("{}", summary(preexisting));
    for gap in gaps(preexisting) {
        tracing::warn!("{gap}");
    }
}

/// Says what was learned of flows on ports that have become guarded, if anything was.
pub fn learned_more(preexisting: &Preexisting) {
    if preexisting.sockets.new + preexisting.tracked.new > 0 {
        tracing::info!("{}", summary(preexisting));
    }
    for gap in gaps(preexisting) {
        tracing::warn!("{gap}");
    }
}

fn summary(preexisting: &Preexisting) -> String {
    let (sockets, tracked) = (preexisting.sockets.new, preexisting.tracked.new);
    if preexisting.tracked.tracks {
        return format!("existing flows: {sockets} learned from sockets, {tracked} from conntrack");
    }

    format!(
        "existing flows: {sockets} learned from sockets; conntrack tracks none here, so unconnected \
         UDP sockets are known from what they send next"
    )
}

fn gaps(preexisting: &Preexisting) -> impl Iterator<Item = String> {
    let tracked = &preexisting.tracked;
    let unasked = tracked.failure.as_ref().map(|failure| {
        format!(
            "{failure}: answers to existing masqueraded flows and unconnected UDP sockets are dropped \
             until these send; load nf_conntrack_netlink where it is missing"
        )
    });
    let left_out = (tracked.left_out > 0).then(|| {
        format!(
            "{} flows of conntrack find no room: their answers are dropped until they send; raise \
             --max-flows",
            tracked.left_out
        )
    });

    unasked.into_iter().chain(left_out)
}

/// Tells the service manager, where it asks for that, that the daemon works, for as long as it does.
pub(super) async fn watchdog(turned: &Turned) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut tick = tokio::time::interval(patience / 3);
    loop {
        tick.tick().await;
        // Something may be under way that takes a while. What takes so long does not end.
        if turned.ago() < patience {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
        }
    }
}

/// Says that the guard ends.
pub fn stopping() {
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
}

/// Says what the end has left.
pub fn stopped(attachments: &[Attachment], end: Ending) {
    for attachment in attachments {
        let mut hooks = Vec::new();
        if attachment.xdp.is_some() {
            hooks.push("XDP");
        }
        if attachment.egress.is_some() {
            hooks.push("egress");
        }
        if hooks.is_empty() {
            continue;
        }
        let (name, hooks) = (&attachment.interface, hooks.join(", "));
        match end {
            Ending::Detached => tracing::info!("{name}: detached ({hooks})"),
            Ending::Kept => tracing::info!(
                "{name}: left in force ({hooks}), as keep-attached asks; the next start takes over, \
                 `portguard detach` takes it off"
            ),
            // What failed was said when it did.
            Ending::Failed => {}
        }
    }
}

/// Nothing for an interface that is not there.
fn headline(attachment: &Attachment, settings: &Settings, range: PortRange) -> Option<String> {
    let name = &attachment.interface;
    let egress = match attachment.egress {
        Some(EgressHook::Tcx) => "TCX egress",
        Some(EgressHook::Clsact) => "clsact egress",
        None => "no egress",
    };

    Some(match (attachment.xdp, attachment.egress) {
        (Some(XdpHook::Native), _) => {
            config::headline(settings, &format!("{name} (native XDP, {egress})"), range)
        }
        (Some(XdpHook::Generic), _) => {
            config::headline(settings, &format!("{name} (generic XDP, {egress})"), range)
        }
        (None, Some(_)) => format!("recording {name} ({egress}), ports {range}"),
        (None, None) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::seed;

    #[test]
    fn what_is_known_and_what_is_not() {
        let sockets = seed::Seeded { new: 3, failed: 0 };
        // name, conntrack, part of the summary, part of a warning
        let table = [
            (
                "asked",
                seed::conntrack::ConntrackSeeded {
                    tracks: true,
                    new: 7,
                    ..Default::default()
                },
                "3 learned from sockets, 7 from conntrack",
                None,
            ),
            (
                "nothing to ask",
                seed::conntrack::ConntrackSeeded::default(),
                "3 learned from sockets; conntrack tracks none",
                None,
            ),
            (
                "refused",
                seed::conntrack::ConntrackSeeded {
                    failure: Some("conntrack: no".to_owned()),
                    ..Default::default()
                },
                "3 learned from sockets",
                Some("conntrack: no: answers to existing"),
            ),
            (
                "no room",
                seed::conntrack::ConntrackSeeded {
                    tracks: true,
                    new: 7,
                    left_out: 2,
                    failure: None,
                },
                "7 from conntrack",
                Some("2 flows of conntrack find no room"),
            ),
        ];
        for (name, tracked, said, warned) in table {
            let preexisting = Preexisting {
                sockets,
                tracked,
                incomplete: false,
            };
            assert!(
                summary(&preexisting).contains(said),
                "{name}: {}",
                summary(&preexisting)
            );
            let gaps: Vec<_> = gaps(&preexisting).collect();
            assert_eq!(
                gaps.len(),
                usize::from(warned.is_some()),
                "{name}: {gaps:?}"
            );
            if let Some(warned) = warned {
                assert!(gaps[0].contains(warned), "{name}: {gaps:?}");
            }
        }
    }
}
