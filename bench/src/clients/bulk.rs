//! One connection that carries as much as it can, in either direction.

use std::{
    fmt,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::frames::P;
use serde::Serialize;
use socket2::SockRef;

use crate::{
    clients::limit,
    contender::Contender,
    processor,
    rig::Lane,
    rounds::{Ratio, Sample, Summary, take_turns},
};

/// Bytes that are handed over at a time.
const CHUNK: usize = 64 << 10;
/// Connections, one after the other, which share the turns: none is to tell all by itself.
const CONNECTIONS: usize = 3;
/// Bytes that wait on either end, at most. Left to itself the kernel gives each connection another
/// number, by which it is faster or slower for as long as it lasts.
const BUFFER: usize = 128 << 10;
/// Where the server listens.
const PORT: u16 = 8080;

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the guarded host.
    Received,
    /// From it.
    Sent,
}

impl Direction {
    /// Bytes of one turn, which take some ten milliseconds either way: what is received comes frame
    /// by frame, because an XDP program is in the way.
    const fn bytes(self) -> usize {
        match self {
            Self::Received => 16 << 20,
            Self::Sent => 64 << 20,
        }
    }
}

/// What a connection can carry.
#[derive(Clone, Debug, Serialize)]
pub struct Bulk {
    /// What stands in its way.
    pub contender: Contender,
    /// Which way the bytes go.
    pub direction: Direction,
    /// Nanoseconds a byte.
    #[serde(flatten)]
    pub cost: Summary,
    /// How fast that is, of what goes through a program that passes everything.
    pub of_limit: Ratio,
}

/// What stands above the lines.
pub const HEADING: &str = "
bulk TCP                                        Gbit/s  of limit";

impl fmt::Display for Bulk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let contender = self.contender.to_string();
        let direction = match self.direction {
            Direction::Received => "received",
            Direction::Sent => "sent",
        };
        let rate = 8.0 / self.cost.low;
        write!(
            f,
            "{direction:10} {contender:30} {rate:12.2} {:9.3}",
            self.of_limit.value()
        )
    }
}

/// Lets the hosts of all lanes take turns, so many of all connections.
pub fn measure(lanes: &[Lane<'_>], rounds: usize) -> Result<Vec<Bulk>> {
    let mut lines = Vec::new();
    for direction in [Direction::Received, Direction::Sent] {
        let mut samples = vec![Sample::default(); lanes.len()];
        for _ in 0..CONNECTIONS {
            let mut pairs = lanes
                .iter()
                .map(connect)
                .collect::<Result<Vec<(TcpStream, TcpStream)>>>()?;
            let measured = take_turns(rounds.div_ceil(CONNECTIONS), lanes.len(), |index| {
                let (guarded, peer) = &mut pairs[index];
                let carried = match direction {
                    Direction::Received => carry(peer, guarded, direction.bytes()),
                    Direction::Sent => carry(guarded, peer, direction.bytes()),
                };
                carried.with_context(|| format!("bulk TCP through {}", lanes[index].contender))
            })?;
            for (all, these) in samples.iter_mut().zip(measured) {
                all.extend(these);
            }
        }
        let limit = limit(lanes, &samples)?;
        lines.extend(lanes.iter().zip(&samples).map(|(lane, sample)| Bulk {
            contender: lane.contender,
            direction,
            cost: sample.summary(),
            of_limit: sample.of_limit(limit),
        }));
    }
    Ok(lines)
}

/// A connection of the guarded host: its own end, and the peer's.
fn connect(lane: &Lane<'_>) -> Result<(TcpStream, TcpStream)> {
    const PATIENCE: Duration = Duration::from_secs(10);

    let address = SocketAddr::new(P.ipv4.into(), PORT);
    let listener = lane.hosts.peer.run(|| TcpListener::bind(address))?;
    let guarded = lane.hosts.guarded.run(|| TcpStream::connect(address))?;
    let (peer, _) = listener.accept()?;
    for stream in [&guarded, &peer] {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let socket = SockRef::from(stream);
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
    }
    Ok((guarded, peer))
}

/// Returns nanoseconds a byte.
fn carry(from: &mut TcpStream, to: &mut TcpStream, bytes: usize) -> Result<f64> {
    thread::scope(|scope| {
        let start = Instant::now();
        let sender = scope.spawn(move || -> Result<()> {
            processor::pin(processor::measured())?;
            let chunk = vec![0; CHUNK];
            for _ in 0..bytes / CHUNK {
                from.write_all(&chunk)?;
            }
            Ok(())
        });
        let receiver = scope.spawn(move || -> Result<()> {
            processor::pin(processor::measured())?;
            let mut chunk = vec![0; CHUNK];
            for _ in 0..bytes / CHUNK {
                to.read_exact(&mut chunk)?;
            }
            Ok(())
        });
        let ends = [sender.join(), receiver.join()];
        let elapsed = start.elapsed();
        for end in ends {
            end.expect("a thread that does not panic")?;
        }
        Ok(elapsed.as_nanos() as f64 / bytes as f64)
    })
}
