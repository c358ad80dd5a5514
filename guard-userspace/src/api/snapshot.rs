//! What the metrics, `status` and `flows` show, read at one moment.

use std::time::{Duration, SystemTime};

use guard_common::outcome::Protocol;
use ipnet::IpNet;

use crate::{
    bpf::maps::{FlowCount, FlowRow, FrameCount, Tallies},
    config::{Exposed, Mode, Settings},
    guard::{alarms::Alarm, attachment::Attachment},
    host::{port_use::PortSummary, process_usage::ProcessUsage, range::PortRange},
};

/// A socket that listens on a guarded port, and that unsolicited packets do not reach.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockedListener {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The local port.
    pub port: u16,
    /// The owner's name and process id, where they could be found.
    pub process: Option<(String, u32)>,
    /// What helps, where exposing the port does not.
    pub advice: Option<String>,
}

/// The configuration in force, and what came of reading the file anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadedConfig {
    /// [`Settings::fingerprint`] of what is in force.
    pub hash: String,
    /// Whether the file was taken when it was last read.
    pub last_reload_successful: bool,
    /// When it was last taken.
    pub read: SystemTime,
}

impl LoadedConfig {
    /// These settings, which have come into force just now.
    pub fn now(settings: &Settings) -> Self {
        Self {
            hash: settings.fingerprint(),
            last_reload_successful: true,
            read: SystemTime::now(),
        }
    }
}

/// Everything but the single flows.
#[derive(Clone, PartialEq, Debug)]
pub struct Snapshot {
    /// Whether would-be drops pass.
    pub mode: Mode,
    /// The configuration in force.
    pub config: LoadedConfig,
    /// The guarded range.
    pub range: PortRange,
    /// Ports of the range that the kernel reserves.
    pub reserved: Vec<PortRange>,
    /// Ports that unsolicited packets may reach.
    pub exposed: Vec<Exposed>,
    /// Networks whose hosts reach every port.
    pub trusted: Vec<IpNet>,
    /// Sockets that unsolicited packets do not reach.
    pub listeners: Vec<BlockedListener>,
    /// Interfaces, in the order of the command line.
    pub interfaces: Vec<Attachment>,
    /// Every counter that is not 0, of every device.
    pub frames: Vec<FrameCount>,
    /// The four flow maps.
    pub flows: Vec<FlowCount>,
    /// What to do about flow maps that are too small.
    pub advice: Option<String>,
    /// Why metrics are not served, or nothing while they are.
    pub metrics_missing: Option<String>,
    /// Sweeps that have failed since the start.
    pub failed_sweeps: u64,
    /// How long the last one took that has not.
    pub sweep_took: Option<Duration>,
    /// What of the kernel's port range was in use then.
    pub ports: Option<PortSummary>,
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// What is counted beside the frames.
    pub tallies: Tallies,
    /// What the daemon takes of the host, where that could be read.
    pub process: Option<ProcessUsage>,
    /// Maps that could not be read for this observation.
    pub read_failures: u64,
}

/// Where observations come from: the daemon's maps, or a test.
pub trait Observe: Send + Sync + 'static {
    /// Reads everything but the single flows. Never fails: what could not be read is counted.
    fn observe(&self) -> Snapshot;

    /// Reads the flows that have not expired.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn flows(&self) -> anyhow::Result<Vec<FlowRow>>;

    /// Whether every interface is guarded, and nothing is known to be wrong.
    fn guarded(&self) -> bool;
}
