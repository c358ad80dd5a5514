//! Bridges that change, and daemons that do not look meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{Family, Outcome::PassNotLocal};
use guard_tests::{
    frames::{G, N, P, udp},
    guard::Guard,
    metrics,
    netns::{Direct, Namespace, link},
    peers::{Connection, Exchange, alive},
    wire::{Listener, QUIET, Wire},
};

use super::{MODES, bridge::bridged};

const PATIENCE: Duration = Duration::from_secs(1);

/// A bridge whose link address nobody has chosen takes the lowest of its ports'.
#[test]
fn o06_a_bridge_gets_another_link_address() -> Result<()> {
    for mode in MODES {
        let topology = Direct::bridged()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        // Made anew, because an address that was chosen stays.
        for command in [
            "link del br0",
            "link add br0 type bridge",
            "link set vg master br0",
            "link set br0 up",
        ] {
            host.ip(command)?;
        }
        host.ip(&format!("addr add {}/24 dev br0", G.ipv4))?;
        // The peer was told of another link address than the bridge has now.
        peer.ip(&format!("neigh del {} dev vp", G.ipv4))?;
        let mut guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
        let server = (P.address(Family::Ipv4), 8080);
        let mut older = Connection::open(host, peer, server, 3)?;

        guard.signal(libc::SIGSTOP);
        for command in [
            "link add t0 address 00:00:00:00:00:05 type veth peer name t1",
            "link set t0 master br0",
            "link set t0 up",
        ] {
            host.ip(command)?;
        }
        let mut newer = Connection::open(host, peer, server, 3)?;
        let asked = (P.address(Family::Ipv4), 8081);
        let mut exchanges = Exchange::open(host, peer, asked, false, 3)?;
        let living = (
            alive(&mut older, PATIENCE)?,
            alive(&mut newer, PATIENCE)?,
            alive(&mut exchanges, PATIENCE)?,
        );
        guard.signal(libc::SIGCONT);
        ensure!(living == (3, 3, 3), "{mode}: {living:?} live");
    }
    Ok(())
}

/// F03: what a guard knows of its interfaces stays in force until the next one knows as much.
#[test]
fn o06_guests_lose_nothing_while_a_daemon_starts_again() -> Result<()> {
    let (topology, other) = bridged()?;
    let mut guard = Guard::start(&topology.guarded, "vg", &[])?;
    let theirs = Listener::new(&other, 40_000)?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;
    let frame = udp(53, 40_000).to(N).received(Family::Ipv4);
    let over = AtomicBool::new(false);

    let (sent, heard) = thread::scope(|scope| -> Result<_> {
        let sender = scope.spawn(|| -> Result<usize> {
            let mut sent = 0;
            while !over.load(Ordering::Relaxed) {
                wire.send(&frame)?;
                sent += 1;
                thread::sleep(Duration::from_millis(1));
            }
            Ok(sent)
        });
        // All along: a socket holds a few hundred datagrams.
        let hearer = scope.spawn(|| theirs.delivered(PATIENCE));
        let restarted = (0..3).try_for_each(|_| {
            guard.kill()?;
            guard.start_again(&[])
        });
        over.store(true, Ordering::Relaxed);
        let sent = sender.join().expect("the sender does not panic")?;
        restarted?;
        Ok((sent, hearer.join().expect("the hearer does not panic")))
    })?;
    ensure!(sent > 100, "only {sent} sent");
    ensure!(heard == sent, "{heard} of {sent} heard");
    Ok(())
}

/// The interface that routes were asked for may be gone before any daemon knows.
#[test]
fn o06_a_bridge_goes_and_the_host_routes_on() -> Result<()> {
    let topology = Direct::bridged()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    host.sysctl("net/ipv4/ip_forward", "1")?;
    let routed = Namespace::new("q")?;
    link((host, "vq"), (&routed, "v"))?;
    host.ip("addr add 10.10.0.1/24 dev vq")?;
    routed.ip("addr add 10.10.0.2/24 dev v")?;
    routed.ip("route add default via 10.10.0.1")?;
    peer.ip(&format!("route add 10.10.0.0/24 via {}", G.ipv4))?;
    let theirs = Listener::new(&routed, 40_000)?;
    let send = || {
        let socket = peer.run(|| std::net::UdpSocket::bind((P.ipv4, 0)))?;
        socket.send_to(b"news", "10.10.0.2:40000")
    };

    let mut guard = Guard::start(host, "vg", &[])?;
    guard.expect([(PassNotLocal, 1)], || {
        send()?;
        ensure!(theirs.delivered(QUIET) == 1, "not routed");
        Ok(())
    })?;
    guard.kill()?;
    host.ip("link del br0")?;
    host.ip("link set vg address 02:00:00:00:00:02")?;
    host.ip(&format!("addr add {}/24 dev vg", G.ipv4))?;
    send()?;
    ensure!(theirs.delivered(QUIET) == 1, "routed no longer");
    Ok(())
}

/// The kernel refuses XDP on a port below a bridge that has it, whatever order they are named in.
#[test]
fn o06_a_bridge_and_its_port_are_guarded_both() -> Result<()> {
    let topology = Direct::bridged()?;
    let guard = Guard::start(
        &topology.guarded,
        "br0",
        &["--iface", "vg", "--xdp-mode", "auto"],
    )?;
    let attached = |device: &str| -> Result<u64> {
        let labels = [("device", device), ("hook", "xdp")];
        let samples = guard.scrape()?;
        Ok(metrics::sum(&samples, "portguard_attached", &labels))
    };
    ensure!(
        (attached("br0")?, attached("vg")?) == (1, 1),
        "{}",
        guard.said()
    );
    Ok(())
}
