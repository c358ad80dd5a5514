//! How long a flow of each kind stays known without a packet.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use guard_common::flow::adaptive::Adaptive;
use serde::{Deserialize, Deserializer, Serialize};

/// The kinds of flows that have a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeoutName {
    /// TCP, SYN sent and not answered
    TcpSyn,
    /// TCP, established
    TcpEstablished,
    /// TCP, reset or closed by both sides
    TcpTransitory,
    /// UDP and UDP-Lite
    Udp,
    /// UDP to port 53
    UdpDns,
    /// UDP sent to a multicast or broadcast address
    Multicast,
}

impl fmt::Display for TimeoutName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.pad(value.get_name()),
            None => Err(fmt::Error),
        }
    }
}

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
    pub name: TimeoutName,
    /// Its length.
    pub seconds: Seconds,
}

impl FromStr for Timeout {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let Some((name, seconds)) = text.split_once('=') else {
            bail!("{text:?} is no timeout; write NAME=SECONDS, as in udp=300");
        };
        let Ok(name) = TimeoutName::from_str(name, false) else {
            let names: Vec<_> = TimeoutName::value_variants()
                .iter()
                .map(ToString::to_string)
                .collect();
            bail!("{name:?} is no timeout; the names are {}", names.join(", "));
        };
        let seconds: i64 = seconds
            .parse()
            .with_context(|| format!("{seconds:?} is no number of seconds; write digits alone"))?;

        Ok(Self {
            name,
            seconds: seconds.try_into()?,
        })
    }
}

/// Reads the file's `[timeout]` table as the list the command line makes.
pub(super) fn from_table<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Timeout>, D::Error> {
    let table = BTreeMap::<TimeoutName, Seconds>::deserialize(deserializer)?;

    Ok(table
        .into_iter()
        .map(|(name, seconds)| Timeout { name, seconds })
        .collect())
}

/// Every timer, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimeoutSettings {
    /// TCP, SYN sent and not answered.
    pub tcp_syn: u32,
    /// TCP, established.
    pub tcp_established: u32,
    /// TCP, reset or closed by both sides.
    pub tcp_transitory: u32,
    /// UDP and UDP-Lite.
    pub udp: u32,
    /// UDP to port 53.
    pub udp_dns: u32,
    /// UDP sent to a multicast or broadcast address.
    pub multicast: u32,
}

impl TimeoutSettings {
    /// Sets one timer.
    pub fn set(&mut self, timeout: Timeout) {
        let timer = match timeout.name {
            TimeoutName::TcpSyn => &mut self.tcp_syn,
            TimeoutName::TcpEstablished => &mut self.tcp_established,
            TimeoutName::TcpTransitory => &mut self.tcp_transitory,
            TimeoutName::Udp => &mut self.udp,
            TimeoutName::UdpDns => &mut self.udp_dns,
            TimeoutName::Multicast => &mut self.multicast,
        };
        *timer = timeout.seconds.get();
    }
}

impl Default for TimeoutSettings {
    /// At least what RFC 5382 (REQ-5) and RFC 4787 (REQ-5) ask of a NAT.
    fn default() -> Self {
        Self {
            tcp_syn: 240,
            tcp_established: 7_440,
            tcp_transitory: 240,
            udp: 300,
            udp_dns: 60,
            multicast: 30,
        }
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
                    assert_eq!(timeout.name.to_string(), name, "{text}");
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
