//! A guard that is observed by tests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use guard_common::{
    flow::timer::Timer,
    outcome::{Decision, Family, Outcome, Protocol, Verdict},
};

use super::Shared;
use crate::{
    api::snapshot::{BlockedListener, LoadedConfig, Observe, Snapshot},
    bpf::{
        attach::{EgressHook, XdpHook},
        maps::{FlowCount, FlowRow, FrameCount},
    },
    config::Mode,
    guard::{
        alarms::{Alarm, AlarmKind},
        attachment::{Attachment, Chain, Proof},
        evidence::Evidence,
    },
    host::{
        port_use::{ByProtocol, PortSummary},
        process_usage::ProcessUsage,
    },
};

/// A guard whose walks are counted and take a while.
#[derive(Default)]
pub(crate) struct Fake {
    /// How long a walk takes.
    pub walk: Duration,
    /// How many flows there are; none stands for maps that cannot be read.
    pub flows: Option<usize>,
    /// Whether every interface is guarded.
    pub guarded: AtomicBool,
    /// Walks begun.
    pub walks: AtomicU64,
}

impl Fake {
    pub(crate) fn shared(self) -> (Arc<Self>, Shared) {
        let fake = Arc::new(self);
        let shared = Shared::new(Arc::clone(&fake) as Arc<dyn Observe>);

        (fake, shared)
    }

    #[cfg(test)]
    pub(crate) fn walks(&self) -> u64 {
        self.walks.load(Ordering::SeqCst)
    }
}

impl Observe for Fake {
    fn observe(&self) -> Snapshot {
        self.walks.fetch_add(1, Ordering::SeqCst);
        thread::sleep(self.walk);

        observation(Mode::Enforce)
    }

    fn flows(&self) -> anyhow::Result<Vec<FlowRow>> {
        let Some(flows) = self.flows else {
            anyhow::bail!("map FLOWS_TCP4: cannot be read");
        };

        Ok((0..flows).map(flow).collect())
    }

    fn guarded(&self) -> bool {
        self.guarded.load(Ordering::SeqCst)
    }
}

/// TCP over IPv4 and UDP over IPv6 by turns.
pub(crate) fn flow(index: usize) -> FlowRow {
    let (protocol, local, remote, state) = if index.is_multiple_of(2) {
        let ends = ("192.0.2.1:40000", "198.51.100.7:443");
        (Protocol::Tcp, ends.0, ends.1, Timer::TcpEstablished)
    } else {
        let ends = ("[2001:db8::1]:40001", "[::]:0");
        (Protocol::Udp, ends.0, ends.1, Timer::Multicast)
    };

    FlowRow {
        protocol,
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
        state,
        idle_ms: index as u64,
    }
}

/// One guarded and one recorded interface, something of everything.
pub(crate) fn observation(mode: Mode) -> Snapshot {
    let frames = |device: &str, outcome, family, protocol, verdict, frames| FrameCount {
        device: device.to_owned(),
        decision: Decision {
            outcome,
            family,
            protocol,
        },
        verdict,
        frames,
    };

    Snapshot {
        mode,
        config: LoadedConfig {
            hash: "0123456789abcdef".to_owned(),
            last_reload_successful: true,
            read: SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_500),
        },
        range: "32768-60999".parse().expect("a range"),
        reserved: vec![
            "40000-40010".parse().expect("a range"),
            "50000-50000".parse().expect("a range"),
        ],
        exposed: vec!["42222/tcp".parse().expect("ports")],
        trusted: vec!["10.0.0.0/8".parse().expect("a prefix")],
        listeners: vec![
            BlockedListener {
                protocol: Protocol::Tcp,
                port: 45000,
                process: Some(("dbus\u{1b}[2J".to_owned(), 812)),
                advice: None,
            },
            BlockedListener {
                protocol: Protocol::UdpLite,
                port: 45001,
                process: None,
                advice: None,
            },
        ],
        interfaces: vec![
            Attachment {
                guarded: true,
                interface: "eth0".to_owned(),
                xdp: Some(XdpHook::Native),
                egress: Some(EgressHook::Tcx),
                received: Proof {
                    evidence: Evidence::Seen,
                    unseen: 0,
                },
                sent: Proof::default(),
                chain: Chain {
                    in_front: vec!["TCX program x (id 7)".to_owned()],
                    behind: vec!["u32 filter, priority 10, handle 800::800".to_owned()],
                },
            },
            Attachment {
                guarded: true,
                interface: "eth1".to_owned(),
                xdp: None,
                egress: Some(EgressHook::Clsact),
                received: Proof::default(),
                sent: Proof {
                    evidence: Evidence::Unseen,
                    unseen: 620,
                },
                chain: Chain::default(),
            },
        ],
        frames: vec![
            frames(
                "eth0",
                Outcome::DropNoFlow,
                Family::Ipv4,
                Protocol::Tcp,
                Verdict::Drop,
                40,
            ),
            frames(
                "eth0",
                Outcome::DropNoFlow,
                Family::Ipv4,
                Protocol::Udp,
                Verdict::Pass,
                2,
            ),
            frames(
                "gone\"0",
                Outcome::DropNoFlow,
                Family::Ipv6,
                Protocol::Tcp,
                Verdict::Drop,
                1,
            ),
            frames(
                "eth0",
                Outcome::PassKnownFlow,
                Family::Ipv6,
                Protocol::Tcp,
                Verdict::Pass,
                77,
            ),
            frames(
                "eth1",
                Outcome::PassRefreshedFlow,
                Family::Ipv6,
                Protocol::Tcp,
                Verdict::Pass,
                5,
            ),
            // It is not foreseen, and is shown all the same.
            frames(
                "eth0",
                Outcome::PassTrusted,
                Family::Ipv4,
                Protocol::Icmp,
                Verdict::Pass,
                1,
            ),
        ],
        tallies: crate::bpf::maps::Tallies::default(),
        advice: None,
        metrics_missing: None,
        failed_sweeps: 0,
        sweep_took: Some(Duration::from_millis(13)),
        ports: Some(PortSummary {
            available: ByProtocol {
                tcp: 28_000,
                udp: 28_200,
            },
            in_use: ByProtocol { tcp: 232, udp: 32 },
            listening: ByProtocol { tcp: 2, udp: 1 },
            time_wait: 30,
            reserved: 12,
            busiest: ByProtocol {
                tcp: 0.25,
                udp: 0.0,
            },
            exhausted_in: ByProtocol {
                tcp: Some(Duration::from_secs(7200)),
                udp: None,
            },
        }),
        alarms: vec![Alarm {
            device: "eth1".to_owned(),
            kind: AlarmKind::Detached,
            text: "its XDP program was taken off".to_owned(),
        }],
        flows: [
            (Family::Ipv4, Protocol::Tcp, 12),
            (Family::Ipv6, Protocol::Tcp, 3),
            (Family::Ipv4, Protocol::Udp, 1),
            (Family::Ipv6, Protocol::Udp, 0),
        ]
        .map(|(family, protocol, live)| FlowCount {
            family,
            protocol,
            live,
            capacity: 65_536,
        })
        .into(),
        process: Some(ProcessUsage {
            cpu_seconds: 1.5,
            start_seconds: 1_800_000_000.25,
            resident_bytes: 12_000_000,
            virtual_bytes: 40_000_000,
            open_fds: 60,
            max_fds: Some(1024),
            threads: 4,
        }),
        read_failures: 1,
    }
}
