//! What is said about listeners: one line a program, with all its ports, and the advice that helps.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use guard_common::frame::transport::Transport;

use super::{
    Listener, ListenerTerms,
    programs::{PortChoice, known},
};
use crate::{
    base::failure::Failure,
    config::{Exposed, Mode},
    host::{range::PortRange, socket_owners::SocketOwner, tunnels::TunnelPort},
};

/// Runs of ports that one line names. `portguard status` lists all.
const MOST_RUNS: usize = 32;

/// A line for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerWarning {
    /// What it is about, equal for the same program at the next survey.
    pub about: String,
    /// The ports it names. It is worth saying again only for others.
    pub ports: Vec<(Transport, u16)>,
    /// The line.
    pub text: String,
    /// Whether it must be said now, with a name or without: the next survey may not say it again.
    pub is_final: bool,
}

/// Why the guard does not start.
pub fn refusal(refused: &[&Listener]) -> Option<Failure> {
    let listener = refused
        .iter()
        .find(|listener| listener.serves.is_some())
        .or(refused.first())?;
    let why = match listener.serves {
        Some(peer) => format!("is serving {peer} now, and new peers could not reach it"),
        None => "listens in the guarded range, and others could not reach it".to_owned(),
    };
    let more = match refused.len() {
        1 => String::new(),
        many => format!(" (and {} more like it)", many - 1),
    };

    let (flags, left_out) = flags(refused);
    let others = match left_out {
        0 => String::new(),
        _ => format!(" (and {left_out} more flags like these)"),
    };

    Some(
        Failure::bad_configuration(format!("{listener}: {why}{more}")).remedy(format!(
            "{}{others} leaves it open, --listeners warn guards it all the same",
            flags.join(" ")
        )),
    )
}

/// One line for each program whose listeners are left open, and one more for those that serve a peer.
pub fn exposed(listeners: &[&Listener]) -> Vec<ListenerWarning> {
    let mut programs = BTreeMap::<(String, bool), Vec<&Listener>>::new();
    for listener in listeners {
        programs
            .entry((program(&listener.owner), listener.serves.is_some()))
            .or_default()
            .push(listener);
    }

    programs
        .into_iter()
        .map(|((program, serves), listeners)| ListenerWarning {
            about: format!("open {program}"),
            ports: ports(&listeners),
            text: format!(
                "{}: left open {}",
                subject(&listeners),
                why_open(&listeners)
            ),
            is_final: serves,
        })
        .collect()
}

/// Why listeners of one program are left open, and what says so for good.
fn why_open(listeners: &[&Listener]) -> String {
    let one = listeners.len() == 1;
    let Some(peer) = listeners.iter().find_map(|listener| listener.serves) else {
        let listen = if one { "it listens" } else { "they listen" };
        return format!("for as long as {listen}, as --listeners expose asks");
    };
    let (flags, left_out) = flags(listeners);
    let (serve, more) = match one {
        true => ("it is", ""),
        false => ("they are", " and other peers"),
    };
    let (say, others) = match (flags.len(), left_out) {
        (1, 0) => ("says", String::new()),
        (_, 0) => ("say", String::new()),
        _ => ("say", list_of_others(left_out)),
    };

    format!(
        "because {serve} serving {peer}{more} now; {}{others} {say} so for good",
        flags.join(" ")
    )
}

/// How flags are mentioned for which a line has no room.
fn list_of_others(left_out: usize) -> String {
    format!(" and {left_out} more, which `portguard status` lists,")
}

fn ports(listeners: &[&Listener]) -> Vec<(Transport, u16)> {
    listeners
        .iter()
        .map(|listener| (listener.transport, listener.port))
        .collect()
}

/// That a port of the kernel's own is left open.
pub fn kernel_port(port: &TunnelPort) -> ListenerWarning {
    let TunnelPort {
        port: number,
        address,
        kind,
    } = port;
    let at = match (address.is_unspecified(), address.is_ipv4()) {
        (true, true) => "IPv4".to_owned(),
        (true, false) => "IPv6".to_owned(),
        (false, _) => address.to_string(),
    };

    ListenerWarning {
        about: format!("kernel {kind} {address}"),
        ports: vec![(Transport::Udp, *number)],
        text: format!(
            "udp port {number} ({kind} of the kernel): left open at {at} while the \
             tunnel is there; --expose {number}/udp says so for good"
        ),
        is_final: true,
    }
}

/// One line for each program whose listeners are cut off.
pub fn blocked(listeners: &[Listener], terms: ListenerTerms<'_>) -> Vec<ListenerWarning> {
    let mut programs = BTreeMap::<String, Vec<&Listener>>::new();
    for listener in listeners {
        programs
            .entry(program(&listener.owner))
            .or_default()
            .push(listener);
    }

    programs
        .into_iter()
        .map(|(about, listeners)| line(about, &listeners, terms))
        .collect()
}

fn line(mut about: String, listeners: &[&Listener], terms: ListenerTerms<'_>) -> ListenerWarning {
    let choices: Vec<_> = listeners
        .iter()
        .map(|listener| terms.programs.choice(listener, terms.range))
        .collect();
    let mut ports = ports(listeners);
    let one = listeners.len() == 1;
    let tcp = listeners
        .iter()
        .any(|listener| listener.transport == Transport::Tcp);
    let what = match (tcp, one) {
        (true, true) => "listens in the guarded range, ",
        (true, false) => "listen in the guarded range, ",
        (false, true) => "open in the guarded range; if it is a server and no client, ",
        (false, false) => "open in the guarded range; if it is a server and no client, ",
    };
    let (verb, tense) = match terms.mode {
        Mode::Enforce => ("cannot reach", ""),
        Mode::Monitor => ("could not reach", " in enforce mode"),
    };
    let it = if one { "it" } else { "them" };
    let range = terms.range;
    let helps = listeners.iter().find_map(|one| one.advice.as_deref());
    let advice = match helps {
        Some(advice) => {
            // Which ports they are at the moment helps nobody.
            about.push_str(", changing");
            ports.clear();
            format!("its ports change, so exposing one does not last: {advice}")
        }
        None if choices.contains(&PortChoice::Unknown) => format!(
            "{}; a port that was not set explicitly is another one at the next start: set one \
             outside of {range}, or let its peers in with --trust",
            lets_them(listeners)
        ),
        None => lets_them(listeners),
    };

    ListenerWarning {
        about,
        ports,
        text: format!(
            "{}: {what}others {verb} {it}{tense}; {advice}",
            subject(listeners)
        ),
        is_final: false,
    }
}

/// Such as `tcp ports 45000-45002, 45010 and udp port 5000 (python3, pid 8 and 1 more process)`.
fn subject(listeners: &[&Listener]) -> String {
    let mut text = String::new();
    for transport in [Transport::Tcp, Transport::Udp, Transport::UdpLite] {
        let runs = runs(listeners, |one| one.transport == transport);
        if runs.is_empty() {
            continue;
        }
        let separator = if text.is_empty() { "" } else { " and " };
        let one = runs.len() == 1 && runs[0].first() == runs[0].last();
        let plural = if one { "" } else { "s" };
        let label = transport.label().label();
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{label} port{plural} {}", list(&runs));
    }
    let pids: BTreeSet<_> = listeners.iter().filter_map(|one| one.owner.pid()).collect();
    let owner = listeners.first().map(|one| one.owner.to_string());
    let more = match pids.len() {
        0 | 1 => String::new(),
        2 => " and 1 more process".to_owned(),
        many => format!(" and {} more processes", many - 1),
    };

    format!("{text} ({}{more})", owner.unwrap_or_default())
}

fn list(runs: &[PortRange]) -> String {
    let shown: Vec<_> = runs
        .iter()
        .take(MOST_RUNS)
        .map(|run| match run.first() == run.last() {
            true => run.first().to_string(),
            false => run.to_string(),
        })
        .collect();
    let more = match runs.len() > MOST_RUNS {
        true => ", ...",
        false => "",
    };

    format!("{}{more}", shown.join(", "))
}

/// Says by which flags unsolicited senders get in.
fn lets_them(listeners: &[&Listener]) -> String {
    let (flags, left_out) = flags(listeners);
    match flags.as_slice() {
        [] => String::new(),
        [one] => format!("{one} lets them in"),
        [first, others @ ..] => {
            let more = match left_out {
                0 => String::new(),
                _ => list_of_others(left_out),
            };
            format!(
                "{first} lets them in, with {}{more} for the other ports",
                others.join(" ")
            )
        }
    }
}

/// The flags that expose these listeners, as far as a line has room, and how many it has no room for.
fn flags(listeners: &[&Listener]) -> (Vec<String>, usize) {
    let mut flags = Vec::new();
    for transport in [Transport::Tcp, Transport::Udp] {
        // UDP-Lite goes with UDP.
        let is_tcp = transport == Transport::Tcp;
        let runs = runs(listeners, |one| (one.transport == Transport::Tcp) == is_tcp);
        flags.extend(runs.into_iter().map(|ports| {
            let exposed = Exposed { transport, ports };
            format!("--expose {exposed}")
        }));
    }
    let left_out = flags.len().saturating_sub(MOST_RUNS);
    flags.truncate(MOST_RUNS);

    (flags, left_out)
}

/// The ports of some listeners, in order and put together.
fn runs(listeners: &[&Listener], counts: impl Fn(&Listener) -> bool) -> Vec<PortRange> {
    let ports: BTreeSet<u16> = listeners
        .iter()
        .filter(|listener| counts(listener))
        .map(|listener| listener.port)
        .collect();
    let mut runs = Vec::<PortRange>::new();
    for port in ports {
        let before = runs
            .last()
            .filter(|run| run.last().checked_add(1) == Some(port));
        let first = before.map_or(port, |run| run.first());
        if before.is_some() {
            runs.pop();
        }
        runs.extend(PortRange::new(first, port));
    }

    runs
}

/// What helps a listener whose port is another one at the next start.
pub fn advice(listener: &Listener, terms: ListenerTerms<'_>) -> Option<String> {
    let range = terms.range;
    let known = match &listener.owner {
        SocketOwner::Process { name, .. } => known(name),
        SocketOwner::Unknown => None,
    };
    if let Some(known) = known {
        return Some(format!("{known}, outside of {range}"));
    }

    (terms.programs.choice(listener, range) == PortChoice::Changing)
        .then(|| format!("give it ports outside of {range}, or let its peers in with --trust"))
}

/// The program, whichever of its processes it is.
fn program(owner: &SocketOwner) -> String {
    match owner {
        SocketOwner::Process { name, .. } => format!("program {name}"),
        SocketOwner::Unknown => "no program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        config::ListenersPolicy,
        guard::listeners::{
            ListeningPrograms, Moment, decide, find,
            tests::{guarded, tcp, udp},
        },
        host::sockets::HostSocket,
    };

    fn listeners(sockets: &[(HostSocket, i32, &str)]) -> Vec<Listener> {
        let only: Vec<_> = sockets.iter().map(|(socket, ..)| *socket).collect();
        let mut found = find(&only, &guarded(), &[], &BTreeSet::new());
        for listener in &mut found {
            let socket = sockets.iter().find(|(socket, ..)| {
                socket.local.port() == listener.port && socket.transport == listener.transport
            });
            if let Some((_, pid, name)) = socket
                && !name.is_empty()
            {
                listener.owner = SocketOwner::Process {
                    pid: *pid,
                    name: (*name).to_owned(),
                };
            }
        }
        found
    }

    fn terms(programs: &ListeningPrograms, mode: Mode) -> ListenerTerms<'_> {
        ListenerTerms {
            policy: ListenersPolicy::Auto,
            mode,
            range: PortRange::new(1024, 65535).expect("a range"),
            programs,
        }
    }

    fn lines(programs: &ListeningPrograms, listeners: &[Listener]) -> Vec<String> {
        let terms = terms(programs, Mode::Enforce);
        let judged = decide(terms, Moment::Watch, listeners).expect("no refusal");
        judged
            .warnings
            .into_iter()
            .map(|warning| warning.text)
            .collect()
    }

    #[test]
    fn one_line_a_program() {
        let found = listeners(&[
            (tcp("[::]:2222"), 812, "sshd"),
            (tcp("[::]:5001"), 7, "server"),
            (udp("[::]:5000"), 9, "unbound"),
            (udp("[::]:5001"), 9, "unbound"),
            (udp("[::]:5002"), 10, "unbound"),
            (udp("[::]:6000"), 9, "unbound"),
            (tcp("[::]:1024"), 20, "vsftpd"),
            (tcp("[::]:4000"), 0, ""),
        ]);
        assert_eq!(
            lines(&ListeningPrograms::default(), &found),
            [
                "tcp port 4000 (unknown process): listens in the guarded range, others cannot reach it; --expose 4000/tcp lets them in",
                "tcp port 5001 (server, pid 7): listens in the guarded range, others cannot reach it; --expose 5001/tcp lets them in; a port that was not set explicitly is another one at the next start: set one outside of 1024-65535, or let its peers in with --trust",
                "tcp port 2222 (sshd, pid 812): listens in the guarded range, others cannot reach it; --expose 2222/tcp lets them in",
                "udp ports 5000-5002, 6000 (unbound, pid 9 and 1 more process): open in the guarded range; if it is a server and no client, others cannot reach them; --expose 5000-5002/udp lets them in, with --expose 6000/udp for the other ports; a port that was not set explicitly is another one at the next start: set one outside of 1024-65535, or let its peers in with --trust",
                "tcp port 1024 (vsftpd, pid 20): listens in the guarded range, others cannot reach it; its ports change, so exposing one does not last: set pasv_min_port and pasv_max_port in vsftpd.conf, outside of 1024-65535",
            ]
        );
    }

    #[test]
    fn a_program_on_changing_ports_is_not_told_to_expose_one() {
        let mut programs = ListeningPrograms::default();
        programs.note(&listeners(&[(tcp("[::]:5001"), 7, "server")]));
        let now = listeners(&[(tcp("[::]:5003"), 8, "server")]);
        programs.note(&now);
        let lines = lines(&programs, &now);
        assert_eq!(
            lines,
            [
                "tcp port 5003 (server, pid 8): listens in the guarded range, others cannot reach it; its ports change, so exposing one does not last: give it ports outside of 1024-65535, or let its peers in with --trust"
            ]
        );
    }

    #[test]
    fn a_line_is_of_bounded_length() {
        let sockets: Vec<_> = (2000..9000)
            .step_by(3)
            .map(|port| (udp(&format!("[::]:{port}")), 7, "many"))
            .collect();
        let lines = lines(&ListeningPrograms::default(), &listeners(&sockets));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() < 2048, "{}", lines[0].len());
        // What it has no room for is not passed over in silence.
        let (_, advice) = lines[0].split_once("; --expose").expect("flags");
        let more = " and 2302 more, which `portguard status` lists, for the other ports";
        assert!(advice.contains(more), "{advice}");
    }

    #[test]
    fn what_many_listeners_of_a_program_are_left_open_for_is_one_line() {
        let mut sockets: Vec<_> = (5000..5150)
            .map(|port| (tcp(&format!("[::]:{port}")), 7, "server"))
            .collect();
        sockets.push((tcp("[::]:6000"), 7, "server"));
        sockets.push((tcp("[::]:7000"), 8, "another"));
        let mut found = listeners(&sockets);
        let said = |found: &[Listener]| {
            let programs = ListeningPrograms::default();
            let terms = ListenerTerms {
                policy: ListenersPolicy::Expose,
                ..terms(&programs, Mode::Enforce)
            };
            let judged = decide(terms, Moment::Watch, found).expect("no refusal");
            assert_eq!(judged.exposures.len(), found.len());
            let told: usize = judged.warnings.iter().map(|one| one.ports.len()).sum();
            assert_eq!(told, found.len());
            let lines = judged.warnings.into_iter().map(|warning| warning.text);
            lines.collect::<Vec<_>>()
        };
        assert_eq!(
            said(&found),
            [
                "tcp port 7000 (another, pid 8): left open for as long as it listens, as --listeners expose asks",
                "tcp ports 5000-5149, 6000 (server, pid 7): left open for as long as they listen, as --listeners expose asks",
            ]
        );
        for listener in found.iter_mut().filter(|one| one.port < 7000) {
            listener.serves = Some(SocketAddr::from(([198, 51, 100, 1], 5000)));
        }
        assert_eq!(
            said(&found)[1],
            "tcp ports 5000-5149, 6000 (server, pid 7): left open because they are serving 198.51.100.1:5000 and other peers now; --expose 5000-5149/tcp --expose 6000/tcp say so for good"
        );
    }

    #[test]
    fn why_a_start_is_refused() {
        let mut found = listeners(&[
            (tcp("[::]:2222"), 812, "sshd"),
            (tcp("[::]:2223"), 813, "sshd"),
        ]);
        found[0].serves = Some(SocketAddr::from(([198, 51, 100, 1], 5000)));
        let programs = ListeningPrograms::default();
        let failure = decide(terms(&programs, Mode::Enforce), Moment::Start, &found);
        assert_eq!(
            failure.expect_err("refused").to_string(),
            "tcp port 2222 (sshd, pid 812): is serving 198.51.100.1:5000 now, and new peers could not reach it; --expose 2222/tcp leaves it open, --listeners warn guards it all the same"
        );
    }

    #[test]
    fn what_is_left_open() {
        let port = TunnelPort {
            port: 4789,
            address: "0.0.0.0".parse().expect("an address"),
            kind: "vxlan",
        };
        assert_eq!(
            kernel_port(&port).text,
            "udp port 4789 (vxlan of the kernel): left open at IPv4 while the tunnel is there; --expose 4789/udp says so for good"
        );
        let listener = listeners(&[(tcp("[::]:2222"), 812, "sshd")]).remove(0);
        assert_eq!(
            exposed(&[&listener])[0].text,
            "tcp port 2222 (sshd, pid 812): left open for as long as it listens, as --listeners expose asks"
        );
    }
}
