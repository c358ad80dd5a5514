//! Y01: anyone who listens in the range is found, and treated as the administrator says.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::PoisonError,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{
    DropNoFlow, PassExempt, PassKnownFlow, PassNewFlow, PassNotRecorded, PassOutsideRange,
    PassRefreshedFlow,
};
use guard_tests::{
    clients::moves,
    frames::{G, P, udp},
    guard::Guard,
    netns::{Direct, Namespace, link},
    peers::{Connection, Talk, bound},
    wire::{Acceptor, Listener, QUIET, Wire},
};

use crate::{FAMILIES, MODES, RANGE, blocked, crowded::DESCRIPTORS};

const PORT: u16 = 40_000;

/// Whether an unsolicited sender gets through to a port.
fn reached(peer: &Namespace, address: IpAddr) -> bool {
    let address = SocketAddr::new(address, PORT);
    peer.run(|| TcpStream::connect_timeout(&address, QUIET))
        .is_ok()
}

/// Why the guard refuses to start, and with which code.
fn refusal(topology: &Direct, flags: &[&str]) -> Result<String> {
    match Guard::start(&topology.guarded, topology.interface(), flags) {
        Ok(_) => anyhow::bail!("{flags:?}: it starts"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Checks that nothing was left in force.
fn is_open(topology: &Direct) -> Result<()> {
    for address in [IpAddr::V4(G.ipv4), IpAddr::V6(G.ipv6)] {
        let open = reached(&topology.peer, address);
        ensure!(open, "a guard that has not started keeps out {address}");
    }
    Ok(())
}

#[test]
fn y01_a_listener_is_named_and_counted_and_cut_off() -> Result<()> {
    let _few = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
    for mode in MODES {
        for policy in ["auto", "warn"] {
            let topology = Direct::new()?;
            let acceptor = Acceptor::new(&topology.guarded, PORT)?;
            is_open(&topology)?;
            acceptor.accepted(QUIET);
            let flags = ["--xdp-mode", mode, "--listeners", policy];
            let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
            let said = guard.said();
            let named =
                said.contains("tcp port 40000 (") && said.contains("--expose 40000/tcp lets them");
            ensure!(named, "Y01, {mode}, {policy}: {said}");
            ensure!(blocked(&guard)? == 1, "Y01, {mode}, {policy}: not counted");
            for address in [IpAddr::V4(G.ipv4), IpAddr::V6(G.ipv6)] {
                moves(&guard, &[DropNoFlow], &[], || {
                    let reached = reached(&topology.peer, address);
                    ensure!(!reached, "an unsolicited sender gets through to {address}");
                    Ok(())
                })
                .with_context(|| format!("Y01, {mode}, {policy}"))?;
            }
            ensure!(acceptor.accepted(QUIET) == 0, "Y01, {mode}: accepted");
        }
    }
    Ok(())
}

#[test]
fn y01_a_listener_is_exposed_where_that_is_asked_for() -> Result<()> {
    for mode in MODES {
        for policy in [["--listeners", "expose"], ["--expose", "40000/tcp"]] {
            let topology = Direct::new()?;
            let _acceptor = Acceptor::new(&topology.guarded, PORT)?;
            let flags = [&["--xdp-mode", mode], &policy[..]].concat();
            let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
            ensure!(blocked(&guard)? == 0, "Y01, {mode}, {policy:?}: counted");
            for address in [IpAddr::V4(G.ipv4), IpAddr::V6(G.ipv6)] {
                moves(&guard, &[PassExempt, PassNotRecorded], &[], || {
                    let reached = reached(&topology.peer, address);
                    ensure!(reached, "{address} is out of reach");
                    Ok(())
                })
                .with_context(|| format!("Y01, {mode}, {policy:?}"))?;
            }
            // For TCP alone, and for that port alone.
            let wire = Wire::open(&topology.peer, topology.peer_interface())?;
            let _socket = Listener::new(&topology.guarded, PORT)?;
            for family in FAMILIES {
                guard.expect([(DropNoFlow, 1)], || {
                    wire.send(&udp(53, PORT).received(family))
                })?;
            }
        }
    }
    Ok(())
}

#[test]
fn y01_a_listener_forbids_the_start_where_that_is_asked_for() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let _acceptor = Acceptor::new(&topology.guarded, PORT)?;
        let refuse = ["--xdp-mode", mode, "--listeners", "refuse"];
        let said = refusal(&topology, &refuse)?;
        let right = said.contains("exit status: 78") && said.contains("--expose 40000/tcp");
        ensure!(right, "Y01, {mode}: {said}");
        is_open(&topology)?;
        // What it proposes works.
        let flags = [&refuse[..], &["--expose", "40000/tcp"]].concat();
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        ensure!(blocked(&guard)? == 0, "Y01, {mode}: counted");
    }
    Ok(())
}

#[test]
fn y01_nobody_who_is_being_served_is_cut_off_by_the_start() -> Result<()> {
    for mode in MODES {
        for (own, unsolicited) in [
            (IpAddr::V4(G.ipv4), IpAddr::V4(P.ipv4)),
            (IpAddr::V6(G.ipv6), IpAddr::V6(P.ipv6)),
        ] {
            let topology = Direct::new()?;
            let (guest, host) = (&topology.guarded, &topology.peer);
            let acceptor = Acceptor::new(guest, PORT + 1)?;
            // The listener is the guarded host's, and its client, who speaks, is far away.
            let listener = guest.run(|| TcpListener::bind((own, PORT)))?;
            let far = host.run(|| TcpStream::connect((own, PORT)))?;
            let (near, from) = listener.accept()?;
            ensure!(from.ip() == unsolicited, "{from} is not the peer");
            let mut session = Connection {
                client: near,
                server: far,
            };

            let row = || format!("Y01, {mode}, {own}");
            let said = refusal(&topology, &["--xdp-mode", mode])?;
            let right = said.contains("exit status: 78")
                && said.contains("--expose 40000/tcp")
                && said.contains(&unsolicited.to_string());
            ensure!(right, "{}: {said}", row());
            let open = host
                .run(|| TcpStream::connect_timeout(&(own, PORT + 1).into(), QUIET))
                .is_ok();
            ensure!(open, "{}: something was left in force", row());

            // Who insists gets a guard, and the session lives, since it is known.
            let insist = ["--xdp-mode", mode, "--listeners", "warn", "--no-rescue"];
            let guard = Guard::start(guest, topology.interface(), &insist)?;
            moves(&guard, &[PassKnownFlow, PassRefreshedFlow], &[], || {
                session.speak()?;
                ensure!(session.hears(QUIET), "the session is cut off");
                Ok(())
            })
            .with_context(row)?;
            let cut_off = host
                .run(|| TcpStream::connect_timeout(&(own, PORT + 1).into(), QUIET))
                .is_err();
            ensure!(cut_off, "{}: unsolicited senders get through", row());
            drop(acceptor);
        }
    }
    Ok(())
}

#[test]
fn y01_a_socket_of_the_kernel_is_exposed() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        host.sysctl(RANGE, "1024 65535")?;
        host.ip("link add vx type vxlan id 5 dstport 4789 remote 10.9.0.1 dev vg")?;
        host.ip("link set vx up")?;
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        let said = guard.said();
        let named = said.contains("--expose 4789/udp says so for good");
        ensure!(named, "Y01, {mode}: {said}");
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let due = [(PassExempt, 1), (DropNoFlow, 1)];
        guard.expect(due, || {
            wire.send(&udp(40_000, 4789).received(FAMILIES[0]))?;
            wire.send(&udp(40_000, 4790).received(FAMILIES[0]))
        })?;
        // An answer to nobody's question creates nothing.
        let packets = guard.packets()?;
        for none in [PassOutsideRange, PassNewFlow] {
            ensure!(packets.of(none) == 0, "Y01, {mode}:{packets}");
        }
    }
    Ok(())
}

/// A peer that is served by an interface which is not guarded loses nothing, and is no reason to refuse a start or to
/// open a port.
#[test]
fn y01_a_peer_on_another_interface_is_no_reason_to_refuse() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let container = Namespace::new("c")?;
    link((host, "gc"), (&container, "vc"))?;
    host.ip("addr add 10.9.5.1/24 dev gc")?;
    container.ip("addr add 10.9.5.2/24 dev vc")?;
    let _listener = bound(host, || TcpListener::bind(("0.0.0.0", PORT)))?;
    let connect = |peer: &Namespace, address: [u8; 4]| {
        let end = SocketAddr::from((address, PORT));
        peer.run(|| TcpStream::connect_timeout(&end, QUIET * 10))
    };
    let _served = connect(&container, [10, 9, 5, 1])?;
    let guard = Guard::start(host, topology.interface(), &[])?;
    ensure!(blocked(&guard)? == 1, "{}", guard.said());
    let _more = connect(&container, [10, 9, 5, 1]).context("it is cut off")?;
    guard.stop()?;

    // One of the other side is.
    let _served = connect(&topology.peer, G.ipv4.octets())?;
    let said = refusal(&topology, &[])?;
    ensure!(said.contains("is serving 10.9.0.1:"), "{said}");
    Ok(())
}
