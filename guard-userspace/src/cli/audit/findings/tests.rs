use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::{super::firewall::Firewalls, *};
use crate::{api::control::StatusJson, host::sysctl_d::BootSettings};

/// A host on which nothing is worth telling.
fn sound() -> AuditFacts {
    AuditFacts {
        local: local(32_768, 60_999, &[]),
        boot: BootSettings::default(),
        sysctls: BTreeMap::from(
            [
                ("net.ipv4.tcp_syncookies", "1"),
                ("net.ipv4.conf.all.rp_filter", "0"),
                ("net.ipv4.conf.default.rp_filter", "2"),
                ("net.ipv4.tcp_rfc1337", "1"),
                ("kernel.unprivileged_bpf_disabled", "2"),
                ("net.core.bpf_jit_harden", "1"),
            ]
            .map(|(key, value)| (key, value.to_owned())),
        ),
        listeners: Vec::new(),
        interfaces: vec![
            interface("lo", 772, None, "127.0.0.1/8"),
            interface("eth0", 1, None, "192.0.2.1/24"),
        ],
        guard: Some(status(json!({}))),
        firewalls: Firewalls::default(),
        modules: Some("capability,apparmor,bpf".to_owned()),
        confinement: Some("portguard (enforce)".to_owned()),
    }
}

fn local(first: u16, last: u16, reserved: &[(u16, u16)]) -> LocalPorts {
    let range = |first, last| PortRange::new(first, last).expect("a range");
    LocalPorts {
        range: range(first, last),
        reserved: reserved.iter().map(|&(a, b)| range(a, b)).collect(),
    }
}

/// The guard of a sound host, but for what `changes` says.
fn status(changes: Value) -> StatusJson {
    let mut status = json!({
        "schema_version": 1, "mode": "enforce", "range": {"first": 32768, "last": 60999},
        "reserved": [], "exposed": [], "listeners": [],
        "interfaces": [{"name": "eth0", "xdp_mode": "native", "egress": "tcx"}],
        "flows": {"entries": 0, "capacity": 1}, "packets": {},
    });
    for (key, value) in changes.as_object().expect("an object") {
        status[key] = value.clone();
    }
    serde_json::from_value(status).expect("a status")
}

fn interface(name: &str, link_type: u16, kind: Option<&str>, address: &str) -> Interface {
    Interface {
        index: 1,
        name: name.to_owned(),
        altnames: Vec::new(),
        mac: None,
        link_type,
        kind: kind.map(str::to_owned),
        up: true,
        promiscuous: false,
        mtu: 1500,
        max_mtu: None,
        addresses: vec![address.parse().expect("an address")],
        controller: None,
        lower: None,
        xdp: Vec::new(),
    }
}

fn waiting(transport: Transport, port: u16) -> Waiting {
    Waiting {
        transport,
        port,
        who: "server, pid 7".to_owned(),
    }
}

fn rule(action: RuleAction, first: u16, last: u16) -> Rule {
    Rule {
        action,
        ports: PortRange::new(first, last).expect("a range"),
        place: "nft ip nat pre".to_owned(),
    }
}

fn boot(text: &str) -> BootSettings {
    let root = tempfile::tempdir().expect("a folder");
    let folder = root.path().join("etc/sysctl.d");
    fs::create_dir_all(&folder).expect("folders");
    fs::write(folder.join("50.conf"), text).expect("a file");
    BootSettings::read(root.path()).expect("settings")
}

fn ids(facts: &AuditFacts) -> Vec<&'static str> {
    assess(facts)
        .into_iter()
        .map(|finding| finding.id)
        .collect()
}

#[test]
fn nothing_is_found_on_a_sound_host() {
    assert_eq!(assess(&sound()), []);
}

#[test]
fn each_fault_is_found_and_no_other() {
    type Fault = (&'static str, fn(&mut AuditFacts), &'static [&'static str]);
    let table: [Fault; 30] = [
        ("no guard", |f| f.guard = None, &["no-guard"]),
        (
            "monitor mode",
            |f| f.guard = Some(status(json!({"mode": "monitor"}))),
            &["guard-monitors"],
        ),
        (
            "an alarm",
            |f| {
                f.guard = Some(status(json!({"alarms": [
                    {"device": "eth0", "kind": "unseen_sent", "text": "sees nothing\nerror: forged"}]})));
            },
            &["guard-alarm"],
        ),
        (
            "full maps",
            |f| f.guard = Some(status(json!({"advice": "--max-flows 131072 has room"}))),
            &["flow-maps-full"],
        ),
        (
            "generic mode",
            |f| {
                f.guard = Some(status(json!({"interfaces": [
                    {"name": "eth0", "xdp_mode": "generic", "egress": "tcx"}]})));
            },
            &["generic-mode"],
        ),
        (
            "a range of the guard's own",
            |f| f.guard = Some(status(json!({"range": {"first": 40000, "last": 60999}}))),
            &["range-not-covered"],
        ),
        (
            "a second interface",
            |f| {
                f.interfaces
                    .push(interface("eth1", 1, None, "198.51.100.1/24"));
            },
            &["interface-unguarded"],
        ),
        (
            "recorded is not guarded",
            |f| {
                f.guard = Some(status(json!({"interfaces": [
                    {"name": "eth0", "xdp_mode": null, "egress": "tcx"}]})));
            },
            &["interface-unguarded"],
        ),
        (
            "one that is down",
            |f| {
                f.interfaces
                    .push(interface("eth1", 1, None, "198.51.100.1/24"));
                f.interfaces[2].up = false;
            },
            &[],
        ),
        (
            "one with a link-local address",
            |f| f.interfaces.push(interface("eth1", 1, None, "fe80::1/64")),
            &[],
        ),
        (
            "a tunnel",
            |f| {
                f.interfaces
                    .push(interface("vx0", 1, Some("vxlan"), "198.51.100.1/24"));
            },
            &["tunnel"],
        ),
        (
            "a range that was set by hand",
            |f| f.local = local(40_000, 45_000, &[]),
            &["range-at-boot"],
        ),
        (
            "a range that a file sets",
            |f| {
                f.local = local(40_000, 45_000, &[]);
                f.boot = boot("net.ipv4.ip_local_port_range = 40000\t45000");
            },
            &[],
        ),
        (
            "a range that a file sets to something else",
            |f| f.boot = boot("net.ipv4.ip_local_port_range = 40000 45000"),
            &["range-at-boot"],
        ),
        (
            "a file that the kernel will refuse",
            |f| f.boot = boot("net.ipv4.ip_local_port_range = 5 1"),
            &["range-at-boot"],
        ),
        (
            "ports that were reserved by hand",
            |f| f.local = local(32_768, 60_999, &[(40_000, 40_000)]),
            &["reserved-at-boot"],
        ),
        (
            "a wide range",
            |f| {
                f.local = local(1024, 65_535, &[]);
                f.boot = boot("net.ipv4.ip_local_port_range = 1024 65535");
                f.guard = Some(status(json!({"range": {"first": 1024, "last": 65535}})));
            },
            &["range-wide"],
        ),
        (
            "a listener that is cut off",
            |f| f.listeners = vec![waiting(Transport::Tcp, 40_000)],
            &["listener-cut-off"],
        ),
        (
            "a client",
            |f| f.listeners = vec![waiting(Transport::Udp, 40_000)],
            &[],
        ),
        (
            "a listener that is exposed",
            |f| {
                f.listeners = vec![waiting(Transport::Tcp, 40_000)];
                f.guard = Some(status(json!({"exposed": ["40000/tcp"]})));
            },
            &["listener-in-range"],
        ),
        (
            "a listener without a guard",
            |f| {
                f.listeners = vec![waiting(Transport::Tcp, 40_000)];
                f.guard = None;
            },
            &["no-guard", "listener-in-range"],
        ),
        (
            "services outside of the range",
            |f| f.listeners = vec![waiting(Transport::Tcp, 22), waiting(Transport::Udp, 123)],
            &["listeners-outside"],
        ),
        (
            "a published port",
            |f| {
                f.firewalls.rules = vec![
                    rule(RuleAction::Translate, 40_080, 40_080),
                    rule(RuleAction::Translate, 80, 80),
                ];
            },
            &["published-port"],
        ),
        (
            "a firewall that lets the range in",
            |f| {
                f.firewalls.rules = vec![
                    rule(RuleAction::Accept, 32_768, 60_999),
                    rule(RuleAction::Accept, 40_000, 40_000),
                ];
            },
            &["firewall-accepts-range"],
        ),
        (
            "a firewall that cannot be read, beside one that can",
            |f| {
                f.firewalls.unread = vec!["nft"];
                f.firewalls.rules = vec![rule(RuleAction::Translate, 40_080, 40_080)];
            },
            &["firewall-unread", "published-port"],
        ),
        (
            "no SYN cookies",
            |f| drop(f.sysctls.insert("net.ipv4.tcp_syncookies", "0".to_owned())),
            &["syncookies"],
        ),
        (
            "unprivileged programs",
            |f| {
                drop(
                    f.sysctls
                        .insert("kernel.unprivileged_bpf_disabled", "0".to_owned()),
                );
            },
            &["unprivileged-bpf"],
        ),
        (
            "no filter of reverse paths",
            |f| {
                drop(
                    f.sysctls
                        .insert("net.ipv4.conf.default.rp_filter", "0".to_owned()),
                );
            },
            &["rp-filter"],
        ),
        (
            "no access control",
            |f| f.modules = Some("capability,bpf".to_owned()),
            &["no-access-control"],
        ),
        (
            "a guard that nothing confines",
            |f| f.confinement = Some("unconfined".to_owned()),
            &["guard-unconfined"],
        ),
    ];
    for (name, fault, expected) in table {
        let mut facts = sound();
        fault(&mut facts);
        let mut found = ids(&facts);
        found.sort_unstable();
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn what_others_choose_forges_no_line() {
    let mut facts = sound();
    facts.guard = Some(status(json!({"alarms": [
        {"device": "e\nx", "kind": "unseen_sent", "text": "a\nhigh no-guard"}]})));
    facts
        .interfaces
        .push(interface("a\nb", 1, None, "198.51.100.1/24"));
    for finding in assess(&facts) {
        assert!(!finding.evidence.contains('\n'), "{finding:?}");
    }
}

#[test]
fn how_much_is_reached() {
    let mut facts = sound();
    facts.guard = Some(status(json!({"exposed": ["40000-40009/tcp", "5/udp"]})));
    facts.local = local(32_768, 60_999, &[(50_000, 50_000)]);
    let reachable = facts.reachable();
    assert_eq!((reachable.before, reachable.now), (56_464, 12));
    facts.guard = None;
    assert_eq!(facts.reachable().now, 56_464);
}
