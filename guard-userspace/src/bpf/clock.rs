//! The kernel's clock, as the programs read it.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::{Context, ensure};
use guard_common::flow::timer::JIFFIES_PER_TICK_SHIFT;
use nix::time::{ClockId, clock_getres, clock_gettime};

use crate::bpf::syscalls;

/// The kernel cannot be built to count fewer jiffies a second (`SHIFT_HZ`, include/linux/jiffies.h).
const SLOWEST: u32 = 12;

/// Reads the clock by running a program of our own, by hand: no system call tells it.
#[derive(Debug)]
pub struct Clock {
    program: OwnedFd,
    hertz: u32,
}

impl Clock {
    /// The clock behind `program`, which must be loaded.
    ///
    /// # Errors
    /// When the kernel does not say how fast it goes.
    pub fn new(program: OwnedFd) -> anyhow::Result<Self> {
        // The coarse clocks go by jiffies: `posix_get_coarse_res`, kernel/time/posix-timers.c.
        let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)
            .context("ask for the resolution of the coarse clock")?;
        let hertz = rate(jiffy.into()).with_context(|| {
            format!(
                "the kernel's coarse clock has a resolution of {jiffy}, which is no jiffy's length"
            )
        })?;

        Ok(Self { program, hertz })
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

/// How long the calling thread has kept processors busy. On a host with much else to do, the time by
/// the clock says little of that.
///
/// # Errors
/// When the kernel does not tell.
pub fn processor_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .context("cannot tell how long a thread was busy")?;

    Ok(time.into())
}

/// Jiffies a second, whose length the kernel has rounded to nanoseconds (`TICK_NSEC`,
/// include/vdso/jiffies.h).
fn rate(jiffy: Duration) -> Option<u32> {
    const SECOND: u128 = 1_000_000_000;

    let length = jiffy.as_nanos();
    let rate = (SECOND + length / 2).checked_div(length)?;

    u32::try_from(rate).ok().filter(|rate| *rate >= SLOWEST)
}

fn jiffies(program: &OwnedFd) -> anyhow::Result<u64> {
    let mut frame = [0; 64];
    let returned = syscalls::run_classifier(program.as_fd(), &mut frame)
        .context("run the program that tells the time")?;
    ensure!(
        returned == 0,
        "the program that tells the time returned {returned}"
    );
    let mut jiffies = [0; 8];
    jiffies.copy_from_slice(&frame[..8]);

    Ok(u64::from_ne_bytes(jiffies))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rate_that_linux_is_built_with_is_told_by_the_length_of_a_jiffy() {
        // kernel/Kconfig.hz, and the architectures' own.
        for hertz in [
            24, 32, 48, 64, 100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024, 1200,
        ] {
            let length = (1_000_000_000 + hertz / 2) / hertz;
            assert_eq!(rate(Duration::from_nanos(length)), Some(hertz as u32));
        }
    }

    #[test]
    fn other_resolutions_are_refused() {
        for length in [0, 1_000_000_000] {
            assert_eq!(rate(Duration::from_nanos(length)), None);
        }
    }
}
