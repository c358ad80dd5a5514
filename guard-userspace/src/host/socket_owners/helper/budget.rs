//! How much of a processor's time walks may take.

use std::time::{Duration, Instant};

/// So much of a walk is made without a rest.
const BURST: Duration = Duration::from_secs(1);
/// A rest is so many times as long as the piece before it: a tenth of a processor is taken at most.
const REST: u32 = 9;

/// How much of a processor's time may be taken.
pub struct Budget {
    /// What may be taken without a rest.
    left: Duration,
    /// Until when to rest.
    rested: Instant,
    /// When `left` was worked out.
    at: Instant,
}

impl Budget {
    /// All of it.
    pub fn new() -> Self {
        let now = Instant::now();

        Self {
            left: BURST,
            rested: now,
            at: now,
        }
    }

    /// How long to rest now.
    pub fn rest(&self) -> Duration {
        // What is left of a millisecond would be waited for without waiting.
        match self.rested.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Duration::ZERO,
            rest => rest + Duration::from_millis(1),
        }
    }

    /// Whether work may go on.
    pub fn is_rested(&self) -> bool {
        Instant::now() >= self.rested
    }

    /// Counts time that was worked.
    pub fn spend(&mut self, worked: Duration) {
        let now = Instant::now();
        self.left = (self.left + (now - self.at) / (REST + 1)).min(BURST);
        self.at = now;
        match self.left.checked_sub(worked) {
            Some(left) => self.left = left,
            None => self.rested = now + worked * REST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::PIECE, *};

    #[test]
    fn a_long_walk_takes_a_tenth_of_the_time() {
        let mut budget = Budget::new();
        let mut pieces = 0;
        while budget.is_rested() {
            budget.spend(PIECE);
            pieces += 1;
        }
        let burst = BURST.div_duration_f64(PIECE) as u32;
        assert!((burst..burst + 5).contains(&pieces), "{pieces} pieces");
        assert!(budget.rest() > PIECE * (REST - 1));
    }
}
