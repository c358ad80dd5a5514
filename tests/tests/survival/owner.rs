//! Ports with one remote address alone, of which sweeps leave a hash for the programs to see.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::{
    outcome::{
        Family,
        Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow},
    },
    ports::occupancy::Use,
};
use guard_tests::{
    frames::{End, FAR, Frame, N, tcp, udp},
    netns::Direct,
    wire::Wire,
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::{
    FAMILIES,
    sweeps::{altered, wait_for_sweeps},
};

/// Somebody behind a router that answers nothing itself.
const ONE: End = End { mac: N.mac, ..FAR };
/// Somebody else there.
const OTHER: End = End {
    ipv4: Ipv4Addr::new(192, 0, 2, 2),
    ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    ..ONE
};
/// The port that is spoken from.
const PORT: u16 = 50_000;

/// Makes a frame.
type Make = fn() -> Frame;

/// A transport, what opens a flow of it, and what answers.
const TRANSPORTS: [(Use, Make, Make); 2] = [
    (Use::Udp, || udp(PORT, 443), || udp(443, PORT)),
    (
        Use::Tcp,
        || tcp(PORT, 443).syn(),
        || tcp(443, PORT).syn_ack(),
    ),
];

#[test]
fn a_port_of_one_peer_is_no_unsolicited_sender_s_and_becomes_that_of_two() -> Result<()> {
    for family in FAMILIES {
        let topology = Direct::new()?;
        let mut guard = altered(&topology, &[], &[])?;
        let here = Wire::open(&topology.guarded, topology.interface())?;
        let there = Wire::open(&topology.peer, topology.peer_interface())?;
        let namespace = topology.guarded.run(namespace::name)?;
        let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
        let owned = |due| {
            for (purpose, ..) in TRANSPORTS {
                let owned = state.is_owned(purpose, PORT);
                ensure!(owned == due, "{family:?}, {purpose:?}: {owned}");
            }
            Ok(())
        };
        let send = |peer: End| {
            TRANSPORTS
                .iter()
                .try_for_each(|(_, opening, _)| here.send(&opening().to(peer).sent(family)))
        };
        let answer = |peer: End| {
            TRANSPORTS
                .iter()
                .try_for_each(|(.., answer)| there.send(&answer().from(peer).received(family)))
        };

        owned(false)?;
        guard.expect([(PassNewFlow, 2)], || send(ONE))?;
        wait_for_sweeps(&topology, &guard)?;
        owned(true)?;
        // No sweep helps.
        let before = guard.packets()?;
        guard.signal(libc::SIGSTOP);
        let spoken = answer(ONE)
            .and_then(|()| answer(OTHER))
            .and_then(|()| send(OTHER))
            .and_then(|()| answer(ONE))
            .and_then(|()| answer(OTHER));
        guard.signal(libc::SIGCONT);
        spoken?;
        let moved = guard.packets()?.since(&before);
        let told = [DropNoFlow, PassNewFlow, PassKnownFlow].map(|outcome| moved.of(outcome));
        ensure!(told == [2, 2, 6], "{family:?}:{moved}");
        wait_for_sweeps(&topology, &guard)?;
        owned(false)?;
        guard.expect([(PassKnownFlow, 4)], || {
            answer(ONE)?;
            answer(OTHER)
        })?;
    }
    Ok(())
}

/// Each port changes hands every few seconds, when the flow of before has expired and sweeps have
/// seen that: who was just spoken with is never an unsolicited sender.
#[test]
fn ports_that_change_hands_lose_nobody() -> Result<()> {
    const PORTS: u16 = 64;
    const TIME: Duration = Duration::from_secs(10);
    const EACH: u128 = 4_000;
    /// Where the last byte of the remote address is.
    const DESTINATION: usize = 33;
    const SOURCE: usize = 29;

    let topology = Direct::new()?;
    let flags = ["--timeout", "udp=1", "--timeout", "udp-dns=1"];
    let guard = altered(&topology, &["repair"], &flags)?;
    let here = Wire::open(&topology.guarded, topology.interface())?;
    let there = Wire::open(&topology.peer, topology.peer_interface())?;
    let namespace = topology.guarded.run(namespace::name)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
    let before = guard.packets()?;
    let since = Instant::now();
    let (mut spoken, mut owned) = (0, 0);
    while since.elapsed() < TIME {
        for number in 0..PORTS {
            let (port, shift) = (PORT + number, u128::from(number) * EACH / u128::from(PORTS));
            let peer = ((since.elapsed().as_millis() + shift) / EACH) as u8;
            let mut opening = udp(port, 53).to(ONE).sent(Family::Ipv4);
            opening[DESTINATION] = peer;
            let mut answer = udp(53, port).from(ONE).received(Family::Ipv4);
            answer[SOURCE] = peer;
            owned += u64::from(state.is_owned(Use::Udp, port));
            here.send(&opening)?;
            there.send(&answer)?;
            spoken += 1;
        }
    }
    let moved = guard.packets()?.since(&before);
    let dropped = moved.of(DropNoFlow);
    ensure!(
        dropped == 0,
        "{dropped} of {spoken} answers are dropped, {owned} to ports with an owner"
    );
    ensure!(moved.of(PassKnownFlow) >= spoken, "{moved}");
    ensure!(
        owned > spoken / 4,
        "ports had an owner {owned} times of {spoken}"
    );
    Ok(())
}
