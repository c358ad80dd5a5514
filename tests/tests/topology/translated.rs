//! Flows that NAT translates: the host's own, whose sockets have other ends than the wire, and those of
//! a container. No look-up by a packet's ends finds a socket for them, so that sweeps put back from
//! conntrack what the maps forget. Only the peer speaks.

use std::{net::SocketAddr, process::Stdio, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRescued},
};
use guard_tests::{
    frames::{P, tcp, udp},
    guard::Guard,
    metrics::Packets,
    netns::{Direct, Namespace},
    peers::{Connection, Exchange, Talk, alive},
    processors, sweeps,
    wire::Wire,
};

use super::{FAMILIES, behind::Behind};

/// How XDP is run, and by what egress is.
const HOOKS: [[&str; 4]; 2] = [
    ["--xdp-mode", "native", "--egress-hook", "auto"],
    ["--xdp-mode", "generic", "--egress-hook", "clsact"],
];

const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the timers below.
const IDLE: Duration = Duration::from_millis(2_700);
const SHORT: [&str; 4] = ["--timeout", "tcp-established=2", "--timeout", "udp=2"];
/// Entries of each flow map: as few as there can be.
const ENTRIES: u16 = 1024;

/// A service of the peer's, the peer's addresses by another name.
const SERVICE: [&str; 2] = ["10.96.0.1", "fd96::1"];

/// The service's port that is translated by its destination alone.
const PLAIN: u16 = 8000;

/// Ports of the peer, each of which is reached by another translation, and whether it is asked by its
/// service.
const TRANSLATIONS: [(u16, bool); 8] = [
    (PLAIN, true),
    (8001, true),
    (8002, true),
    (8003, true),
    (8011, false),
    (8012, false),
    (8013, false),
    (8014, false),
];

/// What is sent to the service goes to the peer. Of most, the source becomes another as well: another
/// port, one of some, an address of this host's, or one that nobody has.
const RULES: &str = "\
table inet nat { \
chain out { type nat hook output priority -100; \
ip daddr 10.96.0.1 dnat ip to 10.9.0.1; ip6 daddr fd96::1 dnat ip6 to fd09::1; }; \
chain post { type nat hook postrouting priority 100; \
meta l4proto { tcp, udp } th dport { 8001, 8011 } masquerade random; \
meta l4proto { tcp, udp } th dport { 8002, 8012 } masquerade to :40000-45000 random; \
ip protocol { tcp, udp } th dport { 8003, 8013 } snat ip to 10.9.0.3; \
ip6 nexthdr { tcp, udp } th dport { 8003, 8013 } snat ip6 to fd09::3; \
ip protocol { tcp, udp } th dport 8014 snat ip to 10.9.7.7; \
ip6 nexthdr { tcp, udp } th dport 8014 snat ip6 to fd07::7; }; }";

/// A host whose own connections are translated.
fn translating() -> Result<Direct> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    for command in [
        "route add 10.96.0.1 via 10.9.0.1",
        "-6 route add fd96::1 via fd09::1",
        "addr add 10.9.0.3/24 dev vg",
        // The kernel must not choose it by itself.
        "addr add fd09::3/64 dev vg nodad preferred_lft 0",
    ] {
        host.ip(command)?;
    }
    for command in [
        // Nobody has these addresses: what goes there is this host's by its translation alone.
        "route add 10.9.7.7 via 10.9.0.2",
        "-6 route add fd07::7 via fd09::2",
    ] {
        peer.ip(command)?;
    }
    rule(host, RULES)?;
    Ok(topology)
}

fn rule(host: &Namespace, rules: &str) -> Result<()> {
    let status = host
        .command("nft")
        .arg(rules)
        .stdin(Stdio::null())
        .status()
        .context("run nft")?;
    ensure!(status.success(), "nft takes no {rules}");
    Ok(())
}

type Talks = Vec<Box<dyn Talk + Send>>;

/// Connected sockets of the host, by each translation.
fn own(topology: &Direct) -> Result<Talks> {
    let (host, peer) = (&topology.guarded, &topology.peer);
    let mut talks: Talks = Vec::new();
    for (family, service) in FAMILIES.into_iter().zip(SERVICE) {
        let service = service.parse().context("an address")?;
        for (port, by_service) in TRANSLATIONS {
            let server = P.address(family);
            let asked = if by_service { service } else { server };
            let ends = (SocketAddr::new(asked, port), SocketAddr::new(server, port));
            talks.push(Box::new(Connection::open_translated(host, peer, ends)?));
            let exchange = Exchange::open_translated(host, peer, ends, true, 1)?.remove(0);
            talks.push(Box::new(exchange));
        }
    }
    Ok(talks)
}

/// TCP connections and queries of the container.
fn masqueraded(behind: &Behind) -> Result<Talks> {
    let (container, peer) = (&behind.container, &behind.topology.peer);
    let mut talks: Talks = Vec::new();
    for family in FAMILIES {
        for (port, _) in TRANSLATIONS {
            let server = SocketAddr::new(P.address(family), port);
            let connection = Connection::open_masqueraded(container, peer, server)?;
            talks.push(Box::new(connection));
            let exchange = Exchange::open(container, peer, server, false, 1)?.remove(0);
            talks.push(Box::new(exchange));
        }
    }
    Ok(talks)
}

/// A guard that sweeps all the time, without some of its parts.
fn guard<'a>(
    topology: &'a Direct,
    hooks: &[&str],
    without: &[&str],
    flags: &[&str],
) -> Result<Guard<'a>> {
    let parts = without.iter().flat_map(|part| ["--without", part]);
    let alterations: Vec<&str> = ["--sweep-rest", "200"].into_iter().chain(parts).collect();
    let flags: Vec<&str> = hooks.iter().chain(flags).copied().collect();
    Guard::start_altered(
        &topology.guarded,
        topology.interface(),
        &alterations,
        &flags,
    )
}

/// Has new flows of the host take the place of all that are there.
fn evict(topology: &Direct) -> Result<()> {
    let wire = Wire::open(&topology.guarded, topology.interface())?;
    topology.guarded.run(|| {
        // What a processor has recorded last stays until that very processor records more.
        for processor in 0..processors::count() {
            processors::pin(processor)?;
            for port in 0..ENTRIES * 2 {
                for family in FAMILIES {
                    wire.send(
                        &tcp(50_000 + processor as u16, 1_000 + port)
                            .syn()
                            .sent(family),
                    )?;
                    wire.send(&udp(50_000 + processor as u16, 1_000 + port).sent(family))?;
                }
            }
        }
        Ok(())
    })
}

/// What makes flows be forgotten.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Their timers run out.
    Idle,
    /// Others take their place.
    Evicted,
}

impl Loss {
    fn flags(self) -> Vec<&'static str> {
        match self {
            Self::Idle => SHORT.to_vec(),
            Self::Evicted => vec!["--max-flows", "1024"],
        }
    }

    fn happens(self, topology: &Direct) -> Result<()> {
        match self {
            Self::Idle => thread::sleep(IDLE),
            Self::Evicted => evict(topology)?,
        }
        Ok(())
    }
}

/// How many of the talks hear their peers after a loss and some sweeps.
fn heard(
    topology: &Direct,
    open: impl Fn() -> Result<Talks>,
    hooks: &[&str],
    without: &[&str],
    loss: Loss,
) -> Result<(usize, usize, Packets)> {
    let guard = guard(topology, hooks, without, &loss.flags())?;
    let mut talks = open()?;
    loss.happens(topology)?;
    sweeps::wait(&topology.guarded, &guard)?;
    let before = guard.packets()?;
    let heard = alive(&mut talks, PATIENCE)?;
    Ok((heard, talks.len(), guard.packets()?.since(&before)))
}

#[test]
fn translated_connections_of_the_host_outlive_timers_and_eviction() -> Result<()> {
    for hooks in HOOKS {
        for loss in [Loss::Idle, Loss::Evicted] {
            let topology = translating()?;
            let (heard, all, moved) = heard(&topology, || own(&topology), &hooks, &[], loss)?;
            ensure!(
                heard == all,
                "{hooks:?}, {loss:?}: {heard} of {all} hear:{moved}"
            );
            ensure!(moved.of(DropNoFlow) == 0, "{hooks:?}, {loss:?}:{moved}");
            ensure!(moved.of(PassRescued) == 0, "{hooks:?}, {loss:?}:{moved}");
            ensure!(moved.of(PassKnownFlow) > 0, "{hooks:?}, {loss:?}:{moved}");
        }
    }
    Ok(())
}

/// A port that was chosen at random may be none of the guarded ones.
#[test]
fn without_conntrack_in_sweeps_they_are_cut() -> Result<()> {
    for (hooks, loss) in HOOKS.into_iter().zip([Loss::Idle, Loss::Evicted]) {
        let topology = translating()?;
        let without = ["translated"];
        let (heard, all, moved) = heard(&topology, || own(&topology), &hooks, &without, loss)?;
        ensure!(heard <= all / 3, "{loss:?}: {heard} of {all} hear:{moved}");
        ensure!(moved.of(DropNoFlow) > 0, "{loss:?}:{moved}");
    }
    Ok(())
}

#[test]
fn masqueraded_containers_outlive_timers_and_eviction() -> Result<()> {
    for hooks in HOOKS {
        for loss in [Loss::Idle, Loss::Evicted] {
            let behind = Behind::masqueraded()?;
            let topology = &behind.topology;
            let (heard, all, moved) = heard(topology, || masqueraded(&behind), &hooks, &[], loss)?;
            ensure!(
                heard == all,
                "{hooks:?}, {loss:?}: {heard} of {all} hear:{moved}"
            );
            ensure!(moved.of(DropNoFlow) == 0, "{hooks:?}, {loss:?}:{moved}");
        }
    }
    Ok(())
}

#[test]
fn containers_outlive_them_behind_a_pool_that_nobody_holds() -> Result<()> {
    for (hooks, loss) in HOOKS.into_iter().zip([Loss::Evicted, Loss::Idle]) {
        let behind = Behind::pooled()?;
        let topology = &behind.topology;
        let (heard, all, moved) = heard(topology, || masqueraded(&behind), &hooks, &[], loss)?;
        ensure!(
            heard == all,
            "{hooks:?}, {loss:?}: {heard} of {all} hear:{moved}"
        );
        ensure!(moved.of(DropNoFlow) == 0, "{hooks:?}, {loss:?}:{moved}");
    }
    Ok(())
}

#[test]
fn without_conntrack_in_sweeps_containers_are_cut() -> Result<()> {
    for (hooks, loss) in HOOKS.into_iter().zip([Loss::Idle, Loss::Evicted]) {
        let behind = Behind::masqueraded()?;
        let topology = &behind.topology;
        let without = ["translated"];
        let (heard, all, moved) = heard(topology, || masqueraded(&behind), &hooks, &without, loss)?;
        ensure!(heard == 0, "{loss:?}: {heard} of {all} hear:{moved}");
        ensure!(moved.of(DropNoFlow) > 0, "{loss:?}:{moved}");
    }
    Ok(())
}

/// Nobody sweeps while the daemon is dead, and what it has left in force goes on. The next start learns
/// what has expired meanwhile.
#[test]
fn translated_connections_outlive_the_daemon() -> Result<()> {
    for (hooks, killed) in HOOKS.into_iter().zip([true, false]) {
        let topology = translating()?;
        let flags: Vec<&str> = hooks.into_iter().chain(SHORT).collect();
        let mut guard = guard(&topology, &hooks, &[], &SHORT)?;
        let mut talks = own(&topology)?;
        if killed {
            guard.kill()?;
        } else {
            guard.end()?;
        }
        thread::sleep(IDLE);
        guard.start_again(&flags)?;
        let heard = alive(&mut talks, PATIENCE)?;
        ensure!(heard == talks.len(), "killed: {killed}: {heard} hear");

        // Without what is learned at a start, they are lost with the maps.
        guard.alter(&["--without", "conntrack"]);
        guard.end()?;
        guard.start_again(&flags)?;
        let heard = alive(&mut talks, PATIENCE)?;
        ensure!(heard <= talks.len() / 3, "killed: {killed}: {heard} hear");
    }
    Ok(())
}

/// Sweeps come often enough for the shortest timer by themselves.
#[test]
fn short_timers_are_watched_in_time() -> Result<()> {
    /// Between two words of a peer that speaks on one socket after the other.
    const PAUSE: Duration = Duration::from_millis(150);
    const ONE_DATAGRAM: Duration = Duration::from_millis(500);

    let topology = translating()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let service = SocketAddr::new(SERVICE[0].parse()?, PLAIN);
    let ends = (service, SocketAddr::new(P.address(Family::Ipv4), PLAIN));
    let mut exchanges = Exchange::open_translated(host, peer, ends, true, 20)?;
    let guard = Guard::start(host, topology.interface(), &["--timeout", "udp=2"])?;
    let before = guard.packets()?;
    thread::sleep(IDLE);
    for (word, exchange) in exchanges.iter_mut().enumerate() {
        exchange.speak()?;
        let moved = || guard.packets().map(|now| now.since(&before));
        ensure!(exchange.hears(ONE_DATAGRAM), "word {word}:{}", moved()?);
        thread::sleep(PAUSE);
    }
    Ok(())
}
