//! O06: the guarded interface is a port of a bridge, which has the host's address.

use std::{
    net::{Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassNotLocal},
};
use guard_tests::{
    frames::{EVERYBODY, End, G, MDNS, N, NOBODY, P, udp},
    guard::Guard,
    netns::{Direct, Namespace, link},
    peers::{Connection, Exchange, alive},
    wire::{Acceptor, Listener, QUIET, Wire},
};

use super::MODES;

const PATIENCE: Duration = Duration::from_secs(1);

/// The other host by an address that means something on its link alone.
const ON_LINK: End = End {
    ipv6: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 3),
    ..N
};

/// The other host by addresses that this host has no route to.
const UNROUTED: End = End {
    ipv4: Ipv4Addr::new(198, 18, 7, 3),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 3),
    ..N
};

/// This host by an address of a network that is routed to it.
const ROUTED_HERE: End = End {
    ipv4: Ipv4Addr::new(198, 18, 9, 9),
    ..G
};

/// This host by an address of a network that a rule routes to it.
const RULED_HERE: End = End {
    ipv4: Ipv4Addr::new(198, 18, 8, 8),
    ..G
};

/// This host by an address that it has just got.
const NEW_HERE: End = End {
    ipv4: Ipv4Addr::new(198, 18, 6, 1),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 6, 0, 0, 0, 0, 1),
    ..G
};

/// The same, in a frame to everybody.
const NEW_TO_ALL: End = End {
    mac: EVERYBODY.mac,
    ..NEW_HERE
};

/// The same, in a frame to a link address that nobody has.
const NEW_ELSEWHERE: End = End {
    mac: [2, 0, 0, 0, 0, 0x77],
    ..NEW_HERE
};

/// Nobody, by the link address of this host: a broadcast to the kernel, when nobody sends it.
const NOBODY_HERE: End = End {
    mac: G.mac,
    ..NOBODY
};

/// The guarded host on a bridge, and another host behind a second port of that.
pub(super) fn bridged() -> Result<(Direct, Namespace)> {
    let topology = Direct::bridged()?;
    let host = &topology.guarded;
    let other = Namespace::new("o")?;
    link((host, "vo"), (&other, "v"))?;
    other.ip("link set v address 02:00:00:00:00:03")?;
    other.ip(&format!("addr add {}/24 dev v", N.ipv4))?;
    other.ip(&format!("addr add {}/24 dev v", UNROUTED.ipv4))?;
    for end in [N, ON_LINK, UNROUTED] {
        other.ip(&format!("addr add {}/64 dev v nodad", end.ipv6))?;
    }
    for command in [
        "link set vo master br0",
        // As ports of bridges have one: their neighbours are those of the bridge all the same.
        "addr add fe80::9/64 dev vg nodad",
        "route add 224.0.0.0/4 dev br0",
    ] {
        host.ip(command)?;
    }
    Ok((topology, other))
}

#[test]
fn o06_a_bridge_is_guarded_and_its_other_hosts_are_not() -> Result<()> {
    for mode in MODES {
        let (topology, other) = bridged()?;
        let (host, peer) = (&topology.guarded, &topology.peer);
        let wire = Wire::open(peer, topology.peer_interface())?;
        let (own, theirs) = (Listener::new(host, 40_000)?, Listener::new(&other, 40_000)?);
        let acceptor = Acceptor::new(&other, 40_000)?;
        let send = |family| -> Result<()> {
            wire.send(&udp(53, 40_000).received(family))?;
            wire.send(&udp(53, 40_000).to(N).received(family))?;
            wire.send(&udp(53, 40_000).to(ON_LINK).received(family))?;
            wire.send(&udp(53, 40_000).to(UNROUTED).received(family))
        };
        let nobody = udp(53, 40_000).from(NOBODY).to(NOBODY_HERE);
        let send_from_nobody = || wire.send(&nobody.received(Family::Ipv4));
        for family in [Family::Ipv4, Family::Ipv6] {
            send(family)?;
            let heard = (own.delivered(QUIET * 4), theirs.delivered(QUIET));
            ensure!(heard == (1, 3), "{mode}: {heard:?} heard without a guard");
        }
        send_from_nobody()?;
        ensure!(own.delivered(QUIET * 4) == 1, "nobody is not heard");

        let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
        guard.expect([(DropNoFlow, 1)], send_from_nobody)?;
        for (family, routes) in [
            (Family::Ipv4, "0"),
            (Family::Ipv6, "0"),
            (Family::Ipv4, "1"),
            (Family::Ipv6, "1"),
        ] {
            // Whether it routes besides must make no difference to what it bridges.
            host.sysctl("net/ipv4/ip_forward", routes)?;
            host.sysctl("net/ipv6/conf/all/forwarding", routes)?;
            guard.expect([(DropNoFlow, 1), (PassNotLocal, 3)], || send(family))?;
            let heard = (own.delivered(QUIET), theirs.delivered(QUIET));
            ensure!(
                heard == (0, 3),
                "{mode}, {family:?}, {routes}: {heard:?} heard"
            );
            peer.run(|| std::net::TcpStream::connect((N.address(family), 40_000)))?;
            ensure!(acceptor.accepted(QUIET) == 1, "{mode}: no connection");
            let server = P.address(family);
            for client in [host, &other] {
                let mut connections = Connection::open(client, peer, (server, 8080), 3)?;
                let mut exchanges = Exchange::open(client, peer, (server, 8081), false, 3)?;
                let name = client.name();
                ensure!(alive(&mut connections, PATIENCE)? == 3, "{mode}, {name}");
                ensure!(alive(&mut exchanges, PATIENCE)? == 3, "{mode}, {name}");
            }
        }
        let packets = guard.packets()?;
        ensure!(packets.of(DropNoFlow) == 5, "{mode}:{packets}");

        let asking = host.run(|| UdpSocket::bind((G.ipv4, 40_001)))?;
        asking.send_to(b"query", (MDNS.ipv4, 5353))?;
        guard.expect([(PassKnownFlow, 1)], || {
            wire.send(&udp(5353, 40_001).from(N).received(Family::Ipv4))
        })?;
    }
    Ok(())
}

/// H3, O06: whom a frame is for shows by its link address, so that nobody need tell the guard of
/// an address before it is guarded.
#[test]
fn o06_a_new_address_is_guarded_before_the_daemon_knows() -> Result<()> {
    for (mode, routes) in [
        ("native", "0"),
        ("native", "1"),
        ("generic", "0"),
        ("generic", "1"),
    ] {
        let (topology, other) = bridged()?;
        let host = &topology.guarded;
        host.sysctl("net/ipv4/ip_forward", routes)?;
        host.sysctl("net/ipv6/conf/all/forwarding", routes)?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let (own, theirs) = (Listener::new(host, 40_000)?, Listener::new(&other, 40_000)?);
        let mut guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
        let before = guard.packets()?;

        guard.signal(libc::SIGSTOP);
        for command in [
            "addr add 198.18.6.1/32 dev br0",
            "addr add 2001:db8:6::1/128 dev br0 nodad",
            "route add local 198.18.9.0/24 dev lo",
            // A table that nobody reads.
            "rule add to 198.18.8.0/24 lookup 77",
            "route add local 198.18.8.0/24 dev lo table 77",
        ] {
            host.ip(command)?;
        }
        let send = |end, family| wire.send(&udp(53, 40_000).to(end).received(family));
        for family in [Family::Ipv4, Family::Ipv6] {
            send(NEW_HERE, family)?;
            send(UNROUTED, family)?;
        }
        send(ROUTED_HERE, Family::Ipv4)?;
        send(RULED_HERE, Family::Ipv4)?;
        // A broadcast, which the kernel takes for this host all the same, and guests hear as well.
        send(NEW_TO_ALL, Family::Ipv4)?;
        // It passes for another's, and the kernel takes it for one too.
        send(NEW_ELSEWHERE, Family::Ipv4)?;
        let heard = (own.delivered(QUIET), theirs.delivered(QUIET));
        guard.signal(libc::SIGCONT);
        ensure!(heard == (0, 2), "{mode}, {routes}: {heard:?} heard");
        let since = guard.packets()?.since(&before);
        let counted = (since.of(DropNoFlow), since.of(PassNotLocal));
        ensure!(counted == (5, 3), "{mode}, {routes}:{since}");

        guard.stop()?;
        send(NEW_HERE, Family::Ipv4)?;
        send(RULED_HERE, Family::Ipv4)?;
        send(NEW_TO_ALL, Family::Ipv4)?;
        ensure!(own.delivered(QUIET * 4) == 3, "not heard without a guard");
    }
    Ok(())
}
