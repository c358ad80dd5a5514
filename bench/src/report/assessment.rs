//! Whether what was recorded still holds.

use std::{collections::BTreeMap, fmt};

use super::Recorded;

/// Nanoseconds by which a cost may grow.
const SLACK: f64 = 5.0;
/// The part by which a cost may grow, where that is more.
const GROWTH: f64 = 0.15;
/// A machine that takes so many times as long to do nothing is not what it was.
const SLOW: f64 = 1.3;
/// The part by which a ratio may shrink.
const LOSS: f64 = 0.1;

/// How much of what is recorded a run has measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// All of it: a figure that is missing is a failure.
    Whole,
    /// What the user asked for.
    Part,
}

/// A recorded figure, and what it is now.
#[derive(Clone, PartialEq, Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    recorded: f64,
    /// The worst that is good enough.
    bound: f64,
    measured: f64,
}

/// What has become of figures.
#[derive(Clone, PartialEq, Debug)]
pub struct Assessment {
    worse: Vec<Figure>,
    kept: usize,
    /// Recorded, and not measured.
    missing: Vec<String>,
    /// Measured, and not recorded.
    unrecorded: Vec<String>,
    extent: Extent,
    /// Where it was recorded, unless that was here.
    elsewhere: Option<String>,
    /// What a program that does nothing took then and takes now, where that is much longer.
    slow: Option<(f64, f64)>,
}

impl Assessment {
    /// Compares a run with what was recorded.
    pub fn new(recorded: &Recorded, now: &Recorded, extent: Extent) -> Self {
        let mut assessment = Self {
            worse: Vec::new(),
            kept: 0,
            missing: Vec::new(),
            unrecorded: Vec::new(),
            extent,
            elsewhere: (recorded.machine != now.machine).then(|| recorded.machine.to_string()),
            // Without costs there is nothing to tell by.
            slow: (!now.costs.is_empty() && now.bare > recorded.bare * SLOW)
                .then_some((recorded.bare, now.bare)),
        };
        assessment.compare(
            (&recorded.costs, &now.costs),
            "ns",
            |recorded| recorded + SLACK.max(recorded * GROWTH),
            |measured, most| measured <= most,
        );
        assessment.compare(
            (&recorded.ratios, &now.ratios),
            "of the limit",
            |recorded| recorded * (1.0 - LOSS),
            |measured, least| measured >= least,
        );
        assessment
    }

    fn compare(
        &mut self,
        (recorded, now): (&BTreeMap<String, f64>, &BTreeMap<String, f64>),
        unit: &'static str,
        bound: impl Fn(f64) -> f64,
        holds: impl Fn(f64, f64) -> bool,
    ) {
        for (name, &recorded) in recorded {
            let Some(&measured) = now.get(name) else {
                self.missing.push(name.clone());
                continue;
            };
            let bound = bound(recorded);
            // What is no number is no better than its bound.
            if holds(measured, bound) {
                self.kept += 1;
            } else {
                self.worse.push(Figure {
                    name: name.clone(),
                    unit,
                    recorded,
                    bound,
                    measured,
                });
            }
        }
        let unrecorded = now.keys().filter(|name| !recorded.contains_key(*name));
        self.unrecorded.extend(unrecorded.cloned());
    }

    /// Whether the figure of this name is worse.
    pub fn is_worse(&self, name: &str) -> bool {
        self.worse.iter().any(|figure| figure.name == name)
    }

    /// Whether nothing is worse, nothing was left out, and something was compared.
    pub fn holds(&self) -> bool {
        let complete = match self.extent {
            Extent::Whole => self.missing.is_empty() && self.unrecorded.is_empty(),
            Extent::Part => true,
        };
        self.worse.is_empty() && complete && self.kept > 0
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            unit,
            recorded,
            bound,
            measured,
        } = self;
        write!(
            f,
            "{name}: {measured} {unit}, recorded {recorded}, allowed {bound:.3}"
        )
    }
}

impl fmt::Display for Assessment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(elsewhere) = &self.elsewhere {
            writeln!(f, "recorded on another machine: {elsewhere}")?;
        }
        if let Some((then, now)) = self.slow {
            writeln!(
                f,
                "this machine is slow just now: to do nothing takes {now} ns, recorded {then}"
            )?;
        }
        for figure in &self.worse {
            writeln!(f, "WORSE    {figure}")?;
        }
        for name in &self.missing {
            writeln!(f, "MISSING  {name}: recorded, not measured")?;
        }
        for name in &self.unrecorded {
            writeln!(f, "NEW      {name}: measured, not recorded")?;
        }
        write!(
            f,
            "compared with what is recorded: {} hold, {} worse, {} missing, {} new",
            self.kept,
            self.worse.len(),
            self.missing.len(),
            self.unrecorded.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(costs: &[(&str, f64)], ratios: &[(&str, f64)]) -> Recorded {
        let named = |figures: &[(&str, f64)]| {
            let named = figures.iter().map(|(name, value)| ((*name).into(), *value));
            named.collect()
        };
        Recorded {
            costs: named(costs),
            ratios: named(ratios),
            ..Recorded::default()
        }
    }

    fn check(recorded: (f64, f64), now: (f64, f64)) -> Assessment {
        let figures = |(cost, ratio)| figures(&[("drop", cost)], &[("spray", ratio)]);
        Assessment::new(&figures(recorded), &figures(now), Extent::Whole)
    }

    #[test]
    fn costs_may_grow_by_nanoseconds_or_by_parts_and_ratios_shrink() {
        // name                          recorded      measured      holds
        for (name, recorded, now, holds) in [
            ("as before", (6.0, 1.0), (6.0, 1.0), true),
            ("better", (6.0, 0.5), (2.0, 0.9), true),
            ("a small cost, just", (6.0, 1.0), (11.0, 1.0), true),
            ("a small cost", (6.0, 1.0), (11.1, 1.0), false),
            ("a large cost, just", (100.0, 1.0), (115.0, 1.0), true),
            ("a large cost", (100.0, 1.0), (115.1, 1.0), false),
            ("a ratio, just", (6.0, 0.5), (6.0, 0.45), true),
            ("a ratio", (6.0, 0.5), (6.0, 0.449), false),
            (
                "a cost that is no number",
                (6.0, 1.0),
                (f64::NAN, 1.0),
                false,
            ),
            (
                "a ratio that is no number",
                (6.0, 1.0),
                (6.0, f64::NAN),
                false,
            ),
        ] {
            assert_eq!(check(recorded, now).holds(), holds, "{name}");
        }
    }

    #[test]
    fn what_is_worse_is_named_with_both_figures() {
        let assessment = check((6.0, 0.5), (40.5, 0.25));
        assert!(assessment.is_worse("drop") && assessment.is_worse("spray"));
        assert!(!assessment.is_worse("pass"));
        let said = assessment.to_string();
        assert!(
            said.contains("WORSE    drop: 40.5 ns, recorded 6, allowed 11"),
            "{said}"
        );
        let ratio = "WORSE    spray: 0.25 of the limit, recorded 0.5, allowed 0.450";
        assert!(said.contains(ratio), "{said}");
    }

    #[test]
    fn what_is_missing_is_named_and_fails_a_whole_run() {
        let both = figures(&[("drop", 6.0), ("pass", 6.0)], &[]);
        let one = figures(&[("drop", 6.0)], &[]);
        for (recorded, now, word) in [
            (&both, &one, "MISSING  pass"),
            (&one, &both, "NEW      pass"),
        ] {
            for (extent, holds) in [(Extent::Whole, false), (Extent::Part, true)] {
                let assessment = Assessment::new(recorded, now, extent);
                assert_eq!(assessment.holds(), holds, "{extent:?}");
                assert!(assessment.to_string().contains(word), "{assessment}");
            }
        }
    }

    #[test]
    fn a_run_that_compares_nothing_fails() {
        let recorded = figures(&[("drop", 6.0)], &[]);
        for extent in [Extent::Whole, Extent::Part] {
            let assessment = Assessment::new(&recorded, &Recorded::default(), extent);
            assert!(!assessment.holds(), "{extent:?}");
        }
    }

    #[test]
    fn a_slow_moment_is_named() {
        let at = |bare| Recorded {
            bare,
            ..figures(&[("drop", 6.0)], &[])
        };
        let said = |bare| Assessment::new(&at(11.5), &at(bare), Extent::Whole).to_string();
        assert!(said(26.0).contains("takes 26 ns, recorded 11.5"));
        assert!(!said(12.0).contains("slow"));
    }

    #[test]
    fn another_machine_is_named() {
        let here = Recorded {
            machine: crate::report::machine::Machine::this(),
            ..figures(&[("drop", 6.0)], &[])
        };
        let there = figures(&[("drop", 6.0)], &[]);
        let said = |recorded| Assessment::new(recorded, &here, Extent::Whole).to_string();
        assert!(said(&there).starts_with("recorded on another machine: "));
        assert!(!said(&here).contains("another machine"));
    }
}
