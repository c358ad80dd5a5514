//! The results as the documents show them, in Markdown.

use std::fmt::Write;

use super::Results;
use crate::{
    bpf::Mode, clients::Direction, contender::Contender, rig::Attack, shape::Shape, test_run::Cost,
};

/// Every contender, in the order of the table.
const CONTENDERS: [Contender; 10] = [
    Contender::BareDrop,
    Contender::BarePass,
    Contender::BareUdpDrop,
    Contender::Portguard,
    Contender::NftInput,
    Contender::NftPrerouting,
    Contender::NftIngress,
    Contender::IptablesInput,
    Contender::IptablesRaw,
    Contender::XdpFilter,
];

/// Outcomes that most frames meet.
const COSTS: [&str; 13] = [
    "no_flow, UDP, idle port",
    "no_flow, on a host that routes",
    "no_flow, trusting others",
    "no_flow, ten exposed ports",
    "no_flow, monitor mode",
    "no_flow, all of these at once",
    "no_flow, UDP, port in use",
    "no_flow, SYN, port in use",
    "known_flow, UDP",
    "known_flow, TCP",
    "outside_range",
    "egress known_flow, TCP",
    "egress new_flow, SYN",
];

/// Those that the introduction shows: the limits, portguard, and the fastest peers of each kind.
const FOREMOST: [Contender; 7] = [
    Contender::BareDrop,
    Contender::BareUdpDrop,
    Contender::Portguard,
    Contender::NftPrerouting,
    Contender::NftIngress,
    Contender::IptablesRaw,
    Contender::XdpFilter,
];

/// Columns of the table of contenders.
#[derive(Clone, Copy)]
enum Column {
    Flood(Attack),
    Connections,
    Bulk(Direction),
    Shared,
}

impl Column {
    const ALL: [Self; 7] = [
        Self::Flood(Attack::Spray),
        Self::Flood(Attack::UsedUdp),
        Self::Flood(Attack::UsedSyn),
        Self::Connections,
        Self::Bulk(Direction::Sent),
        Self::Bulk(Direction::Received),
        Self::Shared,
    ];

    /// Those that the introduction shows.
    const FOREMOST: [Self; 4] = [
        Self::Flood(Attack::Spray),
        Self::Flood(Attack::UsedUdp),
        Self::Connections,
        Self::Shared,
    ];

    const fn heading(self) -> &'static str {
        match self {
            Self::Flood(Attack::UsedUdp) => "UDP at ports in use",
            Self::Flood(Attack::UsedSyn) => "SYN at ports in use",
            Self::Flood(_) => "spray",
            Self::Connections => "connections a second",
            Self::Bulk(Direction::Sent) => "bulk sent",
            Self::Bulk(Direction::Received) => "bulk received",
            Self::Shared => "client beside a flood",
        }
    }

    /// What was measured of a contender, if it was.
    fn cell(self, results: &Results, contender: Contender) -> Option<String> {
        let clients = results.clients.as_ref();
        match self {
            Self::Flood(attack) => {
                let mut readings = results.floods.iter();
                let reading = readings.find(|reading| {
                    let flooded = &reading.flooded;
                    reading.mode == Mode::Native
                        && flooded.shape == Shape::Ipv4
                        && flooded.attack == attack
                        && flooded.contender == contender
                })?;
                Some(format!("{:.2} M/s", reading.flooded.rate() / 1e6))
            }
            Self::Connections => {
                let mut lines = clients?.connects.iter();
                let line = lines.find(|line| line.contender == contender)?;
                Some(format!("{:.0}", 1e9 / line.cost.low))
            }
            Self::Bulk(direction) => {
                let mut lines = clients?.bulk.iter();
                let line = lines
                    .find(|line| line.contender == contender && line.direction == direction)?;
                Some(format!("{:.1} Gbit/s", 8.0 / line.cost.low))
            }
            Self::Shared => {
                let mut lines = clients?.shared.iter();
                let line = lines.find(|line| line.contender == contender)?;
                Some(format!("{:.0} %", line.kept.value() * 100.0))
            }
        }
    }
}

/// Every table.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    contenders(results, &CONTENDERS, &Column::ALL, &mut text);
    costs(results, &mut text);
    policies(results, &mut text);
    scaling(results, &mut text);
    text
}

/// The table of the introduction.
pub fn summary(results: &Results) -> String {
    let mut text = String::new();
    contenders(results, &FOREMOST, &Column::FOREMOST, &mut text);
    text
}

fn contenders(results: &Results, contenders: &[Contender], columns: &[Column], text: &mut String) {
    let headings: Vec<_> = columns.iter().map(|column| column.heading()).collect();
    line(text, &format!("| met by | {} |", headings.join(" | ")));
    line(text, &format!("|---|{}", "---|".repeat(columns.len())));
    for &contender in contenders {
        let cells = columns.iter().map(|column| column.cell(results, contender));
        let cells: Vec<_> = cells.collect();
        if cells.iter().any(Option::is_some) {
            let cells: Vec<_> = cells.into_iter().map(Option::unwrap_or_default).collect();
            line(text, &format!("| {contender} | {} |", cells.join(" | ")));
        }
    }
}

fn costs(results: &Results, text: &mut String) {
    line(
        text,
        "\n| ns over a program that does nothing | IPv4 | IPv6 | tagged |\n|---|---|---|---|",
    );
    for name in COSTS {
        let cost = |shape| {
            let mut costs = results.test_run.iter();
            costs.find(|cost: &&Cost| cost.name == name && cost.shape == shape)
        };
        let cells = Shape::ALL.map(|shape| {
            cost(shape).map_or_else(String::new, |cost| format!("{:.0}", cost.cost.low))
        });
        if cells.iter().any(|cell| !cell.is_empty()) {
            line(text, &format!("| {name} | {} |", cells.join(" | ")));
        }
    }
}

/// What is asked before a drop costs a spray.
fn policies(results: &Results, text: &mut String) {
    let part = |contender, shape| {
        let mut readings = results.policies.iter().map(|reading| &reading.flooded);
        readings.find(|flooded| flooded.contender == contender && flooded.shape == shape)
    };
    let mut heading = true;
    for flooded in results.policies.iter().map(|reading| &reading.flooded) {
        let contender = flooded.contender;
        if flooded.shape != Shape::Ipv4 || !contender.is_portguard() {
            continue;
        }
        if heading {
            line(
                text,
                "\n| spray at a host without flows | of | IPv4 | IPv6 |\n|---|---|---|---|",
            );
            heading = false;
        }
        let cells = [Shape::Ipv4, Shape::Ipv6].map(|shape| {
            part(contender, shape).map_or_else(String::new, |flooded| {
                format!("{:.2}", flooded.of_limit.value())
            })
        });
        let limit = contender.limit_of_a_drop();
        line(
            text,
            &format!("| {contender} | {limit} | {} |", cells.join(" | ")),
        );
    }
}

/// What many flows cost a spray.
fn scaling(results: &Results, text: &mut String) {
    let Some(scaling) = &results.scaling else {
        return;
    };
    line(
        text,
        "\n| spray | live flows | on ports | of a bare XDP_DROP |\n|---|---|---|---|",
    );
    for scaled in &scaling.floods {
        let aim = if scaled.at_ports_in_use {
            "at these ports"
        } else {
            "at the whole range"
        };
        let (flows, ports, part) = (scaled.flows, scaled.ports, scaled.of_limit.value());
        line(text, &format!("| {aim} | {flows} | {ports} | {part:.2} |"));
    }
}

fn line(text: &mut String, line: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{line}");
}
