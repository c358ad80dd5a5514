//! How much shorter timers get while the flow maps fill.

use crate::{
    flow::timer::{Timeouts, Timer},
    outcome::Protocol,
};

/// From where on timers shrink, in percent of a map's capacity: linearly from `start`, so that
/// nothing would be left at `end`. The model is `adaptive.start` and `adaptive.end` of pf, whose
/// defaults these are too: pf.conf(5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adaptive {
    /// Timers have their full length up to here.
    pub start: u32,
    /// Timers would have no length here. Above 100, so that they always keep some.
    pub end: u32,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self {
            start: 60,
            end: 120,
        }
    }
}

impl Adaptive {
    /// What timers keep of their length while `live` flows are in a map that has room for
    /// `capacity`. Flows are counted by timers of full length: else shorter timers would be what
    /// makes them longer again.
    pub const fn scale(self, live: u64, capacity: u64) -> Scale {
        let (start, end) = (self.start as u64 * capacity, self.end as u64 * capacity);
        let live = live.saturating_mul(100);
        if live <= start || start >= end {
            return Scale::WHOLE;
        }

        Scale(
            (end.saturating_sub(live) as u128 * Scale::WHOLE.0 as u128 / (end - start) as u128)
                as u32,
        )
    }
}

/// A part of a timer's length, in 65,536ths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Scale(u32);

impl Scale {
    /// All of it.
    pub const WHOLE: Self = Self(1 << 16);

    /// This part of `ticks`.
    pub const fn of(self, ticks: u32) -> u32 {
        ((ticks as u64 * self.0 as u64) >> 16) as u32
    }

    /// This part of a hundred, rounded.
    pub const fn percent(self) -> u32 {
        (self.0 * 100 + Self::WHOLE.0 / 2) >> 16
    }
}

/// What the timers of each transport keep of their length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scales {
    /// Timers of TCP.
    pub tcp: Scale,
    /// Timers of UDP and UDP-Lite.
    pub udp: Scale,
}

impl Scales {
    /// No timer is shortened.
    pub const WHOLE: Self = Self {
        tcp: Scale::WHOLE,
        udp: Scale::WHOLE,
    };

    /// These timers, shortened, where the kernel counts `hertz` jiffies a second.
    #[must_use]
    pub fn shorten(self, timeouts: &Timeouts, hertz: u32) -> Timeouts {
        Timeouts::each(
            |timer| self.shortened(timeouts, timer, hertz),
            timeouts.fragment,
        )
    }

    const fn shortened(self, timeouts: &Timeouts, timer: Timer, hertz: u32) -> u32 {
        let whole = timeouts.of(timer);
        let short = self.of(timer).of(whole);
        let least = Timeouts::ticks(timer.least_seconds(), hertz);
        if short >= least {
            short
        } else if least < whole {
            least
        } else {
            whole
        }
    }

    const fn of(self, timer: Timer) -> Scale {
        match timer.protocol() {
            Protocol::Tcp => self.tcp,
            Protocol::Udp | Protocol::UdpLite | Protocol::Icmp | Protocol::Other => self.udp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERTZ: u32 = 256;

    fn timeouts(seconds: [u32; 6]) -> Timeouts {
        let mut seconds = seconds.into_iter();
        let next = |_| Timeouts::ticks(seconds.next().expect("six timers"), HERTZ);

        Timeouts::each(next, 7)
    }

    #[test]
    fn scales() {
        let pf = Adaptive::default();
        let narrow = Adaptive {
            start: 10,
            end: 110,
        };
        // flows of a thousand       what is left, in percent
        let table = [
            (pf, 0, 100),
            (pf, 600, 100),
            (pf, 606, 99),
            (pf, 750, 75),
            (pf, 900, 50),
            (pf, 1000, 33),
            (narrow, 100, 100),
            (narrow, 600, 50),
            (narrow, 1000, 10),
            // More than there is room for, as while maps are replaced.
            (pf, 1200, 0),
            (pf, 5000, 0),
            (pf, u64::MAX, 0),
        ];
        for (adaptive, live, percent) in table {
            let scale = adaptive.scale(live, 1000);
            assert_eq!(scale.percent(), percent, "{adaptive:?}, {live}");
        }
        assert_eq!(pf.scale(0, 0), Scale::WHOLE);
    }

    #[test]
    fn what_is_shortened_and_how_far() {
        let usual = timeouts([240, 7_440, 240, 300, 60, 30]);
        assert_eq!(Scales::WHOLE.shorten(&usual, HERTZ), usual);

        let third = Adaptive::default().scale(1000, 1000);
        let both = Scales {
            tcp: third,
            udp: third,
        };
        let seconds = |ticks: u32| ticks * 64 / HERTZ;
        let short = both.shorten(&usual, HERTZ);
        assert_eq!(short.tcp_established, usual.tcp_established);
        assert_eq!(short.udp, Timeouts::ticks(120, HERTZ));
        assert_eq!(seconds(short.tcp_syn), 80);
        assert_eq!(seconds(short.tcp_transitory), 80);
        assert_eq!(seconds(short.udp_dns), 20);
        assert_eq!(seconds(short.multicast), 10);
        assert_eq!(short.fragment, usual.fragment);

        let tcp = Scales {
            tcp: third,
            udp: Scale::WHOLE,
        };
        let short = tcp.shorten(&usual, HERTZ);
        assert_eq!((short.udp, short.udp_dns), (usual.udp, usual.udp_dns));
        assert_eq!(seconds(short.tcp_transitory), 80);

        let long = both.shorten(&timeouts([240, 30_000, 240, 600, 60, 30]), HERTZ);
        assert_eq!(seconds(long.tcp_established), 9_999);
        assert_eq!(seconds(long.udp), 200);
    }

    /// What the user has made shorter than the floor stays as it is.
    #[test]
    fn floors_make_nothing_longer() {
        let short = timeouts([2, 3, 2, 4, 2, 1]);
        let nothing = Adaptive::default().scale(5000, 1000);
        let both = Scales {
            tcp: nothing,
            udp: nothing,
        };
        let scaled = both.shorten(&short, HERTZ);
        assert_eq!(
            (scaled.tcp_established, scaled.udp),
            (short.tcp_established, short.udp)
        );
        // A timer has one tick at least.
        assert_eq!((scaled.tcp_syn, scaled.multicast), (1, 1));
    }
}
