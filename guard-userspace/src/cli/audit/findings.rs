//! What the facts of an audit mean. Pure.

use guard_common::frame::transport::Transport;

use super::{
    AuditFinding, Severity,
    facts::{AuditFacts, Waiting, enforces},
    firewall::{Rule, RuleAction},
};
use crate::{
    base::text,
    host::{
        interfaces::Interface,
        range::{LocalPorts, PortRange, parse_range, parse_reserved},
    },
};

const RANGE_KEY: &str = "net.ipv4.ip_local_port_range";
const RESERVED_KEY: &str = "net.ipv4.ip_local_reserved_ports";

/// What the kernel hands out unless it is told otherwise: `inet_init_net`, net/ipv4/af_inet.c.
const KERNELS_RANGE: (u16, u16) = (32_768, 60_999);

/// What an accepted range of ports is longer than when it is meant for answers rather than for a
/// service.
const SERVICE: u16 = 64;

/// Kinds of devices whose packets were inside others when the guard saw them.
const TUNNELS: [&str; 13] = [
    "vxlan",
    "geneve",
    "wireguard",
    "ipip",
    "sit",
    "gre",
    "gretap",
    "ip6tnl",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "tun",
    "l2tp",
];

/// Everything that is worth telling about `facts`.
pub(super) fn assess(facts: &AuditFacts) -> Vec<AuditFinding> {
    let mut findings = Vec::new();
    guard(facts, &mut findings);
    interfaces(facts, &mut findings);
    range_at_boot(facts, &mut findings);
    range_in_force(facts, &mut findings);
    listeners(facts, &mut findings);
    firewalls(facts, &mut findings);
    sysctls(facts, &mut findings);
    modules(facts, &mut findings);

    findings
}

fn finding(
    id: &'static str,
    severity: Severity,
    why: &'static str,
    evidence: impl Into<String>,
    remedy: Option<String>,
) -> AuditFinding {
    AuditFinding {
        id,
        severity,
        why,
        evidence: evidence.into(),
        remedy,
    }
}

fn guard(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let Some(status) = &facts.guard else {
        findings.push(finding(
            "no-guard",
            Severity::High,
            "every host can reach what listens on a port of the range",
            "no guard answers in this network namespace",
            Some("portguard check --iface IFACE, then portguard run --iface IFACE".to_owned()),
        ));
        return;
    };
    if !enforces(status) {
        findings.push(finding(
            "guard-monitors",
            Severity::Medium,
            "would-be drops are counted and pass",
            "the guard is in monitor mode",
            Some("--mode enforce".to_owned()),
        ));
    }
    for alarm in &status.alarms {
        let device = alarm.device.as_deref().unwrap_or("guard");
        findings.push(finding(
            "guard-alarm",
            Severity::High,
            "the guard does not do what it was told to",
            format!("{}: {}", text::plain(device), text::one_line(&alarm.text)),
            None,
        ));
    }
    if let Some(advice) = &status.advice {
        findings.push(finding(
            "flow-maps-full",
            Severity::Medium,
            "flows without a socket on this host may be forgotten",
            text::one_line(advice),
            None,
        ));
    }
    for interface in &status.interfaces {
        if interface.xdp_mode.as_deref() == Some("generic") {
            findings.push(finding(
                "generic-mode",
                Severity::Info,
                "a drop costs more in the stack than in the driver",
                format!("{}: XDP runs in generic mode", text::plain(&interface.name)),
                Some("portguard check says whether the driver could do more".to_owned()),
            ));
        }
    }
    let (guarded, kernel) = (status.range, facts.local.range);
    if guarded.first > kernel.first() || guarded.last < kernel.last() {
        findings.push(finding(
            "range-not-covered",
            Severity::Medium,
            "the kernel hands out ports that are not guarded",
            format!(
                "guarded {}-{}, handed out {kernel}",
                guarded.first, guarded.last
            ),
            Some("leave out --range, and the guard follows the kernel".to_owned()),
        ));
    }
}

fn interfaces(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    for interface in facts.interfaces.iter().filter(|interface| interface.up) {
        let name = text::plain(&interface.name);
        let tunnel = interface
            .kind
            .as_deref()
            .is_some_and(|kind| TUNNELS.contains(&kind));
        if tunnel {
            findings.push(finding(
                "tunnel",
                Severity::Low,
                "the guard sees a tunnel's outer packets only",
                format!(
                    "{name} is a {}",
                    interface.kind.as_deref().unwrap_or("tunnel")
                ),
                Some("filter what comes out of it by a firewall".to_owned()),
            ));
        } else if let Some(status) = &facts.guard
            && reached_from_outside(interface)
        {
            let guarded = status
                .interfaces
                .iter()
                .any(|guarded| guarded.name == interface.name && guarded.xdp_mode.is_some());
            if !guarded {
                findings.push(finding(
                    "interface-unguarded",
                    Severity::Medium,
                    "every host behind it can reach what listens on a port of the range",
                    format!("{name} is up with {}", addresses(interface)),
                    Some(format!("--iface {name}")),
                ));
            }
        }
    }
}

/// Whether packets to an address of this host come in by an interface of its own.
fn reached_from_outside(interface: &Interface) -> bool {
    !interface.is_loopback()
        && interface.require_guardable().is_ok()
        && interface
            .addresses
            .iter()
            .any(|address| !is_link_local(address.addr()))
}

fn is_link_local(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(address) => address.is_link_local(),
        std::net::IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

fn addresses(interface: &Interface) -> String {
    let addresses: Vec<_> = interface
        .addresses
        .iter()
        .filter(|address| !is_link_local(address.addr()))
        .map(|address| address.addr().to_string())
        .collect();

    addresses.join(", ")
}

fn range_at_boot(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let default = PortRange::new(KERNELS_RANGE.0, KERNELS_RANGE.1).ok();
    let range = facts.boot.value(RANGE_KEY);
    let next = match &range {
        Some(setting) => parse_range(&setting.value).ok(),
        None => default,
    };
    if next != Some(facts.local.range) {
        let source = match &range {
            Some(setting) => format!(
                "{}:{} sets {:?}",
                setting.file.display(),
                setting.line,
                text::plain(&setting.value)
            ),
            None => "no file of sysctl.d sets it".to_owned(),
        };
        findings.push(finding(
            "range-at-boot",
            Severity::Medium,
            "the next boot has another range, and the guard follows it",
            format!("{RANGE_KEY} is {} now; {source}", facts.local.range),
            Some(format!("portguard harden --range {}", facts.local.range)),
        ));
    }

    let reserved = facts.boot.value(RESERVED_KEY);
    let next = match &reserved {
        Some(setting) => parse_reserved(&setting.value).ok(),
        None => Some(Vec::new()),
    };
    if next.as_ref() != Some(&facts.local.reserved) {
        let now = list(&facts.local);
        findings.push(finding(
            "reserved-at-boot",
            Severity::Medium,
            "the next boot reserves other ports, and those of a service may be handed out",
            match &reserved {
                Some(setting) => format!(
                    "{RESERVED_KEY} is {now} now; {}:{} sets {:?}",
                    setting.file.display(),
                    setting.line,
                    text::plain(&setting.value)
                ),
                None => format!("{RESERVED_KEY} is {now} now; no file of sysctl.d sets it"),
            },
            Some("write it into a file of /etc/sysctl.d".to_owned()),
        ));
    }
}

fn list(local: &LocalPorts) -> String {
    if local.reserved.is_empty() {
        return "empty".to_owned();
    }
    let ports: Vec<_> = local.reserved.iter().map(ToString::to_string).collect();

    ports.join(",")
}

fn range_in_force(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let range = facts.local.range;
    let wide = u32::from(KERNELS_RANGE.1) - u32::from(KERNELS_RANGE.0);
    if u32::from(range.last()) - u32::from(range.first()) > wide {
        findings.push(finding(
            "range-wide",
            Severity::Low,
            "the more ports are handed out, the more services lie among them",
            format!("{RANGE_KEY} is {range}"),
            Some("portguard harden --range FIRST-LAST".to_owned()),
        ));
    }
}

fn listeners(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let guarded = facts.guarded();
    let mut outside = Vec::new();
    for waiting in &facts.listeners {
        let (transport, port) = (waiting.transport, waiting.port);
        let in_range = facts.local.range.contains(port);
        let is_guarded = guarded
            .as_ref()
            .is_some_and(|guarded| guarded.guarded(transport, port));
        if is_guarded {
            // A UDP socket without a peer may as well be a client.
            if transport == Transport::Tcp {
                findings.push(finding(
                    "listener-cut-off",
                    Severity::Low,
                    "others cannot reach it",
                    described(waiting),
                    Some(format!(
                        "--expose {port}/tcp, or stop it, or give it a port outside of the range"
                    )),
                ));
            }
        } else if in_range && transport == Transport::Tcp {
            findings.push(finding(
                "listener-in-range",
                Severity::Medium,
                "every host can reach it, on a port that the kernel gives to clients, too",
                described(waiting),
                Some(format!(
                    "portguard harden --range {} --reserve {port}",
                    facts.local.range
                )),
            ));
        } else if !in_range {
            outside.push(described(waiting));
        }
    }
    if !outside.is_empty() {
        findings.push(finding(
            "listeners-outside",
            Severity::Info,
            "the guard leaves ports outside of the range to the firewall",
            outside.join("; "),
            None,
        ));
    }
}

fn described(waiting: &Waiting) -> String {
    format!(
        "{} port {} ({})",
        waiting.transport.label().label(),
        waiting.port,
        waiting.who
    )
}

fn firewalls(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    if !facts.firewalls.unread.is_empty() {
        findings.push(finding(
            "firewall-unread",
            Severity::Info,
            "which ports it translates and accepts is not part of this audit",
            format!(
                "{} failed, or took too long",
                facts.firewalls.unread.join(" and ")
            ),
            Some("run the audit as root, or look at the rules yourself".to_owned()),
        ));
    }
    let range = facts.local.range;
    for rule in &facts.firewalls.rules {
        let (first, last) = (rule.ports.first(), rule.ports.last());
        if last < range.first() || first > range.last() {
            continue;
        }
        match rule.action {
            RuleAction::Translate => findings.push(published(rule)),
            RuleAction::Accept if last - first >= SERVICE => findings.push(finding(
                "firewall-accepts-range",
                Severity::Low,
                "without the guard, every host can reach what listens there",
                format!("{} accepts {}", text::plain(&rule.place), rule.ports),
                Some("accept established and related connections instead".to_owned()),
            )),
            RuleAction::Accept => {}
        }
    }
}

fn published(rule: &Rule) -> AuditFinding {
    let (first, last) = (rule.ports.first(), rule.ports.last());
    let ports = if first == last {
        first.to_string()
    } else {
        rule.ports.to_string()
    };

    finding(
        "published-port",
        Severity::Medium,
        "a translated port in the range gets no packets while it is guarded, and is open while it is not",
        format!("{} translates {ports}", text::plain(&rule.place)),
        Some(format!(
            "publish a port outside of the range, or --expose {ports}/tcp"
        )),
    )
}

/// A sysctl, the values that are right, and what a wrong one means.
type Expected = (
    &'static str,
    &'static [&'static str],
    Severity,
    &'static str,
    &'static str,
);

const EXPECTED: [Expected; 4] = [
    (
        "net.ipv4.tcp_syncookies",
        &["1", "2"],
        Severity::Medium,
        "syncookies",
        "a SYN flood at an open port keeps others from connecting",
    ),
    (
        "net.ipv4.tcp_rfc1337",
        &["1"],
        Severity::Info,
        "rfc1337",
        "a RST ends the TIME_WAIT state early (RFC 1337)",
    ),
    (
        "kernel.unprivileged_bpf_disabled",
        &["1", "2"],
        Severity::Medium,
        "unprivileged-bpf",
        "every user may load programs into the kernel",
    ),
    (
        "net.core.bpf_jit_harden",
        &["1", "2"],
        Severity::Low,
        "bpf-jit-harden",
        "constants of unprivileged programs are not blinded",
    ),
];

fn sysctls(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    for (key, right, severity, id, why) in EXPECTED {
        if let Some(value) = facts.sysctls.get(key)
            && !right.contains(&value.as_str())
        {
            findings.push(finding(
                id,
                severity,
                why,
                format!("{key} is {}", text::plain(value)),
                Some(format!("sysctl -w {key}={}", right[0])),
            ));
        }
    }
    let filters = [
        "net.ipv4.conf.all.rp_filter",
        "net.ipv4.conf.default.rp_filter",
    ]
    .map(|key| facts.sysctls.get(key).map(String::as_str));
    // The kernel takes the larger of both for an interface that was made since.
    if filters.iter().all(|value| *value == Some("0")) {
        findings.push(finding(
            "rp-filter",
            Severity::Low,
            "packets with forged senders of other networks are taken",
            "net.ipv4.conf.all.rp_filter and net.ipv4.conf.default.rp_filter are 0",
            Some("sysctl -w net.ipv4.conf.all.rp_filter=2 (loose) or 1 (strict)".to_owned()),
        ));
    }
}

fn modules(facts: &AuditFacts, findings: &mut Vec<AuditFinding>) {
    let Some(modules) = &facts.modules else {
        return;
    };
    let present = modules
        .split(',')
        .any(|module| matches!(module, "apparmor" | "selinux"));
    if !present {
        findings.push(finding(
            "no-access-control",
            Severity::Info,
            "nothing but its privileges confines a process",
            format!("the kernel has {} in force", text::plain(modules)),
            None,
        ));
    } else if facts.guard.is_some()
        && facts
            .confinement
            .as_deref()
            .is_none_or(|label| label.contains("unconfined"))
    {
        findings.push(finding(
            "guard-unconfined",
            Severity::Info,
            "neither AppArmor nor SELinux confines the guard",
            facts
                .confinement
                .as_deref()
                .map_or_else(|| "the kernel does not say".to_owned(), text::plain),
            None,
        ));
    }
}

#[cfg(test)]
mod tests;
