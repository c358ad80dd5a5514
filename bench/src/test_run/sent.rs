//! What sent frames cost.

use guard_common::outcome::Outcome::{PassNewFlow, PassNotRecorded, PassRefreshedFlow};
use guard_tests::frames::{MDNS, icmp, tcp, udp};

use super::row::{FLOW_PORT, Refill, Row, Variety, row};

/// Flows that take turns where each must be new or expired.
const FLOWS: u32 = 256;

pub fn rows() -> Vec<Row> {
    vec![
        row("not_recorded, service", PassNotRecorded, tcp(443, 50_000)),
        row(
            "not_recorded, ICMP",
            PassNotRecorded,
            icmp([8, 128], [0, 7, 0, 1]),
        ),
        row("egress known_flow, UDP", PassRefreshedFlow, udp(40_000, 53))
            .after_sending(udp(40_000, 53)),
        row(
            "egress known_flow, TCP",
            PassRefreshedFlow,
            tcp(40_000, 443),
        )
        .after_sending(tcp(40_000, 443)),
        row(
            "egress known_flow, query to a group",
            PassRefreshedFlow,
            udp(40_000, 5353).to(MDNS),
        )
        .after_sending(udp(40_000, 5353).to(MDNS)),
        row(
            "egress known_flow, UDP, 10,000 flows",
            PassRefreshedFlow,
            udp(FLOW_PORT, 53),
        )
        .after_sending(udp(FLOW_PORT, 53))
        .varied(Variety::Flows(10_000), Refill::Never),
        row("egress new_flow, UDP", PassNewFlow, udp(FLOW_PORT, 53))
            .varied(Variety::Flows(FLOWS), Refill::Forget),
        row(
            "egress new_flow, SYN",
            PassNewFlow,
            tcp(FLOW_PORT, 443).syn(),
        )
        .varied(Variety::Flows(FLOWS), Refill::Forget),
        row(
            "egress new_flow, UDP, map full",
            PassNewFlow,
            udp(FLOW_PORT, 53),
        )
        .varied(Variety::Flows(1 << 24), Refill::Never),
        row(
            "egress new_flow, UDP, expired",
            PassNewFlow,
            udp(FLOW_PORT, 53),
        )
        .after_sending(udp(FLOW_PORT, 53))
        .varied(Variety::Flows(FLOWS), Refill::Expire),
    ]
}
