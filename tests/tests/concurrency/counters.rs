//! Every frame is counted once, under the right reason, whichever processor sees it, and no
//! counter ever goes back (row M01 of the acceptance matrix).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::UdpSocket,
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::{
    Direction, Family,
    Outcome::{self, PassNewFlow},
};
use guard_tests::{
    clients,
    frames::{G, udp},
    guard::Guard,
    metrics,
    netns::{Direct, Namespace},
    processors,
    soak::Size,
    wire::Wire,
};

use crate::kinds::{self, FLAGS, LIVE, NUMBER_AT, NUMBERED, SERVICE};

const MODES: [&str; 2] = ["native", "generic"];
/// Frames in all, in each mode.
const SHORT: u32 = 100_000;
const FULL: u32 = 1_000_000;
/// After which no more numbers will arrive.
const SILENCE: Duration = Duration::from_secs(3);
/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(50);

#[test]
fn m01_every_frame_is_counted_once() -> Result<()> {
    let size = Size::asked();
    for mode in MODES {
        let (frames, began) = (size.choose(SHORT, FULL), Instant::now());
        let (kinds, looks) = run(mode, frames).with_context(|| mode)?;
        println!(
            "counters ({size} size), {mode}: {frames} frames of {kinds} kinds, all counted, \
             {looks} looks, {:.1} s",
            began.elapsed().as_secs_f32()
        );
    }
    Ok(())
}

/// Sends so many frames from all processors. Returns how many kinds they are of, and how often
/// the counters were looked at meanwhile.
fn run(mode: &str, frames: u32) -> Result<(usize, u32)> {
    let topology = Direct::new()?;
    let host = &topology.guarded;
    silence(&topology)?;
    let server = host.run(|| UdpSocket::bind((G.ipv4, SERVICE)))?;
    server.set_read_timeout(Some(SILENCE))?;
    enlarge(&server)?;
    let flags = [&["--xdp-mode", mode], &FLAGS[..]].concat();
    let guard = Guard::start(host, topology.interface(), &flags)?;
    let sender = Wire::open(host, topology.interface())?;
    guard.expect([(PassNewFlow, 1)], || {
        sender.send(&udp(LIVE, 53).sent(Family::Ipv4))
    })?;
    let lab = Lab {
        topology: &topology,
        kinds: kinds::kinds(),
    };
    // Each first fragment before any later one. The number is one that is sent again.
    lab.send_from_all(lab.kinds.len() as u32)?;
    thread::sleep(LOOK);

    let numbers: BTreeSet<u32> = (NUMBERED as u32..frames).step_by(lab.kinds.len()).collect();
    let received = listen(server, numbers.len());
    let before = guard.packets()?;
    let ended = AtomicBool::new(false);
    let mut looks = 0;
    guard.expect(lab.due(frames), || {
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(host, &ended));
            let sent = lab.send_from_all(frames);
            ended.store(true, Ordering::Relaxed);
            looks = watcher.join().expect("nobody panics")?;
            sent
        })
    })?;
    let moved = guard.packets()?.since(&before);
    let ingress = |outcome: &&Outcome| outcome.direction() == Direction::Ingress;
    let counted = Outcome::ALL.iter().filter(ingress);
    let sum: u64 = counted.map(|outcome| moved.of(*outcome)).sum();
    ensure!(sum == u64::from(frames), "{sum} counted:{moved}");
    let received = received.join().expect("the server ends");
    ensure!(
        received == numbers,
        "{} of {} numbers arrived",
        received.len(),
        numbers.len()
    );
    Ok((lab.kinds.len(), looks))
}

struct Lab<'a> {
    topology: &'a Direct,
    kinds: Vec<(Vec<u8>, Outcome)>,
}

impl Lab<'_> {
    /// How often each outcome is due for so many frames.
    fn due(&self, frames: u32) -> Vec<(Outcome, u64)> {
        let mut due: BTreeMap<&str, (Outcome, u64)> = BTreeMap::new();
        for number in 0..frames as usize {
            let outcome = self.kinds[number % self.kinds.len()].1;
            due.entry(outcome.reason()).or_insert((outcome, 0)).1 += 1;
        }
        due.into_values().collect()
    }

    /// Sends so many frames, each processor its part of them.
    fn send_from_all(&self, frames: u32) -> Result<()> {
        let processors = processors::count() as u32;
        let share = frames / processors;
        thread::scope(|scope| {
            let send = |number: u32| {
                let last = if number + 1 == processors {
                    frames
                } else {
                    (number + 1) * share
                };
                scope.spawn(move || self.send(number as usize, number * share..last))
            };
            let senders: Vec<_> = (0..processors).map(send).collect();
            senders
                .into_iter()
                .try_for_each(|sender| sender.join().expect("nobody panics"))
        })
    }

    /// Sends the frames of these numbers from one processor.
    fn send(&self, processor: usize, numbers: std::ops::Range<u32>) -> Result<()> {
        processors::pin(processor)?;
        let wire = Wire::open(&self.topology.peer, self.topology.peer_interface())?;
        let mut numbered = self.kinds[NUMBERED].0.clone();
        for number in numbers {
            let kind = number as usize % self.kinds.len();
            if kind == NUMBERED {
                numbered[NUMBER_AT..NUMBER_AT + 4].copy_from_slice(&number.to_be_bytes());
                deliver(&wire, &numbered)?;
            } else {
                deliver(&wire, &self.kinds[kind].0)?;
            }
        }
        Ok(())
    }
}

/// Sends a frame, again and again while the far end has no room for it.
fn deliver(wire: &Wire, frame: &[u8]) -> Result<()> {
    while let Err(error) = wire.send(frame) {
        let code = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error);
        if code != Some(libc::ENOBUFS) {
            return Err(error);
        }
        thread::yield_now();
    }
    Ok(())
}

/// Looks at every counter again and again. Returns how often, unless one goes back.
fn watch(host: &Namespace, ended: &AtomicBool) -> Result<u32> {
    let (mut looks, mut before) = (0, BTreeMap::new());
    while !ended.load(Ordering::Relaxed) {
        let counters: BTreeMap<_, _> = metrics::scrape(host)?
            .into_iter()
            .filter(|sample| sample.name.ends_with("_total"))
            .map(|sample| ((sample.name, sample.labels), sample.value))
            .collect();
        for (series, value) in &before {
            let now = counters.get(series).context("a series is gone")?;
            ensure!(now >= value, "{series:?} went from {value} back to {now}");
        }
        before = counters;
        looks += 1;
        thread::sleep(LOOK);
    }
    Ok(looks)
}

/// Makes the peer a wire's end, which says nothing, whatever it hears, and lets several
/// processors receive.
fn silence(topology: &Direct) -> Result<()> {
    let queues = processors::count().min(2);
    for (host, interface) in [(&topology.guarded, "vg"), (&topology.peer, "vp")] {
        let line = format!("ethtool -L {interface} rx {queues} tx {queues}");
        clients::run(host, &line)?;
    }
    topology.peer.sysctl("net/ipv6/conf/vp/disable_ipv6", "1")?;
    topology.peer.ip("addr flush dev vp")
}

/// Collects so many numbers, unless nothing has come for a while.
fn listen(server: UdpSocket, count: usize) -> JoinHandle<BTreeSet<u32>> {
    thread::spawn(move || {
        let mut numbers = BTreeSet::new();
        let mut number = [0; 4];
        while numbers.len() < count && server.recv(&mut number).is_ok() {
            numbers.insert(u32::from_be_bytes(number));
        }
        numbers
    })
}

/// So that the socket never overflows.
fn enlarge(socket: &UdpSocket) -> io::Result<()> {
    let size: libc::c_int = 64 << 20;
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
