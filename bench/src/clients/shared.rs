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
    rounds::{Latencies, Ratio, Sample, Summary, take_turns},
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
    /// How many questions are left, of 1.
    pub kept: Ratio,
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
            self.kept.value(),
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
    let mut quiet = vec![Sample::default(); lanes.len()];
    // Both one after the other, so that they meet the same minute of the machine.
    let flooded = take_turns(rounds, lanes.len(), |index| {
        let echo = &mut pairs[index];
        let context = || format!("a client of {}", lanes[index].contender);
        let each = echo.ask().with_context(context)?;
        quiet[index].push(cost(&each));
        latencies[index][0].extend(each);

        let start = Instant::now();
        let done = AtomicBool::new(false);
        let sender = lanes[index].sender();
        let flood = || sender.flood_until(generator, &spray, (BURST, EVERY), &done);
        let each = thread::scope(|scope| {
            let flood = scope.spawn(flood);
            let each = echo.ask();
            done.store(true, Ordering::Relaxed);
            frames[index].0 += flood.join().expect("a thread that does not panic")?;
            frames[index].1 += start.elapsed();
            each
        });
        let each = each.with_context(context)?;
        let cost = cost(&each);
        latencies[index][1].extend(each);
        Ok(cost)
    })?;

    let lines = lanes
        .iter()
        .zip(quiet.iter().zip(&flooded))
        .zip(latencies)
        .zip(frames);
    Ok(lines
        .map(|(((lane, (quiet, flooded)), latencies), frames)| {
            // What warmed up counts of neither.
            let kept = flooded.of_limit(&quiet.last(rounds));
            let [quiet_latencies, flooded_latencies] = latencies.map(Latencies::of);
            Shared {
                contender: lane.contender,
                quiet: quiet.summary(),
                flooded: flooded.summary(),
                kept,
                frames: frames.0 as f64 / frames.1.as_secs_f64(),
                quiet_latencies,
                flooded_latencies,
            }
        })
        .collect())
}

/// Nanoseconds from one question to the next.
fn cost(answers: &[Duration]) -> f64 {
    let total: Duration = answers.iter().sum();
    total.as_nanos() as f64 / answers.len() as f64
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
