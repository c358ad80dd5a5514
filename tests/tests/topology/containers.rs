//! A container behind the guarded host, masqueraded (O02) or routed (O03).

use std::{
    net::IpAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{
        DropIcmpUnrelated, DropNoFlow, PassKnownFlow, PassNewFlow, PassNotLocal, PassNotRecorded,
    },
};
use guard_tests::{
    frames::{Error, G, P, icmp_error, udp},
    kernel::Kernel,
    netns::Namespace,
    peers::{Connection, Exchange, Talk, alive},
    wire::{Acceptor, Listener, QUIET, Wire},
};

use super::{
    FAMILIES, MODES,
    behind::{Behind, C},
};

const PATIENCE: Duration = Duration::from_secs(1);

fn ping(host: &Namespace, address: IpAddr) -> Result<()> {
    let status = host
        .command("ping")
        .args(["-c", "1", "-W", "2", "-q"])
        .arg(address.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "{address} does not answer a ping");
    Ok(())
}

#[test]
fn o02_masqueraded_containers_work_and_hear_no_unsolicited_sender() -> Result<()> {
    for mode in MODES {
        let behind = Behind::masqueraded()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let container = &behind.container;
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let guard = behind.guard(mode, &[])?;
        for family in FAMILIES {
            let server = P.address(family);
            let before = guard.packets()?;
            let mut connection =
                Connection::open_masqueraded(container, peer, (server, 8080).into())?;
            // The host's own, from the very ports that the container has taken.
            let port = connection.client.local_addr()?.port();
            let local = (G.address(family), port).into();
            let own = Connection::open_from(local, (host, peer), (server, 8081).into())?;
            let mut all = [own];
            connection.speak()?;
            ensure!(connection.hears(PATIENCE), "{mode}, {family:?}: TCP");
            ensure!(alive(&mut all, PATIENCE)? == 1, "{mode}, {family:?}: own");
            let mut exchange = Exchange::open(container, peer, (server, 8082), false, 1)?;
            ensure!(alive(&mut exchange, PATIENCE)? == 1, "{mode}: UDP");
            ping(container, server)?;
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(DropNoFlow) == 0, "{mode}, {family:?}:{moved}");
            ensure!(moved.of(PassNewFlow) == 3, "{mode}, {family:?}:{moved}");
            // An unsolicited sender, to the port that stands for the container's. Without a guard it would
            // reach no socket either: the host's translation is for the peer alone.
            let mapped = exchange[0].peer().port();
            guard.expect([(DropNoFlow, 1)], || {
                wire.send(&udp(999, mapped).received(family))
            })?;
            ensure!(
                !exchange[0].hears(QUIET),
                "{mode}: an unsolicited packet is delivered"
            );
            ensure!(alive(&mut exchange, PATIENCE)? == 1, "{mode}: UDP after");
        }
    }
    Ok(())
}

#[test]
fn o03_routed_containers_are_nobodys_business() -> Result<()> {
    for mode in MODES {
        let behind = Behind::routed()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let container = &behind.container;
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let listener = Listener::new(container, 40_000)?;
        let acceptor = Acceptor::new(container, 40_000)?;
        let own = Listener::new(host, 41_000)?;
        for family in FAMILIES {
            wire.send(&udp(53, 41_000).received(family))?;
        }
        let heard = own.delivered(QUIET * 4);
        ensure!(
            heard == 2,
            "{mode}: unsolicited packets are not delivered without a guard"
        );
        let guard = behind.guard(mode, &[])?;
        // Neighbours are found first, which is counted.
        for family in FAMILIES {
            ping(peer, C.address(family))?;
        }
        for family in FAMILIES {
            let before = guard.packets()?;
            for port in (32_768..=60_999).step_by(500) {
                wire.send(&udp(53, port).to(C).received(family))?;
            }
            wire.send(&udp(53, 40_000).to(C).received(family))?;
            let heard = listener.delivered(QUIET);
            ensure!(heard == 1, "{mode}, {family:?}: {heard} delivered");
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassNotLocal) == 58, "{mode}, {family:?}:{moved}");
            ensure!(moved.of(DropNoFlow) == 0, "{mode}, {family:?}:{moved}");

            // Errors about what it has sent go to it, and to nobody else.
            let error = icmp_error(Error::TooBig, udp(40_000, 53).from(C));
            guard.expect([(PassNotLocal, 1)], || {
                wire.send(&error.clone().to(C).received(family))
            })?;
            guard.expect([(DropIcmpUnrelated, 1)], || {
                wire.send(&error.to(G).received(family))
            })?;

            // Its answers are not recorded: nobody gets a flow of the host's by them.
            let before = guard.packets()?;
            peer.run(|| std::net::TcpStream::connect((C.address(family), 40_000)))?;
            ensure!(acceptor.accepted(QUIET) == 1, "{mode}: no connection");
            let mut out = Exchange::open(container, peer, (P.address(family), 8081), false, 1)?;
            ensure!(alive(&mut out, PATIENCE)? == 1, "{mode}: its own query");
            let moved = guard.packets()?.since(&before);
            ensure!(moved.of(PassNewFlow) == 0, "{mode}, {family:?}:{moved}");
            ensure!(moved.of(PassNotRecorded) > 0, "{mode}, {family:?}:{moved}");
            ensure!(moved.of(DropNoFlow) == 0, "{mode}, {family:?}:{moved}");

            // The host itself is guarded as ever.
            guard.expect([(DropNoFlow, 1)], || {
                wire.send(&udp(53, 41_000).received(family))
            })?;
            ensure!(
                own.delivered(QUIET) == 0,
                "{mode}: an unsolicited packet is delivered"
            );
            let mut talk = Exchange::open(host, peer, (P.address(family), 8082), false, 1)?;
            guard.expect([(PassKnownFlow, 1)], || {
                ensure!(alive(&mut talk, PATIENCE)? == 1, "{mode}: the host's own");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Since Linux 6.17 single interfaces may be asked to forward IPv6, on a host that forwards nothing
/// else.
#[test]
fn o03_what_single_interfaces_are_made_to_forward_passes() -> Result<()> {
    if Kernel::new(6, 17).is_missing("force_forwarding") {
        return Ok(());
    }
    for mode in MODES {
        let behind = Behind::routed()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let container = &behind.container;
        host.sysctl("net/ipv4/ip_forward", "0")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "0")?;
        for interface in ["vg", "gc"] {
            host.sysctl(&format!("net/ipv6/conf/{interface}/force_forwarding"), "1")?;
        }
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let acceptor = Acceptor::new(container, 40_000)?;
        let guard = behind.guard(mode, &[])?;
        let before = guard.packets()?;
        peer.run(|| std::net::TcpStream::connect((C.ipv6, 40_000)))?;
        ensure!(acceptor.accepted(QUIET) == 1, "{mode}: no connection");
        let mut out = Exchange::open(container, peer, (P.address(Family::Ipv6), 8081), false, 1)?;
        ensure!(alive(&mut out, PATIENCE)? == 1, "{mode}: its own query");
        let moved = guard.packets()?.since(&before);
        ensure!(moved.of(PassNotLocal) > 0, "{mode}:{moved}");
        ensure!(moved.of(DropNoFlow) == 0, "{mode}:{moved}");
        // The host itself is guarded as ever, and over IPv4 nothing is forwarded.
        for family in FAMILIES {
            guard.expect([(DropNoFlow, 1)], || {
                wire.send(&udp(53, 41_000).received(family))
            })?;
        }
        guard.expect([(DropNoFlow, 1)], || {
            wire.send(&udp(53, 40_000).to(C).received(Family::Ipv4))
        })?;
        // It may also be asked for while the host is guarded, and no more.
        let passes = |passes: bool| -> Result<()> {
            let since = Instant::now();
            let frame = udp(53, 40_000).to(C).received(Family::Ipv6);
            let outcome = if passes { PassNotLocal } else { DropNoFlow };
            loop {
                let before = guard.packets()?;
                wire.send(&frame)?;
                std::thread::sleep(QUIET);
                if guard.packets()?.since(&before).of(outcome) == 1 {
                    return Ok(());
                }
                ensure!(since.elapsed() < PATIENCE * 5, "{mode}: {passes}");
            }
        };
        host.sysctl("net/ipv6/conf/vg/force_forwarding", "0")?;
        passes(false)?;
        host.sysctl("net/ipv6/conf/vg/force_forwarding", "1")?;
        passes(true)?;
    }
    Ok(())
}
