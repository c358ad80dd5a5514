//! What the suites rely on.

use std::{panic, path::Path};

use anyhow::{Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P, tcp, udp},
    netns::{Direct, Namespace, Routed, TwoLinks},
    wire::{Acceptor, Listener, QUIET, Wire},
};

#[test]
fn a_namespace_disappears_also_when_its_test_panics() -> Result<()> {
    let path = |name: &str| Path::new("/run/netns").join(name);
    let namespace = Namespace::new("x")?;
    let name = namespace.name().to_owned();
    ensure!(path(&name).exists(), "{name} is not there");
    let mut sleeper = namespace.command("sleep").arg("600").spawn()?;
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(move || {
        let _namespace = namespace;
        panic!("as a failing test does");
    }));
    ensure!(panicked.is_err(), "nobody panicked");
    ensure!(!path(&name).exists(), "{name} is still there");
    ensure!(!sleeper.wait()?.success(), "its inhabitant slept on");
    Ok(())
}

#[test]
fn frames_and_connections_cross_a_direct_link() -> Result<()> {
    let topology = Direct::new()?;
    let wire = Wire::open(&topology.guarded, topology.interface())?;
    let peer = Wire::open(&topology.peer, topology.peer_interface())?;
    let listener = Listener::new(&topology.guarded, 40_000)?;
    let acceptor = Acceptor::new(&topology.guarded, 40_000)?;
    for family in [Family::Ipv4, Family::Ipv6] {
        let frame = udp(53, 40_000).received(family);
        peer.send(&frame)?;
        let heard = wire.heard(QUIET);
        let copies = heard.iter().filter(|heard| **heard == frame).count();
        ensure!(copies == 1, "{family:?}: {heard:02x?}");
        ensure!(listener.delivered(QUIET) == 1, "{family:?}: no datagram");
    }
    // A right checksum: the host answers what no socket expects.
    peer.send(&tcp(443, 50_000).syn().received(Family::Ipv6))?;
    let answers = peer.segments_heard(QUIET);
    ensure!(answers == 1, "{answers} answers to a SYN");
    topology
        .peer
        .run(|| std::net::TcpStream::connect((G.ipv4, 40_000)))?;
    ensure!(acceptor.accepted(QUIET) == 1, "no connection");
    Ok(())
}

#[test]
fn datagrams_cross_a_router_and_a_second_link() -> Result<()> {
    let topology = Routed::new(1280)?;
    let listener = Listener::new(&topology.peer, 53)?;
    let sender = Listener::new(&topology.guarded, 40_000)?;
    for address in ["::ffff:10.8.0.1", "fd08::1"] {
        sender.socket().send_to(b"query", (address, 53))?;
        ensure!(
            listener.delivered(QUIET * 10) == 1,
            "{address} hears nothing"
        );
    }

    let TwoLinks(direct) = TwoLinks::new()?;
    let listener = Listener::new(&direct.peer, 53)?;
    let sender = Listener::new(&direct.guarded, 40_000)?;
    for address in [P.ipv4.to_string(), "10.9.1.1".to_owned()] {
        let address = format!("::ffff:{address}");
        sender.socket().send_to(b"query", (&*address, 53))?;
        ensure!(
            listener.delivered(QUIET * 10) == 1,
            "{address} hears nothing"
        );
    }
    Ok(())
}
