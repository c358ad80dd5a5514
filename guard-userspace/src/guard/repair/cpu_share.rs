//! How much of a processor's time may be spent on work that nothing waits for.

use std::time::{Duration, Instant};

/// One part in so many of a processor's time: less than 2 %.
const SHARE: u32 = 64;

/// What there is to begin with. A guard that starts has just read everything.
const FIRST: Duration = Duration::from_millis(20);

/// What may be saved, and so what may be spent at a time.
const MOST: Duration = Duration::from_millis(400);

/// Less is not worth beginning for.
const LEAST: Duration = Duration::from_millis(1);

/// A share of a processor's time, which grows with the clock and is spent by use.
#[derive(Debug)]
pub(super) struct CpuShare {
    left: Duration,
    /// What was spent beyond what there was.
    debt: Duration,
    since: Instant,
}

impl CpuShare {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: FIRST,
            debt: Duration::ZERO,
            since: now,
        }
    }

    /// What may be spent now, if it is worth it.
    pub(super) fn granted(&mut self, now: Instant) -> Option<Duration> {
        let earned = now.saturating_duration_since(self.since) / SHARE;
        self.since = now;
        let paid = earned.min(self.debt);
        self.debt -= paid;
        self.left = (self.left + (earned - paid)).min(MOST);

        (self.debt.is_zero() && self.left >= LEAST).then_some(self.left)
    }

    pub(super) fn spend(&mut self, time: Duration) {
        self.debt += time.saturating_sub(self.left);
        self.left = self.left.saturating_sub(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn no_more_is_spent_than_the_share() {
        let start = Instant::now();
        let mut allowance = CpuShare::new(start);
        let mut spent = Duration::ZERO;
        // Each time a little more is spent than was granted, because the clock is read late.
        for second in 0..3_600 {
            let now = start + Duration::from_secs(second);
            if let Some(granted) = allowance.granted(now) {
                assert!(granted <= MOST, "{granted:?} at a time");
                allowance.spend(granted + 7 * MILLISECOND);
                spent += granted + 7 * MILLISECOND;
            }
        }
        let hour = Duration::from_secs(3_600);
        assert!(spent <= hour / SHARE + FIRST + 7 * MILLISECOND, "{spent:?}");
        assert!(spent >= hour / SHARE * 9 / 10, "{spent:?}");
    }

    #[test]
    fn what_is_saved_is_bounded_and_crumbs_are_not_granted() {
        let start = Instant::now();
        let mut allowance = CpuShare::new(start);
        assert_eq!(allowance.granted(start), Some(FIRST));
        allowance.spend(FIRST);
        let soon = start + 60 * MILLISECOND;
        assert_eq!(allowance.granted(soon), None);
        assert_eq!(allowance.granted(soon + 4 * MILLISECOND), Some(MILLISECOND));
        let day = start + Duration::from_secs(86_400);
        assert_eq!(allowance.granted(day), Some(MOST));
    }
}
