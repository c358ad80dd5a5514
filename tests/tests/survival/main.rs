//! A connection of this host lives as long as its socket, whatever the maps forget.
//!
//! Every test has its negative control: with the mechanism off the same run fails, and says so.

mod closes;
mod edges;
mod eviction;
mod fill;
mod fit;
mod idle;
mod many;
mod owner;
mod pressure;
mod refused;
mod repair;
mod start;
mod states;
mod sweeps;
mod walk;

use anyhow::Result;
use guard_common::outcome::Family;
use guard_tests::{guard::Guard, metrics, netns::Direct};

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Starts a guard of the topology, in a mode and with these flags.
fn guard<'a>(topology: &'a Direct, mode: &str, flags: &[&str]) -> Result<Guard<'a>> {
    let flags: Vec<&str> = ["--xdp-mode", mode].iter().chain(flags).copied().collect();
    Guard::start(&topology.guarded, topology.interface(), &flags)
}

/// As [`guard`], where only the data path puts flows back: a sweep in between would leave it
/// nothing to do.
fn guard_without_repair<'a>(topology: &'a Direct, mode: &str, flags: &[&str]) -> Result<Guard<'a>> {
    let flags: Vec<&str> = ["--xdp-mode", mode].iter().chain(flags).copied().collect();
    let alterations = ["--without", "repair"];
    Guard::start_altered(
        &topology.guarded,
        topology.interface(),
        &alterations,
        &flags,
    )
}

/// How many flows were put back because their entry was `absent` or `expired`.
fn rescues(guard: &Guard, cause: &str) -> Result<u64> {
    let samples = guard.scrape()?;
    Ok(metrics::sum(
        &samples,
        "portguard_rescues_total",
        &[("cause", cause)],
    ))
}
