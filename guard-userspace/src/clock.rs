//! The kernel's clock, as the programs read it.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use guard_common::config::JIFFIES_PER_TICK_SHIFT;

use crate::bpf;

/// Tick rates that Linux can be built with (kernel/Kconfig.hz and the architectures' own).
const RATES: [u32; 14] = [
    24, 32, 48, 64, 100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024,
];

/// How long the rate is measured. At 100 jiffies a second, three of them.
const MEASURED: Duration = Duration::from_millis(30);

/// How often what is not known of the length must fit into it. The nearest rates, 250 and 256,
/// are 2.4 % apart.
const SHARPNESS: u32 = 100;

/// How long the rate is measured at most. What is not known of its ends is little by then.
const LONGEST: Duration = Duration::from_secs(1);

/// Reads the clock by running a program of our own, by hand: the rate of jiffies is no secret of
/// the kernel's, but no system call tells it either.
#[derive(Debug)]
pub struct Clock {
    program: OwnedFd,
    hertz: u32,
}

impl Clock {
    /// Measures the rate of the clock behind `program`, which must be loaded. Takes about 35 ms,
    /// more where others keep the processors busy.
    ///
    /// # Errors
    /// When the program cannot be run, or the clock stands still.
    pub fn measure(program: OwnedFd) -> anyhow::Result<Self> {
        let mut first = next_edge(&program)?;
        loop {
            let last = next_edge(&program)?;
            let elapsed = last.seen - first.seen;
            // Whoever is not run for a while sees an edge late, and would misjudge the rate, and
            // with it every timer.
            let sharp = elapsed > MEASURED && (first.blur + last.blur) * SHARPNESS < elapsed;
            if sharp || elapsed > LONGEST {
                let rate = (last.jiffy - first.jiffy) as f64 / elapsed.as_secs_f64();
                return Ok(Self {
                    program,
                    hertz: nearest(rate),
                });
            }
            if last.blur < first.blur / 2 {
                first = last;
            }
        }
    }

    /// Jiffies a second.
    pub fn hertz(&self) -> u32 {
        self.hertz
    }

    /// The time in ticks, as flows carry it.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn now(&self) -> anyhow::Result<u32> {
        Ok((jiffies(&self.program)? >> JIFFIES_PER_TICK_SHIFT) as u32)
    }

    /// The length of `ticks` in milliseconds.
    pub fn millis(&self, ticks: u32) -> u64 {
        (u64::from(ticks) << JIFFIES_PER_TICK_SHIFT) * 1000 / u64::from(self.hertz)
    }
}

/// A moment at which the clock moved on.
#[derive(Clone, Copy, Debug)]
struct Edge {
    jiffy: u64,
    seen: Instant,
    /// By how much it may have been seen too late.
    blur: Duration,
}

/// Waits for the clock to move on.
fn next_edge(program: &OwnedFd) -> anyhow::Result<Edge> {
    let mut asked = Instant::now();
    let began = asked;
    let first = jiffies(program)?;
    loop {
        let asked_before = std::mem::replace(&mut asked, Instant::now());
        let jiffy = jiffies(program)?;
        let seen = Instant::now();
        if jiffy != first {
            return Ok(Edge {
                jiffy,
                seen,
                blur: seen - asked_before,
            });
        }
        ensure!(
            began.elapsed() < Duration::from_secs(2),
            "the kernel's clock stands still"
        );
    }
}

fn jiffies(program: &OwnedFd) -> anyhow::Result<u64> {
    let mut frame = [0; 64];
    let returned = bpf::run_classifier(program.as_fd(), &mut frame)
        .context("run the program that tells the time")?;
    ensure!(
        returned == 0,
        "the program that tells the time returned {returned}"
    );
    let mut jiffies = [0; 8];
    jiffies.copy_from_slice(&frame[..8]);

    Ok(u64::from_ne_bytes(jiffies))
}

fn nearest(rate: f64) -> u32 {
    RATES
        .into_iter()
        .min_by(|a, b| {
            let off = |hertz: u32| (rate / f64::from(hertz)).ln().abs();
            off(*a).total_cmp(&off(*b))
        })
        .unwrap_or(250)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn rates() {
        for (measured, expected) in [(250.4, 250), (98.0, 100), (1003.0, 1000), (310.0, 300)] {
            assert_eq!(nearest(measured), expected, "{measured}");
        }
    }
}
