//! What was measured when all was well.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Results, machine::Machine};
use crate::{clients::Direction, contender::Contender, shape::Shape};

/// Where it is, in the checkout.
pub const PATH: &str = "bench/recorded.json";

/// Figures by name.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Where they were measured: costs mean nothing on another processor.
    pub machine: Machine,
    /// What a program that does nothing takes by test-run, in nanoseconds: how fast the machine was.
    pub bare: f64,
    /// Nanoseconds over a program that does nothing, by test-run.
    pub costs: BTreeMap<String, f64>,
    /// Parts of what could not be faster, on the rig.
    pub ratios: BTreeMap<String, f64>,
}

impl Recorded {
    /// What of a run is worth comparing.
    pub fn of(results: &Results) -> Self {
        let costs = results.test_run.iter().map(|cost| {
            let name = cost_name(cost.name, cost.shape);
            (name, rounded(cost.cost.low, 1))
        });
        let bare = results.test_run.iter().map(|cost| cost.cost.bare);
        let guarded = |contender| contender == Contender::Portguard;
        let floods = results
            .floods
            .iter()
            .filter(|reading| guarded(reading.flooded.contender))
            .map(|reading| {
                let flooded = &reading.flooded;
                let name = format!("{}, {}, {}", flooded.attack, flooded.shape, reading.mode);
                (name, flooded.of_limit.value())
            });
        let policies = results
            .policies
            .iter()
            .filter(|reading| reading.flooded.contender.is_portguard())
            .map(|reading| {
                let flooded = &reading.flooded;
                let name = format!("policies, {}, {}", flooded.shape, flooded.contender);
                (name, flooded.of_limit.value())
            });
        let clients = results.clients.iter();
        let connects = clients.clone().flat_map(|clients| &clients.connects);
        let connects = connects
            .filter(|line| guarded(line.contender))
            .map(|line| ("connect, ask, close".to_owned(), line.of_limit.value()));
        let bulk = clients.flat_map(|clients| &clients.bulk);
        let bulk = bulk.filter(|line| guarded(line.contender)).map(|line| {
            let name = match line.direction {
                Direction::Received => "bulk TCP received",
                Direction::Sent => "bulk TCP sent",
            };
            (name.to_owned(), line.of_limit.value())
        });
        let scaling = results.scaling.iter();
        let scaling = scaling.flat_map(|scaling| &scaling.floods).map(|scaled| {
            let aim = if scaled.at_ports_in_use {
                "at these"
            } else {
                "at the range"
            };
            let (flows, ports) = (scaled.flows, scaled.ports);
            let name = format!("spray {aim}, {flows} flows on {ports} ports");
            (name, scaled.of_limit.value())
        });
        Self {
            machine: results.machine.clone(),
            bare: rounded(bare.reduce(f64::min).unwrap_or_default(), 1),
            costs: costs.collect(),
            ratios: floods
                .chain(policies)
                .chain(connects)
                .chain(bulk)
                .chain(scaling)
                .map(|(name, ratio)| (name, rounded(ratio, 3)))
                .collect(),
        }
    }

    /// Reads what was recorded.
    ///
    /// # Errors
    /// When the file is missing or holds something else.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string(PATH)
            .with_context(|| format!("{PATH}: run this in the checkout; --record writes it"))?;
        serde_json::from_str(&text).with_context(|| format!("{PATH} is no record of a bench"))
    }

    /// Writes it for later runs.
    ///
    /// # Errors
    /// When this is not the checkout.
    pub fn write(&self) -> Result<()> {
        ensure!(Path::new("bench").is_dir(), "there is no folder bench here");
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(PATH, text).with_context(|| format!("write {PATH}"))
    }
}

/// What the cost of an outcome is recorded by.
pub fn cost_name(outcome: &str, shape: Shape) -> String {
    format!("{outcome}, {shape}")
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
