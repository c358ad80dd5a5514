//! What the daemon shows of itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;

use crate::{
    api::snapshot::{BlockedListener, LoadedConfig, Observe, Snapshot},
    bpf::{
        attach::Link,
        clock::Clock,
        maps::{FlowRow, PacketTotals, Readings, Tallies},
        pins::Hook,
    },
    config::{Exposed, Mode},
    guard::{alarms::Alarms, attachment::Attachment, listeners::Listener},
    host::{
        port_use::PortSummary,
        process_usage::ProcessUsage,
        range::{LocalPorts, PortRange},
        socket_owners::SocketOwner,
    },
};

/// What the daemon knows and the maps do not.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// Whether would-be drops pass.
    pub mode: Mode,
    /// The configuration in force.
    pub config: LoadedConfig,
    /// The ports that the kernel hands out.
    pub local: LocalPorts,
    /// Ports that unsolicited packets may reach, by the settings or by what was found.
    pub exposed: Vec<Exposed>,
    /// Networks whose hosts reach every port.
    pub trusted: Vec<IpNet>,
    /// Sockets that unsolicited packets do not reach.
    pub blocked: Vec<Listener>,
    /// Where programs are attached.
    pub interfaces: Vec<Attachment>,
    /// The links that should hold them.
    pub links: Vec<(String, Hook, Link)>,
    /// Slots of the device table, with the names of their interfaces.
    pub slots: Vec<(u32, String)>,
    /// What to do about flow maps that are too small.
    pub advice: Option<String>,
    /// Why metrics are not served.
    pub metrics_missing: Option<String>,
    /// Sweeps that have failed since the start.
    pub failed_sweeps: u64,
    /// How long the last one took that has not.
    pub sweep_took: Option<Duration>,
    /// What of the kernel's port range was in use then.
    pub ports: Option<PortSummary>,
}

/// Reads the maps, for any caller and on any thread.
pub struct Observer {
    readings: Readings,
    clock: Arc<Clock>,
    knowledge: Mutex<Knowledge>,
    alarms: Arc<Alarms>,
    guarded: AtomicBool,
}

impl Observer {
    /// An observer of a guard that does not guard yet.
    pub fn new(
        readings: Readings,
        clock: Arc<Clock>,
        alarms: Arc<Alarms>,
        knowledge: Knowledge,
    ) -> Self {
        Self {
            readings,
            clock,
            knowledge: Mutex::new(knowledge),
            alarms,
            guarded: AtomicBool::new(false),
        }
    }

    /// Notes what has changed.
    pub fn update(&self, change: impl FnOnce(&mut Knowledge)) {
        change(&mut self.lock());
    }

    /// What is found to be wrong.
    pub fn alarms(&self) -> &Alarms {
        &self.alarms
    }

    /// All packets that the programs of the interface in `slot` have counted.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counted(&self, slot: u32) -> anyhow::Result<PacketTotals> {
        self.readings.counted(slot)
    }

    /// Notes whether every interface is guarded.
    pub fn set_guarded(&self, guarded: bool) {
        self.guarded.store(guarded, Ordering::Relaxed);
    }

    fn knowledge(&self) -> Knowledge {
        self.lock().clone()
    }

    fn links(&self) -> Vec<(String, Hook, Link)> {
        self.lock().links.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Knowledge> {
        // A panic while the lock was held has left every field whole.
        self.knowledge
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observe for Observer {
    fn observe(&self) -> Snapshot {
        let mut knowledge = self.knowledge();
        for (device, hook, _) in knowledge.links.iter().filter(|link| is_lost(link)) {
            let of_device = |attachment: &&mut Attachment| attachment.interface == *device;
            match (knowledge.interfaces.iter_mut().find(of_device), hook) {
                (Some(attachment), Hook::Xdp) => attachment.xdp = None,
                (Some(attachment), Hook::Egress | Hook::EgressLast | Hook::Moving) => {
                    attachment.egress = None;
                }
                (None, _) => {}
            }
        }
        let mut read_failures = 0;
        let mut count_failure = |error: anyhow::Error| {
            tracing::warn!("{error:#}");
            read_failures += 1;
        };

        let mut frames = Vec::new();
        for (slot, device) in &knowledge.slots {
            match self.readings.frames(*slot, device) {
                Ok(counts) => frames.extend(counts),
                Err(error) => count_failure(error),
            }
        }
        let mut flows = Vec::new();
        for count in self.readings.flow_counts(&self.clock) {
            match count {
                Ok(count) => flows.push(count),
                Err(error) => count_failure(error),
            }
        }

        let tallies = self.readings.tallies().unwrap_or_else(|error| {
            count_failure(error);
            Tallies::default()
        });

        Snapshot {
            mode: knowledge.mode,
            config: knowledge.config,
            range: knowledge.local.range,
            reserved: within(&knowledge.local),
            exposed: knowledge.exposed,
            trusted: knowledge.trusted,
            listeners: knowledge.blocked.iter().map(blocked).collect(),
            advice: knowledge.advice,
            metrics_missing: knowledge.metrics_missing,
            failed_sweeps: knowledge.failed_sweeps,
            sweep_took: knowledge.sweep_took,
            ports: knowledge.ports,
            alarms: self.alarms.list(),
            interfaces: knowledge.interfaces,
            frames,
            flows,
            tallies,
            process: ProcessUsage::read().ok(),
            read_failures,
        }
    }

    fn flows(&self) -> anyhow::Result<Vec<FlowRow>> {
        self.readings.flows(&self.clock)
    }

    fn guarded(&self) -> bool {
        self.guarded.load(Ordering::Relaxed)
            && self.alarms.is_quiet()
            && !self.links().iter().any(is_lost)
    }
}

/// Whether a link is seen not to hold its program. That nothing is seen shows nothing.
fn is_lost((_, _, link): &(String, Hook, Link)) -> bool {
    matches!(link.is_in_force(), Ok(false))
}

/// Reserved ports that the range would hold otherwise.
fn within(local: &LocalPorts) -> Vec<PortRange> {
    local
        .reserved
        .iter()
        .filter_map(|reserved| {
            let first = reserved.first().max(local.range.first());
            let last = reserved.last().min(local.range.last());
            PortRange::new(first, last).ok()
        })
        .collect()
}

fn blocked(listener: &Listener) -> BlockedListener {
    BlockedListener {
        advice: listener.advice.clone(),
        protocol: listener.transport.label(),
        port: listener.port,
        process: match &listener.owner {
            SocketOwner::Process { pid, name } => Some((name.clone(), pid.unsigned_abs())),
            SocketOwner::Unknown => None,
        },
    }
}
