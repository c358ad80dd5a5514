use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{api::http::test_guard::observation, config::Mode};

fn render(observation: Snapshot) -> String {
    exposition(Arc::new(observation), 3).expect("renders")
}

/// Everything but the packets of the devices, which [`snapshot_of_packets`] shows.
#[test]
fn snapshot_of_the_rest() {
    let text = render(observation(Mode::Enforce));
    let rest: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("portguard_packets_total{"))
        .collect();

    let version = env!("CARGO_PKG_VERSION");
    let expected = format!(
        r#"# HELP portguard_packets Frames by what was done with them and why; each is counted once per direction
# TYPE portguard_packets counter
# HELP portguard_port_range First and last port of the guarded range
# TYPE portguard_port_range gauge
portguard_port_range{{bound="first"}} 32768
portguard_port_range{{bound="last"}} 60999
# HELP portguard_flows Flows in the map that have not expired; UDP-Lite is among udp
# TYPE portguard_flows gauge
portguard_flows{{family="ipv4",protocol="tcp"}} 12
portguard_flows{{family="ipv6",protocol="tcp"}} 3
portguard_flows{{family="ipv4",protocol="udp"}} 1
portguard_flows{{family="ipv6",protocol="udp"}} 0
# HELP portguard_flows_capacity Flows there is room for
# TYPE portguard_flows_capacity gauge
portguard_flows_capacity{{family="ipv4",protocol="tcp"}} 65536
portguard_flows_capacity{{family="ipv6",protocol="tcp"}} 65536
portguard_flows_capacity{{family="ipv4",protocol="udp"}} 65536
portguard_flows_capacity{{family="ipv6",protocol="udp"}} 65536
# HELP portguard_blocked_listeners Sockets that listen on a guarded port, which others cannot reach
# TYPE portguard_blocked_listeners gauge
portguard_blocked_listeners 2
# HELP portguard_alarms Things that are wrong with the guard at this moment; portguard status names them
# TYPE portguard_alarms gauge
portguard_alarms 1
# HELP portguard_attached 1 where the program is attached to the interface, else 0
# TYPE portguard_attached gauge
portguard_attached{{device="eth0",hook="xdp"}} 1
portguard_attached{{device="eth0",hook="egress"}} 1
portguard_attached{{device="eth1",hook="xdp"}} 0
portguard_attached{{device="eth1",hook="egress"}} 1
# HELP portguard_unseen_packets Packets that the interface counted while the program at the hook saw none at all
# TYPE portguard_unseen_packets counter
portguard_unseen_packets_total{{device="eth0",hook="xdp"}} 0
portguard_unseen_packets_total{{device="eth0",hook="egress"}} 0
portguard_unseen_packets_total{{device="eth1",hook="xdp"}} 0
portguard_unseen_packets_total{{device="eth1",hook="egress"}} 620
# HELP portguard_xdp_mode_info Always 1; the label names where the XDP program runs: native in the driver, or generic
# TYPE portguard_xdp_mode_info gauge
portguard_xdp_mode_info{{device="eth0",mode="native"}} 1
# HELP portguard_rescues Flows put back because the kernel has a connected socket, by the state of their entry
# TYPE portguard_rescues counter
portguard_rescues_total{{cause="absent"}} 0
portguard_rescues_total{{cause="expired"}} 0
# HELP portguard_would_drop_live Frames for a live socket that monitor mode passed and enforce mode would drop
# TYPE portguard_would_drop_live counter
portguard_would_drop_live_total{{socket="connected"}} 0
portguard_would_drop_live_total{{socket="listener"}} 0
# HELP portguard_failed_sweeps Sweeps over flows and sockets that have failed; until one succeeds, unused ports look used
# TYPE portguard_failed_sweeps counter
portguard_failed_sweeps_total 0
# HELP portguard_sweep_duration_seconds How long the last sweep over flows and sockets took
# TYPE portguard_sweep_duration_seconds gauge
portguard_sweep_duration_seconds 0.013
# HELP portguard_ports Ports of the kernel's range by what they are; those listening and in time_wait are in use
# TYPE portguard_ports gauge
portguard_ports{{protocol="tcp",state="available"}} 28000
portguard_ports{{protocol="udp",state="available"}} 28200
portguard_ports{{protocol="tcp",state="in_use"}} 232
portguard_ports{{protocol="udp",state="in_use"}} 32
portguard_ports{{protocol="tcp",state="listening"}} 2
portguard_ports{{protocol="udp",state="listening"}} 1
portguard_ports{{protocol="tcp",state="reserved"}} 12
portguard_ports{{protocol="udp",state="reserved"}} 12
portguard_ports{{protocol="tcp",state="time_wait"}} 30
# HELP portguard_busiest_destination_ratio Share of the range in use towards the destination that uses the most
# TYPE portguard_busiest_destination_ratio gauge
portguard_busiest_destination_ratio{{protocol="tcp"}} 0.25
portguard_busiest_destination_ratio{{protocol="udp"}} 0.0
# HELP portguard_exhaustion_seconds Until a destination has no port left at the rate of the last minutes; +Inf if none are taken
# TYPE portguard_exhaustion_seconds gauge
portguard_exhaustion_seconds{{protocol="tcp"}} 7200.0
portguard_exhaustion_seconds{{protocol="udp"}} +Inf
# HELP portguard_read_failures Maps that could not be read for a scrape or a status
# TYPE portguard_read_failures counter
portguard_read_failures_total 3
# HELP process_cpu_seconds Processor time of the daemon, in seconds
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 1.5
# HELP process_start_time_seconds When the daemon was started, in seconds since 1970
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1800000000.25
# HELP process_resident_memory_bytes Memory of the daemon in RAM, without maps of the programs
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 12000000
# HELP process_virtual_memory_bytes Address space of the daemon
# TYPE process_virtual_memory_bytes gauge
process_virtual_memory_bytes 40000000
# HELP process_open_fds Descriptors that the daemon has open
# TYPE process_open_fds gauge
process_open_fds 60
# HELP process_max_fds Descriptors that the daemon may have open
# TYPE process_max_fds gauge
process_max_fds 1024
# HELP process_threads Threads of the daemon
# TYPE process_threads gauge
process_threads 4
# HELP portguard_mode_info Always 1; the label names what is done with what would be dropped
# TYPE portguard_mode_info gauge
portguard_mode_info{{mode="enforce"}} 1
# HELP portguard_config_info Always 1; the label tells configurations in force apart
# TYPE portguard_config_info gauge
portguard_config_info{{hash="0123456789abcdef"}} 1
# HELP portguard_config_last_reload_successful 1 if the configuration file was taken when it was last read, else 0
# TYPE portguard_config_last_reload_successful gauge
portguard_config_last_reload_successful 1
# HELP portguard_config_last_reload_success_timestamp_seconds When the configuration was last taken, in seconds since 1970
# TYPE portguard_config_last_reload_success_timestamp_seconds gauge
portguard_config_last_reload_success_timestamp_seconds 1800000000.5
# HELP portguard_build_info Always 1; the label names the running version
# TYPE portguard_build_info gauge
portguard_build_info{{version="{version}"}} 1
# EOF"#
    );
    assert_eq!(rest.join("\n"), expected);
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn snapshot_of_packets() {
    let text = render(observation(Mode::Enforce));
    let counted: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("portguard_packets_total{") && !line.ends_with(" 0"))
        .collect();

    assert_eq!(
        counted,
        [
            r#"portguard_packets_total{device="eth0",direction="ingress",family="ipv6",protocol="tcp",verdict="pass",reason="known_flow"} 77"#,
            r#"portguard_packets_total{device="eth0",direction="ingress",family="ipv4",protocol="icmp",verdict="pass",reason="trusted"} 1"#,
            r#"portguard_packets_total{device="eth0",direction="ingress",family="ipv4",protocol="udp",verdict="pass",reason="no_flow"} 2"#,
            r#"portguard_packets_total{device="eth0",direction="ingress",family="ipv4",protocol="tcp",verdict="drop",reason="no_flow"} 40"#,
            r#"portguard_packets_total{device="eth1",direction="egress",family="ipv6",protocol="tcp",verdict="pass",reason="known_flow"} 5"#,
            r#"portguard_packets_total{device="gone\"0",direction="ingress",family="ipv6",protocol="tcp",verdict="drop",reason="no_flow"} 1"#,
        ]
    );
}

/// `family/protocol` of each series of a reason on one device that nothing has happened on.
fn series(mode: Mode) -> BTreeMap<(String, String, String), BTreeSet<String>> {
    let mut idle = observation(mode);
    idle.frames.clear();
    idle.interfaces.truncate(1);
    let mut series: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for line in render(idle).lines() {
        let Some(labels) = line.strip_prefix("portguard_packets_total{device=\"eth0\",") else {
            continue;
        };
        assert!(line.ends_with(" 0"), "{line}");
        let value = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\"")).expect(name);
            rest.split('"').next().expect(name).to_owned()
        };
        let kind = format!("{}/{}", value("family"), value("protocol"));
        let group = (value("direction"), value("reason"), value("verdict"));
        assert!(
            series.entry(group).or_default().insert(kind),
            "twice: {line}"
        );
    }
    series
}

#[test]
fn every_series_that_can_occur_exists_from_the_start() {
    let ports = "ipv4/tcp ipv4/udp ipv4/udplite ipv6/tcp ipv6/udp ipv6/udplite";
    let icmp = "ipv4/icmp ipv6/icmp";
    let ip = "ipv4/tcp ipv4/udp ipv4/udplite ipv4/icmp ipv4/other \
              ipv6/tcp ipv6/udp ipv6/udplite ipv6/icmp ipv6/other";
    let any = format!("{ip} other/other");
    // Packets with ports, and errors that quote one.
    let about_ports = format!("{ports} {icmp}");
    // direction  reason            verdict  kinds
    let table = [
        ("ingress", "not_ip", "pass", "other/other"),
        ("ingress", "vlan_depth", "drop", "other/other"),
        ("ingress", "header_depth", "drop", "ipv6/other ipv6/icmp"),
        ("ingress", "malformed", "drop", &any),
        ("ingress", "later_fragment", "pass", ip),
        ("ingress", "fragment_denied", "drop", ip),
        ("ingress", "icmp_info", "pass", icmp),
        ("ingress", "icmp_outside", "pass", icmp),
        ("ingress", "icmp_related", "pass", icmp),
        ("ingress", "icmp_unrelated", "drop", icmp),
        ("ingress", "other_protocol", "pass", "ipv4/other ipv6/other"),
        ("ingress", "outside_range", "pass", ports),
        ("ingress", "exempt", "pass", ports),
        ("ingress", "known_flow", "pass", ports),
        ("ingress", "rescued", "pass", ports),
        ("ingress", "not_local", "pass", &about_ports),
        ("ingress", "trusted", "pass", &about_ports),
        ("ingress", "no_flow", "drop", ports),
        ("egress", "not_recorded", "pass", &any),
        ("egress", "known_flow", "pass", ports),
        ("egress", "new_flow", "pass", ports),
        ("egress", "insert_failed", "pass", ports),
    ];
    assert_eq!(table.len(), Outcome::ALL.len());

    for mode in [Mode::Enforce, Mode::Monitor] {
        let series = series(mode);
        assert_eq!(series.len(), table.len(), "{mode}");
        for (direction, reason, verdict, kinds) in table {
            let verdict = match mode {
                Mode::Enforce => verdict,
                Mode::Monitor => "pass",
            };
            let group = (direction.into(), reason.into(), verdict.into());
            let kinds = kinds.split_whitespace().map(str::to_owned).collect();
            assert_eq!(series.get(&group), Some(&kinds), "{mode} {group:?}");
        }
    }
}

#[test]
fn every_outcome_is_shown_with_its_count() {
    for &outcome in Outcome::ALL {
        let mut one = observation(Mode::Enforce);
        one.frames.truncate(1);
        one.frames[0].decision.outcome = outcome;
        one.frames[0].frames = 123_456;
        let text = render(one);
        let counted: Vec<_> = text
            .lines()
            .filter(|line| line.ends_with(" 123456"))
            .collect();

        assert_eq!(counted.len(), 1, "{outcome:?}");
        let direction = format!("direction=\"{}\"", outcome.direction().label());
        let reason = format!("reason=\"{}\"", outcome.reason());
        assert!(counted[0].contains(&direction) && counted[0].contains(&reason));
    }
}

#[test]
fn counts_of_one_series_add_up() {
    let mut twice = observation(Mode::Enforce);
    let again = twice.frames[0].clone();
    twice.frames.push(again);

    assert!(render(twice).contains("verdict=\"drop\",reason=\"no_flow\"} 80\n"));
}

/// What `docs/metrics.md` says, a row of cells a line of its tables, without backticks.
fn documented(heading: &str) -> Vec<Vec<String>> {
    const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
    let (_, rest) = DOCUMENT
        .split_once(&format!("\n## {heading}\n"))
        .expect(heading);
    let section = rest.split("\n## ").next().expect(heading);
    section
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let line = line.replace("\\|", "\0");
            let cells = line.trim_matches('|').split('|');
            cells
                .map(|cell| cell.trim().replace('\0', "|").replace('`', ""))
                .collect()
        })
        .collect()
}

/// The labels of a documented metric, each with the values that it may have, where those are said.
fn labels(cell: &str) -> BTreeMap<&str, Option<BTreeSet<&str>>> {
    cell.split(", ")
        .filter(|label| !label.is_empty())
        .map(|label| match label.split_once('=') {
            Some((name, values)) => {
                let values = values.trim_matches('"').split('|').collect();
                (name, Some(values))
            }
            None => (label, None),
        })
        .collect()
}

#[test]
fn every_metric_is_documented_with_its_labels_and_no_other() {
    let table = documented("Series");
    let table: BTreeMap<&str, _> = table
        .iter()
        .map(|row| (row[0].as_str(), labels(&row[1])))
        .collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for mode in [Mode::Enforce, Mode::Monitor] {
        let text = render(observation(mode));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().expect("a name");
            let documented = table.get(name).unwrap_or_else(|| panic!("{name}"));
            let given = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'));
            let given = given.map_or("", |(labels, _)| labels);
            let names = found.entry(name.to_owned()).or_default();
            for label in given.split("\",").filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once("=\"").expect("a value");
                let value = value.trim_end_matches('"');
                names.insert(label.to_owned());
                let values = documented
                    .get(label)
                    .unwrap_or_else(|| panic!("{name} {label}"));
                let known = values.as_ref().is_none_or(|values| values.contains(value));
                assert!(known, "{name}: {label} is {value}");
            }
        }
    }
    let names = |labels: &BTreeMap<&str, _>| -> BTreeSet<String> {
        labels.keys().map(|&label| label.to_owned()).collect()
    };
    let expected: BTreeMap<_, _> = table
        .iter()
        .map(|(&name, labels)| (name.to_owned(), names(labels)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_reason_is_documented_with_its_verdict_and_no_other() {
    for (direction, heading) in [
        ("ingress", "Reasons of received packets"),
        ("egress", "Reasons of sent packets"),
    ] {
        let documented: Vec<_> = documented(heading)
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        let known: BTreeSet<_> = documented.iter().cloned().collect();
        assert_eq!(
            known.len(),
            documented.len(),
            "{heading}: one is there twice"
        );
        let expected: BTreeSet<_> = Outcome::ALL
            .iter()
            .filter(|outcome| outcome.direction().label() == direction)
            .map(|outcome| {
                let verdict = outcome.verdict().label();
                (outcome.reason().to_owned(), verdict.to_owned())
            })
            .collect();
        assert_eq!(known, expected, "{heading}");
    }
}
