//! What one source, the command line or the file, says about a run.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use serde::Deserialize;
use serde_json::Value;

use super::{
    AdaptiveTimeouts, EgressMode, Exposed, Listen, ListenersPolicy, LogFormat, LogLevel, MaxFlows,
    Mode, PortNumber, Settings, Timeout, Trusted, UdpFilter, XdpMode, timeouts,
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

    /// Drop what is unsolicited, or only count it
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,

    /// How to attach the XDP program
    #[arg(long, value_name = "MODE")]
    pub xdp_mode: Option<XdpMode>,

    /// Where to record what is sent
    #[arg(long, value_name = "HOOK")]
    pub egress_hook: Option<EgressMode>,

    /// Guard although another program's filter sees what is sent before it is recorded, and may
    /// keep it from being recorded
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_filter_in_front: Option<bool>,

    /// Guard these ports [default: the kernel's net.ipv4.ip_local_port_range, followed live]
    #[arg(long, value_name = "FIRST-LAST")]
    pub range: Option<PortRange>,

    /// Flows remembered in each of four maps, a power of two
    #[arg(long, value_name = "N")]
    pub max_flows: Option<MaxFlows>,

    /// Let unsolicited packets to these ports pass; repeatable
    #[arg(long, value_name = "PORT[-PORT]/tcp|udp")]
    pub expose: Option<Vec<Exposed>>,

    /// Let every host of this network reach all ports; repeatable
    #[arg(long, value_name = "PREFIX")]
    pub trust: Option<Vec<Trusted>>,

    /// What to do about sockets that listen on guarded ports
    #[arg(long, value_name = "POLICY")]
    pub listeners: Option<ListenersPolicy>,

    /// What a UDP answer must match
    #[arg(long, value_name = "FILTER")]
    pub udp_filter: Option<UdpFilter>,

    /// Do not ask the kernel's socket table before a drop, nor put flows back by it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_rescue: Option<bool>,

    /// Do not record UDP sent to this remote port, whose answers go elsewhere; repeatable
    #[arg(long, value_name = "PORT")]
    pub unrecorded: Option<Vec<PortNumber>>,

    /// How long a silent flow stays known; repeatable
    #[arg(long, value_name = "NAME=SECONDS")]
    #[serde(deserialize_with = "timeouts::from_table")]
    pub timeout: Vec<Timeout>,

    /// Shorten timers while the flow maps are fuller than START percent, so that nothing would be
    /// left of them at END; or off
    #[arg(long, value_name = "START-END|off")]
    pub adaptive_timeouts: Option<AdaptiveTimeouts>,

    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics_listen: Option<Listen>,

    /// Socket for the other commands
    #[arg(long, value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Folder in a BPF file system for what outlives the daemon
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,

    /// Log this and what matters more
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Log lines of text, or JSON objects
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// On SIGTERM, leave both programs in force
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub keep_attached: Option<bool>,
}

/// The flags of a run. Their help tells the defaults, which nobody has to write there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSettings(pub ConfigLayer);

impl FromArgMatches for RunSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        ConfigLayer::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl Args for RunSettings {
    fn augment_args(command: Command) -> Command {
        let defaults = Defaults::new();

        ConfigLayer::augment_args(command).mut_args(|flag| defaults.tell(flag))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The settings of a run that is told nothing, as JSON.
struct Defaults(Value);

impl Defaults {
    fn new() -> Self {
        Self(serde_json::to_value(Settings::of_nothing()).unwrap_or_default())
    }

    /// Adds its default to the help of a flag that has one. That of a switch goes without saying.
    fn tell(&self, flag: Arg) -> Arg {
        let key = flag.get_id().as_str().replace('_', "-");
        match (self.0.get(&key).and_then(words), flag.get_help()) {
            (Some(default), Some(help)) => {
                let help = format!("{help} [default: {default}]");
                flag.help(help)
            }
            _ => flag,
        }
    }
}

/// What is written on a command line for a value, if it says anything.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::String(word) => Some(word.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) if !values.is_empty() => {
            let values: Vec<_> = values.iter().filter_map(words).collect();
            Some(values.join(", "))
        }
        Value::Object(values) => {
            let values: Vec<_> = values
                .iter()
                .filter_map(|(key, value)| Some(format!("{key}={}", words(value)?)))
                .collect();
            Some(values.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) => None,
    }
}
