//! What `portguard status` prints, and commands that ask a running guard to do something.

use std::{
    cmp::Reverse,
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    thread,
    time::Duration,
};

use crate::{
    api::control::{Action, Client, InterfaceJson, ListenerJson, Question, StatusJson},
    base::{
        failure::Failure,
        text::{one_line, plain},
    },
    cli::{
        output::{copy, is_closed, print},
        table::{Column, Table},
    },
    config::Mode,
    host::hooks::EgressHook,
};

/// Prints what the guard on `socket` guards and has counted, again and again with `every` in between
/// if that is said. Blocks: call it outside a runtime.
///
/// # Errors
/// Exit code 69 when nobody answers, 77 when a privilege is missing, else 1.
pub fn status(socket: &Path, json: bool, every: Option<Duration>) -> Result<(), Failure> {
    let client = Client::new(socket);
    let Some(every) = every else {
        return print_status(&client, json, "");
    };
    // A file or a pipe is not a screen that could be cleared.
    let before = if json || !io::stdout().is_terminal() {
        ""
    } else {
        CLEAR
    };
    while !is_closed(io::stdout()) {
        print_status(&client, json, before)?;
        thread::sleep(every);
    }

    Ok(())
}

/// Clears a terminal, and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[2J";

fn print_status(client: &Client, json: bool, before: &str) -> Result<(), Failure> {
    if json {
        return copy(client, Question::Status);
    }

    let status = client.status()?;
    print(|out| write!(out, "{before}{}", StatusText(&status)))
}

/// Has the guard on `socket` do something, and prints what it says of it. Blocks: call it outside a
/// runtime.
///
/// # Errors
/// As [`Client::act`].
pub fn act(socket: &Path, action: &Action) -> Result<(), Failure> {
    let done = Client::new(socket).act(action)?;

    print(|out| writeln!(out, "{}", one_line(&done)))
}

/// Prints a daemon's answer into nothing.
#[cfg(any(test, fuzzing))]
pub(crate) fn print_answer(answer: &[u8]) {
    if let Ok(status) = serde_json::from_slice::<StatusJson>(answer) {
        let _ = StatusText(&status).to_string();
    }
}

/// What is guarded and how, such as
/// `guarding eth0 (native XDP, TCX egress), ports 32768-60999`.
#[derive(Clone, Copy, Debug)]
pub struct Headline<'a>(pub &'a StatusJson);

impl fmt::Display for Headline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does_its_work = |interface: &&InterfaceJson| {
            interface.xdp_mode.is_some() || !interface.guarded && interface.egress.is_some()
        };
        let (there, missing): (Vec<_>, Vec<_>) = self.0.interfaces.iter().partition(does_its_work);
        f.write_str(match self.0.mode {
            Mode::Enforce => "guarding ",
            Mode::Monitor => "monitoring ",
        })?;
        if there.is_empty() {
            f.write_str("nothing")?;
        }
        for (index, interface) in there.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", InterfaceText(interface))?;
        }
        write!(f, ", ports {}-{}", self.0.range.first, self.0.range.last)?;
        for (index, interface) in missing.iter().enumerate() {
            let separator = if index == 0 { "; not attached: " } else { ", " };
            write!(f, "{separator}{}", plain(&interface.name))?;
        }

        Ok(())
    }
}

struct InterfaceText<'a>(&'a InterfaceJson);

impl fmt::Display for InterfaceText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = plain(&self.0.name);
        let egress = self.0.egress.as_deref().map(|label| {
            let mut hooks = EgressHook::ALL.iter();
            match hooks.find(|hook| hook.label() == label) {
                Some(EgressHook::Tcx) => "TCX egress",
                Some(EgressHook::Clsact) => "clsact egress",
                None => "egress",
            }
        });
        match (self.0.xdp_mode.as_deref(), egress) {
            (Some(mode), Some(egress)) => write!(f, "{name} ({mode} XDP, {egress})"),
            (Some(mode), None) => write!(f, "{name} ({mode} XDP, egress not recorded)"),
            (None, Some(egress)) => write!(f, "{name} ({egress} only)"),
            (None, None) => write!(f, "{name} (not attached)"),
        }
    }
}

struct StatusText<'a>(&'a StatusJson);

impl fmt::Display for StatusText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        writeln!(f, "{}", Headline(status))?;
        for alarm in &status.alarms {
            let text = one_line(&alarm.text);
            match &alarm.device {
                Some(device) => writeln!(f, "ALARM     {}: {text}", plain(device))?,
                None => writeln!(f, "ALARM     {text}")?,
            }
        }
        for interface in &status.interfaces {
            write_traffic(f, interface)?;
        }
        match status.mode {
            Mode::Enforce => {}
            Mode::Monitor => writeln!(f, "mode      monitor: what would be dropped passes")?,
        }
        for interface in &status.interfaces {
            let name = plain(&interface.name);
            for (place, others) in [
                ("before us", &interface.in_front),
                ("after us", &interface.behind),
            ] {
                for other in others {
                    writeln!(f, "{place:<9} {name}: {}", one_line(other))?;
                }
            }
        }
        for (name, ports) in [
            ("reserved", &status.reserved),
            ("exposed", &status.exposed),
            ("trust", &status.trust),
        ] {
            if !ports.is_empty() {
                writeln!(f, "{name:<8}  {}", ports.join(" "))?;
            }
        }
        writeln!(
            f,
            "flows     {} of {}",
            status.flows.entries, status.flows.capacity
        )?;
        if status.failed_sweeps > 0 {
            writeln!(f, "sweeps    {} failed", status.failed_sweeps)?;
        }
        if let Some(missing) = &status.metrics_missing {
            writeln!(f, "metrics   missing: {}", one_line(missing))?;
        }
        if let Some(advice) = &status.advice {
            writeln!(f, "advice    {}", one_line(advice))?;
        }
        write_packets(f, status)?;

        write_listeners(f, &status.listeners)
    }
}

/// What has shown that the programs see the packets of an interface.
fn write_traffic(f: &mut fmt::Formatter<'_>, interface: &InterfaceJson) -> fmt::Result {
    let of_hook = |direction: &str, attached: bool, evidence: &str| {
        let shown = match evidence {
            "seen" => "seen",
            "no_traffic" => "none yet",
            "unseen" => "NOT SEEN",
            "elsewhere" => "past the program",
            _ => return None,
        };
        attached.then(|| format!("{direction} {shown}"))
    };
    let shown: Vec<_> = [
        of_hook(
            "received",
            interface.xdp_mode.is_some(),
            &interface.received,
        ),
        of_hook("sent", interface.egress.is_some(), &interface.sent),
    ]
    .into_iter()
    .flatten()
    .collect();
    if shown.is_empty() {
        return Ok(());
    }

    let name = plain(&interface.name);
    writeln!(f, "traffic   {name}: {}", shown.join(", "))
}

/// Reasons that have occurred, the most frequent first.
fn write_packets(f: &mut fmt::Formatter<'_>, status: &StatusJson) -> fmt::Result {
    let mut packets: Vec<_> = status.packets.iter().filter(|(_, n)| **n > 0).collect();
    packets.sort_by_key(|(reason, frames)| (Reverse(**frames), *reason));
    if packets.is_empty() {
        return writeln!(f, "packets   none received yet");
    }

    let table = Table {
        columns: [Column::Left("PACKETS RECEIVED"), Column::Right("")],
        rows: packets
            .iter()
            .map(|(reason, frames)| [reason.to_string(), frames.to_string()]),
    };
    write!(f, "\n{table}")
}

fn write_listeners(f: &mut fmt::Formatter<'_>, listeners: &[ListenerJson]) -> fmt::Result {
    if listeners.is_empty() {
        return Ok(());
    }

    let table = Table {
        columns: [
            Column::Left("BLOCKED LISTENERS"),
            Column::Left("PROCESS"),
            Column::Left("TO EXPOSE"),
        ],
        rows: listeners.iter().map(listener_cells),
    };
    write!(f, "\n{table}")
}

fn listener_cells(listener: &ListenerJson) -> [String; 3] {
    let ListenerJson {
        protocol,
        port,
        process,
        pid,
        advice,
    } = listener;
    let owner = match (process, pid) {
        (Some(process), Some(pid)) => format!("{} (pid {pid})", plain(process)),
        (Some(process), None) => plain(process),
        (None, Some(pid)) => format!("pid {pid}"),
        (None, None) => "unknown".to_owned(),
    };
    let exposed = if *protocol == "tcp" { "tcp" } else { "udp" };

    [
        format!("{protocol} port {port}"),
        owner,
        match advice {
            Some(advice) => plain(advice),
            None => format!("--expose {port}/{exposed}"),
        },
    ]
}

#[cfg(test)]
mod tests;
