//! Whether the flow maps are large enough for what this host does, and what to do if not.

use std::time::{Duration, Instant};

use guard_common::{
    flow::adaptive::{Scale, Scales},
    outcome::{Family, Protocol},
};

use crate::{bpf::maps::Shortage, config::MaxFlows};

/// A map with more live flows than this percentage is too small: by default timers are down to
/// three quarters of their length then, so at full length the flows would fill it.
const SHORT_PERCENT: u64 = 75;

/// A map with fewer has room again.
const AMPLE_PERCENT: u64 = 65;

/// Sweeps without a sign of want after which there is none.
const CALM: u32 = 6;

/// Flows that may be rescued from one sweep to the next while a map is full, per flow it holds:
/// more, and it evicts flows that count.
const RESCUED_SHARE: u64 = 100;

/// Nothing is said again before this has passed.
const SILENCE: Duration = Duration::from_secs(600);

/// How full a flow map is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, or UDP together with UDP-Lite.
    pub protocol: Protocol,
    /// Flows that count by timers of full length.
    pub live: u64,
    /// Entries, with those that have expired.
    pub entries: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// A map has room while live flows take no more of it than this, and fills when entries do.
const ROOMY_PERCENT: u64 = 60;

impl Load {
    /// Whether there is room for others beside those that live and `more`.
    pub const fn is_roomy(&self, more: u64) -> bool {
        (self.live + more) * 100 < self.capacity * ROOMY_PERCENT
    }

    /// Whether entries that have expired should make room.
    pub const fn is_filling(&self) -> bool {
        self.entries * 100 >= self.capacity * ROOMY_PERCENT
    }

    fn fills(&self, percent: u64) -> bool {
        self.live * 100 >= self.capacity * percent
    }
}

/// Watches the maps from sweep to sweep.
#[derive(Debug, Default)]
pub struct Watch {
    advice: Option<String>,
    calm: u32,
    seen: Option<Shortage>,
    said: Option<Instant>,
    withheld: bool,
}

impl Watch {
    /// Takes note of a sweep, and returns what to log about it: something where the maps have
    /// become too small or large enough, once, and not more often than every ten minutes.
    pub fn note(
        &mut self,
        loads: &[Load],
        scales: Scales,
        evidence: Shortage,
        now: Instant,
    ) -> Option<String> {
        let before = self.seen.replace(evidence).unwrap_or(evidence);
        let want = want(loads, scales, before, evidence);
        let roomy = loads.iter().all(|load| !load.fills(AMPLE_PERCENT));
        let was_short = self.advice.is_some();
        if want.is_some() {
            self.advice = want;
            self.calm = 0;
        } else if roomy {
            self.calm += 1;
            if self.calm >= CALM {
                self.advice = None;
            }
        }

        match (&self.advice, was_short) {
            (Some(advice), false) => {
                self.withheld = self.said.is_some_and(|said| now - said < SILENCE);
                if self.withheld {
                    return None;
                }
                self.said = Some(now);
                Some(advice.clone())
            }
            (None, true) if !self.withheld => Some("the flow maps have room again".to_owned()),
            (Some(_), true) | (None, _) => None,
        }
    }

    /// What to do, while the maps are too small.
    pub fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }
}

fn want(loads: &[Load], scales: Scales, before: Shortage, now: Shortage) -> Option<String> {
    let fullest = loads
        .iter()
        .max_by_key(|load| load.live * 100 / load.capacity.max(1))?;
    let rescued = now.rescued_absent.saturating_sub(before.rescued_absent);
    let evicts = loads.iter().any(|load| {
        load.entries * 10 >= load.capacity * 9 && rescued * RESCUED_SHARE > load.capacity
    });
    let sign = if fullest.fills(SHORT_PERCENT) {
        format!(
            "{} of {} flows of {} over {}",
            fullest.live,
            fullest.capacity,
            fullest.protocol.label().to_uppercase(),
            family(fullest.family),
        )
    } else if now.insert_failed > before.insert_failed {
        "a flow map had no room for a flow".to_owned()
    } else if evicts {
        format!("a flow map is full, and {rescued} flows had to be rescued since the last sweep")
    } else {
        return None;
    };

    Some(format!("{sign}; {}", remedy(fullest, scales)))
}

fn remedy(fullest: &Load, scales: Scales) -> String {
    let scale = match fullest.protocol {
        Protocol::Tcp => scales.tcp,
        Protocol::Udp | Protocol::UdpLite | Protocol::Icmp | Protocol::Other => scales.udp,
    };
    match size(fullest, scale) {
        Some(size) => format!(
            "flows without a socket on this host may be forgotten, --max-flows {size} has room"
        ),
        None => "flows without a socket on this host may be forgotten, and the maps are as large \
                 as they get; shorter timers (--timeout) make room"
            .to_owned(),
    }
}

/// The capacity of which the flows would take three fifths with timers of full length; twice the
/// present one at least.
fn size(load: &Load, scale: Scale) -> Option<MaxFlows> {
    let whole = load.live * 100 / u64::from(scale.percent().max(1));
    let wanted = (whole * 5 / 3).next_power_of_two();

    MaxFlows::try_from(wanted.max(load.capacity * 2)).ok()
}

const fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
        Family::Other => "neither IPv4 nor IPv6",
    }
}

#[cfg(test)]
mod tests;
