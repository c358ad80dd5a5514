//! The results as the README shows them, in Markdown.

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
const COSTS: [&str; 8] = [
    "no_flow, UDP, idle port",
    "no_flow, UDP, port in use",
    "no_flow, SYN, port in use",
    "known_flow, UDP",
    "known_flow, TCP",
    "outside_range",
    "egress known_flow, TCP",
    "egress new_flow, SYN",
];

/// Both tables.
pub fn markdown(results: &Results) -> String {
    let mut text = String::new();
    contenders(results, &mut text);
    costs(results, &mut text);
    text
}

fn contenders(results: &Results, text: &mut String) {
    line(
        text,
        "| met by | spray | UDP at ports in use | SYN at ports in use | connections a second | \
         bulk sent | bulk received | client beside a flood |\n\
         |---|---|---|---|---|---|---|---|",
    );
    for contender in CONTENDERS {
        let flood = |attack| {
            let mut readings = results.floods.iter();
            let reading = readings.find(|reading| {
                let flooded = &reading.flooded;
                reading.mode == Mode::Native
                    && flooded.shape == Shape::Ipv4
                    && flooded.attack == attack
                    && flooded.contender == contender
            })?;
            Some(format!("{:.2} M/s", reading.flooded.rate() / 1e6))
        };
        let clients = results.clients.as_ref();
        let connects = clients.and_then(|clients| {
            let mut lines = clients.connects.iter();
            let line = lines.find(|line| line.contender == contender)?;
            Some(format!("{:.0}", 1e9 / line.cost.low))
        });
        let bulk = |direction| {
            let mut lines = clients?.bulk.iter();
            let line =
                lines.find(|line| line.contender == contender && line.direction == direction)?;
            Some(format!("{:.1} Gbit/s", 8.0 / line.cost.low))
        };
        let shared = clients.and_then(|clients| {
            let mut lines = clients.shared.iter();
            let line = lines.find(|line| line.contender == contender)?;
            Some(format!("{:.0} %", line.kept.value() * 100.0))
        });
        let cells = [
            flood(Attack::Spray),
            flood(Attack::UsedUdp),
            flood(Attack::UsedSyn),
            connects,
            bulk(Direction::Sent),
            bulk(Direction::Received),
            shared,
        ];
        if cells.iter().any(Option::is_some) {
            let cells = cells.map(Option::unwrap_or_default);
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

fn line(text: &mut String, line: &str) {
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{line}");
}
