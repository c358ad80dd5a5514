//! What others start opens nothing.

use std::{
    io::{Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{
        DropNoFlow, PassExempt, PassIcmpInfo, PassInsertFailed, PassNewFlow, PassNotRecorded,
        PassOutsideRange, PassRefreshedFlow,
    },
};
use guard_tests::{
    frames::{G, icmp, tcp, udp},
    guard::Guard,
    netns::Direct,
    wire::{QUIET, Wire},
};

use super::{FAMILIES, MODES, address, dropped, live_flows, set};

/// Clients of each of two ports, by mode: 10,000 where it counts.
const CLIENTS: [usize; 2] = [5_000, 1_000];

#[test]
fn r07_what_the_host_reports_opens_nothing() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let flags = ["--xdp-mode", mode];
        let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
        for family in FAMILIES {
            let before = guard.packets()?;
            // An echo, a datagram and a segment to ports where nobody listens.
            let frames = [
                icmp([8, 128], [0x9c, 0x40, 0, 53]),
                udp(40_000, 5_000),
                tcp(40_000, 5_000).syn(),
            ];
            for frame in &frames {
                wire.send(&frame.received(family))?;
                let answers = wire.heard(QUIET).len();
                ensure!(answers >= 1, "{mode}, {family:?}: no answer to {frame:?}");
            }
            let moved = guard.packets()?.since(&before);
            ensure!(
                moved.of(PassOutsideRange) == 2,
                "{mode}, {family:?}:{moved}"
            );
            ensure!(moved.of(PassIcmpInfo) >= 1, "{mode}, {family:?}:{moved}");
            ensure!(moved.of(PassNotRecorded) >= 3, "{mode}, {family:?}:{moved}");
            ensure!(dropped(&moved) == 0, "{mode}, {family:?}:{moved}");
            ensure!(live_flows(&guard)? == 0, "{mode}, {family:?}: a flow");
            // Not even what the reports read as, taken for two ports.
            guard.expect([(DropNoFlow, 1)], || {
                wire.send(&udp(53, 40_000).received(family))
            })?;
        }
    }
    Ok(())
}

#[test]
fn r08_clients_of_servers_open_nothing() -> Result<()> {
    for (mode, clients) in MODES.into_iter().zip(CLIENTS) {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        for port in [8080, 40_000] {
            let listener = host.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))?;
            thread::spawn(move || {
                for stream in listener.incoming().take(clients).flatten() {
                    let mut stream = stream;
                    let _ = stream.read(&mut [0; 1]);
                }
            });
        }
        let flags = ["--xdp-mode", mode, "--expose", "40000/tcp"];
        let guard = Guard::start(host, topology.interface(), &flags)?;
        for (port, family, outcome) in [
            (8080, Family::Ipv4, PassOutsideRange),
            (40_000, Family::Ipv6, PassExempt),
        ] {
            let (flows, before) = (live_flows(&guard)?, guard.packets()?);
            topology.peer.run(|| -> Result<()> {
                for number in 0..clients {
                    let remote = (address(&G, family), port);
                    let mut client = TcpStream::connect(remote)
                        .with_context(|| format!("{mode}, client {number} of {port}"))?;
                    client.write_all(b"x")?;
                    // Reset, so that no port of the peer waits.
                    let linger = libc::linger {
                        l_onoff: 1,
                        l_linger: 0,
                    };
                    set(&client, libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
                }
                Ok(())
            })?;
            let moved = guard.packets()?.since(&before);
            ensure!(
                moved.of(outcome) >= 3 * clients as u64,
                "{mode}, {port}:{moved}"
            );
            let recorded = [PassNewFlow, PassRefreshedFlow, PassInsertFailed];
            let recorded: u64 = recorded.map(|outcome| moved.of(outcome)).iter().sum();
            ensure!(recorded == 0, "{mode}, {port}:{moved}");
            ensure!(dropped(&moved) == 0, "{mode}, {port}:{moved}");
            ensure!(live_flows(&guard)? == flows, "{mode}, {port}: a flow");
        }
    }
    Ok(())
}
