//! Waiting until the daemon has swept.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

use crate::{guard::Guard, netns::Namespace};

/// A port that nothing marks looks free after two sweeps, and one may be under way.
pub const FORGOTTEN: u32 = 3;

/// How long a busy machine may take for them.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until the sweeps forget whatever they do not find, and the tuple filter is trusted.
pub fn wait(host: &Namespace, guard: &Guard) -> Result<()> {
    let namespace = host.run(namespace::name)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
    let first = state.epoch();
    let deadline = Instant::now() + PATIENCE;
    while state.epoch().wrapping_sub(first) % 256 < FORGOTTEN {
        ensure!(Instant::now() < deadline, "nobody sweeps: {}", guard.said());
        thread::sleep(Duration::from_millis(20));
    }
    ensure!(state.filters(), "sweeps do not make the filter trusted");
    Ok(())
}
