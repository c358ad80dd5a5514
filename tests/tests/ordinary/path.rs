//! N06, N07: which way packets go.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{
    self, PassIcmpInfo, PassIcmpOutside, PassIcmpRelated, PassKnownFlow, PassLaterFragment,
    PassNewFlow, PassNotRecorded, PassRefreshedFlow,
};
use guard_tests::{
    clients::{Service, moves, run},
    guard::Guard,
    metrics::Packets,
    netns::Routed,
};

use crate::MODES;

/// The router and the peer behind it.
const HOPS: [[&str; 2]; 2] = [["10.9.0.254", "10.8.0.1"], ["fd09::fe", "fd08::1"]];

/// A route on which nobody is too busy to report a failure.
fn route(mtu: u32) -> Result<Routed> {
    let topology = Routed::new(mtu)?;
    for host in [&topology.router, &topology.peer] {
        host.sysctl("net/ipv4/icmp_ratelimit", "0")?;
        host.sysctl("net/ipv6/icmp/ratelimit", "0")?;
    }
    Ok(topology)
}

fn guarded<'a>(topology: &'a Routed, mode: &str) -> Result<Guard<'a>> {
    Guard::start(&topology.guarded, "vg", &["--xdp-mode", mode])
}

fn names(report: &str, hops: [&str; 2]) -> Result<()> {
    for hop in hops {
        let named = report
            .split(|character: char| character.is_whitespace() || "()|:".contains(character))
            .any(|word| word == hop)
            || report.contains(&format!(" {hop} "));
        ensure!(named, "{hop} is not shown: {report}");
    }
    Ok(())
}

#[test]
fn n06_echoes_and_their_fragments_come_back() -> Result<()> {
    for mode in MODES {
        let topology = route(1500)?;
        let guard = guarded(&topology, mode)?;
        for [_, peer] in HOPS {
            for (how, due) in [
                ("", &[PassIcmpInfo][..]),
                ("-s 4000", &[PassIcmpInfo, PassLaterFragment]),
            ] {
                let line = format!("ping -c 3 -i 0.2 -W 2 {how} {peer}");
                let report = moves(&guard, due, &[], || run(&topology.guarded, &line))
                    .with_context(|| format!("N06, {mode}, {line}"))?;
                ensure!(report.contains(" 0% packet loss"), "N06, {mode}: {report}");
            }
        }
    }
    Ok(())
}

#[test]
fn n06_mtr_shows_every_hop() -> Result<()> {
    for mode in MODES {
        let topology = route(1500)?;
        let _server = Service::silent(&topology.peer, 80)?;
        let guard = guarded(&topology, mode)?;
        for hops in HOPS {
            // Errors quote what was sent: echoes have no ports, what has some comes from the range.
            for (how, due) in [
                ("", &[PassIcmpInfo, PassIcmpOutside][..]),
                ("--tcp --port 80", &[PassIcmpRelated, PassKnownFlow]),
            ] {
                let line = format!("mtr -n -r -c 2 -i 0.2 -G 1 {how} {}", hops[1]);
                moves(&guard, due, &[], || {
                    names(&run(&topology.guarded, &line)?, hops)
                })
                .with_context(|| format!("N06, {mode}, {line}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn n06_tracepath_finds_every_hop_and_the_narrowest_link() -> Result<()> {
    for mode in MODES {
        let topology = route(1280)?;
        let guard = guarded(&topology, mode)?;
        for hops in HOPS {
            let line = format!("tracepath -n {}", hops[1]);
            moves(&guard, &[PassIcmpRelated], &[], || {
                let report = run(&topology.guarded, &line)?;
                ensure!(report.contains("pmtu 1280"), "no MTU is shown: {report}");
                names(&report, hops)
            })
            .with_context(|| format!("N06, {mode}, {line}"))?;
        }
    }
    Ok(())
}

/// What was counted, of the answers to three probes for each hop.
fn traced(guard: &Guard, topology: &Routed, line: &str, hops: [&str; 2]) -> Result<Packets> {
    let before = guard.packets()?;
    names(&run(&topology.guarded, line)?, hops)?;
    Ok(guard.packets()?.since(&before))
}

#[test]
fn n07_traceroute_shows_every_hop() -> Result<()> {
    const SENT: [Outcome; 3] = [PassNewFlow, PassRefreshedFlow, PassNotRecorded];

    for mode in MODES {
        let topology = route(1500)?;
        let _server = Service::silent(&topology.peer, 80)?;
        let guard = guarded(&topology, mode)?;
        for hops in HOPS {
            let peer: IpAddr = hops[1].parse()?;
            for (how, due) in [
                ("-U", &[(PassIcmpRelated, 6)][..]),
                ("-T", &[(PassIcmpRelated, 3), (PassKnownFlow, 3)]),
                ("-I", &[(PassIcmpOutside, 3)]),
            ] {
                let line = format!("traceroute -n -m 2 -q 3 -w 2 {how} {peer}");
                let moved = traced(&guard, &topology, &line, hops)
                    .with_context(|| format!("N07, {mode}, {line}"))?;
                for outcome in Outcome::ALL {
                    let due = due.iter().find(|(due, _)| due == outcome);
                    let noise = *outcome == PassIcmpInfo || *outcome == Outcome::PassNotIp;
                    let free = noise || SENT.contains(outcome);
                    let found = moved.of(*outcome);
                    let right = due.map_or(free || found == 0, |(_, count)| found == *count);
                    ensure!(right, "N07, {mode}, {line}: {due:?}, found:{moved}");
                }
                let echoes = moved.of(PassIcmpInfo);
                ensure!(how != "-I" || echoes >= 3, "N07, {mode}, {line}: {echoes}");
            }
        }
    }
    Ok(())
}
