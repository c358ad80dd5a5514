//! The daemon's sweep over a million flows, and what a client on the same processor notices.

use std::{
    fmt, fs, io,
    mem::offset_of,
    os::fd::{AsFd, AsRawFd},
    ptr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use guard_common::abi::{config::Config, state::State};
use guard_tests::guard::Guard;
use serde::Serialize;

use crate::{clients::Echo, contender::pinned, processor, rig::Lane, rounds::Latencies};

/// What sweeps cost.
#[derive(Clone, Debug, Serialize)]
pub struct Swept {
    /// Processor time of the daemon for each sweep, in milliseconds.
    pub busy: f64,
    /// From one sweep to the next, in seconds.
    pub period: f64,
    /// Answers to a client on the same processor, when there are few flows.
    pub before: Latencies,
    /// The same, while the daemon sweeps a million.
    pub latencies: Latencies,
}

impl fmt::Display for Swept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nsweep over 1,000,000 flows: {:.0} ms of a processor every {:.1} s",
            self.busy, self.period
        )?;
        write!(
            f,
            "a client on that processor: p99 {:.0} us with 10 flows, {:.0} us with 1,000,000",
            self.before.p99, self.latencies.p99
        )
    }
}

/// A client beside the daemon.
pub struct Sweeps {
    before: Latencies,
}

impl Sweeps {
    /// Looks how a client fares while there are few flows.
    pub fn watch(lane: &Lane<'_>) -> Result<Self> {
        const LONG: Duration = Duration::from_secs(3);

        let guard = lane.guard().context("sweeps without a guard")?;
        let before = beside(guard, lane, |started| started.elapsed() > LONG)?;
        Ok(Self { before })
    }

    /// Looks again, and at two whole sweeps.
    pub fn again(self, lane: &Lane<'_>) -> Result<Swept> {
        const SWEEPS: u32 = 2;
        const PATIENCE: Duration = Duration::from_secs(90);

        let guard = lane.guard().context("sweeps without a guard")?;
        let epoch = Epoch::open(guard)?;
        let (mut seen, mut first, mut last) = (epoch.now(), None, None);
        let mut count = 0;
        let latencies = beside(guard, lane, |started| {
            if epoch.now() != seen {
                seen = epoch.now();
                let now = (Instant::now(), busy(guard));
                if first.is_none() {
                    first = Some(now);
                } else {
                    count += 1;
                    last = Some(now);
                }
            }
            count == SWEEPS || started.elapsed() > PATIENCE
        })?;
        ensure!(count == SWEEPS, "the daemon does not sweep");
        let ((from, busy_from), (to, busy_to)) = first.zip(last).context("no sweeps")?;
        let each = |total: Duration| total.as_secs_f64() / f64::from(SWEEPS);
        Ok(Swept {
            busy: each(busy_to?.saturating_sub(busy_from?)) * 1e3,
            period: each(to - from),
            before: self.before,
            latencies,
        })
    }
}

/// How long a client waits that shares its processor with the daemon, until `enough`.
fn beside(
    guard: &Guard<'_>,
    lane: &Lane<'_>,
    mut enough: impl FnMut(Instant) -> bool,
) -> Result<Latencies> {
    processor::pin_process(guard.pid(), processor::measured())?;
    let mut echo = Echo::start(lane)?;
    let started = Instant::now();
    let mut latencies = Vec::new();
    while !enough(started) {
        latencies.extend(echo.ask()?);
    }
    processor::pin_process(guard.pid(), processor::other())?;
    Ok(Latencies::of(latencies))
}

/// The epoch of the occupancy, which moves at the end of each sweep.
struct Epoch {
    state: *const u8,
    length: usize,
}

impl Epoch {
    fn open(guard: &Guard<'_>) -> Result<Self> {
        let map = MapData::from_pin(pinned(guard, "state")?)?;
        let length = size_of::<State>();
        // SAFETY: the kernel checks that the map can be mapped and is as long.
        let state = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        ensure!(
            state != libc::MAP_FAILED,
            "map the state: {}",
            io::Error::last_os_error()
        );
        Ok(Self {
            state: state.cast(),
            length,
        })
    }

    fn now(&self) -> u32 {
        const AT: usize = offset_of!(State, config) + offset_of!(Config, epoch);

        // SAFETY: the word lies in the mapping, at a multiple of its size; the daemon writes it
        // whole.
        unsafe { self.state.add(AT).cast::<u32>().read_volatile() }
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // SAFETY: the mapping is as `open` has made it, and nothing points into it.
        unsafe { libc::munmap(self.state.cast_mut().cast(), self.length) };
    }
}

/// Processor time that the daemon has had, its threads that have ended included.
fn busy(guard: &Guard<'_>) -> Result<Duration> {
    // SAFETY: no memory is involved.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    let path = format!("/proc/{}/stat", guard.pid());
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program may hold anything but ends with the last parenthesis; time in user
    // space and in the kernel are the 14th and 15th fields.
    let (_, fields) = stat.rsplit_once(')').context("a stat without a name")?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("a short stat")?.parse()?) };
    let total = ticks()? + ticks()?;
    Ok(Duration::from_secs_f64(total as f64 / ticks_a_second))
}
