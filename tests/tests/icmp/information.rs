//! ICMP that is about no packet: without it a host falls off the net.

use std::net::Ipv6Addr;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropIcmpUnrelated, PassIcmpInfo, PassIcmpRelated, PassNewFlow},
};
use guard_tests::{
    frames::{EVERYBODY, End, Extension, Frame, P, icmp, udp},
    guard::Guard,
    netns::Direct,
    wire::{Listener, QUIET, Wire},
};

use super::{MODES, kernel::redirects, output};

/// A router on the link.
const ROUTER: End = End {
    ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    ..P
};

#[test]
fn i07_messages_about_no_packet_arrive() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.sysctl("net/ipv6/conf/vg/accept_ra", "2")?;
        let wire = Wire::open(peer, topology.peer_interface())?;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        // Nothing but noise is due, and the noise is what is tried here.
        let passes = |what: &str, act: &mut dyn FnMut() -> Result<()>| -> Result<()> {
            let before = guard.packets()?;
            guard
                .expect([], act)
                .with_context(|| format!("{mode}: {what}"))?;
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassIcmpInfo) > 0, "{mode}: {what}:{moved}");
            Ok(())
        };

        for (from, address) in [
            (peer, "10.9.0.2"),
            (peer, "fd09::2"),
            (host, "10.9.0.1"),
            (host, "fd09::1"),
        ] {
            passes("echo of id 40000", &mut || {
                let (answered, said) = output(from, &format!("ping -c 1 -W 1 -e 40000 {address}"))?;
                ensure!(answered, "{said}");
                Ok(())
            })?;
        }
        passes("a timestamp", &mut || {
            wire.send(&timestamp().received(Family::Ipv4))?;
            let answers = wire.heard(QUIET);
            let replied = answers.iter().any(|answer| answer.get(34) == Some(&14));
            ensure!(replied, "no reply among {answers:02x?}");
            Ok(())
        })?;
        passes("neighbour discovery", &mut || {
            host.ip("neigh del fd09::1 dev vg")?;
            peer.ip("neigh del fd09::2 dev vp")?;
            let (answered, said) = output(host, "ping -c 1 -W 2 fd09::1")?;
            ensure!(answered, "{said}");
            Ok(())
        })?;
        passes("a router advertisement", &mut || {
            wire.send(&advertisement().received(Family::Ipv6))?;
            std::thread::sleep(QUIET);
            let (_, addresses) = output(host, "ip -6 addr show dev vg")?;
            ensure!(addresses.contains(" fd0a:"), "{addresses}");
            Ok(())
        })?;
        passes("a multicast listener query", &mut || {
            wire.send(&listener_query().received(Family::Ipv6))?;
            let answers = wire.heard(3 * QUIET);
            // Behind a Hop-by-Hop header, as every report is.
            let reported = |answer: &Vec<u8>| matches!(answer.get(62), Some(131 | 143));
            ensure!(
                answers.iter().any(reported),
                "no report among {answers:02x?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn i07_redirects_are_about_live_flows() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let listener = Listener::new(host, 40_000)?;
        let _server = Listener::new(&topology.peer, 53)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let redirect = || {
            let quoted = udp(40_000, 53).sent(Family::Ipv4);
            icmp([5, 137], [10, 9, 0, 3]).data(&quoted[14..42]).v4()
        };
        let send = || wire.send(&redirect().received(Family::Ipv4));
        send()?;
        ensure!(redirects(host)? == 1, "none heard without a guard");

        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        guard.expect([(DropIcmpUnrelated, 1)], send)?;
        ensure!(redirects(host)? == 1, "{mode}: heard without a flow");
        guard.expect([(PassNewFlow, 1)], || {
            listener
                .socket()
                .send_to(b"query", (P.ipv4.to_ipv6_mapped(), 53))?;
            Ok(())
        })?;
        guard.expect([(PassIcmpRelated, 1)], send)?;
        ensure!(redirects(host)? == 2, "{mode}: not heard for a live flow");
    }
    Ok(())
}

fn timestamp() -> Frame {
    icmp([13, 13], [0x9c, 0x40, 0, 53]).v4()
}

/// RFC 4861, section 4.2, with one prefix.
fn advertisement() -> Frame {
    let mut data = vec![0; 8];
    data.extend([3, 4, 64, 0xc0]);
    data.extend(7200u32.to_be_bytes());
    data.extend(3600u32.to_be_bytes());
    data.extend([0; 4]);
    data.extend(Ipv6Addr::new(0xfd0a, 0, 0, 0, 0, 0, 0, 0).octets());
    icmp([0, 134], [64, 0, 0x07, 0x08])
        .data(&data)
        .from(ROUTER)
        .to(EVERYBODY)
        .v6()
}

/// RFC 2710, section 3: behind a Router Alert, and not to be forwarded.
fn listener_query() -> Frame {
    icmp([0, 130], [0, 0, 0, 0])
        .data(&[0; 16])
        .from(ROUTER)
        .to(EVERYBODY)
        .behind(Extension::HopByHop(0))
        .network_bytes(42, &[5, 2, 0, 0, 1, 0])
        .network_bytes(7, &[1])
}
