//! O10: a host with a stateful firewall, reverse path filters and routes by mark.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow};
use guard_tests::{
    clients::{moves, run},
    frames::{G, P, udp},
    guard::Guard,
    netns::Direct,
    peers::{Connection, Exchange, alive},
    wire::Wire,
};

use super::{FAMILIES, MODES};

const PATIENCE: Duration = Duration::from_secs(2);

/// Only answers come in, and packets to 10.8.0.0/16 go by a table of their own.
const RULES: &str = "\
table inet filter { chain in { type filter hook input priority 0; policy drop; \
iifname \"lo\" accept; ct state established,related accept; meta l4proto ipv6-icmp accept; }; }; \
table ip marks { chain out { type route hook output priority -150; \
ip daddr 10.8.0.0/16 meta mark set 1; }; }";

fn filtered(filter: &str) -> Result<Direct> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    for interface in ["all", "vg"] {
        host.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), filter)?;
    }
    for command in [
        "rule add fwmark 1 table 100",
        "route add 10.8.0.0/16 via 10.9.0.1 table 100",
        // Who is not marked finds nobody there.
        "route add 10.8.0.0/16 via 10.9.0.254",
    ] {
        host.ip(command)?;
    }
    peer.ip("addr add 10.8.0.1/32 dev vp")?;
    let nft = host.command("nft").arg(RULES).status().context("run nft")?;
    ensure!(nft.success(), "nft takes no {RULES}");
    Ok(topology)
}

#[test]
fn o10_firewalls_and_filters_change_nothing() -> Result<()> {
    for mode in MODES {
        for filter in ["0", "1", "2"] {
            let topology = filtered(filter)?;
            let (host, peer) = (&topology.guarded, &topology.peer);
            let flags = ["--xdp-mode", mode];
            let guard = Guard::start(host, topology.interface(), &flags)?;
            let marked = "10.8.0.1".parse()?;
            let servers: [IpAddr; 3] = [P.ipv4.into(), P.ipv6.into(), marked];
            let row = || format!("O10, {mode}, rp_filter {filter}");
            moves(&guard, &[PassKnownFlow], &[], || {
                for server in servers {
                    let mut streams = Connection::open(host, peer, (server, 8080), 3)?;
                    let mut datagrams = Exchange::open(host, peer, (server, 8081), false, 3)?;
                    let heard = alive(&mut streams, PATIENCE)? + alive(&mut datagrams, PATIENCE)?;
                    ensure!(heard == 6, "{server}: {heard} of 6 hear");
                }
                Ok(())
            })
            .with_context(row)?;
            let wire = Wire::open(peer, topology.peer_interface())?;
            for family in FAMILIES {
                guard
                    .expect([(DropNoFlow, 1)], || {
                        wire.send(&udp(53, 40_000).to(G).received(family))
                    })
                    .with_context(row)?;
            }
            let rules = run(host, "nft list ruleset")?;
            ensure!(rules.contains("ct state"), "{}: {rules}", row());
        }
    }
    Ok(())
}
