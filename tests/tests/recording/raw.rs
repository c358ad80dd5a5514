//! Senders that make their own packets.

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow, PassRefreshedFlow};
use guard_tests::{
    frames::udp,
    guard::Guard,
    netns::{Direct, Namespace},
    wire::{Acceptor, Listener, QUIET, Wire},
};

use super::{FAMILIES, MODES, ring::Ring, set};

fn output(host: &Namespace, words: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    let program = words.next().context("a program")?;
    let output = host.command(program).args(words).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn r01_answers_reach_raw_sockets() -> Result<()> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    let _server = Acceptor::new(&topology.peer, 80)?;
    let hping3 = || -> Result<()> {
        let said = output(host, "hping3 -I vg -c 1 -S -s 40000 -k -p 80 10.9.0.1")?;
        ensure!(said.contains("flags=SA"), "{said}");
        Ok(())
    };
    let nmap = |address: &str| -> Result<()> {
        let six = if address.contains(':') { "-6" } else { "" };
        let said = output(
            host,
            &format!("nmap {six} -sS -Pn -n -g 40001 -p 80,81 --max-retries 0 {address}"),
        )?;
        ensure!(said.contains("80/tcp open"), "{said}");
        ensure!(said.contains("81/tcp closed"), "{said}");
        Ok(())
    };
    hping3()?;
    nmap("fd09::1")?;

    for mode in MODES {
        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        // The kernel resets the connection that it knows nothing of.
        let opened = [(PassNewFlow, 1), (PassKnownFlow, 1), (PassRefreshedFlow, 1)];
        guard
            .expect(opened, hping3)
            .with_context(|| format!("{mode}: hping3"))?;
        for address in ["10.9.0.1", "fd09::1"] {
            let due = [(PassNewFlow, 2), (PassKnownFlow, 2), (PassRefreshedFlow, 1)];
            guard
                .expect(due, || nmap(address))
                .with_context(|| format!("{mode}: nmap {address}"))?;
        }
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    Ok(())
}

/// How a frame leaves by a packet socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Plain,
    Ring,
    PastTc,
}

#[test]
fn r01_answers_reach_packet_sockets() -> Result<()> {
    packet_sockets(Way::Plain)
}

#[test]
fn e2_frames_in_pages_are_read() -> Result<()> {
    packet_sockets(Way::Ring)
}

/// What passes by TC is not recorded, which is documented.
#[test]
fn r03_answers_to_what_skips_tc_die() -> Result<()> {
    packet_sockets(Way::PastTc)
}

fn packet_sockets(way: Way) -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let host = &topology.guarded;
        let _server = Listener::new(&topology.peer, 53)?;
        let peer = Wire::open(&topology.peer, topology.peer_interface())?;
        let wire = Wire::open(host, topology.interface())?;
        let query = |port, family| -> Result<()> {
            let frame = udp(port, 53).sent(family);
            let sender = Wire::open(host, topology.interface())?;
            match way {
                Way::Plain => sender.send(&frame)?,
                Way::Ring => Ring::new(&sender)?.send(&frame)?,
                Way::PastTc => {
                    set(&sender, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1i32)?;
                    sender.send(&frame)?;
                }
            }
            let arrived = peer.heard(QUIET).contains(&frame);
            ensure!(arrived, "the query did not arrive");
            Ok(())
        };
        let answer = |port, family| peer.send(&udp(53, port).received(family));
        let heard = |port, family| {
            let frame = udp(53, port).received(family);
            wire.heard(QUIET).contains(&frame)
        };
        for family in FAMILIES {
            query(40_000, family)?;
            answer(40_000, family)?;
            ensure!(heard(40_000, family), "{family:?}: unheard without a guard");
        }

        let guard = Guard::start(host, topology.interface(), &["--xdp-mode", mode])?;
        for family in FAMILIES {
            let name = || format!("{way:?}, {mode}, {family:?}");
            let (recorded, decided): (&[_], _) = match way {
                Way::Plain | Way::Ring => (&[(PassNewFlow, 1)], PassKnownFlow),
                Way::PastTc => (&[], DropNoFlow),
            };
            guard
                .expect(recorded.iter().copied(), || query(40_001, family))
                .with_context(name)?;
            guard
                .expect([(decided, 1)], || answer(40_001, family))
                .with_context(name)?;
            let arrived = heard(40_001, family);
            ensure!(arrived == (way != Way::PastTc), "{}: {arrived}", name());
            // And nothing but that flow is open.
            guard
                .expect([(DropNoFlow, 1)], || answer(40_002, family))
                .with_context(name)?;
        }
    }
    Ok(())
}
