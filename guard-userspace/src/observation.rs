//! What the metrics, `status` and `flows` show, read at one moment.

use std::net::SocketAddr;

use guard_common::{
    flow::timer::Timer,
    outcome::{Decision, Family, Protocol, Verdict},
};

use ipnet::IpNet;

use crate::{
    alarm::Alarm,
    evidence::Evidence,
    range::PortRange,
    settings::{Exposed, Mode},
};

/// How an XDP program sits on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpHook {
    /// In the driver.
    Native,
    /// In the stack, before anything else there.
    Generic,
}

/// How the egress program sits on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EgressHook {
    /// As a TCX link, from kernel 6.6 on.
    Tcx,
    /// As a filter of the clsact queueing discipline.
    Clsact,
}

/// One guarded or recorded interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Whether strangers are to be dropped here, or what is sent is only to be recorded.
    pub guarded: bool,
    /// Whether and how it is guarded.
    pub xdp: Option<XdpHook>,
    /// Whether and how what it sends is recorded.
    pub egress: Option<EgressHook>,
    /// What shows that the XDP program sees what is received.
    pub received: Proof,
    /// What shows that the egress program sees what is sent.
    pub sent: Proof,
    /// Who else sees what it sends.
    pub chain: Chain,
}

/// What shows that the program at one hook sees the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// What is known.
    pub evidence: Evidence,
    /// How many packets the interface has counted while the program saw none.
    pub unseen: u64,
}

/// TCX programs and filters of others that see what an interface sends, in words, such as
/// `u32 filter, priority 10, handle 800::800`. Bounded, and without control characters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Those that run before our program and can keep packets from it.
    pub in_front: Vec<String>,
    /// Those that run after it and can change what was recorded.
    pub behind: Vec<String>,
}

/// A socket that listens on a guarded port, and so hears nothing.
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

/// Frames of one kind on one interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrameCount {
    /// The interface's name.
    pub device: String,
    /// What they were judged to be.
    pub decision: Decision,
    /// What was done with them: in monitor mode, drops pass.
    pub verdict: Verdict,
    /// How many.
    pub frames: u64,
}

/// One flow map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowCount {
    /// IPv4 or IPv6.
    pub family: Family,
    /// TCP, or UDP together with UDP-Lite.
    pub protocol: Protocol,
    /// Entries that have not expired.
    pub live: u64,
    /// Entries there is room for.
    pub capacity: u64,
}

/// What is counted beside the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tallies {
    /// Flows put back that the map had evicted, or never held.
    pub rescued_absent: u64,
    /// Flows put back that had expired.
    pub rescued_expired: u64,
    /// Frames that monitor mode passed and a connected socket would have lost.
    pub would_drop_connected: u64,
    /// Frames that monitor mode passed and a listener would have lost.
    pub would_drop_listener: u64,
}

/// Everything but the single flows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observation {
    /// Whether would-be drops pass.
    pub mode: Mode,
    /// The guarded range.
    pub range: PortRange,
    /// Ports of the range that the kernel reserves.
    pub reserved: Vec<PortRange>,
    /// Ports that strangers may reach.
    pub exposed: Vec<Exposed>,
    /// Networks whose hosts reach every port.
    pub trusted: Vec<IpNet>,
    /// Sockets that hear nothing.
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
    /// What is wrong.
    pub alarms: Vec<Alarm>,
    /// What is counted beside the frames.
    pub tallies: Tallies,
    /// Maps that could not be read for this observation.
    pub read_failures: u64,
}

/// One flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FlowRow {
    /// The transport protocol.
    pub protocol: Protocol,
    /// This host's end.
    pub local: SocketAddr,
    /// The peer's end; all zero where any peer may answer.
    pub remote: SocketAddr,
    /// The timer that runs, which names the state.
    pub state: Timer,
    /// Time since a packet last counted, in milliseconds, exact to one tick.
    pub idle_ms: u64,
}

/// Where observations come from: the daemon's maps, or a test.
pub trait Observe: Send + Sync + 'static {
    /// Reads everything but the single flows. Never fails: what could not be read is counted.
    fn observe(&self) -> Observation;

    /// Reads the flows that have not expired.
    ///
    /// # Errors
    /// When a map cannot be read.
    fn flows(&self) -> anyhow::Result<Vec<FlowRow>>;

    /// Whether every interface is guarded, and nothing is known to be wrong.
    fn guarded(&self) -> bool;
}
