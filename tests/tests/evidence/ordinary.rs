//! Differences that mean nothing: whatever else happens, the program sees some of it.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{
    frames::{G, P, ethernet, udp},
    guard::Guard,
    load::Servers,
    netns::{Direct, Namespace},
    wire::Wire,
};

use super::{FAMILIES, PORT, health, sent::past_tc, status, unseen};

/// Longer than it takes to find out that nothing is seen.
const LONG: Duration = Duration::from_secs(8);

/// Frames that no IP is in, as bridges and switches send them: LLDP.
const LLDP: u16 = 0x88cc;

#[test]
fn h11_mixed_traffic_raises_no_alarm() -> Result<()> {
    thread::scope(|scope| {
        let attempts = ["native", "generic"].map(|mode| scope.spawn(|| mixed(mode)));
        attempts
            .into_iter()
            .try_for_each(|attempt| attempt.join().expect("does not panic"))
    })
}

fn mixed(mode: &str) -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    host.ip("link add link vg name mv0 type macvlan mode bridge")?;
    let guest = Namespace::new("c")?;
    host.ip(&format!("link set mv0 netns {}", guest.name()))?;
    guest.ip("addr add 10.9.0.7/24 dev mv0")?;
    guest.ip("link set mv0 up")?;
    let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
    let (out, back) = (Wire::open(host, "vg")?, Wire::open(peer, "vp")?);
    let past = Wire::open(host, "vg")?;
    past_tc(&past)?;
    let _servers = Servers::start(peer)?;
    let told = guest.run(|| UdpSocket::bind("10.9.0.7:5000"))?;

    // Everything at once: large sends, a flood that is dropped, frames that skip TC, a guest's.
    let ends = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let bulk = scope.spawn(|| -> Result<()> {
            while !ends.load(Ordering::Relaxed) {
                bulk(host, peer)?;
            }
            Ok(())
        });
        let watched = (|| {
            let since = Instant::now();
            while since.elapsed() < LONG {
                for family in FAMILIES {
                    for port in 0..20 {
                        back.send(&udp(53, PORT + port).received(family))?;
                        past.send(&udp(PORT + port, 53).sent(family))?;
                    }
                    out.send(&udp(PORT, 53).tag(0x8100, 7).sent(family))?;
                }
                // The guest need not be answered.
                let _ = told.send_to(b"guest", (P.ipv4, 5000));
                require_quiet(host, mode, "everything")?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        })();
        ends.store(true, Ordering::Relaxed);
        bulk.join().expect("does not panic")?;
        watched
    })?;

    // Then nothing that has to do with this host.
    let since = Instant::now();
    while since.elapsed() < LONG {
        let lldp = ethernet(LLDP, &[0; 46]);
        for _ in 0..4 {
            back.send(&lldp.clone().received(Family::Ipv4))?;
        }
        past.send(&lldp.sent(Family::Ipv4))?;
        require_quiet(host, mode, "no IP")?;
        thread::sleep(Duration::from_millis(50));
    }
    let samples = guard.scrape()?;
    let counted = unseen(&samples, "xdp") + unseen(&samples, "egress");
    ensure!(
        counted == 0,
        "{mode}: {counted} packets are said to be unseen"
    );
    let said = status(host, &guard)?;
    ensure!(said.contains("received seen"), "{mode}: {said}");
    ensure!(said.contains(&format!("{mode} XDP")), "{mode}: {said}");
    Ok(())
}

fn require_quiet(host: &Namespace, mode: &str, what: &str) -> Result<()> {
    ensure!(health(host)? == 200, "{mode}: an alarm under {what}");
    Ok(())
}

/// A connection that sends in pieces as large as the link takes, each of which is many frames.
fn bulk(host: &Namespace, peer: &Namespace) -> Result<()> {
    let listener = peer.run(|| std::net::TcpListener::bind((P.ipv4, 0)))?;
    let address = listener.local_addr()?;
    let sink = thread::spawn(move || -> std::io::Result<u64> {
        let (mut stream, _) = listener.accept()?;
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let mut stream = host
        .run(|| std::net::TcpStream::connect(address))
        .with_context(|| format!("connect from {}", G.ipv4))?;
    std::io::copy(
        &mut std::io::Read::take(std::io::repeat(0), 4 << 20),
        &mut stream,
    )?;
    drop(stream);
    let arrived = sink.join().expect("does not panic")?;
    ensure!(arrived == 4 << 20, "{arrived} bytes arrive");
    Ok(())
}
