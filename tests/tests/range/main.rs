//! What is guarded follows the kernel's range (rows Y01 to Y10 of the acceptance matrix).

mod audit;
mod boundaries;
mod changes;
mod crowded;
mod harden;
mod kernel;
mod listeners;
mod lockout;
mod programs;
mod queries;
mod survival;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{guard::Guard, metrics, netns::Namespace};

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

const RANGE: &str = "net/ipv4/ip_local_port_range";
const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";

/// How long a change may take that is only waited for, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// The range as the kernel has it.
fn kernels(host: &Namespace) -> Result<(u16, u16)> {
    let text = host.run(|| fs::read_to_string(format!("/proc/sys/{RANGE}")))?;
    let mut ports = text.split_whitespace().map(str::parse);
    let (Some(first), Some(last), None) = (ports.next(), ports.next(), ports.next()) else {
        anyhow::bail!("not two ports: {text:?}");
    };
    Ok((first?, last?))
}

/// The range as the guard has it.
fn guards(guard: &Guard) -> Result<(u16, u16)> {
    let samples = guard.scrape()?;
    let bound = |which| metrics::sum(&samples, "portguard_port_range", &[("bound", which)]) as u16;
    Ok((bound("first"), bound("last")))
}

/// Sets the kernel's range, and waits until the guard has it, too.
fn change(host: &Namespace, guard: &Guard, range: &str) -> Result<()> {
    host.sysctl(RANGE, range)?;
    let deadline = Instant::now() + PATIENCE;
    while guards(guard)? != kernels(host)? {
        ensure!(Instant::now() < deadline, "{range} is not followed");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// How many listeners the guard says that others cannot reach.
fn blocked(guard: &Guard) -> Result<u64> {
    let samples = guard.scrape()?;
    Ok(metrics::sum(&samples, "portguard_blocked_listeners", &[]))
}
