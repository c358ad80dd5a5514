//! So many flows that the tuple filter takes more than the first element of its map.

use std::{
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::{
    outcome::{
        Family,
        Outcome::{DropNoFlow, PassKnownFlow, PassNewFlow},
    },
    ports::bloom::BLOOM_BYTES,
};
use guard_tests::{
    frames::{FAR, Frame, G, P, tcp, udp},
    netns::Direct,
    wire::{QUIET, Wire},
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use super::sweeps::altered;

/// Flows of each transport that are opened.
const FLOWS: u32 = 150_000;
/// Every so many of them are tried.
const STEP: usize = 300;
/// Sockets that have not sent.
const SILENT: usize = 16;
/// How long a busy machine may take to sweep them a few times.
const PATIENCE: Duration = Duration::from_secs(60);

/// The local port and the last bytes of the remote address of a flow.
fn numbered(number: u32) -> ([u8; 2], [u8; 3]) {
    let port = 32_768 + (number % 28_000) as u16;
    let [_, address @ ..] = number.to_be_bytes();
    (port.to_be_bytes(), address)
}

/// The same frame from or to every one of these flows. Nobody here looks at its checksums.
fn each(
    frame: &[u8],
    [port, address]: [usize; 2],
    numbers: impl Iterator<Item = u32>,
    mut send: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut frame = frame.to_vec();
    for number in numbers {
        let (ports, octets) = numbered(number);
        frame[port..port + 2].copy_from_slice(&ports);
        frame[address + 1..address + 4].copy_from_slice(&octets);
        send(&frame)?;
    }
    Ok(())
}

#[test]
fn a_filter_of_several_elements_knows_every_flow() -> Result<()> {
    /// Where the ports and addresses are in a plain frame.
    const SOURCE: usize = 26;
    const DESTINATION: usize = 30;
    const SOURCE_PORT: usize = 34;
    const DESTINATION_PORT: usize = 36;

    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let mut guard = altered(&topology, &["repair"], &["--max-flows", "262144"])?;
    let (here, there) = (
        Wire::open(host, topology.interface())?,
        Wire::open(peer, topology.peer_interface())?,
    );
    let opening: [Frame; 2] = [udp(40_000, 443), tcp(40_000, 443).syn()];
    let before = guard.packets()?;
    // The filter does not tell transports apart, so no two flows have the same ends.
    for (frame, first) in opening.into_iter().zip([0, FLOWS]) {
        let frame = frame.to(FAR).sent(Family::Ipv4);
        let numbers = first..first + FLOWS;
        each(&frame, [SOURCE_PORT, DESTINATION], numbers, |frame| {
            here.send(frame)
        })?;
    }
    let opened = guard.packets()?.since(&before).of(PassNewFlow);
    ensure!(opened == 2 * u64::from(FLOWS), "{opened} flows are new");

    let namespace = host.run(namespace::name)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
    let since = Instant::now();
    while state.filter().size.bytes() as usize <= BLOOM_BYTES || !state.filters() {
        let size = state.filter().size;
        ensure!(since.elapsed() < PATIENCE, "{size:?}: {}", guard.said());
        // Busy flows, whose bytes are marked while they are swept.
        let frame = udp(40_000, 443).to(FAR).sent(Family::Ipv4);
        each(&frame, [SOURCE_PORT, DESTINATION], 0..FLOWS, |frame| {
            here.send(frame)
        })?;
    }

    let answers = [udp(443, 40_000), tcp(443, 40_000).syn_ack()];
    let tried = 2 * u64::from(FLOWS).div_ceil(STEP as u64);
    for (starts, due) in [
        ([0, FLOWS], PassKnownFlow),
        ([2 * FLOWS, 3 * FLOWS], DropNoFlow),
    ] {
        guard.expect([(due, tried)], || {
            answers.iter().zip(starts).try_for_each(|(frame, first)| {
                let frame = frame.clone().from(FAR).received(Family::Ipv4);
                let numbers = (first..first + FLOWS).step_by(STEP);
                let places = [DESTINATION_PORT, SOURCE];
                each(&frame, places, numbers, |frame| there.send(frame))
            })
        })?;
    }

    // Connected sockets that have never sent are in no filter before a sweep: who asked the socket
    // table first would let their peer in. Chance lets one in fifty pass for known.
    guard.signal(libc::SIGSTOP);
    let ports = 40_000..40_000 + SILENT as u16;
    let sockets = host.run(|| -> Result<Vec<UdpSocket>> {
        let connect = |port| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((G.ipv4, port))?;
            socket.connect((P.ipv4, 53))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        ports.clone().map(connect).collect()
    })?;
    let heard = || -> Result<usize> {
        for port in ports.clone() {
            there.send(&udp(53, port).received(Family::Ipv4))?;
        }
        thread::sleep(QUIET);
        let hears = |socket: &&UdpSocket| socket.recv(&mut [0; 64]).is_ok();
        Ok(sockets.iter().filter(hears).count())
    };
    let early = heard();
    guard.signal(libc::SIGCONT);
    ensure!(early? <= SILENT / 4, "the filter is not asked");
    let since = Instant::now();
    while heard()? < SILENT {
        ensure!(since.elapsed() < PATIENCE, "no sweep finds the sockets");
    }
    Ok(())
}
