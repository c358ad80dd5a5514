//! Every query and every alert of `docs/metrics.md`, on a real Prometheus server.

use std::{collections::BTreeSet, net::UdpSocket, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P, tcp, udp},
    guard::Guard,
    netns::Direct,
    wire::{Listener, Wire},
};

use super::{
    examples::{queries, rules, selectors},
    prometheus::Prometheus,
};

/// Alerts that what [`Guarded::troubled`] suffers must raise.
const RAISED: [&str; 3] = [
    "PortguardBlockedListeners",
    "PortguardFlowMapFull",
    "PortguardWouldCut",
];
const DOWN: &str = "PortguardDown";

#[test]
fn m_every_documented_query_and_alert_works() -> Result<()> {
    let (healthy, troubled) = (Direct::new()?, Direct::new()?);
    let guards = (
        Guard::start(&healthy.guarded, "vg", &[])?,
        Guard::start(
            &troubled.guarded,
            "vg",
            &[
                "--mode",
                "monitor",
                "--xdp-mode",
                "generic",
                "--no-rescue",
                "--max-flows",
                "1024",
                "--timeout",
                "udp=1",
            ],
        )?,
    );
    let servers = [
        Prometheus::start(&healthy.guarded, &rules())?,
        Prometheus::start(&troubled.guarded, &rules())?,
    ];
    // A rate takes a sample from before.
    thread::sleep(Duration::from_secs(1));
    keep_healthy(&healthy)?;
    let _listener = trouble(&troubled)?;
    servers[0].wait_until(r#"rate(portguard_packets_total{reason="no_flow"}[1m]) > 0"#)?;
    servers[1].wait_until("increase(portguard_would_drop_live_total[1m]) > 0")?;
    servers[1].wait_until("portguard_blocked_listeners > 0")?;
    thread::sleep(Duration::from_secs(1));

    let queries = queries();
    ensure!(!queries.is_empty(), "docs/metrics.md shows no query");
    for query in &queries {
        yields(&servers, query)?;
    }
    let alerts = servers[0].alerts()?;
    ensure!(!alerts.is_empty(), "docs/metrics.md shows no alert");
    let expressions = alerts.iter().map(|(_, expression)| expression.as_str());
    for expression in queries.into_iter().chain(expressions) {
        let selectors = selectors(expression);
        ensure!(!selectors.is_empty(), "{expression} is about nothing");
        for selector in selectors {
            yields(&servers, selector).with_context(|| format!("in {expression}"))?;
        }
    }

    ensure!(raised(&servers[0], &alerts)?.is_empty(), "false alarms");
    let found = raised(&servers[1], &alerts)?;
    ensure!(found == BTreeSet::from(RAISED), "{found:?} are raised");
    ensure!(guards.0.stop()?.success(), "the daemon ends well");
    servers[0].wait_until(r#"up{job="portguard"} == 0"#)?;
    let found = raised(&servers[0], &alerts)?;
    ensure!(found.contains(DOWN), "{found:?} are raised without a guard");
    Ok(())
}

/// Queries, answers and unsolicited packets.
fn keep_healthy(topology: &Direct) -> Result<()> {
    let wire = Wire::open(&topology.guarded, "vg")?;
    let peer = Wire::open(&topology.peer, "vp")?;
    for family in [Family::Ipv4, Family::Ipv6] {
        for port in 40_000..40_010 {
            wire.send(&udp(port, 53).sent(family))?;
            peer.send(&udp(53, port).received(family))?;
            peer.send(&udp(54, port).received(family))?;
        }
    }
    Ok(())
}

/// A listener on a guarded port, a map that is nearly full, and a connected socket
/// whose flow has expired.
fn trouble(topology: &Direct) -> Result<Listener> {
    let host = &topology.guarded;
    let listener = Listener::new(host, 40_000)?;
    let wire = Wire::open(host, "vg")?;
    for port in 0..950 {
        wire.send(&tcp(45_000 + port, 443).syn().sent(Family::Ipv4))?;
    }
    let client = host.run(|| UdpSocket::bind((G.ipv4, 41_000)))?;
    host.run(|| client.connect((P.ipv4, 123)))?;
    client.send(b"query")?;
    // More than a second of the timer, which counts in units of about one.
    thread::sleep(Duration::from_millis(3500));
    let peer = Wire::open(&topology.peer, "vp")?;
    for _ in 0..3 {
        peer.send(&udp(123, 41_000).received(Family::Ipv4))?;
    }
    Ok(listener)
}

/// Checks that an expression yields something about at least one of the guards.
fn yields(servers: &[Prometheus<'_>], expression: &str) -> Result<()> {
    let mut found = 0;
    for server in servers {
        let series = server.query(expression);
        found += series.with_context(|| expression.to_owned())?.len();
    }
    ensure!(found > 0, "{expression} yields nothing");
    Ok(())
}

/// The alerts whose expression yields something, however long it must.
fn raised<'a>(
    server: &Prometheus<'_>,
    alerts: &'a [(String, String)],
) -> Result<BTreeSet<&'a str>> {
    let mut raised = BTreeSet::new();
    for (name, expression) in alerts {
        if !server.query(expression)?.is_empty() {
            raised.insert(name.as_str());
        }
    }
    Ok(raised)
}
