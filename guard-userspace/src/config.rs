//! The effective configuration of a run: the command line over the file over defaults.

mod choices;
mod file;
mod layer;
mod timeouts;
mod values;
mod warnings;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use guard_common::{
    abi::layout::{MAX_ADDRESSES, MAX_DEVICES},
    frame::transport::Transport,
};
use ipnet::IpNet;
use serde::Serialize;

pub use self::{
    choices::{ListenersPolicy, LogFormat, LogLevel, Mode, UdpFilter},
    layer::{ConfigLayer, RunSettings},
    timeouts::{AdaptiveTimeouts, Seconds, Timeout, TimeoutSettings},
    values::{Exposed, Listen, MaxFlows, PortNumber, Trusted, is_plain},
    warnings::{headline, warnings},
};
pub use crate::host::hooks::{EgressMode, XdpMode};
use crate::{base::failure::Failure, host::range::PortRange};

/// Where the CLI finds the daemon unless told otherwise.
pub const CONTROL_SOCKET: &str = "/run/portguard/control.sock";

/// Where maps and links are pinned unless told otherwise.
pub const PIN_DIR: &str = "/sys/fs/bpf/portguard";

/// UDP ports whose answers never come back to the source port: VXLAN twice and GENEVE.
const UNRECORDED: [u16; 3] = [4789, 8472, 6081];

/// Where metrics are served unless told otherwise.
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9750);

/// A path in `sun_path` ends in a zero byte.
const LONGEST_SOCKET_PATH: usize = 107;

/// The one list of settings: field, type, key, when a change comes into force, and what is made of the
/// value that is given. Of nothing, that makes the default.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty, $key:literal, $when:ident, $make:expr;
    )+) => {
        /// The effective configuration of a run.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        impl Settings {
            /// In what `new` differs from these settings.
            pub fn changes(&self, new: &Self) -> Changes {
                let mut changes = Changes::default();
                $(if self.$field != new.$field {
                    settings!(@ changes, $when).push($key);
                })+

                changes
            }

            /// These settings with everything from `new` that a reload can apply.
            #[must_use]
            pub fn reloaded(&self, new: &Self) -> Self {
                Self {
                    $($field: settings!(@@ $when, self, new).$field.clone(),)+
                }
            }

            /// What the flags say over what the file says over the defaults.
            fn of(flags: ConfigLayer, file: ConfigLayer) -> Self {
                Self {
                    $($field: ($make)(flags.$field.over(file.$field)),)+
                }
            }
        }
    };
    (@ $changes:ident, reload) => { $changes.reloadable };
    (@ $changes:ident, restart) => { $changes.restart };
    (@@ reload, $old:ident, $new:ident) => { $new };
    (@@ restart, $old:ident, $new:ident) => { $old };
}

settings! {
    /// Guarded interfaces: at least one, each once.
    iface: Vec<String>, "iface", restart, Option::unwrap_or_default;
    /// Interfaces whose egress is recorded only; none of `iface` among them.
    egress_iface: Vec<String>, "egress-iface", restart, Option::unwrap_or_default;
    /// Whether unsolicited packets are dropped.
    mode: Mode, "mode", reload, Option::unwrap_or_default;
    /// How XDP is attached.
    xdp_mode: XdpMode, "xdp-mode", restart, Option::unwrap_or_default;
    /// Where egress is recorded.
    egress_hook: EgressMode, "egress-hook", restart, Option::unwrap_or_default;
    /// Whether others may see what is sent before it is recorded, where they cannot be passed.
    allow_filter_in_front: bool, "allow-filter-in-front", reload, Option::unwrap_or_default;
    /// The range to guard in place of the kernel's.
    range: Option<PortRange>, "range", reload, |given| given;
    /// Flows in each flow map.
    max_flows: MaxFlows, "max-flows", restart, Option::unwrap_or_default;
    /// Ports that unsolicited packets may reach, in order, TCP first.
    expose: Vec<Exposed>, "expose", reload, in_order;
    /// Networks whose hosts pass.
    trust: BTreeSet<IpNet>, "trust", reload, |given: Option<Vec<Trusted>>| {
        given.into_iter().flatten().map(|trusted| trusted.0).collect()
    };
    /// What happens to sockets that listen on guarded ports.
    listeners: ListenersPolicy, "listeners", reload, Option::unwrap_or_default;
    /// What a UDP answer must match.
    udp_filter: UdpFilter, "udp-filter", reload, Option::unwrap_or_default;
    /// Whether the socket table is not asked before a drop.
    no_rescue: bool, "no-rescue", reload, Option::unwrap_or_default;
    /// Remote UDP ports that are not recorded.
    unrecorded: BTreeSet<u16>, "unrecorded", reload, |given: Option<Vec<PortNumber>>| match given {
        Some(ports) => ports.into_iter().map(PortNumber::get).collect(),
        None => UNRECORDED.into(),
    };
    /// How long silent flows stay known.
    timeout: TimeoutSettings, "timeout", reload, |given: Vec<Timeout>| given.into_iter().fold(TimeoutSettings::default(), TimeoutSettings::with);
    /// How much shorter than that while the flow maps are nearly full.
    adaptive_timeouts: AdaptiveTimeouts, "adaptive-timeouts", reload, Option::unwrap_or_default;
    /// Where metrics are served.
    metrics_listen: SocketAddr, "metrics-listen", restart, |given: Option<Listen>| given.map_or(METRICS, |listen| listen.0);
    /// Where the CLI finds the daemon.
    control_socket: PathBuf, "control-socket", restart, |given: Option<PathBuf>| given.unwrap_or_else(|| CONTROL_SOCKET.into());
    /// Where maps and links are pinned.
    pin_dir: PathBuf, "pin-dir", restart, |given: Option<PathBuf>| given.unwrap_or_else(|| PIN_DIR.into());
    /// How much is logged.
    log_level: LogLevel, "log-level", reload, Option::unwrap_or_default;
    /// What a line of the log looks like.
    log_format: LogFormat, "log-format", reload, Option::unwrap_or_default;
    /// Whether the programs stay in force on SIGTERM.
    keep_attached: bool, "keep-attached", reload, Option::unwrap_or_default;
}

/// What the command line says over what the file says.
trait Over {
    /// This, and what is `below` it where this says nothing.
    fn over(self, below: Self) -> Self;
}

impl<T> Over for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }
}

impl Over for Vec<Timeout> {
    /// One timer after the other: the last one given wins.
    fn over(self, below: Self) -> Self {
        below.into_iter().chain(self).collect()
    }
}

/// Each exposure once, and in order.
fn in_order(given: Option<Vec<Exposed>>) -> Vec<Exposed> {
    let mut expose = given.unwrap_or_default();
    expose.sort_by_key(|exposed| (exposed.transport as u8, exposed.ports));
    expose.dedup();

    expose
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

    /// Sixteen digits that tell these settings from others: a hash of all of them, as they are in force, by
    /// FNV-1a.
    pub fn fingerprint(&self) -> String {
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0000_0100_0000_01b3;

        let text = serde_json::to_vec(self).unwrap_or_default();
        let hash = text.iter().fold(BASIS, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
        });

        format!("{hash:016x}")
    }

    /// The settings of a run that is told nothing. It would guard no interface.
    pub(crate) fn of_nothing() -> Self {
        Self::of(ConfigLayer::default(), ConfigLayer::default())
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
            trust: flags.trust.is_some(),
        };

        let settings = Self::of(flags, file);
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
        if self.trust.len() > MAX_ADDRESSES as usize {
            return Err(blame
                .failure(
                    blame.trust,
                    &format!(
                        "{} trusted prefixes: there is room for {MAX_ADDRESSES}",
                        self.trust.len()
                    ),
                )
                .remedy("give --trust, or the key trust, fewer and larger networks"));
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
    trust: bool,
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
