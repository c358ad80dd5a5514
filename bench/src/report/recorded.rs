//! What was measured when all was well, and whether it still holds.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::Results;
use crate::{clients::Direction, contender::Contender};

/// Where it is, in the checkout.
pub const PATH: &str = "bench/recorded.json";

/// Nanoseconds by which a difference may grow.
const SLACK: f64 = 5.0;
/// The part by which a difference may grow, where that is more.
const GROWTH: f64 = 0.15;
/// The part by which a ratio may shrink.
const LOSS: f64 = 0.1;

/// Figures by name.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Nanoseconds over a program that does nothing.
    costs: BTreeMap<String, f64>,
    /// Parts of what could not be faster.
    ratios: BTreeMap<String, f64>,
}

impl Recorded {
    /// What of a run is worth comparing.
    pub fn of(results: &Results) -> Self {
        let costs = results.test_run.iter().map(|cost| {
            let name = format!("{}, {}", cost.name, cost.shape);
            (name, rounded(cost.cost.low, 1))
        });
        let guarded = |contender| contender == Contender::Portguard;
        let floods = results
            .floods
            .iter()
            .filter(|reading| guarded(reading.flooded.contender))
            .map(|reading| {
                let flooded = &reading.flooded;
                let name = format!("{}, {}, {}", flooded.attack, flooded.shape, reading.mode);
                (name, flooded.of_limit)
            });
        let clients = results.clients.iter();
        let connects = clients.clone().flat_map(|clients| &clients.connects);
        let connects = connects
            .filter(|line| guarded(line.contender))
            .map(|line| ("connect, ask, close".to_owned(), line.of_limit));
        let bulk = clients.flat_map(|clients| &clients.bulk);
        let bulk = bulk.filter(|line| guarded(line.contender)).map(|line| {
            let name = match line.direction {
                Direction::Received => "bulk TCP received",
                Direction::Sent => "bulk TCP sent",
            };
            (name.to_owned(), line.of_limit)
        });
        Self {
            costs: costs.collect(),
            ratios: floods
                .chain(connects)
                .chain(bulk)
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

    /// What has become worse in `now`, which may have measured less.
    pub fn worse(&self, now: &Self) -> Vec<String> {
        let costs = self.costs.iter().filter_map(|(name, then)| {
            let now = *now.costs.get(name)?;
            let most = then + SLACK.max(then * GROWTH);
            (now > most).then(|| format!("{name}: {now} ns, recorded were {then}"))
        });
        let ratios = self.ratios.iter().filter_map(|(name, then)| {
            let now = *now.ratios.get(name)?;
            let least = then * (1.0 - LOSS);
            (now < least).then(|| format!("{name}: {now} of the limit, recorded were {then}"))
        });
        costs.chain(ratios).collect()
    }
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(cost: f64, ratio: f64) -> Recorded {
        Recorded {
            costs: BTreeMap::from([("drop".into(), cost)]),
            ratios: BTreeMap::from([("spray".into(), ratio)]),
        }
    }

    #[test]
    fn small_costs_may_grow_by_nanoseconds_and_large_ones_by_parts() {
        assert!(recorded(6.0, 1.0).worse(&recorded(11.0, 1.0)).is_empty());
        assert_eq!(recorded(6.0, 1.0).worse(&recorded(11.1, 1.0)).len(), 1);
        assert!(recorded(100.0, 1.0).worse(&recorded(115.0, 1.0)).is_empty());
        assert_eq!(recorded(100.0, 1.0).worse(&recorded(115.1, 1.0)).len(), 1);
    }

    #[test]
    fn ratios_may_shrink_by_a_tenth() {
        assert!(recorded(6.0, 0.5).worse(&recorded(6.0, 0.45)).is_empty());
        assert_eq!(recorded(6.0, 0.5).worse(&recorded(6.0, 0.44)).len(), 1);
    }

    #[test]
    fn what_was_not_measured_again_is_not_judged() {
        assert!(recorded(6.0, 0.5).worse(&Recorded::default()).is_empty());
    }
}
