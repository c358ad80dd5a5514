//! Every frame is counted once, under the right reason.

use std::{collections::BTreeMap, io, net::UdpSocket, os::fd::AsRawFd, thread, time::Duration};

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Direction, Family,
    Outcome::{
        self, DropFragmentDenied, DropHeaderDepth, DropIcmpUnrelated, DropMalformed, DropNoFlow,
        DropVlanDepth, PassExempt, PassIcmpInfo, PassIcmpOutside, PassIcmpRelated, PassKnownFlow,
        PassLaterFragment, PassNewFlow, PassNotIp, PassOtherProtocol, PassOutsideRange,
        PassTrusted,
    },
};
use guard_tests::{
    frames::{
        Error, Extension, FAR, Frame, G, ethernet, icmp, icmp_error, protocol, tcp, udp, udp_lite,
    },
    guard::Guard,
    netns::Direct,
    wire::Wire,
};

use super::{MODES, hush};

/// Frames in all.
const FRAMES: u32 = 100_000;
/// The kind whose numbers a socket checks: it comes first.
const NUMBERED: usize = 0;
/// Where in it the number stands: behind the headers.
const NUMBER_AT: usize = 42;

#[test]
fn m01_every_frame_is_counted_once() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        hush(&topology)?;
        let host = &topology.guarded;
        let server = host.run(|| UdpSocket::bind((G.ipv4, 5_000)))?;
        server.set_read_timeout(Some(Duration::from_millis(500)))?;
        enlarge(&server)?;
        let flags = [
            "--xdp-mode",
            mode,
            "--expose",
            "41000/udp",
            "--trust",
            "192.0.2.0/24",
        ];
        let guard = Guard::start(host, topology.interface(), &flags)?;
        let sender = Wire::open(host, topology.interface())?;
        guard.expect([(PassNewFlow, 1)], || {
            sender.send(&udp(40_100, 53).sent(Family::Ipv4))
        })?;
        let wire = Wire::open(&topology.peer, topology.peer_interface())?;
        let kinds = kinds();
        let mut due: BTreeMap<&str, (Outcome, u64)> = BTreeMap::new();
        for number in 0..FRAMES as usize {
            let outcome = kinds[number % kinds.len()].1;
            due.entry(outcome.reason()).or_insert((outcome, 0)).1 += 1;
        }
        let received = thread::spawn(move || numbers(&server));
        let before = guard.packets()?;
        guard.expect(due.into_values(), || send(&wire, &kinds))?;
        let moved = guard.packets()?.since(&before);
        let sum: u64 = Outcome::ALL
            .iter()
            .filter(|outcome| outcome.direction() == Direction::Ingress)
            .map(|outcome| moved.of(*outcome))
            .sum();
        ensure!(sum == u64::from(FRAMES), "{mode}: {sum} counted:{moved}");

        let received = received.join().expect("the server ends");
        let sent: Vec<u32> = (NUMBERED as u32..FRAMES).step_by(kinds.len()).collect();
        ensure!(
            received == sent,
            "{mode}: {} numbers arrived",
            received.len()
        );
    }
    Ok(())
}

/// Frames of every sort that is judged without a socket, and what becomes of them.
fn kinds() -> Vec<(Vec<u8>, Outcome)> {
    let deep = (0..9).fold(udp(53, 40_000), |frame, _| {
        frame.behind(Extension::Destination(0))
    });
    let live = || udp(40_100, 53);
    let both: Vec<(Frame, Outcome)> = vec![
        (udp(53, 40_000), DropNoFlow),
        (tcp(443, 40_000), DropNoFlow),
        (udp_lite(53, 40_000), DropNoFlow),
        (udp(53, 40_000).tags(2), DropNoFlow),
        (udp(53, 40_000).tags(5), DropVlanDepth),
        (udp(53, 40_000).cut_transport(3), DropMalformed),
        (udp(53, 41_000), PassExempt),
        (tcp(443, 5_001).rst(), PassOutsideRange),
        (icmp([0, 129], [0x9c, 0x40, 0, 53]), PassIcmpInfo),
        (protocol(132), PassOtherProtocol),
        (
            icmp_error(Error::PortUnreachable, udp(40_000, 53)),
            DropIcmpUnrelated,
        ),
        (
            icmp_error(Error::TimeExceeded, udp(443, 53)),
            PassIcmpOutside,
        ),
        (udp(53, 40_000).piece(9, ..8), DropNoFlow),
        (udp(53, 40_000).piece(9, 8..), DropFragmentDenied),
        (udp(53, 5_001).piece(8, 8..), PassLaterFragment),
    ];
    let numbered = udp(53, 5_000).transport_bytes(6, &[0, 0]).v4();
    let one = [
        (numbered, PassOutsideRange),
        (ethernet(0x88cc, &[0; 46]), PassNotIp),
        (deep.v6(), DropHeaderDepth),
        (udp(53, 40_100).v4(), PassKnownFlow),
        (udp(53, 40_000).from(FAR).v4(), PassTrusted),
        (
            icmp_error(Error::TimeExceeded, live()).v4(),
            PassIcmpRelated,
        ),
    ];
    let mut kinds: Vec<(Vec<u8>, Outcome)> = one
        .iter()
        .map(|(frame, outcome)| {
            let family = if frame.exists_in(Family::Ipv4) {
                Family::Ipv4
            } else {
                Family::Ipv6
            };
            (frame.received(family), *outcome)
        })
        .collect();
    kinds.extend(both.iter().flat_map(|(frame, outcome)| {
        [Family::Ipv4, Family::Ipv6].map(|family| (frame.received(family), *outcome))
    }));
    kinds
}

fn send(wire: &Wire, kinds: &[(Vec<u8>, Outcome)]) -> Result<()> {
    let mut numbered = kinds[NUMBERED].0.clone();
    for number in 0..FRAMES {
        let kind = number as usize % kinds.len();
        if kind == NUMBERED {
            numbered[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&number.to_be_bytes());
            wire.send(&numbered)?;
        } else {
            wire.send(&kinds[kind].0)?;
        }
    }
    Ok(())
}

/// The numbers that arrive until nothing has for a while, in order.
fn numbers(server: &UdpSocket) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut buffer = [0; 64];
    let mut silent = 0;
    while silent < 6 {
        match server.recv(&mut buffer) {
            Ok(_) => {
                let number = [buffer[0], buffer[1], buffer[2], buffer[3]];
                numbers.push(u32::from_be_bytes(number));
                silent = 0;
            }
            Err(_) => silent += 1,
        }
    }
    numbers
}

/// So that the socket never overflows.
fn enlarge(socket: &UdpSocket) -> io::Result<()> {
    let size: libc::c_int = 16 << 20;
    // SAFETY: the value is as long as the call is told.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUFFORCE,
            (&raw const size).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
