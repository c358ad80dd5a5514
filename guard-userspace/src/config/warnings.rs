//! What the administrator should know of settings that are valid.

use guard_common::frame::transport::Transport;
use ipnet::IpNet;

use super::{Mode, Settings};
use crate::host::range::{GuardedPorts, LocalPorts, PortRange};

/// What these settings leave open, where that may not be what was meant, with the ports that the
/// kernel hands out.
pub fn warnings(settings: &Settings, local: &LocalPorts) -> Vec<String> {
    let mut warnings = Vec::new();
    let trusted: Vec<IpNet> = IpNet::aggregate(&settings.trust.iter().copied().collect());
    for (family, everybody) in [("IPv4", "0.0.0.0/0"), ("IPv6", "::/0")] {
        if trusted.iter().any(|prefix| prefix.to_string() == everybody) {
            warnings.push(format!(
                "trust names every {family} host: nothing that comes by {family} is dropped"
            ));
        }
    }
    for exposed in &settings.expose {
        let ports = exposed.ports;
        if ports.last() < local.range.first() || ports.first() > local.range.last() {
            warnings.push(format!(
                "exposed {exposed}: not in the range {}, nothing is dropped there anyway",
                local.range
            ));
        }
    }
    let guarded = GuardedPorts::new(local, settings.exposures());
    for (protocol, transport) in [("TCP", Transport::Tcp), ("UDP", Transport::Udp)] {
        if !local
            .range
            .ports()
            .any(|port| guarded.guarded(transport, port))
        {
            warnings.push(format!(
                "every {protocol} port of {} is exposed or reserved: no {protocol} is dropped",
                local.range
            ));
        }
    }

    warnings
}

/// What is done on an interface that is described by `shown`, such as `guarding eth0 (native
/// XDP, TCX egress), ports 32768-60999`.
pub fn headline(settings: &Settings, shown: &str, range: PortRange) -> String {
    let trusting = if settings.trust.is_empty() {
        String::new()
    } else {
        const SHOWN: usize = 4;
        let names: Vec<_> = settings
            .trust
            .iter()
            .take(SHOWN)
            .map(ToString::to_string)
            .collect();
        let more = match settings.trust.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!(", trusting {}{more}", names.join(", "))
    };
    match settings.mode {
        Mode::Enforce => format!("guarding {shown}, ports {range}{trusting}"),
        Mode::Monitor => {
            format!("monitoring {shown}, ports {range}{trusting}: nothing is dropped")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn warned(text: &str) -> Vec<String> {
        let local = LocalPorts {
            range: "40000-40009".parse().expect("a range"),
            reserved: vec!["40005-50000".parse().expect("a range")],
        };
        let file = super::super::file::parse(&format!("iface = ['a']\n{text}"), "t").expect(text);
        let settings = Settings::merge(
            &super::super::ConfigLayer::default(),
            Some(&file),
            Some(Path::new("t")),
        );

        warnings(&settings.expect(text), &local)
    }

    #[test]
    fn what_is_left_open() {
        // settings, and a part of each warning
        let table: [(&str, &[&str]); 9] = [
            ("", &[]),
            ("trust = ['10.0.0.0/8', '0.0.0.0/1']", &[]),
            ("trust = ['0.0.0.0/0']", &["every IPv4 host"]),
            ("trust = ['0.0.0.0/1', '128.0.0.0/1']", &["every IPv4 host"]),
            ("trust = ['::/0', '0.0.0.0/0']", &["IPv4", "IPv6"]),
            ("expose = ['40000/tcp', '39000-40000/udp']", &[]),
            (
                "expose = ['22/tcp']",
                &["exposed 22/tcp: not in the range 40000-40009"],
            ),
            ("expose = ['40010-40011/udp']", &["exposed 40010-40011/udp"]),
            (
                "expose = ['1-40004/tcp']",
                &["every TCP port of 40000-40009"],
            ),
        ];
        for (text, expected) in table {
            let said = warned(text);
            assert_eq!(said.len(), expected.len(), "{text}: {said:?}");
            for (said, part) in said.iter().zip(expected) {
                assert!(said.contains(part), "{text}: {said}");
            }
        }
    }
}
