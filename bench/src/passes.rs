//! Parts are measured more than once, minutes apart: anyone who shares a machine's processors slows them
//! down for seconds or minutes, and what is added so is nothing of a contender's own. Of costs, what
//! was least disturbed counts; of ratios between neighbouring turns, all do.

use crate::{
    clients::{Clients, Shared},
    floods::Reading,
    footprint::Footprint,
    rounds::{Difference, Latencies, Summary},
    test_run::Cost,
};

/// What can be measured again.
pub trait Again {
    /// Takes over what was less disturbed the other time, of the same subject.
    fn settle(&mut self, again: Self);
}

impl<T: Again> Again for Option<T> {
    fn settle(&mut self, again: Self) {
        match (self, again) {
            (Some(known), Some(again)) => known.settle(again),
            (none @ None, again) => *none = again,
            (Some(_), None) => {}
        }
    }
}

impl Again for Summary {
    fn settle(&mut self, again: Self) {
        self.low = self.low.min(again.low);
        if again.median < self.median {
            (self.median, self.spread) = (again.median, again.spread);
        }
    }
}

impl Again for Difference {
    fn settle(&mut self, again: Self) {
        let subject = (self.bare + self.low).min(again.bare + again.low);
        self.bare = self.bare.min(again.bare);
        self.low = subject - self.bare;
        if again.median < self.median {
            (self.median, self.spread) = (again.median, again.spread);
        }
    }
}

impl Again for Latencies {
    fn settle(&mut self, again: Self) {
        self.p50 = self.p50.min(again.p50);
        self.p99 = self.p99.min(again.p99);
    }
}

impl Again for Vec<Cost> {
    fn settle(&mut self, again: Self) {
        pair(
            self,
            again,
            |one, other| one.name == other.name && one.shape == other.shape,
            |cost, again| cost.cost.settle(again.cost),
        );
    }
}

impl Again for Vec<Reading> {
    fn settle(&mut self, again: Self) {
        let same = |one: &Reading, other: &Reading| {
            one.is_beside(other) && one.flooded.contender == other.flooded.contender
        };
        pair(self, again, same, |reading, again| {
            let (flooded, again) = (&mut reading.flooded, again.flooded);
            flooded.cost.settle(again.cost);
            flooded.of_limit.extend(again.of_limit);
        });
    }
}

impl Again for Clients {
    fn settle(&mut self, again: Self) {
        pair(
            &mut self.connects,
            again.connects,
            |one, other| one.contender == other.contender,
            |line, again| {
                line.cost.settle(again.cost);
                line.latencies.settle(again.latencies);
                line.of_limit.extend(again.of_limit);
            },
        );
        pair(
            &mut self.bulk,
            again.bulk,
            |one, other| one.contender == other.contender && one.direction == other.direction,
            |line, again| {
                line.cost.settle(again.cost);
                line.of_limit.extend(again.of_limit);
            },
        );
        pair(
            &mut self.shared,
            again.shared,
            |one, other| one.contender == other.contender,
            Shared::settle,
        );
    }
}

/// Memory does not depend on how fast a processor is.
impl Again for Footprint {
    fn settle(&mut self, again: Self) {
        self.start.settle(again.start);
        self.range.settle(again.range);
    }
}

impl Again for Shared {
    fn settle(&mut self, again: Self) {
        self.quiet.settle(again.quiet);
        self.flooded.settle(again.flooded);
        self.kept.extend(again.kept);
        self.frames = self.frames.max(again.frames);
        self.quiet_latencies.settle(again.quiet_latencies);
        self.flooded_latencies.settle(again.flooded_latencies);
    }
}

/// Settles what is the same in both, and takes over what is new.
fn pair<T>(
    lines: &mut Vec<T>,
    again: Vec<T>,
    same: impl Fn(&T, &T) -> bool,
    mut settle: impl FnMut(&mut T, T),
) {
    for line in again {
        match lines.iter_mut().find(|known| same(known, &line)) {
            Some(known) => settle(known, line),
            None => lines.push(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_less_disturbed_counts_of_either_side() {
        let mut slow_bare = Difference {
            low: 4.0,
            median: 5.0,
            spread: 1.0,
            bare: 12.0,
        };
        slow_bare.settle(Difference {
            low: 9.0,
            median: 11.0,
            spread: 3.0,
            bare: 8.0,
        });
        // 16 ns with the program that is measured, and 8 without.
        assert_eq!((slow_bare.low, slow_bare.bare), (8.0, 8.0));
        assert_eq!((slow_bare.median, slow_bare.spread), (5.0, 1.0));
    }
}
