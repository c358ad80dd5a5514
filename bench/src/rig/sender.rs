//! Sends floods from a peer's network.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use guard_tests::netns::Direct;

use super::Flood;
use crate::{bpf, processor, programs::BenchPrograms, recipe::Recipe};

/// Frames that the generator hands over at a time: as many as a poll of a driver takes.
const BATCH: u32 = 64;

/// Sends to the guarded host of a pair.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    hosts: &'a Direct,
}

impl<'a> Sender<'a> {
    /// Sends from the peer of these hosts.
    pub const fn new(hosts: &'a Direct) -> Self {
        Self { hosts }
    }

    /// Sends so many frames, and returns how many nanoseconds each took until it was decided.
    pub fn flood(&self, generator: &mut BenchPrograms, flood: &Flood, frames: u32) -> Result<f64> {
        self.send(generator, flood, |burst| burst(frames))
    }

    /// Sends bursts of frames until `done`, so many nanoseconds from the start of one to that of
    /// the next. Returns how many frames it has sent: fewer than meant where they take too long.
    pub fn flood_until(
        self,
        generator: &mut BenchPrograms,
        flood: &Flood,
        (frames, every): (u32, Duration),
        done: &AtomicBool,
    ) -> Result<u64> {
        self.send(generator, flood, |burst| {
            let mut sent = 0;
            let mut next = Instant::now();
            while !done.load(Ordering::Relaxed) {
                burst(frames)?;
                sent += u64::from(frames);
                // A flood that cannot keep up does not catch up.
                next = (next + every).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(sent)
        })
    }

    /// Lets `act` send bursts from the peer's network, each of which takes so many nanoseconds a
    /// frame.
    fn send<T: Send>(
        self,
        generator: &mut BenchPrograms,
        flood: &Flood,
        act: impl FnOnce(&dyn Fn(u32) -> Result<f64>) -> Result<T> + Send,
    ) -> Result<T> {
        self.hosts.peer.run(|| {
            processor::pin(processor::measured())?;
            generator.follow(Recipe {
                interface: bpf::interface_index(self.hosts.peer_interface())?,
                ..flood.recipe
            })?;
            let program = generator.descriptor("generate")?.as_fd();
            act(&|frames| {
                let start = Instant::now();
                bpf::send(program, &flood.frame, frames, BATCH).context("send frames")?;
                Ok(start.elapsed().as_nanos() as f64 / f64::from(frames))
            })
        })
    }
}
