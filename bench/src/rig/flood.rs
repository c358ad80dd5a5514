//! How fast a flood is decided.

use std::fmt;

use anyhow::{Context, Result};
use serde::Serialize;

use super::{Attack, Flood, Lane, Rig};
use crate::{
    contender::Contender,
    programs::BenchPrograms,
    rounds::{Ratio, Sample, Summary, take_turns},
    shape::Shape,
};

/// What a flood costs where it meets a contender.
#[derive(Clone, Debug, Serialize)]
pub struct Flooded {
    /// What was sent.
    pub attack: Attack,
    /// What its frames look like.
    pub shape: Shape,
    /// What it met.
    pub contender: Contender,
    /// Nanoseconds a frame, from the generator to the verdict.
    #[serde(flatten)]
    pub cost: Summary,
    /// How fast that is, of what could not be faster: 1 or a little less.
    pub of_limit: Ratio,
}

impl Flooded {
    /// Frames a second.
    pub fn rate(&self) -> f64 {
        1e9 / self.cost.low
    }
}

impl Rig<'_> {
    /// Floods contenders in turns with the same frames.
    ///
    /// # Errors
    /// When portguard decides otherwise than it should.
    pub fn flood(&mut self, attack: Attack, shape: Shape, rounds: usize) -> Result<Vec<Flooded>> {
        let Self {
            lanes, generator, ..
        } = self;
        let met: Vec<&Lane<'_>> = lanes
            .iter()
            .filter(|lane| attack.is_treated_alike(lane.contender))
            .filter(|lane| shape != Shape::Tagged || !lane.contender.is_peer())
            .collect();
        for lane in &met {
            lane.check(generator, attack, shape)?;
        }
        let samples = in_turns(&met, generator, &attack.flood(shape), rounds)?;

        let limit = met
            .iter()
            .zip(&samples)
            .find(|(lane, _)| lane.contender == attack.limit());
        let (_, limit) = limit.context("nothing was measured to compare with")?;
        let flooded = |(lane, sample): (&&Lane<'_>, &Sample)| Flooded {
            attack,
            shape,
            contender: lane.contender,
            cost: sample.summary(),
            of_limit: sample.of_limit(limit),
        };
        Ok(met.iter().zip(&samples).map(flooded).collect())
    }
}

/// Lets lanes meet a flood in turns, each of which takes about as long as any other.
///
/// A flood lasts for seconds and a turn for milliseconds, after a turn of somebody else. So each
/// begins with frames that are not counted, until the caches hold what the flood asks for.
pub fn in_turns(
    lanes: &[&Lane<'_>],
    generator: &mut BenchPrograms,
    flood: &Flood,
    rounds: usize,
) -> Result<Vec<Sample>> {
    /// How long a turn takes, about, in nanoseconds.
    const TURN: f64 = 2e6;
    /// Frames that are not counted, for each that is.
    const WARMING: u32 = 2;
    const LEAST: u32 = 4_096;
    const MOST: u32 = 65_536;

    let frames = lanes
        .iter()
        .map(|lane| {
            let cost = lane.flood(generator, flood, LEAST)?;
            Ok((TURN / cost) as u32)
        })
        .collect::<Result<Vec<_>>>()?;
    take_turns(rounds, lanes.len(), |index| {
        let frames = frames[index].clamp(LEAST, MOST);
        lanes[index].flood(generator, flood, WARMING * frames)?;
        lanes[index].flood(generator, flood, frames)
    })
}

impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary {
            low,
            median,
            spread,
        } = self.cost;
        let (attack, shape) = (self.attack.to_string(), self.shape.to_string());
        let contender = self.contender.to_string();
        write!(
            f,
            "{attack:22} {shape:6} {contender:30} {:7.2} {low:8.0} {median:8.0} {spread:8.0} {:6.2}",
            self.rate() / 1e6,
            self.of_limit.value(),
        )
    }
}

/// What stands above the lines of floods.
pub const HEADING: &str = "flood                         met by                             M/s      low   median   spread of limit";
