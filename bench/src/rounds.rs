//! What is compared takes turns, A B A B, so that whatever else the machine does meets both alike.

use std::time::Duration;

use anyhow::Result;
use serde::{Serialize, Serializer};

/// What was measured of one subject, round by round.
#[derive(Clone, Debug, Default)]
pub struct Sample(Vec<f64>);

impl From<Vec<f64>> for Sample {
    fn from(rounds: Vec<f64>) -> Self {
        Self(rounds)
    }
}

impl Sample {
    /// Goes on with one more.
    pub fn push(&mut self, round: f64) {
        self.0.push(round);
    }

    /// The last so many.
    pub fn last(&self, rounds: usize) -> Self {
        Self(self.0[self.0.len().saturating_sub(rounds)..].into())
    }

    /// Goes on with these rounds.
    pub fn extend(&mut self, rounds: Self) {
        self.0.extend(rounds.0);
    }

    /// Round by round, how fast this is, of what is as fast as can be. Neighbours meet the same
    /// minute of the machine, so the ratio of each tells more than that of the best.
    pub fn of_limit(&self, limit: &Self) -> Ratio {
        Ratio(self.with(limit, |own, limit| limit / own))
    }

    /// The value below which a share of the rounds lie.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted[(last as f64 * share).round() as usize]
    }

    /// The value in the middle.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What an undisturbed round takes: nearly the least, because the very least may be a slip of
    /// the clock.
    pub fn low(&self) -> f64 {
        self.quantile(0.02)
    }

    /// Half of the rounds lie closer together than this.
    pub fn spread(&self) -> f64 {
        self.quantile(0.75) - self.quantile(0.25)
    }

    /// What is told of it.
    pub fn summary(&self) -> Summary {
        Summary {
            low: self.low(),
            median: self.median(),
            spread: self.spread(),
        }
    }

    /// Round by round, `what` of this one and the other.
    fn with(&self, other: &Self, what: impl Fn(f64, f64) -> f64) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(a, b)| what(*a, *b)).collect())
    }
}

/// How fast something is, of something else, turn by turn. It is told as the median.
#[derive(Clone, Debug)]
pub struct Ratio(Sample);

impl Ratio {
    /// The median.
    pub fn value(&self) -> f64 {
        self.0.median()
    }

    /// Goes on with these turns.
    pub fn extend(&mut self, turns: Self) {
        self.0.extend(turns.0);
    }
}

impl Serialize for Ratio {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.value())
    }
}

/// What something costs on top of something that does nothing, in nanoseconds a frame.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Difference {
    /// Between undisturbed rounds of either.
    pub low: f64,
    /// The median of the differences between neighbouring rounds.
    pub median: f64,
    /// Half of these lie closer together than this.
    pub spread: f64,
    /// An undisturbed round of what does nothing.
    pub bare: f64,
}

/// How long single things take, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// Half of them take no longer.
    pub p50: f64,
    /// All but 1 % take no longer.
    pub p99: f64,
}

impl Latencies {
    /// Of these.
    pub fn of(each: Vec<Duration>) -> Self {
        let sample = Sample(each.iter().map(|one| one.as_nanos() as f64 / 1e3).collect());
        Self {
            p50: sample.median(),
            p99: sample.quantile(0.99),
        }
    }
}

/// What is told of a sample.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    /// An undisturbed round.
    pub low: f64,
    /// The round in the middle.
    pub median: f64,
    /// Half of the rounds lie closer together than this.
    pub spread: f64,
}

/// Lets `count` subjects take turns, each of which returns what a round of its own took.
pub fn take_turns(
    rounds: usize,
    count: usize,
    mut round: impl FnMut(usize) -> Result<f64>,
) -> Result<Vec<Sample>> {
    // The first round of each warms up.
    for index in 0..count {
        round(index)?;
    }
    let mut samples = vec![Sample(Vec::with_capacity(rounds)); count];
    for number in 0..rounds {
        for index in order(number, count) {
            samples[index].0.push(round(index)?);
        }
    }
    Ok(samples)
}

/// In which order the subjects of a round take their turns: another in each, because a turn is
/// faster or slower by a percent or two after that of one subject than after that of another.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|index| {
        // Nearby products with the golden ratio are far apart.
        let place = (round * count + index) as u64;
        place.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    order
}

/// Lets two subjects take turns. Each returns nanoseconds a frame.
pub fn difference(
    rounds: usize,
    mut bare: impl FnMut() -> Result<f64>,
    mut subject: impl FnMut() -> Result<f64>,
) -> Result<Difference> {
    let samples = take_turns(rounds, 2, |index| match index {
        0 => bare(),
        _ => subject(),
    })?;
    let (bare, subject) = (&samples[0], &samples[1]);
    let differences = subject.with(bare, |subject, bare| subject - bare);

    Ok(Difference {
        low: subject.low() - bare.low(),
        median: differences.median(),
        spread: differences.spread(),
        bare: bare.low(),
    })
}
