//! Entries that come into conntrack while the guard runs without its having seen a packet, as from
//! another gateway of a pair.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow},
};
use guard_tests::{
    clients::run,
    frames::{G, P, tcp, udp},
    guard::Guard,
    metrics,
    netns::Namespace,
    peers::{Exchange, Talk},
    sweeps,
    wire::{QUIET, Wire},
};

use super::{
    FAMILIES,
    behind::{Behind, C},
};

const PATIENCE: Duration = Duration::from_secs(2);
const QUICK: [&str; 2] = ["--sweep-rest", "200"];

/// Puts an entry into a host's conntrack, whose answers are not to the opener's port but another.
fn track(
    host: &Namespace,
    (opener, asked): (SocketAddr, SocketAddr),
    translation: &str,
) -> Result<()> {
    run(
        host,
        &format!(
            "conntrack -I -p udp -s {} -d {} --sport {} --dport {} -t 120 -u SEEN_REPLY \
             {translation}",
            opener.ip(),
            asked.ip(),
            opener.port(),
            asked.port()
        ),
    )
    .map(drop)
}

/// An exchange of the container that the host forgets, how it was masqueraded, and by whom it was
/// opened.
struct Moved {
    exchange: Exchange,
    opener: SocketAddr,
    asked: SocketAddr,
    masqueraded: SocketAddr,
}

impl Moved {
    fn open(behind: &Behind, family: Family) -> Result<Self> {
        let (container, peer) = (&behind.container, &behind.topology.peer);
        let asked = SocketAddr::new(P.address(family), 8082);
        let exchange = Exchange::open(container, peer, asked, true, 1)?.remove(0);
        Ok(Self {
            opener: exchange.client.local_addr()?,
            masqueraded: exchange.peer(),
            asked,
            exchange,
        })
    }

    fn comes(&self, host: &Namespace) -> Result<()> {
        let by = format!("--src-nat {}", self.masqueraded);
        track(host, (self.opener, self.asked), &by)
    }
}

#[test]
fn entries_that_arrive_later_are_heard() -> Result<()> {
    for (without, expected) in [(None, true), (Some("translated"), false)] {
        for (family, mode) in FAMILIES.into_iter().zip(["native", "generic"]) {
            let behind = Behind::masqueraded()?;
            let host = &behind.topology.guarded;
            let mut moved = Moved::open(&behind, family)?;
            run(host, "conntrack -F")?;
            let parts = without.into_iter().flat_map(|part| ["--without", part]);
            let alterations: Vec<&str> = QUICK.into_iter().chain(parts).collect();
            let interface = behind.topology.interface();
            let guard = Guard::start_altered(host, interface, &alterations, &["--xdp-mode", mode])?;
            guard.expect([(DropNoFlow, 1)], || {
                moved.exchange.speak()?;
                ensure!(!moved.exchange.hears(QUIET), "heard without an entry");
                Ok(())
            })?;

            moved.comes(host)?;
            sweeps::wait(host, &guard)?;
            moved.exchange.speak()?;
            let heard = moved
                .exchange
                .hears(if expected { PATIENCE } else { QUIET });
            ensure!(heard == expected, "{family:?}, {without:?}: heard: {heard}");
        }
    }
    Ok(())
}

/// What others have sent to the host's own addresses opens nothing, whatever it was translated to, and
/// neither does what is over or what is not translated.
#[test]
fn what_was_opened_from_outside_is_not_put_back() -> Result<()> {
    for family in FAMILIES {
        let behind = Behind::masqueraded()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let interface = behind.topology.interface();
        let guard = Guard::start_altered(host, interface, &QUICK, &[])?;
        let end = |address, port| SocketAddr::new(address, port);
        let (ours, theirs, inside) = (G.address(family), P.address(family), C.address(family));
        let other = match family {
            Family::Ipv6 => "fd09::7".parse()?,
            Family::Ipv4 | Family::Other => "10.9.0.7".parse()?,
        };
        // To a port of this host, and on from another one to the peer.
        let through = format!(
            "--dst-nat {} --src-nat {}",
            end(theirs, 80),
            end(ours, 40_001)
        );
        track(host, (end(other, 5_000), end(ours, 8_000)), &through)?;
        // To a guarded port.
        track(host, (end(theirs, 80), end(ours, 40_002)), "")?;
        // To a published port of a container.
        let published = format!("--dst-nat {}", end(inside, 80));
        track(host, (end(theirs, 80), end(ours, 40_003)), &published)?;
        sweeps::wait(host, &guard)?;
        let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[]);
        ensure!(flows == 0, "{family:?}: {flows} flows");
        guard.expect([(DropNoFlow, 4)], || {
            for port in 40_001..=40_003 {
                wire.send(&udp(80, port).received(family))?;
            }
            wire.send(&tcp(80, 40_001).received(family))
        })?;

        // The same from behind this host is.
        let by = format!("--src-nat {}", end(ours, 40_004));
        track(host, (end(inside, 5_000), end(theirs, 80)), &by)?;
        sweeps::wait(host, &guard)?;
        guard
            .expect([(PassKnownFlow, 1)], || {
                wire.send(&udp(80, 40_004).received(family))
            })
            .context("from inside")?;
    }
    Ok(())
}
