//! What one source, the command line or the file, says about a run.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;

use super::{
    AdaptiveTimeouts, EgressMode, Exposed, Listen, ListenersPolicy, LogFormat, LogLevel, MaxFlows,
    Mode, PortNumber, Timeout, Trusted, UdpFilter, XdpMode, timeouts,
};
use crate::host::range::PortRange;

/// What one source says: every flag of a run is a field, and every field a key of the file.
///
/// `None` is "not said here". A list given on the command line replaces the file's.
#[derive(Clone, Debug, Default, PartialEq, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ConfigLayer {
    /// Guard this Ethernet interface; repeat for more
    #[arg(long, value_name = "IFACE")]
    pub iface: Option<Vec<String>>,

    /// Record what leaves by this interface without guarding it (asymmetric routes); repeatable
    #[arg(long, value_name = "IFACE")]
    pub egress_iface: Option<Vec<String>>,

    /// Drop what is unsolicited, or only count it [default: enforce]
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,

    /// How to attach the XDP program [default: auto]
    #[arg(long, value_name = "MODE")]
    pub xdp_mode: Option<XdpMode>,

    /// Where to record what is sent [default: auto]
    #[arg(long, value_name = "HOOK")]
    pub egress_hook: Option<EgressMode>,

    /// Guard although another program's filter sees what is sent before it is recorded, and may
    /// keep it from being recorded
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_filter_in_front: Option<bool>,

    /// Guard these ports [default: the kernel's net.ipv4.ip_local_port_range, followed live]
    #[arg(long, value_name = "FIRST-LAST")]
    pub range: Option<PortRange>,

    /// Flows remembered in each of four maps, a power of two [default: 65536]
    #[arg(long, value_name = "N")]
    pub max_flows: Option<MaxFlows>,

    /// Let unsolicited packets to these ports pass; repeatable
    #[arg(long, value_name = "PORT[-PORT]/tcp|udp")]
    pub expose: Option<Vec<Exposed>>,

    /// Let every host of this network reach all ports; repeatable
    #[arg(long, value_name = "PREFIX")]
    pub trust: Option<Vec<Trusted>>,

    /// What to do about sockets that listen on guarded ports [default: auto]
    #[arg(long, value_name = "POLICY")]
    pub listeners: Option<ListenersPolicy>,

    /// What a UDP answer must match [default: address-and-port]
    #[arg(long, value_name = "FILTER")]
    pub udp_filter: Option<UdpFilter>,

    /// Do not ask the kernel's socket table before a drop, nor put flows back by it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_rescue: Option<bool>,

    /// Do not record UDP sent to this remote port, whose answers go elsewhere; repeatable
    /// [default: 4789, 8472, 6081]
    #[arg(long, value_name = "PORT")]
    pub unrecorded: Option<Vec<PortNumber>>,

    /// How long a silent flow stays known; repeatable [default: tcp-syn=240,
    /// tcp-established=7440, tcp-transitory=240, udp=300, udp-dns=60, multicast=30]
    #[arg(long, value_name = "NAME=SECONDS")]
    #[serde(deserialize_with = "timeouts::from_table")]
    pub timeout: Vec<Timeout>,

    /// Shorten timers while the flow maps are fuller than START percent, so that nothing would be
    /// left of them at END; or off [default: 60-120]
    #[arg(long, value_name = "START-END|off")]
    pub adaptive_timeouts: Option<AdaptiveTimeouts>,

    /// Serve /metrics, /healthz and /readyz here [default: 127.0.0.1:9750]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<Listen>,

    /// Socket for the other commands [default: /run/portguard/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Folder in a BPF file system for what outlives the daemon [default: /sys/fs/bpf/portguard]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,

    /// Log this and what matters more [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Log lines of text, or JSON objects [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// On SIGTERM, leave both programs in force
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub keep_attached: Option<bool>,
}
