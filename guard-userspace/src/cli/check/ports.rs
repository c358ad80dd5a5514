//! The ports of a run, and what listens on them.

use std::time::Duration;

use guard_common::frame::transport::Transport;

use super::{CheckReport, Item};
use crate::{
    base::failure::Failure,
    bpf::{maps::StateMemory, pins::Pins},
    config::Settings,
    guard::listeners::{self, Listener, ListenerDecision, ListenerTerms, ListeningPrograms},
    host::{
        namespace,
        range::{GuardedPorts, LocalPorts},
    },
};

/// How long to look for the names of listeners.
const PATIENCE: Duration = Duration::from_secs(5);

/// Says which ports would be guarded, and who would be cut off.
pub(super) fn ports(settings: &Settings, report: &mut CheckReport) {
    let local = match LocalPorts::read(settings.range) {
        Ok(local) => local,
        Err(error) => {
            report.problem("ports", &Failure::from(error));
            return;
        }
    };
    report.ok("ports", describe(&local, settings));

    let guarded = GuardedPorts::new(&local, settings.exposures());
    let trusted: Vec<_> = settings.trust.iter().copied().collect();
    let earlier = namespace::name()
        .ok()
        .and_then(|namespace| StateMemory::of_earlier(&Pins::new(&settings.pin_dir, &namespace)));
    let open = |listener: &Listener| {
        let earlier = earlier.as_ref();
        earlier.is_some_and(|state| !state.guards(listener.transport, listener.port))
    };
    let has_flows = |transport, port| {
        let earlier = earlier.as_ref();
        earlier.is_some_and(|state| state.has_flows(transport, port))
    };
    let terms = ListenerTerms {
        policy: settings.listeners,
        mode: settings.mode,
        range: local.range,
        programs: &ListeningPrograms::default(),
    };
    let verdict = listeners::survey(&guarded, &trusted, &settings.iface)
        .map_err(Failure::from)
        .and_then(|mut found| {
            let kernel = found.kernel.iter();
            let tunnels = kernel
                .filter(|port| guarded.guarded(Transport::Udp, port.port))
                .map(listeners::kernel_port)
                .collect();
            found
                .listeners
                .retain(|listener| !listener.is_client(has_flows));
            listeners::name_here(&mut found.listeners, PATIENCE);
            let mut verdict = listeners::decide_at_start(terms, open, found.listeners)?;
            verdict.add(ListenerDecision {
                warnings: tunnels,
                ..ListenerDecision::default()
            });
            Ok(verdict)
        });
    match verdict {
        Ok(verdict) if verdict.warnings.is_empty() => {
            report.ok("listeners", "nothing listens on these ports");
        }
        Ok(verdict) => report.items.extend(
            verdict
                .warnings
                .into_iter()
                .map(|warning| Item::note("listeners", warning.text, None)),
        ),
        Err(failure) => report.problem("listeners", &failure),
    }
}

fn describe(local: &LocalPorts, settings: &Settings) -> String {
    let source = match settings.range {
        Some(_) => "by --range",
        None => "as the kernel hands them out",
    };
    let reserved: Vec<_> = local.reserved.iter().map(ToString::to_string).collect();
    let exposed: Vec<_> = settings.expose.iter().map(ToString::to_string).collect();
    let list = |items: Vec<String>| match items.is_empty() {
        true => "none".to_owned(),
        false => items.join(","),
    };

    format!(
        "{} {source}, reserved {}, exposed {}",
        local.range,
        list(reserved),
        list(exposed)
    )
}
