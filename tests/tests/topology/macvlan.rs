//! H6: a container has an interface of its own above the guarded one, in another namespace.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassNewFlow, PassNotLocal, PassNotRecorded},
};
use guard_tests::{
    frames::{End, P, udp},
    guard::Guard,
    metrics,
    netns::{Direct, Namespace},
    peers::{Connection, alive},
    wire::{Acceptor, Listener, QUIET, Wire},
};

use super::{FAMILIES, MODES};

const PATIENCE: Duration = Duration::from_secs(1);

/// How long the guard may take to see a container that nobody tells it of.
const SEEN: Duration = Duration::from_secs(5);

/// The container.
const C: End = End {
    mac: [2, 0, 0, 0, 0, 7],
    ipv4: Ipv4Addr::new(10, 9, 0, 7),
    ipv6: Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 7),
};

/// Makes the container's interface in its own namespace, so that no other ever sees it.
fn container(host: &Namespace) -> Result<Namespace> {
    let container = Namespace::new("c")?;
    host.ip(&format!(
        "link add link vg name mv netns {} address 02:00:00:00:00:07 type macvlan mode bridge",
        container.name()
    ))?;
    container.ip("link set mv up")?;
    container.ip(&format!("addr add {}/24 dev mv", C.ipv4))?;
    container.ip(&format!("addr add {}/64 dev mv nodad", C.ipv6))?;
    Ok(container)
}

#[test]
fn h6_a_container_on_macvlan_is_another_host() -> Result<()> {
    for mode in MODES {
        for (late, routes) in [(false, "0"), (true, "1")] {
            let topology = Direct::new()?;
            let (host, peer) = (&topology.guarded, &topology.peer);
            host.sysctl("net/ipv4/ip_forward", routes)?;
            host.sysctl("net/ipv6/conf/all/forwarding", routes)?;
            let early = (!late).then(|| container(host)).transpose()?;
            let guard = Guard::start(host, "vg", &["--xdp-mode", mode])?;
            let container = match early {
                Some(container) => container,
                None => container(host)?,
            };

            let wire = Wire::open(peer, topology.peer_interface())?;
            let (own, theirs) = (
                Listener::new(host, 40_000)?,
                Listener::new(&container, 40_000)?,
            );
            let hears = |family| -> Result<usize> {
                wire.send(&udp(53, 40_000).to(C).received(family))?;
                Ok(theirs.delivered(QUIET))
            };
            let since = Instant::now();
            while hears(Family::Ipv4)? == 0 {
                ensure!(
                    late && since.elapsed() < SEEN,
                    "{mode}: the container is cut off: {}",
                    guard.said()
                );
                thread::sleep(Duration::from_millis(100));
            }

            let acceptor = Acceptor::new(&container, 40_000)?;
            for family in FAMILIES {
                let what = format!("{mode}, {family:?}");
                guard.expect([(DropNoFlow, 1), (PassNotLocal, 1)], || {
                    wire.send(&udp(53, 40_000).received(family))?;
                    wire.send(&udp(53, 40_000).to(C).received(family))
                })?;
                let heard = (own.delivered(QUIET), theirs.delivered(QUIET));
                ensure!(heard == (0, 1), "{what}: {heard:?} heard");
                let address = C.address(family);
                peer.run(|| std::net::TcpStream::connect((address, 40_000)))?;
                ensure!(acceptor.accepted(QUIET) == 1, "{what}: no connection");
            }

            let before = guard.packets()?;
            for family in FAMILIES {
                let server = (P.address(family), 8080);
                let mut theirs = Connection::open(&container, peer, server, 3)?;
                ensure!(alive(&mut theirs, PATIENCE)? == 3, "{mode}, {family:?}");
            }
            let since = guard.packets()?.since(&before);
            ensure!(since.of(PassNewFlow) == 0, "{mode}: recorded:{since}");
            ensure!(since.of(PassNotRecorded) > 0, "{mode}: not seen:{since}");
            for family in FAMILIES {
                let server = (P.address(family), 8080);
                let mut own = Connection::open(host, peer, server, 3)?;
                ensure!(alive(&mut own, PATIENCE)? == 3, "{mode}, {family:?}: own");
            }
            let flows = metrics::sum(&guard.scrape()?, "portguard_flows", &[]);
            ensure!(flows == 6, "{mode}: {flows} flows");
        }
    }
    Ok(())
}
