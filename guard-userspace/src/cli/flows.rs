//! `portguard flows`: the flows that a running guard knows, all of them or those that are asked for.

use std::{fmt, io::Write, net::IpAddr, path::Path, str::FromStr};

use clap::{Args, ValueEnum};
use guard_common::flow::timer::Timer;
use ipnet::IpNet;

use crate::{
    api::control::{Client, FlowJson, Question},
    base::failure::Failure,
    cli::{
        output::{copy, print},
        table::{Column, Table},
    },
    host::range::{PortRange, parse_port},
};

/// Which flows are shown, and how.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct FlowsView {
    /// Those of this protocol; repeatable
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Vec<FlowProtocol>,

    /// Those with such a local port
    #[arg(long, value_name = "PORT[-PORT]")]
    pub port: Option<Ports>,

    /// Those with a peer of this network
    #[arg(long, value_name = "ADDRESS|PREFIX")]
    pub remote: Option<Network>,

    /// Those whose timer is this one; repeatable
    #[arg(long, value_name = "TIMER", value_parser = timer)]
    pub state: Vec<Timer>,

    /// Put them in this order, and not in that of the maps
    #[arg(long, value_name = "BY")]
    pub sort: Option<Order>,

    /// Show so many at most, after they were put in order
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// A protocol that flows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlowProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    Udplite,
}

impl FlowProtocol {
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Udplite => "udplite",
        }
    }
}

/// What flows are put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The local address and port.
    Local,
    /// The peer's address and port.
    Remote,
    /// The time since the last packet, shortest first.
    Idle,
}

/// One port, or a range of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports(PortRange);

impl FromStr for Ports {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if text.contains('-') {
            return text.parse().map(Self);
        }
        let port = parse_port(text)?;

        PortRange::new(port, port).map(Self)
    }
}

/// One address, or a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let address = text.parse::<IpAddr>().map(IpNet::from);

        address.or_else(|_| text.parse()).map(Self).map_err(|_| {
            anyhow::anyhow!(
                "{text:?} is no address and no prefix; write 192.0.2.7 or 2001:db8::/32"
            )
        })
    }
}

/// The timer with this name.
fn timer(text: &str) -> Result<Timer, String> {
    let found = Timer::ALL.iter().find(|timer| timer.name() == text);

    found.copied().ok_or_else(|| {
        let names: Vec<_> = Timer::ALL.iter().map(|timer| timer.name()).collect();
        format!("{text:?} is no timer; they are {}", names.join(", "))
    })
}

impl FlowsView {
    /// The flows that are asked for, in the order that is.
    fn of(&self, mut flows: Vec<FlowJson>) -> Vec<FlowJson> {
        flows.retain(|flow| self.shows(flow));
        match self.sort {
            Some(Order::Local) => flows.sort_by_key(|flow| flow.local),
            Some(Order::Remote) => flows.sort_by_key(|flow| flow.remote),
            Some(Order::Idle) => flows.sort_by_key(|flow| flow.idle_ms),
            None => {}
        }
        if let Some(limit) = self.limit {
            flows.truncate(limit);
        }

        flows
    }

    fn shows(&self, flow: &FlowJson) -> bool {
        let protocol = |wanted: &FlowProtocol| wanted.name() == flow.protocol;

        (self.protocol.is_empty() || self.protocol.iter().any(protocol))
            && self
                .port
                .is_none_or(|ports| ports.0.contains(flow.local.port()))
            && self
                .remote
                .is_none_or(|network| network.0.contains(&flow.remote.ip()))
            && (self.state.is_empty() || self.state.iter().any(|timer| timer.name() == flow.state))
    }
}

/// Prints those flows that the guard on `socket` knows and `view` asks for. Blocks: call it outside a
/// runtime.
///
/// # Errors
/// Exit code 69 when nobody answers, 77 when a privilege is missing, else 1.
pub fn run(socket: &Path, json: bool, view: &FlowsView) -> Result<(), Failure> {
    let client = Client::new(socket);
    if json && *view == FlowsView::default() {
        // A million flows go by without being in memory.
        return copy(&client, Question::Flows);
    }

    let flows = view.of(client.flows()?);
    print(|out| {
        if json {
            serde_json::to_writer(&mut *out, &flows)?;
            writeln!(out)
        } else {
            write!(out, "{}", FlowsText(&flows))
        }
    })
}

/// Prints a daemon's answer into nothing.
#[cfg(any(test, fuzzing))]
pub(crate) fn print_answer(answer: &[u8]) {
    if let Ok(flows) = serde_json::from_slice::<Vec<FlowJson>>(answer) {
        let _ = FlowsText(&flows).to_string();
    }
}

struct FlowsText<'a>(&'a [FlowJson]);

impl fmt::Display for FlowsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = Table {
            columns: [
                Column::Left("PROTOCOL"),
                Column::Left("LOCAL"),
                Column::Left("REMOTE"),
                Column::Left("STATE"),
                Column::Right("IDLE"),
            ],
            rows: self.0.iter().map(flow_cells),
        };

        write!(f, "{table}")
    }
}

fn flow_cells(flow: &FlowJson) -> [String; 5] {
    let remote = if flow.remote.port() == 0 && flow.remote.ip().is_unspecified() {
        "any".to_owned()
    } else {
        flow.remote.to_string()
    };

    [
        flow.protocol.to_string(),
        flow.local.to_string(),
        remote,
        flow.state.to_string(),
        format!("{} s", flow.idle_ms / 1000),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::api::{
        control,
        http::test_guard::{Fake, flow},
    };

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        view: FlowsView,
    }

    fn view(line: &str) -> Result<FlowsView, clap::Error> {
        let words = ["flows"].into_iter().chain(line.split_whitespace());

        Words::try_parse_from(words).map(|words| words.view)
    }

    #[test]
    fn snapshot_of_flows() {
        let flows: Vec<_> = [0, 12_001].map(|index| FlowJson::from(&flow(index))).into();

        assert_eq!(
            FlowsText(&flows).to_string(),
            "\
PROTOCOL  LOCAL                REMOTE            STATE            IDLE
tcp       192.0.2.1:40000      198.51.100.7:443  tcp-established   0 s
udp       [2001:db8::1]:40001  any               multicast        12 s
"
        );
    }

    #[test]
    fn those_that_are_asked_for_are_shown() {
        // The even ones are TCP, 192.0.2.1:40000 to 198.51.100.7:443, the others UDP, to anybody.
        let flows: Vec<_> = (0..6).map(|index| FlowJson::from(&flow(index))).collect();
        let table: [(&str, &[u64]); 14] = [
            ("", &[0, 1, 2, 3, 4, 5]),
            ("--protocol tcp", &[0, 2, 4]),
            ("--protocol udp --protocol tcp", &[0, 1, 2, 3, 4, 5]),
            ("--protocol udplite", &[]),
            ("--port 40000", &[0, 2, 4]),
            ("--port 40001-40009", &[1, 3, 5]),
            ("--remote 198.51.100.7", &[0, 2, 4]),
            ("--remote 198.51.100.0/24", &[0, 2, 4]),
            ("--remote 198.51.100.8", &[]),
            ("--remote ::/0", &[1, 3, 5]),
            ("--state multicast", &[1, 3, 5]),
            ("--sort local", &[0, 2, 4, 1, 3, 5]),
            ("--sort idle --limit 2", &[0, 1]),
            ("--limit 0", &[]),
        ];
        for (line, due) in table {
            let shown = view(line).expect(line).of(flows.clone());
            let shown: Vec<_> = shown.iter().map(|flow| flow.idle_ms).collect();
            assert_eq!(shown, due, "{line}");
        }
        for line in [
            "--port 0",
            "--port 9-1",
            "--remote x",
            "--state up",
            "--sort size",
            "--limit x",
        ] {
            assert!(view(line).is_err(), "{line}");
        }
    }

    #[test]
    fn prints_what_a_daemon_says() {
        let server = control::tests::Server::start(Fake {
            flows: Some(3),
            ..Fake::default()
        });
        for json in [false, true] {
            for line in ["", "--limit 2"] {
                let view = view(line).expect(line);
                run(&server.socket, json, &view).expect("answers");
            }
        }
    }
}
