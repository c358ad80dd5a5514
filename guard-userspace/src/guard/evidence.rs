//! Whether the programs see the packets that an interface counts.
//!
//! That a program is attached does not say that it runs: a driver may take it and never run it,
//! and another program may end the chain before it. What an interface counts itself shows it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// So many packets that the interface counts and a program does not see are worth an alarm, where
/// the program sees none at all.
const ENOUGH: u64 = 50;

/// In so much time: ten seconds, and the looks at both ends of them.
const WINDOW: Duration = Duration::from_secs(12);

/// How much later than a program an interface may count the same packet. Network cards report
/// every second or two, and a packet waits in a queue after the egress program has seen it.
const LAG: Duration = Duration::from_secs(3);

/// So many of the packets must have been counted when no program's were on their way any more.
const FRESH: u64 = 10;

/// How long a suspicion must last until it is believed.
const CONFIRMED: Duration = Duration::from_millis(500);

/// The shortest time between two entries of the window, so that its length is bounded.
const APART: Duration = Duration::from_millis(500);

/// What was counted at one hook of an interface until one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Packets that the interface has received, or sent.
    pub interface: u64,
    /// Packets that our program has counted. Must be read after the interface's.
    pub counted: u64,
}

/// What is known about a hook.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Evidence {
    /// No packet has proven yet that the program runs, or that it does not.
    #[default]
    NoTraffic,
    /// The program has counted packets.
    Seen,
    /// The interface counts packets, and the program does not.
    Unseen,
    /// The same, but the packets are of a kind that does not pass the hook, and others would be seen.
    Elsewhere,
}

impl Evidence {
    /// As JSON has it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoTraffic => "no_traffic",
            Self::Seen => "seen",
            Self::Unseen => "unseen",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// What a sample says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Discrepancy {
    /// Nothing new.
    Nothing,
    /// The program has seen packets.
    Seen,
    /// The program sees none, as it seems, until somebody has looked for the cause: then it is
    /// [believed](Comparison::believe) or [dismissed](Comparison::dismiss).
    Suspicious,
}

/// Compares what an interface and our program have counted at one hook, one sample after the
/// other.
///
/// The two never agree: drivers split and join packets, and some never meet a program. So all that
/// counts is that the program has seen none at all.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    last: Option<Sample>,
    /// When the program's counter was last found to have moved, or the first sample was taken.
    moved: Option<Instant>,
    /// What the interface had counted, from then on.
    window: VecDeque<(Instant, u64)>,
    suspected: Option<Instant>,
    evidence: Evidence,
    unseen: u64,
}

impl Comparison {
    /// Takes a sample.
    pub fn note(&mut self, now: Instant, sample: Sample) -> Discrepancy {
        let Some(last) = self.last.replace(sample) else {
            self.begin(now, sample);
            return Discrepancy::Nothing;
        };
        if sample.interface < last.interface || sample.counted < last.counted {
            // Another interface, or one that has begun to count anew.
            self.begin(now, sample);
            return Discrepancy::Nothing;
        }
        if sample.counted > last.counted {
            self.begin(now, sample);
            self.evidence = Evidence::Seen;
            return Discrepancy::Seen;
        }

        self.slide(now, sample);
        if self.evidence == Evidence::Unseen {
            self.unseen += sample.interface - last.interface;
            return Discrepancy::Nothing;
        }
        if !self.is_suspicious(sample) {
            self.suspected = None;
            return Discrepancy::Nothing;
        }
        if now - *self.suspected.get_or_insert(now) < CONFIRMED {
            return Discrepancy::Nothing;
        }

        Discrepancy::Suspicious
    }

    /// The program sees nothing, until a sample says that it does.
    pub fn believe(&mut self) {
        self.evidence = Evidence::Unseen;
        self.unseen += self
            .last
            .map_or(0, |last| last.interface - self.oldest(last));
    }

    /// The packets do not pass the hook. Comparing begins anew.
    pub fn dismiss(&mut self, now: Instant) {
        self.evidence = Evidence::Elsewhere;
        if let Some(last) = self.last {
            self.begin(now, last);
        }
    }

    /// What is known.
    pub const fn evidence(&self) -> Evidence {
        self.evidence
    }

    /// How many packets went by unseen, in all.
    pub const fn unseen(&self) -> u64 {
        self.unseen
    }

    /// Begins anew, as for a program that was just attached. What went by unseen stays counted.
    pub fn restart(&mut self) {
        *self = Self {
            unseen: self.unseen,
            ..Self::default()
        };
    }

    fn begin(&mut self, now: Instant, sample: Sample) {
        self.moved = Some(now);
        self.suspected = None;
        self.window.clear();
        self.window.push_back((now, sample.interface));
    }

    fn slide(&mut self, now: Instant, sample: Sample) {
        while self
            .window
            .front()
            .is_some_and(|(taken, _)| now - *taken > WINDOW)
        {
            self.window.pop_front();
        }
        let due = self
            .window
            .back()
            .is_none_or(|(taken, _)| now - *taken >= APART);
        if due {
            self.window.push_back((now, sample.interface));
        }
    }

    fn is_suspicious(&self, sample: Sample) -> bool {
        let on_their_way = |taken: &Instant| self.moved.is_some_and(|moved| *taken < moved + LAG);
        let fresh = self
            .window
            .iter()
            .find(|(taken, _)| !on_their_way(taken))
            .map_or(0, |(_, interface)| sample.interface - interface);

        fresh >= FRESH && sample.interface - self.oldest(sample) >= ENOUGH
    }

    fn oldest(&self, sample: Sample) -> u64 {
        self.window
            .front()
            .map_or(sample.interface, |(_, interface)| *interface)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens in one second: packets that the interface counts, and that the program does.
    type Second = (u64, u64);

    /// In how many seconds an alarm is up, if one is, and what is known at the end.
    fn seconds_until_unseen(seconds: &[Second]) -> (Option<usize>, Evidence) {
        let start = Instant::now();
        let mut comparison = Comparison::default();
        let mut sample = Sample {
            interface: 7_000,
            counted: 5_000,
        };
        comparison.note(start, sample);
        let mut found = None;
        for (second, (interface, counted)) in (1..).zip(seconds) {
            sample.interface += interface;
            sample.counted += counted;
            let now = start + Duration::from_secs(second);
            if comparison.note(now, sample) == Discrepancy::Suspicious {
                comparison.believe();
                found.get_or_insert(second as usize);
            }
            assert!(comparison.window.len() <= 26);
        }

        (found, comparison.evidence())
    }

    #[test]
    fn packets_that_nobody_sees() {
        let many = |second: Second, times: usize| vec![second; times];
        let after = |first: Vec<Second>, then: Vec<Second>| [first, then].concat();
        // name, what happens, when it is found, what is known at the end
        let table: &[(&str, Vec<Second>, Option<usize>, Evidence)] = &[
            ("silence", many((0, 0), 60), None, Evidence::NoTraffic),
            (
                "a program that never runs",
                many((1_000, 0), 20),
                Some(5),
                Evidence::Unseen,
            ),
            (
                "five packets a second",
                many((5, 0), 20),
                Some(11),
                Evidence::Unseen,
            ),
            (
                "less than that",
                many((4, 0), 60),
                None,
                Evidence::NoTraffic,
            ),
            (
                "fifty at once after a silence",
                after(many((0, 0), 30), after(vec![(50, 0)], many((0, 0), 3))),
                Some(32),
                Evidence::Unseen,
            ),
            (
                "one in a thousand is seen",
                many((1_000, 1), 60),
                None,
                Evidence::Seen,
            ),
            (
                "one is seen every nine seconds, among four a second",
                after(vec![(4, 1)], many((4, 0), 8)).repeat(10),
                None,
                Evidence::Seen,
            ),
            (
                "the card reports a burst two seconds late",
                after(vec![(0, 9_000), (0, 0), (9_000, 0)], many((0, 0), 60)),
                None,
                Evidence::Seen,
            ),
            (
                "a burst leaves a queue slowly and is over",
                after(
                    vec![(0, 9_000)],
                    after(many((3_000, 0), 3), many((0, 0), 60)),
                ),
                None,
                Evidence::Seen,
            ),
            (
                "segments of one large packet",
                many((45, 1), 60),
                None,
                Evidence::Seen,
            ),
            (
                "the program counts what the interface does not",
                many((0, 100), 60),
                None,
                Evidence::Seen,
            ),
            (
                "it ran and runs no more",
                after(many((100, 100), 30), many((100, 0), 10)),
                Some(35),
                Evidence::Unseen,
            ),
            (
                "it runs again",
                after(many((100, 0), 10), many((100, 100), 1)),
                Some(5),
                Evidence::Seen,
            ),
            (
                "it does not run, and traffic ends",
                after(many((100, 0), 10), many((0, 0), 60)),
                Some(5),
                Evidence::Unseen,
            ),
        ];
        for (name, seconds, found, evidence) in table {
            assert_eq!(seconds_until_unseen(seconds), (*found, *evidence), "{name}");
        }
    }

    #[test]
    fn what_went_by_is_counted_once() {
        let start = Instant::now();
        let mut comparison = Comparison::default();
        let note = |comparison: &mut Comparison, second: u64, interface, counted| {
            comparison.note(
                start + Duration::from_secs(second),
                Sample { interface, counted },
            )
        };
        note(&mut comparison, 0, 1_000, 0);
        for second in 1..=4 {
            note(&mut comparison, second, 1_000 + 100 * second, 0);
        }
        assert_eq!(comparison.unseen(), 0);
        assert_eq!(note(&mut comparison, 5, 1_500, 0), Discrepancy::Suspicious);
        comparison.believe();
        assert_eq!(comparison.unseen(), 500);
        note(&mut comparison, 6, 1_507, 0);
        assert_eq!(comparison.unseen(), 507);
        note(&mut comparison, 7, 1_600, 1);
        comparison.restart();
        assert_eq!(comparison.unseen(), 507);
        assert_eq!(comparison.evidence(), Evidence::NoTraffic);
    }

    #[test]
    fn an_interface_may_count_anew() {
        let start = Instant::now();
        let mut comparison = Comparison::default();
        for second in 0..60 {
            let sample = Sample {
                interface: if second % 2 == 0 { 1_000_000 } else { 100 },
                counted: 0,
            };
            let finding = comparison.note(start + Duration::from_secs(second), sample);
            assert_eq!(finding, Discrepancy::Nothing);
        }
    }

    #[test]
    fn a_suspicion_is_looked_at_again() {
        let start = Instant::now();
        let mut comparison = Comparison::default();
        let at = |second: f64| start + Duration::from_secs_f64(second);
        let sample = |interface, counted| Sample { interface, counted };
        comparison.note(at(0.0), sample(0, 0));
        comparison.note(at(3.0), sample(0, 0));
        assert_eq!(
            comparison.note(at(4.0), sample(60, 0)),
            Discrepancy::Nothing
        );
        assert_eq!(
            comparison.note(at(4.1), sample(60, 0)),
            Discrepancy::Nothing
        );
        assert_eq!(
            comparison.note(at(4.6), sample(60, 0)),
            Discrepancy::Suspicious
        );
        comparison.restart();
        comparison.note(at(5.0), sample(60, 0));
        comparison.note(at(8.0), sample(60, 0));
        comparison.note(at(9.0), sample(120, 0));
        assert_eq!(comparison.note(at(9.6), sample(121, 1)), Discrepancy::Seen);
    }

    #[test]
    fn what_passes_elsewhere_is_looked_at_again_and_again() {
        let start = Instant::now();
        let mut comparison = Comparison::default();
        let mut looks = 0;
        for second in 0..60 {
            let now = start + Duration::from_secs(second);
            let sample = Sample {
                interface: 100 * second,
                counted: 0,
            };
            if comparison.note(now, sample) == Discrepancy::Suspicious {
                comparison.dismiss(now);
                looks += 1;
                assert_eq!(comparison.evidence(), Evidence::Elsewhere);
            }
        }
        assert_eq!(looks, 11);
        assert_eq!(comparison.unseen(), 0);
    }
}
