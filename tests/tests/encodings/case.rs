//! One forbidden packet, and how it is tried.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::{Family, Outcome};
use guard_tests::{
    frames::{Frame, udp},
    guard::Guard,
    mode::Mode,
    netns::Namespace,
    peers::bound,
    wire::{Listener, QUIET, Wire},
};

/// Where a listener waits for unsolicited senders.
pub const PORT: u16 = 40_000;
/// Where another one does, outside the range.
pub const SERVICE: u16 = 5_000;
/// The first case's source port. The next case has the next, so that what is delivered tells
/// which case it was.
const FIRST_SOURCE: u16 = 1_000;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// What the kernel does with a packet where nobody guards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kernel {
    Delivers,
    DeliversIn(Family),
    DependsOnItsOptions,
    Refuses,
}

/// One forbidden packet.
pub struct Case {
    name: String,
    frames: Box<dyn Fn(Frame) -> Vec<Frame>>,
    source: Option<u16>,
    kernel: Kernel,
    due: Vec<(Outcome, u64)>,
}

/// The frames that `frames` makes of a plain datagram, which move these counters.
pub fn case<const N: usize>(
    name: impl Into<String>,
    frames: impl Fn(Frame) -> Vec<Frame> + 'static,
    due: [(Outcome, u64); N],
) -> Case {
    Case {
        name: name.into(),
        frames: Box::new(frames),
        source: None,
        kernel: Kernel::Delivers,
        due: due.into(),
    }
}

impl Case {
    /// Sent from this port, whatever the case's own is.
    pub fn with_source(self, port: u16) -> Self {
        Self {
            source: Some(port),
            ..self
        }
    }

    /// The kernel would not deliver it either.
    pub fn refused_by_the_kernel(self) -> Self {
        Self {
            kernel: Kernel::Refuses,
            ..self
        }
    }

    /// The kernel would deliver it in this family only.
    pub fn delivered_only_in(self, family: Family) -> Self {
        Self {
            kernel: Kernel::DeliversIn(family),
            ..self
        }
    }

    /// Some kernels are built to deliver it, others are not.
    pub fn delivered_by_some_kernels(self) -> Self {
        Self {
            kernel: Kernel::DependsOnItsOptions,
            ..self
        }
    }

    fn may_reach(&self, family: Family, copies: usize) -> bool {
        match self.kernel {
            Kernel::Delivers => copies == 1,
            Kernel::DeliversIn(only) => copies == usize::from(only == family),
            Kernel::DependsOnItsOptions => copies <= 1,
            Kernel::Refuses => copies == 0,
        }
    }

    fn source(&self, number: usize) -> u16 {
        self.source.unwrap_or(FIRST_SOURCE + number as u16)
    }

    /// The bytes of its frames, unless they do not exist in this family.
    fn frames(&self, number: usize, family: Family) -> Option<Vec<Vec<u8>>> {
        let frames = (self.frames)(udp(self.source(number), PORT));
        frames
            .iter()
            .map(|frame| frame.exists_in(family).then(|| frame.received(family)))
            .collect()
    }
}

/// Shows that the kernel delivers what it should, and that the guard lets nothing of it through.
pub fn check(mode: Mode, cases: &[Case]) -> Result<()> {
    let topology = mode.topology()?;
    let _service = Listener::new(&topology.guarded, SERVICE)?;
    let wire = Wire::open(&topology.peer, topology.peer_interface())?;

    for family in FAMILIES {
        let listener = listen(&topology.guarded, family)?;
        let mut sent = Vec::new();
        for (number, case) in cases.iter().enumerate() {
            if let Some(frames) = case.frames(number, family) {
                frames.iter().try_for_each(|frame| wire.send(frame))?;
                sent.push((case, case.source(number)));
            }
        }
        ensure!(!sent.is_empty() || family == Family::Ipv4, "nothing to try");
        let reached = reached(&listener, &wire);
        for (case, source) in sent {
            let copies = reached.iter().filter(|port| **port == source).count();
            ensure!(
                case.may_reach(family, copies),
                "{}, {family:?}: {copies} delivered without a guard, and the kernel {:?}",
                case.name,
                case.kernel,
            );
        }
    }

    let flags = ["--xdp-mode", mode.xdp];
    let guard = Guard::start(&topology.guarded, topology.interface(), &flags)?;
    for family in FAMILIES {
        let listener = listen(&topology.guarded, family)?;
        for (number, case) in cases.iter().enumerate() {
            let Some(frames) = case.frames(number, family) else {
                continue;
            };
            guard
                .expect(case.due.clone(), || {
                    frames.iter().try_for_each(|frame| wire.send(frame))
                })
                .map_err(|error| error.context(format!("{mode}, {family:?}: {}", case.name)))?;
        }
        let reached = reached(&listener, &wire);
        ensure!(
            reached.is_empty(),
            "{mode}, {family:?}: from ports {reached:?}, some reached a socket"
        );
    }
    ensure!(guard.stop()?.success(), "the daemon ends well");
    Ok(())
}

/// A socket of one family: one of both does not hear every IPv4 group.
fn listen(host: &Namespace, family: Family) -> Result<UdpSocket> {
    let address = match family {
        Family::Ipv6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        Family::Ipv4 | Family::Other => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = bound(host, || UdpSocket::bind((address, PORT)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The source ports of what reached a socket: of datagrams that the listener got, and of segments
/// that the host answered.
fn reached(listener: &UdpSocket, wire: &Wire) -> Vec<u16> {
    let mut ports = Vec::new();
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + QUIET;
    while Instant::now() < deadline {
        match listener.recv_from(&mut buffer) {
            Ok((_, from)) => ports.push(from.port()),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
    let answers = wire.heard(QUIET);
    ports.extend(answers.iter().filter_map(|answer| answered(answer)));
    ports
}

/// The port that a TCP segment from the guarded host is for.
fn answered(frame: &[u8]) -> Option<u16> {
    const TCP: u8 = 6;

    let protocol_and_port = match frame.get(12..14)? {
        [0x08, 0x00] => (frame.get(23)?, frame.get(36..38)?),
        [0x86, 0xdd] => (frame.get(20)?, frame.get(56..58)?),
        _ => return None,
    };
    let (protocol, port) = protocol_and_port;
    let port = <[u8; 2]>::try_from(port).ok()?;
    (*protocol == TCP).then(|| u16::from_be_bytes(port))
}

/// A segment that opens a connection to nobody, which an unguarded host answers.
pub fn instead(datagram: &Frame, segment: fn(u16, u16) -> Frame) -> Frame {
    let bytes = datagram.received(Family::Ipv4);
    let source = u16::from_be_bytes([bytes[34], bytes[35]]);
    segment(source, PORT)
}
