//! How long a flow of each kind stays known without a packet.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, bail, ensure};
use guard_common::flow::{adaptive::Adaptive, timer::Timer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// How long a flow stays known, in seconds: 1 to 604,800, which is a week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64")]
pub struct Seconds(u32);

impl Seconds {
    const MOST: u32 = 604_800;

    /// The number of seconds.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<i64> for Seconds {
    type Error = anyhow::Error;

    fn try_from(seconds: i64) -> anyhow::Result<Self> {
        let bounds = || {
            format!(
                "{seconds} seconds are out of bounds; write 1 to {}",
                Self::MOST
            )
        };
        let seconds = u32::try_from(seconds).with_context(bounds)?;
        ensure!((1..=Self::MOST).contains(&seconds), bounds());

        Ok(Self(seconds))
    }
}

/// One timer as given on the command line: `NAME=SECONDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Which timer.
    pub timer: Timer,
    /// Its length.
    pub seconds: Seconds,
}

impl FromStr for Timeout {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((name, seconds)) = text.split_once('=') else {
            bail!("{text:?} is no timeout; write NAME=SECONDS, as in udp=300");
        };
        let Some(timer) = called(name) else {
            let names = Timer::NAMES.join(", ");
            bail!("{name:?} is no timeout; the names are {names}");
        };
        let seconds: i64 = seconds
            .parse()
            .with_context(|| format!("{seconds:?} is no number of seconds; write digits alone"))?;

        Ok(Self {
            timer,
            seconds: seconds.try_into()?,
        })
    }
}

fn called(name: &str) -> Option<Timer> {
    Timer::ALL
        .iter()
        .find(|timer| timer.name() == name)
        .copied()
}

/// The name of a timer as a key of the file's `[timeout]` table.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key(Timer);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;

        called(&name)
            .map(Self)
            .ok_or_else(|| D::Error::unknown_variant(&name, Timer::NAMES))
    }
}

/// Reads the file's `[timeout]` table as the list the command line makes.
pub(super) fn from_table<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Timeout>, D::Error> {
    let table = BTreeMap::<Key, Seconds>::deserialize(deserializer)?;

    Ok(table
        .into_iter()
        .map(|(Key(timer), seconds)| Timeout { timer, seconds })
        .collect())
}

/// Every timer, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutSettings([u32; Timer::ALL.len()]);

impl TimeoutSettings {
    /// The length of one timer.
    pub fn of(&self, timer: Timer) -> u32 {
        self.0[timer as usize]
    }

    /// These, but for one timer.
    pub(super) fn with(mut self, timeout: Timeout) -> Self {
        self.0[timeout.timer as usize] = timeout.seconds.get();

        self
    }
}

impl Default for TimeoutSettings {
    fn default() -> Self {
        Self(std::array::from_fn(|timer| {
            Timer::ALL[timer].default_seconds()
        }))
    }
}

impl Serialize for TimeoutSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timers = Timer::ALL.iter();

        serializer.collect_map(timers.map(|&timer| (timer.name(), self.of(timer))))
    }
}

/// How full the flow maps are when timers begin to shrink, and when nothing would be left of
/// them: `START-END` in percent, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AdaptiveTimeouts(pub Option<Adaptive>);

impl AdaptiveTimeouts {
    const OFF: &str = "off";
}

impl Default for AdaptiveTimeouts {
    fn default() -> Self {
        Self(Some(Adaptive::default()))
    }
}

impl FromStr for AdaptiveTimeouts {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let remedy = "write START-END in percent, as in 60-120, or off";
        if text == Self::OFF {
            return Ok(Self(None));
        }
        let (start, end) = text
            .split_once('-')
            .with_context(|| format!("{text:?} are no two bounds; {remedy}"))?;
        let bound = |text: &str| -> anyhow::Result<u32> {
            text.parse()
                .with_context(|| format!("{text:?} is no percentage; {remedy}"))
        };
        let (start, end) = (bound(start)?, bound(end)?);
        ensure!(
            (1..=99).contains(&start),
            "timers begin to shrink at {start} %; write 1 to 99"
        );
        // A full map must leave timers something.
        ensure!(
            (101..=1000).contains(&end),
            "nothing is left of timers at {end} %; write 101 to 1000"
        );

        Ok(Self(Some(Adaptive { start, end })))
    }
}

impl fmt::Display for AdaptiveTimeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(Adaptive { start, end }) => write!(f, "{start}-{end}"),
            None => f.write_str(Self::OFF),
        }
    }
}

impl TryFrom<String> for AdaptiveTimeouts {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<Self> {
        text.parse()
    }
}

impl From<AdaptiveTimeouts> for String {
    fn from(adaptive: AdaptiveTimeouts) -> Self {
        adaptive.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_flags() {
        // text                            name and seconds, or a part of the error
        let table = [
            ("udp=1", Ok(("udp", 1))),
            ("tcp-established=604800", Ok(("tcp-established", 604_800))),
            ("udp", Err("write NAME=SECONDS")),
            (
                "tcp=5",
                Err("tcp-syn, tcp-established, tcp-transitory, udp, udp-dns, multicast"),
            ),
            ("UDP=5", Err("is no timeout")),
            ("udp=0", Err("write 1 to 604800")),
            ("udp=-1", Err("write 1 to 604800")),
            ("udp=604801", Err("write 1 to 604800")),
            ("udp=99999999999", Err("write 1 to 604800")),
            ("udp=5m", Err("write digits alone")),
            ("udp=", Err("write digits alone")),
        ];
        for (text, expected) in table {
            match (text.parse::<Timeout>(), expected) {
                (Ok(timeout), Ok((name, seconds))) => {
                    assert_eq!(timeout.timer.name(), name, "{text}");
                    assert_eq!(timeout.seconds.get(), seconds, "{text}");
                }
                (Err(error), Err(part)) => {
                    assert!(format!("{error:#}").contains(part), "{text}: {error:#}");
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn adaptive_bounds() {
        // text        how it reads back, or a part of the error
        let table = [
            ("60-120", Ok("60-120")),
            ("1-1000", Ok("1-1000")),
            ("off", Ok("off")),
            ("60", Err("write START-END in percent")),
            ("on", Err("or off")),
            ("0-120", Err("write 1 to 99")),
            ("100-120", Err("write 1 to 99")),
            ("60-100", Err("write 101 to 1000")),
            ("60-1001", Err("write 101 to 1000")),
            ("60-120%", Err("\"120%\" is no percentage")),
            ("-60-120", Err("is no percentage")),
        ];
        for (text, expected) in table {
            match (text.parse::<AdaptiveTimeouts>(), expected) {
                (Ok(bounds), Ok(shown)) => assert_eq!(bounds.to_string(), shown, "{text}"),
                (Err(error), Err(part)) => {
                    assert!(format!("{error:#}").contains(part), "{text}: {error:#}");
                }
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
