//! Flows that are older than the guard and that no socket of this host stands for: masqueraded
//! ones, and those of UDP sockets that are connected to nobody. The kernel's connection tracking
//! knows them. The rescue is off throughout, and only the peer speaks.

use std::{
    fs,
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassRefreshedFlow},
};
use guard_tests::{
    frames::{G, P, tcp, udp},
    guard::Guard,
    metrics,
    netns::Namespace,
    peers::{Connection, Exchange, Talk, alive, bound, unspecified},
    wire::{Listener, QUIET, Wire},
};

use super::{FAMILIES, MODES, behind::Behind};

const PATIENCE: Duration = Duration::from_secs(2);

/// Two connections of the container, one of them closed in its direction, a query of the
/// container, and one of the host from a socket that is connected to nobody.
fn talks(behind: &Behind, family: Family) -> Result<Vec<Box<dyn Talk + Send>>> {
    let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
    let container = &behind.container;
    let server = |port| SocketAddr::new(P.address(family), port);
    let open = Connection::open_masqueraded(container, peer, server(8080))?;
    let half_closed = Connection::open_masqueraded(container, peer, server(8081))?;
    half_closed.client.shutdown(Shutdown::Write)?;

    let mut talks: Vec<Box<dyn Talk + Send>> = vec![Box::new(open), Box::new(half_closed)];
    for (client, port) in [(container, 8082), (host, 8083)] {
        let exchange = Exchange::open(client, peer, server(port), false, 1)?.remove(0);
        talks.push(Box::new(exchange));
    }
    Ok(talks)
}

/// How many flows the guard knows.
fn known(guard: &Guard) -> Result<u64> {
    Ok(metrics::sum(&guard.scrape()?, "portguard_flows", &[]))
}

#[test]
fn f01_what_conntrack_knows_is_heard() -> Result<()> {
    for mode in MODES {
        let behind = Behind::masqueraded()?;
        let mut all = talks(&behind, Family::Ipv4)?;
        all.extend(talks(&behind, Family::Ipv6)?);
        ensure!(alive(&mut all, PATIENCE)? == 8, "{mode}: deaf unguarded");

        let flags = ["--no-rescue", "--timeout", "tcp-transitory=1"];
        let guard = behind.guard(mode, &flags)?;
        let said = guard.said();
        ensure!(said.contains(" 8 from conntrack"), "{mode}: {said}");
        // Longer than what a closed connection would be remembered for.
        thread::sleep(Duration::from_millis(2_600));
        // The connections acknowledge what they hear.
        guard.expect([(PassKnownFlow, 8), (PassRefreshedFlow, 4)], || {
            ensure!(alive(&mut all, PATIENCE)? == 8, "{mode}: deaf");
            Ok(())
        })?;
    }
    Ok(())
}

/// Of hosts behind a pool of addresses that nobody holds.
#[test]
fn f01_what_conntrack_knows_of_a_pool_is_heard() -> Result<()> {
    let behind = Behind::pooled()?;
    let mut all = talks(&behind, Family::Ipv4)?;
    all.extend(talks(&behind, Family::Ipv6)?);
    let guard = behind.guard("native", &["--no-rescue"])?;
    let said = guard.said();
    ensure!(said.contains(" 8 from conntrack"), "{said}");
    let before = guard.packets()?;
    let heard = alive(&mut all, PATIENCE)?;
    let moved = guard.packets()?.since(&before);
    ensure!(
        heard == 8 && moved.of(DropNoFlow) == 0,
        "{heard} hear:{moved}"
    );
    Ok(())
}

#[test]
fn f01_without_conntrack_all_of_it_is_cut() -> Result<()> {
    let behind = Behind::masqueraded()?;
    let mut all = talks(&behind, Family::Ipv4)?;
    all.extend(talks(&behind, Family::Ipv6)?);
    let (host, interface) = (&behind.topology.guarded, behind.topology.interface());
    let guard = Guard::start_altered(host, interface, &["--without", "conntrack"], &[])?;
    let before = guard.packets()?;
    let heard = alive(&mut all, QUIET * 2)?;
    ensure!(heard == 0, "no mechanism but conntrack knows of {heard}");
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) >= 8, "{moved}");
    Ok(())
}

/// What unsolicited senders have begun is tracked as well, and opens nothing.
#[test]
fn f01_what_unsolicited_senders_have_begun_is_not_learned() -> Result<()> {
    for mode in MODES {
        let behind = Behind::masqueraded()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let wire = Wire::open(peer, behind.topology.peer_interface())?;
        let listener = Listener::new(host, 40_000)?;
        for family in FAMILIES {
            // It has had an answer, too.
            let own = SocketAddr::new(G.address(family), 40_000);
            let unsolicited = peer.run(|| UdpSocket::bind((P.address(family), 5_000)))?;
            unsolicited.set_read_timeout(Some(PATIENCE))?;
            unsolicited.send_to(b"hello", own)?;
            ensure!(listener.delivered(QUIET * 4) == 1, "{mode}: not delivered");
            let known = SocketAddr::new(P.address(family), 5_000);
            listener.socket().send_to(b"hello", known)?;
            unsolicited.recv_from(&mut [0; 16]).context("no answer")?;
            called(host, peer, family)?;
        }
        let answers = |family| -> Result<(usize, usize)> {
            wire.heard(QUIET / 2);
            wire.send(&udp(5_000, 40_000).received(family))?;
            wire.send(&tcp(5_001, 40_001).received(family))?;
            let resets = wire.segments_heard(QUIET);
            Ok((listener.delivered(QUIET), resets))
        };
        for family in FAMILIES {
            let found = answers(family)?;
            ensure!(found == (1, 1), "{mode}: {found:?} delivered unguarded");
        }
        let tracked = host.run(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
        ensure!(tracked?.trim() == "4", "{mode}: conntrack has forgotten");

        let guard = behind.guard(mode, &["--no-rescue"])?;
        let said = guard.said();
        ensure!(said.contains(" 0 from conntrack"), "{mode}: {said}");
        ensure!(
            known(&guard)? == 0,
            "{mode}: unsolicited senders have flows"
        );
        for family in FAMILIES {
            guard.expect([(DropNoFlow, 2)], || {
                let found = answers(family)?;
                ensure!(found == (0, 0), "{mode}, {family:?}: {found:?} delivered");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// An unsolicited sender connects from 5001 to 40001, and it is over: the kernel has no socket of it.
fn called(host: &Namespace, peer: &Namespace, family: Family) -> Result<()> {
    let address = SocketAddr::new(G.address(family), 40_001);
    let listener = host.run(|| TcpListener::bind(address))?;
    let from = SocketAddr::new(P.address(family), 5_001);
    let caller = peer.run(|| guard_tests::peers::connect_from(from, address))?;
    let (mut answering, _) = listener.accept()?;
    // The caller closes first, so that only it has anything left to wait for.
    caller.shutdown(Shutdown::Write)?;
    answering.write_all(b"bye")?;
    drop(answering);
    drop(listener);
    thread::sleep(QUIET);
    Ok(())
}

/// Sets the range of the host, and waits until the guard has it.
fn set_range(host: &Namespace, guard: &Guard, first: u16) -> Result<()> {
    host.sysctl("net/ipv4/ip_local_port_range", &format!("{first} 60999"))?;
    let deadline = Instant::now() + PATIENCE;
    let bound = [("bound", "first")];
    while metrics::sum(&guard.scrape()?, "portguard_port_range", &bound) != u64::from(first) {
        ensure!(Instant::now() < deadline, "the range stays");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A query from this port to 8083 of the peer, and the peer's socket.
fn query(host: &Namespace, peer: &Namespace, family: Family, port: u16) -> Result<Asked> {
    let server = SocketAddr::new(P.address(family), 8083);
    let answering = peer.run(|| UdpSocket::bind(server))?;
    answering.set_read_timeout(Some(PATIENCE))?;
    let asking = bound(host, || UdpSocket::bind((unspecified(server.ip()), port)))?;
    asking.set_read_timeout(Some(PATIENCE))?;
    asking.send_to(b"query", server)?;
    let (_, from) = answering.recv_from(&mut [0; 16]).context("no query")?;
    Ok(Asked {
        asking,
        answering,
        from,
    })
}

struct Asked {
    asking: UdpSocket,
    answering: UdpSocket,
    from: SocketAddr,
}

impl Asked {
    fn is_answered(&self) -> Result<bool> {
        self.answering.send_to(b"answer", self.from)?;
        Ok(self.asking.recv(&mut [0; 16]).is_ok())
    }
}

#[test]
fn y02_flows_of_ports_that_become_guarded_are_learned() -> Result<()> {
    for (mode, family) in MODES.into_iter().zip(FAMILIES) {
        let behind = Behind::masqueraded()?;
        let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
        let guard = behind.guard(mode, &["--no-rescue"])?;
        // From ports below the range.
        let own = query(host, peer, family, 20_000)?;
        let server = SocketAddr::new(P.address(family), 8080);
        let mut masqueraded =
            Connection::open_masqueraded_from(20_001, (&behind.container, peer), server)?;
        let port = masqueraded.server.peer_addr()?.port();
        ensure!(port == 20_001, "{mode}: masqueraded by port {port}");
        let due = [(PassKnownFlow, 2), (PassRefreshedFlow, 1)];
        set_range(host, &guard, 16_384)?;
        guard.expect(due, || {
            ensure!(own.is_answered()?, "{mode}: no answer");
            masqueraded.speak()?;
            ensure!(masqueraded.hears(PATIENCE), "{mode}: not heard");
            Ok(())
        })?;
    }
    Ok(())
}

/// The flows have expired while their port was none of the guard's business.
#[test]
fn y02_flows_that_have_expired_meanwhile_are_learned_anew() -> Result<()> {
    let behind = Behind::masqueraded()?;
    let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
    let guard = behind.guard("native", &["--no-rescue", "--timeout", "udp=4"])?;
    let mut asked = Vec::new();
    guard.expect([(PassNewFlow, 2)], || {
        for (family, port) in FAMILIES.into_iter().zip(40_000..) {
            asked.push(query(host, peer, family, port)?);
        }
        Ok(())
    })?;
    set_range(host, &guard, 50_000)?;
    thread::sleep(Duration::from_millis(5_500));
    set_range(host, &guard, 32_768)?;
    guard.expect([(PassKnownFlow, 2)], || {
        for own in &asked {
            ensure!(own.is_answered()?, "no answer from {}", own.from);
        }
        Ok(())
    })
}

/// What the host has sent by an interface that had no programs yet.
#[test]
fn f10_an_interface_that_comes_back_is_told_of_flows() -> Result<()> {
    let behind = Behind::masqueraded()?;
    let (host, peer) = (&behind.topology.guarded, &behind.topology.peer);
    let mut guard = behind.guard("native", &["--no-rescue"])?;
    guard.signal(libc::SIGSTOP);
    host.ip("link del vg")?;
    behind.topology.connect()?;
    let own = query(host, peer, Family::Ipv4, 40_000)?;
    guard.signal(libc::SIGCONT);
    let deadline = Instant::now() + PATIENCE * 2;
    while !guard.said().contains("guarded again") {
        ensure!(Instant::now() < deadline, "{}", guard.said());
        thread::sleep(Duration::from_millis(10));
    }
    guard.expect([(PassKnownFlow, 1)], || {
        ensure!(own.is_answered()?, "no answer");
        Ok(())
    })
}

/// The maps take what they have room for, and the rest is said.
#[test]
fn f01_a_table_larger_than_the_maps() -> Result<()> {
    let behind = Behind::masqueraded()?;
    let host = &behind.topology.guarded;
    let socket = bound(host, || UdpSocket::bind("0.0.0.0:40000"))?;
    for port in 1_000..2_500 {
        socket.send_to(b"query", (P.ipv4, port))?;
    }
    let guard = behind.guard("native", &["--max-flows", "1024"])?;
    let said = guard.said();
    ensure!(said.contains(" 1024 from conntrack"), "{said}");
    ensure!(
        said.contains("476 flows of conntrack find no room"),
        "{said}"
    );
    ensure!(known(&guard)? <= 1024, "more flows than room");
    Ok(())
}
