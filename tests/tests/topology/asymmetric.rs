//! O01: out by one interface, back by another.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    frames::{P, udp},
    guard::Guard,
    netns::TwoLinks,
    peers::{Connection, Exchange, Talk, alive},
    wire::{Listener, QUIET, Wire},
};

use super::MODES;

const PATIENCE: Duration = Duration::from_secs(1);

/// The peer answers by the second link what the host sends by the first.
fn asymmetric() -> Result<TwoLinks> {
    let links = TwoLinks::new()?;
    let TwoLinks(topology) = &links;
    let (host, peer) = (&topology.guarded, &topology.peer);
    host.ip("addr add fd91::2/64 dev vg2 nodad")?;
    peer.ip("addr add fd91::1/64 dev vp2 nodad")?;
    peer.ip("route add 10.9.0.2/32 via 10.9.1.2 dev vp2 src 10.9.0.1")?;
    peer.ip("-6 route add fd09::2/128 via fd91::2 dev vp2 src fd09::1")?;
    for interface in ["all", "vp", "vp2"] {
        peer.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0")?;
    }
    Ok(links)
}

/// Where every answer comes in by the second link, whose interface is guarded.
fn everything_works(mode: &str, first: &[&str], flags: &[&str]) -> Result<()> {
    let TwoLinks(topology) = asymmetric()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let wire = Wire::open(peer, "vp2")?;
    let listener = Listener::new(host, 41_000)?;
    let unsolicited = addressed(udp(53, 41_000).received(Family::Ipv4), host)?;
    wire.send(&unsolicited)?;
    let heard = listener.delivered(QUIET * 4);
    ensure!(
        heard == 1,
        "an unsolicited packet is not delivered without a guard"
    );
    let flags: Vec<&str> = ["--xdp-mode", mode, "--no-rescue"]
        .iter()
        .chain(flags)
        .copied()
        .collect();
    let guard = Guard::start(host, first[0], &flags)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        let server = P.address(family);
        let mut connections = Connection::open(host, peer, (server, 8080), 5)?;
        let mut exchanges = Exchange::open(host, peer, (server, 8081), false, 5)?;
        ensure!(alive(&mut connections, PATIENCE)? == 5, "{mode}, {flags:?}");
        ensure!(alive(&mut exchanges, PATIENCE)? == 5, "{mode}, {flags:?}");
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 0, "{mode}, {flags:?}:{packets}");
        // The second link's interface is the one that decides.
        let decided = guard_tests::metrics::sum(
            &guard.scrape()?,
            "portguard_packets_total",
            &[("device", "vg2"), ("reason", PassKnownFlow.reason())],
        );
        ensure!(decided >= 10, "{mode}, {flags:?}: {decided} by vg2");
    }
    let before = guard.packets()?.of(DropNoFlow);
    wire.send(&unsolicited)?;
    ensure!(
        listener.delivered(QUIET) == 0,
        "{mode}: an unsolicited packet is delivered"
    );
    let after = guard.packets()?.of(DropNoFlow);
    ensure!(after == before + 1, "{mode}: {before} and {after} drops");
    Ok(())
}

/// The frame, to the Ethernet address of the second interface.
fn addressed(mut frame: Vec<u8>, host: &guard_tests::netns::Namespace) -> Result<Vec<u8>> {
    let output = std::process::Command::new("ip")
        .args(["-n", host.name(), "-o", "link", "show", "dev", "vg2"])
        .output()?;
    let shown = String::from_utf8(output.stdout)?;
    let (_, after) = shown.split_once("link/ether ").expect("it has an address");
    for (byte, text) in frame.iter_mut().zip(after[..17].split(':')) {
        *byte = u8::from_str_radix(text, 16)?;
    }
    Ok(frame)
}

#[test]
fn o01_both_interfaces_are_guarded() -> Result<()> {
    for mode in MODES {
        everything_works(mode, &["vg"], &["--iface", "vg2"])?;
    }
    Ok(())
}

#[test]
fn o01_one_is_guarded_and_the_other_recorded() -> Result<()> {
    for mode in MODES {
        everything_works(mode, &["vg2"], &["--egress-iface", "vg"])?;
    }
    Ok(())
}

/// As documented: what leaves by an interface that is neither guarded nor recorded was never sent.
#[test]
fn o01_what_leaves_elsewhere_is_unknown() -> Result<()> {
    let TwoLinks(topology) = asymmetric()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = Guard::start(host, "vg2", &[])?;
    let server = P.address(Family::Ipv4);
    let mut talks = Exchange::open(host, peer, (server, 8081), false, 1)?;
    guard.expect([(DropNoFlow, 1)], || Ok(talks[0].speak()?))?;
    ensure!(
        !talks[0].hears(QUIET),
        "nobody has recorded it, and it hears"
    );
    Ok(())
}
