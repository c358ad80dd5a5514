//! How much is to be done, and how fast.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What several threads have to do between them.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    per_second: Option<u64>,
    began: Instant,
    taken: AtomicU64,
    ended: AtomicBool,
}

impl Budget {
    /// So many pieces of work, as fast as they can be done.
    pub fn count(limit: u64) -> Self {
        Self {
            limit,
            per_second: None,
            began: Instant::now(),
            taken: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// As much as can be done until [`end`](Self::end).
    pub fn endless() -> Self {
        Self::count(u64::MAX)
    }

    /// So much of it in a second, counted from now. Anyone who falls behind catches up.
    #[must_use]
    pub fn paced(self, per_second: u64) -> Self {
        Self {
            per_second: Some(per_second),
            ..self
        }
    }

    /// Takes one piece of work, when it is due, unless none is left.
    pub fn take(&self) -> bool {
        if self.ended.load(Ordering::Relaxed) {
            return false;
        }
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        if number >= self.limit {
            self.end();
            return false;
        }
        if let Some(per_second) = self.per_second {
            let due = Duration::from_nanos(number * 1_000_000_000 / per_second);
            if let Some(early) = due.checked_sub(self.began.elapsed()) {
                thread::sleep(early);
            }
        }
        true
    }

    /// No more is to be done.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is left.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
