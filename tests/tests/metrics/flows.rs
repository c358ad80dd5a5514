//! The number of flows, and whether asking for it changes which of them are forgotten.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Family;
use guard_tests::{build, frames::udp, guard::Guard, netns::Direct, processors, wire::Wire};
use serde_json::Value;

use super::hush;

/// Flows that find room.
const FLOWS: u16 = 10_000;
/// The room.
const CAPACITY: &str = "16384";
/// Flows too many for it, together with those.
const MORE: u16 = 10_000;

#[test]
fn m04_the_gauge_counts_what_is_in_the_map() -> Result<()> {
    let topology = Direct::new()?;
    hush(&topology)?;
    let guard = start(&topology)?;
    send(&topology, 0..FLOWS)?;
    let in_map = keys(&guard)?.len() as f64;
    let samples = guard.scrape()?;
    let gauge = samples
        .iter()
        .find(|sample| {
            sample.name == "portguard_flows"
                && sample.label("family") == "ipv4"
                && sample.label("protocol") == "udp"
        })
        .context("no gauge")?
        .value;
    ensure!(in_map >= f64::from(FLOWS) * 0.99, "{in_map} in the map");
    ensure!(
        (gauge - in_map).abs() <= in_map * 0.01,
        "{gauge}, {in_map} in the map"
    );
    Ok(())
}

#[test]
fn m04_asking_spares_no_flow() -> Result<()> {
    let left_alone = survivors(|_| Ok(()))?;
    let asked = survivors(|guard| {
        for _ in 0..10 {
            guard.scrape()?;
            let listed = Command::new(build::binary())
                .args(["flows", "--json", "--control-socket"])
                .arg(guard.control_socket())
                .output()?;
            ensure!(listed.status.success(), "{listed:?}");
        }
        Ok(())
    })?;
    let different = left_alone.symmetric_difference(&asked).count();
    ensure!(
        different <= left_alone.len() / 100,
        "{different} of {} victims are others",
        left_alone.len()
    );
    Ok(())
}

/// The flows that are left of two lots, the first of which was used again and then asked for.
fn survivors(ask: impl FnOnce(&Guard<'_>) -> Result<()>) -> Result<BTreeSet<String>> {
    let topology = Direct::new()?;
    hush(&topology)?;
    let guard = start(&topology)?;
    send(&topology, 0..FLOWS)?;
    // One in ten is used again, and so is forgotten later than the others.
    send(&topology, (0..FLOWS).step_by(10))?;
    ask(&guard)?;
    send(&topology, FLOWS..FLOWS + MORE)?;
    let keys = keys(&guard)?;
    ensure!(
        keys.len() < usize::from(FLOWS + MORE),
        "nothing is forgotten"
    );
    Ok(keys)
}

fn start(topology: &Direct) -> Result<Guard<'_>> {
    let flags = ["--max-flows", CAPACITY];
    Guard::start(&topology.guarded, topology.interface(), &flags)
}

/// Opens a flow from each of these ports of the range, all on one processor: each has its own
/// list of what to forget.
fn send(topology: &Direct, flows: impl Iterator<Item = u16> + Send) -> Result<()> {
    topology.guarded.run(|| {
        processors::pin(0)?;
        let wire = Wire::open(&topology.guarded, topology.interface())?;
        for flow in flows {
            wire.send(&udp(33_000 + flow, 123).sent(Family::Ipv4))?;
        }
        Ok(())
    })
}

/// The keys of UDP flows over IPv4, as another program reads them.
fn keys(guard: &Guard<'_>) -> Result<BTreeSet<String>> {
    let map = find(guard.pins(), "flows_udp4")?.context("no map is pinned")?;
    let output = Command::new("bpftool")
        .args(["--json", "map", "dump", "pinned"])
        .arg(&map)
        .output()?;
    ensure!(output.status.success(), "bpftool: {output:?}");
    let entries: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    Ok(entries
        .iter()
        .map(|entry| entry["key"].to_string())
        .collect())
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.ends_with(name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
