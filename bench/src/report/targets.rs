//! What portguard is meant to reach. Every target is a ratio or a difference within one run.

use std::fmt;

use serde::Serialize;

use super::Results;
use crate::{
    bpf::Mode,
    clients::Direction,
    contender::Contender,
    rig::{Attack, Flooded},
    shape::Shape,
};

/// On which side of a figure the good ones are.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value is good.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }
}

/// A target, and what was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Mark {
    /// What is measured, and in what.
    pub name: String,
    /// What it should be.
    pub bound: Bound,
    /// What it is.
    pub value: f64,
    /// Whether that is enough.
    pub met: bool,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self.bound {
            Bound::AtMost(bound) => format!("<= {bound}"),
            Bound::AtLeast(bound) => format!(">= {bound}"),
        };
        let met = if self.met { "met" } else { "MISSED" };
        write!(f, "{:70} {bound:>8} {:9.2}  {met}", self.name, self.value)
    }
}

/// Every target of which this run has measured something.
pub fn marks(results: &Results) -> Vec<Mark> {
    let mut marks = Vec::new();
    for (name, bound, value) in test_run(results)
        .into_iter()
        .chain(floods(results))
        .chain(policies(results))
        .chain(scaling(results))
        .chain(clients(results))
        .chain(footprint(results))
    {
        if let Some(value) = value {
            marks.push(Mark {
                met: bound.holds(value),
                name,
                bound,
                value,
            });
        }
    }
    marks
}

type Target = (String, Bound, Option<f64>);

/// Outcomes by test-run, and how many nanoseconds they may take over a bare program.
const COSTS: [(&str, Shape, f64); 21] = [
    ("no_flow, UDP, idle port", Shape::Ipv4, 4.0),
    ("no_flow, UDP, idle port", Shape::Ipv6, 4.4),
    ("no_flow, UDP, idle port", Shape::Tagged, 4.1),
    ("no_flow, on a host that routes", Shape::Ipv4, 6.0),
    ("no_flow, on a host that routes", Shape::Ipv6, 6.0),
    ("no_flow, on a host that routes", Shape::Tagged, 6.0),
    ("no_flow, trusting others", Shape::Ipv4, 6.0),
    ("no_flow, trusting others", Shape::Ipv6, 6.0),
    ("no_flow, trusting others", Shape::Tagged, 6.0),
    ("no_flow, ten exposed ports", Shape::Ipv4, 6.0),
    ("no_flow, ten exposed ports", Shape::Ipv6, 6.0),
    ("no_flow, ten exposed ports", Shape::Tagged, 6.0),
    ("no_flow, monitor mode", Shape::Ipv4, 6.0),
    ("no_flow, monitor mode", Shape::Ipv6, 6.0),
    ("no_flow, monitor mode", Shape::Tagged, 6.0),
    ("no_flow, all of these at once", Shape::Ipv4, 8.0),
    ("no_flow, all of these at once", Shape::Ipv6, 8.0),
    ("no_flow, all of these at once", Shape::Tagged, 8.0),
    ("known_flow, UDP", Shape::Ipv4, 16.0),
    ("known_flow, UDP", Shape::Ipv6, 21.0),
    ("egress known_flow, UDP", Shape::Ipv4, 17.0),
];

/// Whether an outcome by test-run has a target.
pub fn has_target(name: &str, shape: Shape) -> bool {
    let mut costs = COSTS.iter();
    costs.any(|(outcome, of, _)| *outcome == name && *of == shape)
}

fn test_run(results: &Results) -> Vec<Target> {
    let cost = |name: &str, shape| {
        let mut costs = results.test_run.iter();
        let cost = costs.find(|cost| cost.name == name && cost.shape == shape)?;
        Some(cost.cost.low)
    };
    COSTS
        .into_iter()
        .map(|(name, shape, bound)| {
            (
                format!("{name}, {shape}: ns over a bare program"),
                Bound::AtMost(bound),
                cost(name, shape),
            )
        })
        .collect()
}

fn native(results: &Results, attack: Attack, contender: Contender) -> Option<&Flooded> {
    let mut readings = results.floods.iter();
    let reading = readings.find(|reading| {
        let flooded = &reading.flooded;
        reading.mode == Mode::Native
            && flooded.shape == Shape::Ipv4
            && flooded.attack == attack
            && flooded.contender == contender
    })?;
    Some(&reading.flooded)
}

fn floods(results: &Results) -> Vec<Target> {
    let of_limit = [
        (Attack::Spray, 0.95),
        (Attack::UsedUdp, 0.75),
        (Attack::UsedSyn, 0.75),
        (Attack::UsedAck, 0.75),
    ]
    .map(|(attack, bound)| {
        let reading = native(results, attack, Contender::Portguard);
        (
            format!("{attack}, 10,000 flows: of bare XDP_DROP"),
            Bound::AtLeast(bound),
            reading.map(|flooded| flooded.of_limit.value()),
        )
    });
    let guarded = native(results, Attack::Spray, Contender::Portguard);
    let of_peers = [
        (Contender::NftInput, 4.5),
        (Contender::NftPrerouting, 3.8),
        (Contender::NftIngress, 2.3),
        (Contender::IptablesInput, 4.5),
        (Contender::IptablesRaw, 2.6),
    ]
    .map(|(peer, bound)| {
        let met = guarded.zip(native(results, Attack::Spray, peer));
        (
            format!("{}: times as fast as {peer}", Attack::Spray),
            Bound::AtLeast(bound),
            met.map(|(guarded, peer)| guarded.of_limit.value() / peer.of_limit.value()),
        )
    });
    of_limit.into_iter().chain(of_peers).collect()
}

fn policies(results: &Results) -> Vec<Target> {
    [
        (Contender::PortguardForwarding, 0.88),
        (Contender::PortguardTrusting, 0.88),
        (Contender::PortguardExposing, 0.88),
        (Contender::PortguardAsking, 0.85),
        (Contender::PortguardMonitoring, 0.88),
    ]
    .into_iter()
    .flat_map(|(contender, bound)| {
        [Shape::Ipv4, Shape::Ipv6].map(|shape| {
            let mut readings = results.policies.iter();
            let reading = readings.find(|reading| {
                reading.flooded.contender == contender && reading.flooded.shape == shape
            });
            (
                format!(
                    "spray, {shape}, {contender}: of {}",
                    contender.limit_of_a_drop()
                ),
                Bound::AtLeast(bound),
                reading.map(|reading| reading.flooded.of_limit.value()),
            )
        })
    })
    .collect()
}

fn scaling(results: &Results) -> Vec<Target> {
    let Some(scaling) = &results.scaling else {
        return Vec::new();
    };
    let spray = |flows, few: bool| {
        let mut floods = scaling.floods.iter();
        floods.find(|scaled| {
            let is_few = scaled.ports <= 1_000;
            scaled.flows == flows && is_few == few && !scaled.at_ports_in_use
        })
    };
    let growth = spray(100_000, true).zip(spray(10, true));
    vec![
        (
            "spray, 1,000,000 flows on every port: of bare XDP_DROP".into(),
            Bound::AtLeast(0.75),
            spray(1_000_000, false).map(|scaled| scaled.of_limit.value()),
        ),
        (
            "spray, 100,000 flows on 1,000 ports: of the cost with 10".into(),
            Bound::AtMost(1.1),
            // A frame of either may have met another minute, so each is told by its own limit.
            growth.map(|(many, few)| few.of_limit.value() / many.of_limit.value()),
        ),
    ]
}

fn clients(results: &Results) -> Vec<Target> {
    let Some(clients) = &results.clients else {
        return Vec::new();
    };
    let connects = |contender| {
        let mut connects = clients.connects.iter();
        connects.find(|line| line.contender == contender)
    };
    let guarded = connects(Contender::Portguard);
    let bulk = |direction| {
        let mut bulk = clients.bulk.iter();
        bulk.find(|line| line.contender == Contender::Portguard && line.direction == direction)
    };
    let shared = clients.shared.iter();
    let kept = shared
        .clone()
        .find(|line| line.contender == Contender::Portguard);
    let best = shared
        .filter(|line| line.contender.is_peer())
        .map(|line| line.kept.value())
        .max_by(f64::total_cmp);
    vec![
        (
            "connect, ask, close: of bare XDP_PASS".into(),
            Bound::AtLeast(0.97),
            guarded.map(|line| line.of_limit.value()),
        ),
        (
            format!("connect, ask, close: of {}", Contender::NftInput),
            Bound::AtLeast(1.0),
            guarded
                .zip(connects(Contender::NftInput))
                .map(|(guarded, peer)| guarded.of_limit.value() / peer.of_limit.value()),
        ),
        (
            "bulk TCP received: of bare XDP_PASS".into(),
            Bound::AtLeast(0.98),
            bulk(Direction::Received).map(|line| line.of_limit.value()),
        ),
        (
            "bulk TCP sent: of bare XDP_PASS".into(),
            Bound::AtLeast(0.98),
            bulk(Direction::Sent).map(|line| line.of_limit.value()),
        ),
        (
            "client beside a flood: of its rate without one".into(),
            Bound::AtLeast(0.8),
            kept.map(|line| line.kept.value()),
        ),
        (
            "client beside a flood: of the best peer's".into(),
            Bound::AtLeast(1.0),
            kept.zip(best).map(|(line, best)| line.kept.value() / best),
        ),
    ]
}

fn footprint(results: &Results) -> Vec<Target> {
    let Some(footprint) = &results.footprint else {
        return Vec::new();
    };
    [
        (
            "kernel memory a flow, IPv4: bytes",
            88.0,
            footprint.bytes_a_flow_v4,
        ),
        (
            "resident memory of the daemon: MiB",
            12.0,
            footprint.resident,
        ),
        ("start to guarded: ms", 150.0, footprint.start.low),
        (
            "range change to enforced: ms",
            300.0,
            footprint.range.median,
        ),
    ]
    .map(|(name, bound, value)| (name.to_owned(), Bound::AtMost(bound), Some(value)))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_itself_good_enough() {
        assert!(Bound::AtMost(6.0).holds(6.0));
        assert!(!Bound::AtMost(6.0).holds(6.1));
        assert!(Bound::AtLeast(0.95).holds(0.95));
        assert!(!Bound::AtLeast(0.95).holds(0.9));
        assert!(!Bound::AtLeast(0.95).holds(f64::NAN));
    }

    #[test]
    fn what_was_not_measured_is_not_decided() {
        assert!(marks(&Results::new()).is_empty());
    }
}
