//! Sockets that are bound to a device above the guarded one. The data path cannot find them, so
//! sweeps put back what the maps forget of them.

use std::{
    ffi::CStr,
    io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream,
        UdpSocket,
    },
    os::fd::{AsRawFd, FromRawFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRescued},
};
use guard_tests::{
    crowd::Crowd,
    frames::P,
    guard::Guard,
    load::{self, Servers},
    metrics::{self, Packets},
    netns::{Direct, Namespace, TwoLinks},
    peers::{self, Connection, Exchange, Talk, alive, unspecified},
};

use super::{
    FAMILIES,
    sweeps::{altered, wait_for_sweeps},
};

const PATIENCE: Duration = Duration::from_secs(2);
/// Longer than the timers, which are two seconds.
const IDLE: Duration = Duration::from_millis(2_700);
/// Between the words of a peer that speaks on one socket after the other, for longer than a timer.
const PAUSE: Duration = Duration::from_millis(75);
const WORDS: usize = 40;
/// Long enough for one datagram.
const ONE_DATAGRAM: Duration = Duration::from_millis(500);

fn bind_to_bridge(socket: &impl AsRawFd) -> Result<()> {
    bind_to(socket, c"br0")
}

/// The flows of a bound socket are put back whether there is room or not.
fn bind_to_second(socket: &impl AsRawFd) -> Result<()> {
    bind_to(socket, c"vg2")
}

fn bind_to(socket: &impl AsRawFd, device: &CStr) -> Result<()> {
    let device = device.to_bytes_with_nul();
    // SAFETY: the name is as long as the call is told.
    let bound = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            device.as_ptr().cast(),
            device.len() as libc::socklen_t,
        )
    };
    ensure!(bound == 0, io::Error::last_os_error());
    Ok(())
}

/// How many of some conversations on bound sockets the peer is heard on, after their timers have
/// run out.
fn silent(family: Family, without: &[&str]) -> Result<(usize, Packets)> {
    let topology = Direct::bridged()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let flags = ["--timeout", "tcp-established=2", "--timeout", "udp=2"];
    let guard = altered(&topology, without, &flags)?;
    let server = P.address(family);
    let mut connections = Connection::open(host, peer, (server, 8080), 5)?;
    let mut exchanges = Exchange::open(host, peer, (server, 8081), true, 5)?;
    for connection in &connections {
        bind_to_bridge(&connection.client).context("bind TCP")?;
    }
    for exchange in &exchanges {
        bind_to_bridge(&exchange.client).context("bind UDP")?;
    }
    thread::sleep(IDLE);
    wait_for_sweeps(&topology, &guard)?;
    let before = guard.packets()?;
    let heard = alive(&mut exchanges, PATIENCE)? + alive(&mut connections, PATIENCE)?;
    Ok((heard, guard.packets()?.since(&before)))
}

#[test]
fn bound_sockets_outlive_their_timers() -> Result<()> {
    for family in FAMILIES {
        let (heard, moved) = silent(family, &[])?;
        ensure!(heard == 10, "{family:?}: {heard} hear:{moved}");
        ensure!(moved.of(DropNoFlow) == 0, "{family:?}:{moved}");
        ensure!(moved.of(PassKnownFlow) == 10, "{family:?}:{moved}");
        ensure!(moved.of(PassRescued) == 0, "{family:?}:{moved}");
    }
    Ok(())
}

/// Anyone who waits at the port of such a socket, as anybody may: on loopback, and on every address of
/// the other family.
fn bystanders(
    host: &Namespace,
    family: Family,
    port: u16,
) -> Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let addresses: &[IpAddr] = match family {
        Family::Ipv6 => &[
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        ],
        Family::Ipv4 | Family::Other => &[
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    };
    host.run(|| {
        let (mut listeners, mut sockets) = (Vec::new(), Vec::new());
        for address in addresses {
            let end = (*address, port);
            listeners.push(TcpListener::bind(end).with_context(|| format!("listen on {end:?}"))?);
            sockets.push(UdpSocket::bind(end).with_context(|| format!("bind {end:?}"))?);
        }
        Ok((listeners, sockets))
    })
}

#[test]
fn who_waits_at_another_address_keeps_no_bound_socket_from_its_flow() -> Result<()> {
    for family in FAMILIES {
        let topology = Direct::bridged()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        host.sysctl("net/ipv6/bindv6only", "1")?;
        let flags = ["--timeout", "tcp-established=2", "--timeout", "udp=2"];
        let guard = altered(&topology, &[], &flags)?;
        let server = P.address(family);
        let mut connections = Connection::open(host, peer, (server, 8080), 3)?;
        let mut exchanges = Exchange::open(host, peer, (server, 8081), true, 3)?;
        let mut ports = Vec::new();
        for connection in &connections {
            bind_to_bridge(&connection.client).context("bind TCP")?;
            ports.push(connection.client.local_addr()?.port());
        }
        for exchange in &exchanges {
            bind_to_bridge(&exchange.client).context("bind UDP")?;
            ports.push(exchange.client.local_addr()?.port());
        }
        let waiting: Vec<_> = ports
            .into_iter()
            .map(|port| bystanders(host, family, port))
            .collect::<Result<_>>()?;
        thread::sleep(IDLE);
        wait_for_sweeps(&topology, &guard)?;
        let before = guard.packets()?;
        let heard = alive(&mut exchanges, PATIENCE)? + alive(&mut connections, PATIENCE)?;
        let moved = guard.packets()?.since(&before);
        ensure!(heard == 6, "{family:?}: {heard} hear:{moved}");
        ensure!(moved.of(DropNoFlow) == 0, "{family:?}:{moved}");
        drop(waiting);
    }
    Ok(())
}

/// A socket of UDP-Lite, which `UdpSocket` can use like one of UDP.
fn lite(local: SocketAddr) -> io::Result<UdpSocket> {
    let family = match local {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_UDPLITE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the file descriptor was just opened, and nobody else has it.
    let socket = unsafe { UdpSocket::from_raw_fd(fd) };
    peers::bind(&socket, local)?;
    Ok(socket)
}

/// A conversation over UDP-Lite, of a socket that is bound to no device.
struct LiteExchange {
    client: UdpSocket,
    server: UdpSocket,
}

impl LiteExchange {
    fn open(topology: &Direct, family: Family) -> Result<Self> {
        let (host, peer) = (&topology.guarded, &topology.peer);
        let server_end = SocketAddr::new(P.address(family), 8082);
        let server = peer.run(|| lite(server_end)).context("the peer")?;
        server.set_read_timeout(Some(PATIENCE))?;
        let local = SocketAddr::new(unspecified(server_end.ip()), 0);
        let client = host.run(|| lite(local)).context("the host")?;
        client.connect(server_end)?;
        client.send(b"query")?;
        let (_, from) = server.recv_from(&mut [0; 16]).context("no query")?;
        server.connect(from)?;
        Ok(Self { client, server })
    }
}

impl Talk for LiteExchange {
    fn speak(&mut self) -> io::Result<()> {
        self.server.send(b"news").map(|_| ())
    }

    fn hears(&mut self, patience: Duration) -> bool {
        let mut heard = [0; 16];
        self.client.set_read_timeout(Some(patience)).is_ok()
            && self.client.recv(&mut heard).is_ok_and(|length| length == 4)
    }
}

/// Conversations over a link-local address, whose sockets the kernel binds to the bridge by itself.
fn link_local(topology: &Direct) -> Result<(Connection, Exchange)> {
    let (host, peer) = (&topology.guarded, &topology.peer);
    host.ip("addr add fe80::9:2/64 dev br0 nodad")?;
    peer.ip("addr add fe80::9:1/64 dev vp nodad")?;
    let index = |host: &Namespace, name: &CStr| {
        // SAFETY: the name ends in zero.
        host.run(|| unsafe { libc::if_nametoindex(name.as_ptr()) })
    };
    let (here, there) = (index(host, c"br0"), index(peer, c"vp"));
    let ends = |port| {
        let address = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 9, 1);
        let end = |scope| SocketAddr::V6(SocketAddrV6::new(address, port, 0, scope));
        (end(here), end(there))
    };
    let connection = Connection::open_translated(host, peer, ends(8083))?;
    let exchange = Exchange::open_translated(host, peer, ends(8084), true, 1)?.remove(0);
    Ok((connection, exchange))
}

/// How many conversations over UDP-Lite and over link-local addresses live on after their timers, beside
/// somebody who waits at the same ports of another address.
fn unfindable(without: &[&str]) -> Result<(usize, Packets)> {
    let topology = Direct::bridged()?;
    let host = &topology.guarded;
    host.sysctl("net/ipv6/bindv6only", "1")?;
    let flags = ["--timeout", "tcp-established=2", "--timeout", "udp=2"];
    let guard = altered(&topology, without, &flags)?;
    let (mut connection, mut exchange) = link_local(&topology)?;
    let mut lites = [
        LiteExchange::open(&topology, Family::Ipv4)?,
        LiteExchange::open(&topology, Family::Ipv6)?,
    ];
    let mut waiting = Vec::new();
    for end in [
        connection.client.local_addr()?,
        exchange.client.local_addr()?,
    ] {
        waiting.push(bystanders(host, Family::Ipv6, end.port())?);
    }
    let mut waiting_lite = Vec::new();
    for lite_exchange in &lites {
        let end = lite_exchange.client.local_addr()?;
        let loopback: IpAddr = match end {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        waiting_lite.push(host.run(|| lite(SocketAddr::new(loopback, end.port())))?);
    }
    thread::sleep(IDLE);
    wait_for_sweeps(&topology, &guard)?;
    let before = guard.packets()?;
    let mut talks: [&mut dyn Talk; 2] = [&mut connection, &mut exchange];
    let mut heard = alive(&mut lites, PATIENCE)?;
    for talk in &mut talks {
        talk.speak()?;
        heard += usize::from(talk.hears(PATIENCE));
    }
    Ok((heard, guard.packets()?.since(&before)))
}

#[test]
fn sockets_of_link_local_addresses_and_of_udp_lite_outlive_their_timers() -> Result<()> {
    let (heard, moved) = unfindable(&[])?;
    ensure!(heard == 4, "{heard} hear:{moved}");
    ensure!(moved.of(DropNoFlow) == 0, "{moved}");
    ensure!(moved.of(PassRescued) == 0, "{moved}");
    Ok(())
}

#[test]
fn without_repair_link_local_addresses_and_udp_lite_are_cut_by_their_timers() -> Result<()> {
    let (heard, moved) = unfindable(&["repair"])?;
    ensure!(heard == 0, "{heard} hear although nobody looks after them");
    ensure!(moved.of(DropNoFlow) >= 4, "{moved}");
    Ok(())
}

/// Sockets that no look-up finds, on ports that become guarded while so many others are there that not
/// all are put in before.
#[test]
fn sockets_that_no_look_up_finds_are_put_in_before_their_ports_are_guarded() -> Result<()> {
    const RANGE: &str = "net/ipv4/ip_local_port_range";

    let topology = Direct::bridged()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    host.sysctl(RANGE, "50000 60999")?;
    let (connection, exchange) = link_local(&topology)?;
    let lites = [
        LiteExchange::open(&topology, Family::Ipv4)?,
        LiteExchange::open(&topology, Family::Ipv6)?,
    ];
    let bound = Exchange::open(host, peer, (P.ipv4, 8081), true, 3)?;
    for exchange in &bound {
        bind_to_bridge(&exchange.client)?;
    }
    let mut talks: Vec<Box<dyn Talk + Send>> = vec![Box::new(connection), Box::new(exchange)];
    talks.extend(lites.map(|talk| Box::new(talk) as Box<dyn Talk + Send>));
    talks.extend(bound.into_iter().map(|talk| Box::new(talk) as _));
    host.sysctl(RANGE, "40000 40999")?;
    let end = SocketAddrV4::new(P.ipv4, 9000);
    let _crowd = Crowd::of_sockets(host, end, (61_000, 0), 60_000)?;
    let guard = altered(&topology, &["repair"], &["--max-flows", "131072"])?;
    let before = guard.packets()?;
    host.sysctl(RANGE, "40000 65535")?;
    // From before the change is in force until long after it.
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        for talk in &mut talks {
            talk.speak()?;
            ensure!(talk.hears(PATIENCE), "cut off: {}", guard.said());
        }
    }
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) == 0, "{moved}");
    ensure!(moved.of(PassKnownFlow) > 7, "{moved}");
    Ok(())
}

#[test]
fn without_repair_bound_sockets_are_cut_by_their_timers() -> Result<()> {
    let (heard, moved) = silent(Family::Ipv4, &["repair"])?;
    ensure!(heard == 0, "{heard} hear although nobody looks after them");
    ensure!(moved.of(DropNoFlow) >= 10, "{moved}");
    ensure!(moved.of(PassRescued) == 0, "{moved}");
    Ok(())
}

/// A sweep that only put back what has expired would leave each flow dead from the end of its timer
/// to the next sweep.
#[test]
fn bound_sockets_are_heard_between_any_two_sweeps() -> Result<()> {
    let topology = Direct::bridged()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = Guard::start_altered(
        host,
        topology.interface(),
        &["--sweep-rest", "500"],
        &["--timeout", "udp=2"],
    )?;
    let server = (P.address(Family::Ipv4), 8081);
    let mut exchanges = Exchange::open(host, peer, server, true, WORDS)?;
    for exchange in &exchanges {
        bind_to_bridge(&exchange.client)?;
    }
    let before = guard.packets()?;
    thread::sleep(IDLE);
    for (word, exchange) in exchanges.iter_mut().enumerate() {
        exchange.speak()?;
        let moved = || guard.packets().map(|now| now.since(&before));
        ensure!(exchange.hears(ONE_DATAGRAM), "word {word}:{}", moved()?);
        thread::sleep(PAUSE);
    }
    let moved = guard.packets()?.since(&before);
    ensure!(moved.of(DropNoFlow) == 0, "{moved}");
    ensure!(moved.of(PassRescued) == 0, "{moved}");
    Ok(())
}

/// How many of many conversations on bound sockets the peer is heard on, after requests have
/// evicted their flows.
fn evicted(without: &[&str]) -> Result<(usize, Packets)> {
    let topology = Direct::bridged()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = altered(&topology, without, &["--max-flows", "1024"])?;
    let server = P.address(Family::Ipv4);
    let mut exchanges = Exchange::open(host, peer, (server, 8081), true, 300)?;
    for exchange in &exchanges {
        bind_to_bridge(&exchange.client)?;
    }
    let _servers = Servers::start(peer)?;
    host.run(|| (0..2_000).try_for_each(|_| load::resolve(server)))?;
    wait_for_sweeps(&topology, &guard)?;
    let before = guard.packets()?;
    let heard = alive(&mut exchanges, PATIENCE)?;
    Ok((heard, guard.packets()?.since(&before)))
}

#[test]
fn bound_sockets_outlive_eviction() -> Result<()> {
    let (heard, moved) = evicted(&[])?;
    ensure!(heard == 300, "{heard} hear:{moved}");
    ensure!(moved.of(PassKnownFlow) == 300, "{moved}");
    Ok(())
}

#[test]
fn without_repair_bound_sockets_are_cut_by_eviction() -> Result<()> {
    let (heard, moved) = evicted(&["repair"])?;
    ensure!(heard < 200, "{heard} hear although nobody looks after them");
    ensure!(moved.of(DropNoFlow) as usize == 300 - heard, "{moved}");
    Ok(())
}

/// A server on a guarded port, whom unsolicited senders reach by another interface: what they open takes no
/// room in the maps, where it could cost this host's own flows theirs.
#[test]
fn what_unsolicited_senders_have_opened_is_not_put_back() -> Result<()> {
    let TwoLinks(topology) = TwoLinks::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = altered(&topology, &[], &[])?;
    let own = Connection::open(host, peer, (P.ipv4, 8080), 1)?;
    bind_to_second(&own[0].client)?;
    let address = ("10.9.1.2", 40_000);
    let listener = host.run(|| TcpListener::bind(address))?;
    let opened: Vec<TcpStream> = peer.run(|| {
        (0..20)
            .map(|_| TcpStream::connect(address))
            .collect::<io::Result<_>>()
    })?;
    let accepted: Vec<_> = (0..20)
        .map(|_| listener.accept())
        .collect::<io::Result<_>>()?;
    for (stream, _) in &accepted {
        bind_to_second(stream)?;
    }
    wait_for_sweeps(&topology, &guard)?;
    let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[("protocol", "tcp")]);
    ensure!(flows == 1, "{flows} flows, one of which is this host's own");

    // Nobody waits for unsolicited senders there any more: what is left is this host's own choice, and no
    // more than the sockets that it keeps.
    drop(listener);
    wait_for_sweeps(&topology, &guard)?;
    let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[("protocol", "tcp")]);
    ensure!(flows == 21, "{flows} flows");
    drop(opened);
    Ok(())
}
