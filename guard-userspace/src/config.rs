//! The effective configuration of a run: the command line over the file over defaults.

mod choices;
mod file;
mod layer;
mod timeouts;
mod values;
mod warnings;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use guard_common::{abi::layout::MAX_DEVICES, frame::transport::Transport};
use ipnet::IpNet;
use serde::Serialize;

pub use self::{
    choices::{EgressMode, ListenersPolicy, LogFormat, LogLevel, Mode, UdpFilter, XdpMode},
    layer::ConfigLayer,
    timeouts::{AdaptiveTimeouts, Seconds, Timeout, TimeoutName, TimeoutSettings},
    values::{Exposed, Listen, MaxFlows, PortNumber, Trusted, is_plain},
    warnings::{headline, warnings},
};
use crate::{base::failure::Failure, host::range::PortRange};

/// Where the CLI finds the daemon unless told otherwise.
pub const CONTROL_SOCKET: &str = "/run/portguard/control.sock";

/// Where maps and links are pinned unless told otherwise.
pub const PIN_DIR: &str = "/sys/fs/bpf/portguard";

/// UDP ports whose answers never come back to the source port: VXLAN twice and GENEVE.
const UNRECORDED: [u16; 3] = [4789, 8472, 6081];

/// A path in `sun_path` ends in a zero byte.
const LONGEST_SOCKET_PATH: usize = 107;

/// The effective configuration of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// Guarded interfaces: at least one, each once.
    pub iface: Vec<String>,
    /// Interfaces whose egress is recorded only; none of `iface` among them.
    pub egress_iface: Vec<String>,
    /// Whether unsolicited packets are dropped.
    pub mode: Mode,
    /// How XDP is attached.
    pub xdp_mode: XdpMode,
    /// Where egress is recorded.
    pub egress_hook: EgressMode,
    /// Whether others may see what is sent before it is recorded, where they cannot be passed.
    pub allow_filter_in_front: bool,
    /// The range to guard in place of the kernel's.
    pub range: Option<PortRange>,
    /// Flows in each flow map.
    pub max_flows: MaxFlows,
    /// Ports that unsolicited packets may reach, in order, TCP first.
    pub expose: Vec<Exposed>,
    /// Networks whose hosts pass.
    pub trust: BTreeSet<IpNet>,
    /// What happens to sockets that listen on guarded ports.
    pub listeners: ListenersPolicy,
    /// What a UDP answer must match.
    pub udp_filter: UdpFilter,
    /// Whether the socket table is not asked before a drop.
    pub no_rescue: bool,
    /// Remote UDP ports that are not recorded.
    pub unrecorded: BTreeSet<u16>,
    /// How long silent flows stay known.
    pub timeout: TimeoutSettings,
    /// How much shorter than that while the flow maps are nearly full.
    pub adaptive_timeouts: AdaptiveTimeouts,
    /// Where metrics are served.
    pub metrics_listen: SocketAddr,
    /// Where the CLI finds the daemon.
    pub control_socket: PathBuf,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// How much is logged.
    pub log_level: LogLevel,
    /// What a line of the log looks like.
    pub log_format: LogFormat,
    /// Whether the programs stay in force on SIGTERM.
    pub keep_attached: bool,
}

/// The settings in which two configurations differ, by their keys in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Settings a reload applies.
    pub reloadable: Vec<&'static str>,
    /// Settings that stay as they were until a restart.
    pub restart: Vec<&'static str>,
}

impl Changes {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.reloadable.is_empty() && self.restart.is_empty()
    }
}

impl Settings {
    /// Lays the command line's `flags` over the file, when there is one, over the defaults.
    ///
    /// Call it anew with the same `flags` to reload the file.
    ///
    /// # Errors
    /// Exit code 78 when the file is at fault, 2 when the command line is.
    pub fn load(flags: &ConfigLayer, config: Option<&Path>) -> Result<Self, Failure> {
        let file = config.map(file::read).transpose()?;

        Self::merge(flags, file.as_ref(), config)
    }

    /// The settings that the text of a configuration file makes by itself.
    ///
    /// # Errors
    /// Exit code 78 when it is at fault.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let name = "portguard.toml";
        let file = file::parse(text, name)?;

        Self::merge(&ConfigLayer::default(), Some(&file), Some(Path::new(name)))
    }

    /// The ports that unsolicited packets may reach: those configured, and the port of a metrics endpoint that
    /// is not on a loopback address, which would else be cut off from its Prometheus.
    pub fn exposures(&self) -> impl Iterator<Item = (Transport, PortRange)> {
        let metrics = (!self.metrics_listen.ip().is_loopback())
            .then(|| self.metrics_listen.port())
            .and_then(|port| PortRange::new(port, port).ok())
            .map(|ports| (Transport::Tcp, ports));

        self.expose
            .iter()
            .map(|exposed| (exposed.transport, exposed.ports))
            .chain(metrics)
    }

    /// In what `new` differs from these settings.
    pub fn changes(&self, new: &Self) -> Changes {
        // Every field is named, so that a new setting cannot be forgotten here.
        let Self {
            iface,
            egress_iface,
            mode,
            xdp_mode,
            egress_hook,
            allow_filter_in_front,
            range,
            max_flows,
            expose,
            trust,
            listeners,
            udp_filter,
            no_rescue,
            unrecorded,
            timeout,
            adaptive_timeouts,
            metrics_listen,
            control_socket,
            pin_dir,
            log_level,
            log_format,
            keep_attached,
        } = self;
        let reloadable = [
            ("mode", *mode != new.mode),
            (
                "allow-filter-in-front",
                *allow_filter_in_front != new.allow_filter_in_front,
            ),
            ("range", *range != new.range),
            ("expose", *expose != new.expose),
            ("trust", *trust != new.trust),
            ("listeners", *listeners != new.listeners),
            ("udp-filter", *udp_filter != new.udp_filter),
            ("no-rescue", *no_rescue != new.no_rescue),
            ("unrecorded", *unrecorded != new.unrecorded),
            ("timeout", *timeout != new.timeout),
            (
                "adaptive-timeouts",
                *adaptive_timeouts != new.adaptive_timeouts,
            ),
            ("log-level", *log_level != new.log_level),
            ("log-format", *log_format != new.log_format),
            ("keep-attached", *keep_attached != new.keep_attached),
        ];
        let restart = [
            ("iface", *iface != new.iface),
            ("egress-iface", *egress_iface != new.egress_iface),
            ("xdp-mode", *xdp_mode != new.xdp_mode),
            ("egress-hook", *egress_hook != new.egress_hook),
            ("max-flows", *max_flows != new.max_flows),
            ("metrics-listen", *metrics_listen != new.metrics_listen),
            ("control-socket", *control_socket != new.control_socket),
            ("pin-dir", *pin_dir != new.pin_dir),
        ];

        Changes {
            reloadable: differing(&reloadable),
            restart: differing(&restart),
        }
    }

    /// These settings with everything from `new` that a reload can apply.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let kept = self.clone();

        Self {
            iface: kept.iface,
            egress_iface: kept.egress_iface,
            xdp_mode: kept.xdp_mode,
            egress_hook: kept.egress_hook,
            max_flows: kept.max_flows,
            metrics_listen: kept.metrics_listen,
            control_socket: kept.control_socket,
            pin_dir: kept.pin_dir,
            ..new.clone()
        }
    }

    fn merge(
        flags: &ConfigLayer,
        file: Option<&ConfigLayer>,
        config: Option<&Path>,
    ) -> Result<Self, Failure> {
        let flags = flags.clone();
        let file = file.cloned().unwrap_or_default();
        let blame = Blame {
            config,
            interfaces: flags.iface.is_some() || flags.egress_iface.is_some(),
            control_socket: flags.control_socket.is_some(),
            pin_dir: flags.pin_dir.is_some(),
        };

        let mut timeout = TimeoutSettings::default();
        for &given in file.timeout.iter().chain(&flags.timeout) {
            timeout.set(given);
        }
        let mut expose = flags.expose.or(file.expose).unwrap_or_default();
        expose.sort_by_key(|exposed| (exposed.transport as u8, exposed.ports));
        expose.dedup();
        let unrecorded = flags.unrecorded.or(file.unrecorded);
        let settings = Self {
            iface: flags.iface.or(file.iface).unwrap_or_default(),
            egress_iface: flags.egress_iface.or(file.egress_iface).unwrap_or_default(),
            mode: flags.mode.or(file.mode).unwrap_or_default(),
            xdp_mode: flags.xdp_mode.or(file.xdp_mode).unwrap_or_default(),
            egress_hook: flags.egress_hook.or(file.egress_hook).unwrap_or_default(),
            allow_filter_in_front: flags
                .allow_filter_in_front
                .or(file.allow_filter_in_front)
                .unwrap_or_default(),
            range: flags.range.or(file.range),
            max_flows: flags.max_flows.or(file.max_flows).unwrap_or_default(),
            expose,
            trust: flags
                .trust
                .or(file.trust)
                .into_iter()
                .flatten()
                .map(|trusted| trusted.0)
                .collect(),
            listeners: flags.listeners.or(file.listeners).unwrap_or_default(),
            udp_filter: flags.udp_filter.or(file.udp_filter).unwrap_or_default(),
            no_rescue: flags.no_rescue.or(file.no_rescue).unwrap_or_default(),
            unrecorded: unrecorded.map_or_else(
                || UNRECORDED.into(),
                |ports| ports.into_iter().map(PortNumber::get).collect(),
            ),
            timeout,
            adaptive_timeouts: flags
                .adaptive_timeouts
                .or(file.adaptive_timeouts)
                .unwrap_or_default(),
            metrics_listen: flags
                .metrics_listen
                .or(file.metrics_listen)
                .map_or(SocketAddr::from(([127, 0, 0, 1], 9750)), |listen| listen.0),
            control_socket: flags
                .control_socket
                .or(file.control_socket)
                .unwrap_or_else(|| CONTROL_SOCKET.into()),
            pin_dir: flags
                .pin_dir
                .or(file.pin_dir)
                .unwrap_or_else(|| PIN_DIR.into()),
            log_level: flags.log_level.or(file.log_level).unwrap_or_default(),
            log_format: flags.log_format.or(file.log_format).unwrap_or_default(),
            keep_attached: flags
                .keep_attached
                .or(file.keep_attached)
                .unwrap_or_default(),
        };
        settings.check(&blame)?;

        Ok(settings)
    }

    /// Checks what spans more than one setting, or one value in more than one place.
    fn check(&self, blame: &Blame<'_>) -> Result<(), Failure> {
        if self.iface.is_empty() {
            return Err(blame
                .failure(blame.interfaces, "no interface to guard")
                .remedy("give --iface IFACE, or the key iface in the file of --config"));
        }
        let interfaces = self.iface.len() + self.egress_iface.len();
        if interfaces > MAX_DEVICES as usize {
            return Err(blame
                .failure(
                    blame.interfaces,
                    &format!("{interfaces} interfaces: one guard serves {MAX_DEVICES}"),
                )
                .remedy("leave some to their own network namespace, or unguarded"));
        }
        for (flag, names) in [("iface", &self.iface), ("egress-iface", &self.egress_iface)] {
            if let Some(name) = names.iter().find(|name| !may_be_a_name(name)) {
                return Err(blame
                    .failure(
                        blame.interfaces,
                        &format!("{name:?}: no name of an interface"),
                    )
                    .remedy(format!("give --{flag} a name that `ip link` shows")));
            }
            if let Some(name) = twice(names) {
                return Err(blame
                    .failure(blame.interfaces, &format!("{name}: named twice as {flag}"))
                    .remedy("name each interface once"));
            }
        }
        if let Some(name) = self
            .egress_iface
            .iter()
            .find(|name| self.iface.contains(name))
        {
            return Err(blame
                .failure(
                    blame.interfaces,
                    &format!("{name}: named as iface and as egress-iface"),
                )
                .remedy("drop the latter, what leaves by a guarded interface is recorded anyway"));
        }
        if self.control_socket.as_os_str().as_bytes().len() > LONGEST_SOCKET_PATH {
            let path = self.control_socket.display();
            return Err(blame
                .failure(
                    blame.control_socket,
                    &format!("{path}: path of the control socket is longer than {LONGEST_SOCKET_PATH} bytes"),
                )
                .remedy("give --control-socket a shorter path"));
        }
        if !is_plain(&self.pin_dir) {
            let path = self.pin_dir.display();
            return Err(blame
                .failure(
                    blame.pin_dir,
                    &format!("{path}: no absolute path, or one with `..`"),
                )
                .remedy(format!("give --pin-dir a path such as {PIN_DIR}")));
        }

        Ok(())
    }
}

fn differing(settings: &[(&'static str, bool)]) -> Vec<&'static str> {
    settings
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(key, _)| *key)
        .collect()
}

/// Whether an interface may go by this name at some time. Other names of one are as long as
/// `ALTIFNAMSIZ`, include/uapi/linux/if.h, with a zero byte at the end.
fn may_be_a_name(name: &str) -> bool {
    const LONGEST: usize = 127;

    (1..=LONGEST).contains(&name.len())
        && !name
            .contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '/')
}

fn twice(names: &[String]) -> Option<&String> {
    names
        .iter()
        .enumerate()
        .find(|(index, name)| names[..*index].contains(name))
        .map(|(_, name)| name)
}

/// Where a value came from: what the command line says is not the file's fault.
struct Blame<'a> {
    config: Option<&'a Path>,
    interfaces: bool,
    control_socket: bool,
    pin_dir: bool,
}

impl Blame<'_> {
    fn failure(&self, by_flag: bool, message: &str) -> Failure {
        match self.config {
            Some(file) if !by_flag => {
                Failure::bad_configuration(format!("{}: {message}", file.display()))
            }
            Some(_) | None => Failure::usage(message),
        }
    }
}

#[cfg(test)]
mod tests;
