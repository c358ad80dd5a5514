//! The answers as JSON.

use std::{borrow::Cow, collections::BTreeMap, net::SocketAddr, vec};

use axum::body::Bytes;
use guard_common::outcome::{Direction, Outcome};
use serde::{Deserialize, Serialize};

use crate::{
    api::snapshot::{BlockedListener, Snapshot},
    bpf::maps::FlowRow,
    config::{Exposed, Mode},
    guard::{alarms, attachment::Attachment},
    host::range::PortRange,
};

/// Raised when a field changes its meaning or goes; new fields do not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// The answer to `/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusJson {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Whether would-be drops pass.
    pub mode: Mode,
    /// The guarded range.
    pub range: PortsJson,
    /// Ports of it that the kernel reserves, such as `40000-40010` or `40000`.
    pub reserved: Vec<String>,
    /// Ports that unsolicited packets may reach, such as `2222/tcp`.
    pub exposed: Vec<String>,
    /// Networks whose hosts reach every port, such as `10.0.0.0/8`.
    #[serde(default)]
    pub trust: Vec<String>,
    /// Sockets that unsolicited packets do not reach.
    pub listeners: Vec<ListenerJson>,
    /// Guarded and recorded interfaces.
    pub interfaces: Vec<InterfaceJson>,
    /// The four flow maps together.
    pub flows: FlowTotalsJson,
    /// What to do about flow maps that are too small, or nothing while they are not.
    #[serde(default)]
    pub advice: Option<String>,
    /// Why metrics are not served, or nothing while they are.
    #[serde(default)]
    pub metrics_missing: Option<String>,
    /// Sweeps over flows and sockets that have failed since the start.
    #[serde(default)]
    pub failed_sweeps: u64,
    /// What is wrong at this moment.
    #[serde(default)]
    pub alarms: Vec<AlarmJson>,
    /// Received frames by reason, every reason.
    pub packets: BTreeMap<Cow<'static, str>, u64>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmJson {
    /// The interface, or nothing where it is about the guard as a whole.
    pub device: Option<String>,
    /// What it is about, such as `unseen_sent`.
    pub kind: Cow<'static, str>,
    /// What is wrong, and what to do.
    pub text: String,
}

/// Two ports and what lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsJson {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// A socket that listens on a guarded port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerJson {
    /// `tcp`, `udp` or `udplite`.
    pub protocol: Cow<'static, str>,
    /// The local port.
    pub port: u16,
    /// The owner's name, where it could be found.
    pub process: Option<String>,
    /// The owner's process id.
    pub pid: Option<u32>,
    /// What helps, where exposing the port does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How the guard sits on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceJson {
    /// The interface.
    pub name: String,
    /// Whether unsolicited packets are to be dropped here, or what is sent is only to be recorded.
    #[serde(default = "yes")]
    pub guarded: bool,
    /// `native`, `generic`, or nothing where no XDP program is attached.
    pub xdp_mode: Option<Cow<'static, str>>,
    /// `tcx`, `clsact`, or nothing where what is sent is not recorded.
    pub egress: Option<Cow<'static, str>>,
    /// Whether the XDP program was shown to see what is received: `seen`, `no_traffic`, `unseen`, or
    /// `elsewhere` where only packets pass that are none of its business.
    #[serde(default)]
    pub received: Cow<'static, str>,
    /// Whether the egress program was shown to see what is sent.
    #[serde(default)]
    pub sent: Cow<'static, str>,
    /// Programs and filters of others that see what is sent before it is recorded.
    #[serde(default)]
    pub in_front: Vec<String>,
    /// Those that see it afterwards.
    #[serde(default)]
    pub behind: Vec<String>,
}

/// An older daemon does not say.
const fn yes() -> bool {
    true
}

/// How full the flow maps are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTotalsJson {
    /// Flows that have not expired.
    pub entries: u64,
    /// Flows there is room for.
    pub capacity: u64,
}

impl From<&Snapshot> for StatusJson {
    fn from(observation: &Snapshot) -> Self {
        let ingress = |outcome: &&Outcome| outcome.direction() == Direction::Ingress;
        let mut packets: BTreeMap<_, _> = Outcome::ALL
            .iter()
            .filter(ingress)
            .map(|outcome| (Cow::Borrowed(outcome.reason()), 0))
            .collect();
        for count in &observation.frames {
            let outcome = count.decision.outcome;
            if ingress(&&outcome) {
                let sum: &mut u64 = packets.entry(outcome.reason().into()).or_default();
                *sum = sum.saturating_add(count.frames);
            }
        }

        Self {
            schema_version: SCHEMA_VERSION,
            mode: observation.mode,
            range: observation.range.into(),
            reserved: observation.reserved.iter().copied().map(ports).collect(),
            exposed: observation.exposed.iter().map(Exposed::to_string).collect(),
            trust: observation
                .trusted
                .iter()
                .map(ToString::to_string)
                .collect(),
            listeners: observation.listeners.iter().map(Into::into).collect(),
            interfaces: observation.interfaces.iter().map(Into::into).collect(),
            flows: FlowTotalsJson {
                entries: observation.flows.iter().map(|map| map.live).sum(),
                capacity: observation.flows.iter().map(|map| map.capacity).sum(),
            },
            advice: observation.advice.clone(),
            metrics_missing: observation.metrics_missing.clone(),
            failed_sweeps: observation.failed_sweeps,
            alarms: observation.alarms.iter().map(Into::into).collect(),
            packets,
        }
    }
}

impl From<&alarms::Alarm> for AlarmJson {
    fn from(alarm: &alarms::Alarm) -> Self {
        Self {
            device: Some(alarm.device.clone()).filter(|device| !device.is_empty()),
            kind: alarm.kind.label().into(),
            text: alarm.text.clone(),
        }
    }
}

impl From<PortRange> for PortsJson {
    fn from(range: PortRange) -> Self {
        Self {
            first: range.first(),
            last: range.last(),
        }
    }
}

impl From<&BlockedListener> for ListenerJson {
    fn from(listener: &BlockedListener) -> Self {
        let (process, pid) = listener.process.clone().unzip();

        Self {
            protocol: listener.protocol.label().into(),
            port: listener.port,
            process,
            pid,
            advice: listener.advice.clone(),
        }
    }
}

impl From<&Attachment> for InterfaceJson {
    fn from(attachment: &Attachment) -> Self {
        Self {
            name: attachment.interface.clone(),
            guarded: attachment.guarded,
            xdp_mode: attachment.xdp.map(|hook| hook.label().into()),
            egress: attachment.egress.map(|hook| hook.label().into()),
            received: attachment.received.evidence.label().into(),
            sent: attachment.sent.evidence.label().into(),
            in_front: attachment.chain.in_front.clone(),
            behind: attachment.chain.behind.clone(),
        }
    }
}

/// As the kernel writes reserved ports.
fn ports(range: PortRange) -> String {
    if range.first() == range.last() {
        range.first().to_string()
    } else {
        range.to_string()
    }
}

/// One of the answer to `/flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowJson {
    /// `tcp`, `udp` or `udplite`.
    pub protocol: Cow<'static, str>,
    /// This host's end, such as `192.0.2.1:40000` or `[2001:db8::1]:40000`.
    pub local: SocketAddr,
    /// The peer's end; all zero where any peer may answer.
    pub remote: SocketAddr,
    /// The timer that runs.
    pub state: Cow<'static, str>,
    /// Time since a packet last counted, in milliseconds.
    pub idle_ms: u64,
}

impl From<&FlowRow> for FlowJson {
    fn from(row: &FlowRow) -> Self {
        Self {
            protocol: row.protocol.label().into(),
            local: row.local,
            remote: row.remote,
            state: row.state.name().into(),
            idle_ms: row.idle_ms,
        }
    }
}

/// A JSON array of [`FlowJson`], some rows at a time.
pub(super) struct JsonRows {
    rows: vec::IntoIter<FlowRow>,
    punctuation: Punctuation,
}

/// What comes before the next row.
#[derive(Clone, Copy)]
enum Punctuation {
    Opening,
    Comma,
    Nothing,
}

impl JsonRows {
    const AT_ONCE: usize = 256;

    pub(super) fn new(rows: Vec<FlowRow>) -> Self {
        Self {
            rows: rows.into_iter(),
            punctuation: Punctuation::Opening,
        }
    }
}

impl Iterator for JsonRows {
    type Item = serde_json::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = match self.punctuation {
            Punctuation::Opening => vec![b'['],
            Punctuation::Comma => vec![b','],
            Punctuation::Nothing => return None,
        };
        for (index, row) in self.rows.by_ref().take(Self::AT_ONCE).enumerate() {
            if index > 0 {
                text.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut text, &FlowJson::from(&row)) {
                return Some(Err(error));
            }
        }
        self.punctuation = Punctuation::Comma;
        if self.rows.len() == 0 {
            text.push(b']');
            self.punctuation = Punctuation::Nothing;
        }

        Some(Ok(text.into()))
    }
}
