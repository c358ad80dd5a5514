//! A client that asks and is answered, over and over, on the processor that a flood keeps busy.

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::frames::P;
use serde::Serialize;

use crate::{
    contender::Contender,
    processor,
    rig::{Attack, Lane, Rig},
    rounds::{Latencies, Summary, take_turns},
    shape::Shape,
};

/// Where the server listens.
const PORT: u16 = 8081;
/// How long one turn takes.
const TURN: Duration = Duration::from_millis(100);
/// Frames that the flood sends at a time.
const BURST: u32 = 256;
/// From one burst to the next: 500,000 frames a second.
const EVERY: Duration = Duration::from_micros(512);

/// What is left to a client under a flood.
#[derive(Clone, Debug, Serialize)]
pub struct Shared {
    /// What stands between them.
    pub contender: Contender,
    /// Nanoseconds from one question to the next, without a flood.
    pub quiet: Summary,
    /// The same, under the flood.
    pub flooded: Summary,
    /// How many questions are left: of 1.
    pub kept: f64,
    /// Frames of the flood a second. Less than meant where they take too long.
    pub frames: f64,
    /// How long single answers take, without a flood.
    pub quiet_latencies: Latencies,
    /// The same, under the flood.
    pub flooded_latencies: Latencies,
}

/// What stands above the lines.
pub const HEADING: &str = "
ask and be answered beside a flood   quiet/s flooded/s     kept  flood, kf/s  p99 quiet, us  p99 flooded, us";

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contender = self.contender.to_string();
        write!(
            f,
            "{contender:32} {:11.0} {:9.0} {:8.3} {:12.0} {:14.0} {:16.0}",
            1e9 / self.quiet.low,
            1e9 / self.flooded.low,
            self.kept,
            self.frames / 1e3,
            self.quiet_latencies.p99,
            self.flooded_latencies.p99,
        )
    }
}

/// Lets the clients of all lanes take turns, without a flood and with it.
pub fn measure(rig: &mut Rig<'_>, rounds: usize) -> Result<Vec<Shared>> {
    let Rig {
        lanes, generator, ..
    } = rig;
    let lanes = &*lanes;
    let mut pairs = lanes.iter().map(Echo::start).collect::<Result<Vec<_>>>()?;
    let mut latencies: Vec<[Vec<Duration>; 2]> = vec![Default::default(); lanes.len()];
    let mut frames = vec![(0, Duration::ZERO); lanes.len()];
    let spray = Attack::Spray.flood(Shape::Ipv4);
    let samples = take_turns(rounds, 2 * lanes.len(), |index| {
        let (lane, floods) = (index / 2, index % 2 == 1);
        let echo = &mut pairs[lane];
        let each = if floods {
            let start = Instant::now();
            let done = AtomicBool::new(false);
            let sender = lanes[lane].sender();
            let flood = || sender.flood_until(generator, &spray, (BURST, EVERY), &done);
            thread::scope(|scope| {
                let flood = scope.spawn(flood);
                let each = echo.ask();
                done.store(true, Ordering::Relaxed);
                frames[lane].0 += flood.join().expect("a thread that does not panic")?;
                frames[lane].1 += start.elapsed();
                each
            })
        } else {
            echo.ask()
        };
        let each = each.with_context(|| format!("a client of {}", lanes[lane].contender))?;
        let total: Duration = each.iter().sum();
        let cost = total.as_nanos() as f64 / each.len() as f64;
        latencies[lane][usize::from(floods)].extend(each);
        Ok(cost)
    })?;

    let lines = lanes
        .iter()
        .zip(samples.chunks(2))
        .zip(latencies)
        .zip(frames);
    Ok(lines
        .map(|(((lane, samples), latencies), frames)| {
            let (quiet, flooded) = (samples[0].summary(), samples[1].summary());
            let [quiet_latencies, flooded_latencies] = latencies.map(Latencies::of);
            Shared {
                contender: lane.contender,
                quiet,
                flooded,
                kept: quiet.low / flooded.low,
                frames: frames.0 as f64 / frames.1.as_secs_f64(),
                quiet_latencies,
                flooded_latencies,
            }
        })
        .collect())
}

/// A client on the guarded host. Its server ends with it.
pub struct Echo(TcpStream);

impl Echo {
    /// Connects it.
    pub fn start(lane: &Lane<'_>) -> Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(10);

        let address = SocketAddr::new(P.ipv4.into(), PORT);
        let listener = lane.hosts.peer.run(|| TcpListener::bind(address))?;
        let client = lane.hosts.guarded.run(|| TcpStream::connect(address))?;
        let (mut server, _) = listener.accept()?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
        }
        client.set_read_timeout(Some(PATIENCE))?;
        thread::spawn(move || -> Result<()> {
            processor::pin(processor::measured())?;
            let mut question = [0];
            loop {
                server.read_exact(&mut question)?;
                server.write_all(&question)?;
            }
        });
        Ok(Self(client))
    }

    /// Asks for as long as a turn lasts, and returns how long each answer took.
    pub fn ask(&mut self) -> Result<Vec<Duration>> {
        let stream = &mut self.0;
        thread::scope(|scope| {
            let ask = move || {
                processor::pin(processor::measured())?;
                let end = Instant::now() + TURN;
                let mut latencies = Vec::with_capacity(1 << 14);
                let mut answer = [0];
                loop {
                    let start = Instant::now();
                    if start > end {
                        return Ok(latencies);
                    }
                    stream.write_all(&[1])?;
                    stream.read_exact(&mut answer)?;
                    latencies.push(start.elapsed());
                }
            };
            scope
                .spawn(ask)
                .join()
                .expect("a thread that does not panic")
        })
    }
}
