//! What an audit looks at.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use guard_common::frame::transport::Transport;

use super::{
    Reachable,
    firewall::{self, Firewalls},
};
use crate::{
    api::control::{Client, StatusJson},
    base::{failure::Failure, text},
    config::Exposed,
    daemon::process::block_on,
    guard::listeners,
    host::{
        interfaces::{self, Interface},
        lock::InstanceLock,
        namespace,
        range::{GuardedPorts, LocalPorts, PortRange},
        socket_owners::SocketOwner,
        sysctl_d::BootSettings,
    },
};

/// How long the owners of listeners are looked for.
const NAMING: Duration = Duration::from_secs(2);

/// The sysctls that findings are about, with dots.
const SYSCTLS: [&str; 6] = [
    "net.ipv4.tcp_syncookies",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.default.rp_filter",
    "net.ipv4.tcp_rfc1337",
    "kernel.unprivileged_bpf_disabled",
    "net.core.bpf_jit_harden",
];

/// Everything that an audit looks at.
#[derive(Clone, Debug)]
pub(super) struct AuditFacts {
    /// The range and the reserved ports at run time.
    pub(super) local: LocalPorts,
    /// What the next boot sets, by key.
    pub(super) boot: BootSettings,
    /// The values of [`SYSCTLS`] that this kernel has.
    pub(super) sysctls: BTreeMap<&'static str, String>,
    /// Who waits for others on addresses that are not loopback.
    pub(super) listeners: Vec<Waiting>,
    /// The interfaces of this namespace.
    pub(super) interfaces: Vec<Interface>,
    /// The running guard, if one answers.
    pub(super) guard: Option<StatusJson>,
    /// What firewalls translate and accept.
    pub(super) firewalls: Firewalls,
    /// The security modules that the kernel has in force, with commas between.
    pub(super) modules: Option<String>,
    /// What confines the running guard, as the kernel says, such as `unconfined`.
    pub(super) confinement: Option<String>,
}

/// A socket that waits for packets of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) transport: Transport,
    pub(super) port: u16,
    /// The process, its unit and its container, as far as they are known; fit to be shown.
    pub(super) who: String,
}

impl AuditFacts {
    /// Looks at the calling thread's network namespace.
    pub(super) fn gather(control: &Path) -> Result<Self, Failure> {
        let guard = match Client::new(control).status() {
            Ok(status) => Some(status),
            Err(failure) => {
                tracing::debug!("{failure}");
                None
            }
        };
        let pid = InstanceLock::holder(&namespace::name()?);

        Ok(Self {
            local: LocalPorts::read(None)?,
            boot: BootSettings::read(Path::new("/"))?,
            sysctls: SYSCTLS
                .into_iter()
                .filter_map(|key| Some((key, sysctl(key)?)))
                .collect(),
            listeners: waiting()?,
            interfaces: block_on(async {
                let netlink = interfaces::connect()?;
                Ok(interfaces::list(&netlink).await?)
            })?,
            guard,
            firewalls: firewall::ask(),
            modules: read("/sys/kernel/security/lsm"),
            confinement: pid.and_then(|pid| read(&format!("/proc/{pid}/attr/current"))),
        })
    }

    /// How many ports of the range others reach.
    pub(super) fn reachable(&self) -> Reachable {
        let count = |ports: &GuardedPorts| -> u32 {
            [Transport::Tcp, Transport::Udp]
                .into_iter()
                .map(|transport| ports.bitmap(transport).count())
                .sum()
        };
        let range = self.local.range;
        let before = 2 * (u32::from(range.last()) - u32::from(range.first()) + 1);
        let now = match self.guarded() {
            Some(guarded) => before - count(&guarded).min(before),
            None => before,
        };

        Reachable { before, now }
    }

    /// The ports of the kernel's range that are guarded in fact, or `None` where nothing is dropped.
    pub(super) fn guarded(&self) -> Option<GuardedPorts> {
        let status = self.guard.as_ref().filter(|status| enforces(status))?;
        let range = PortRange::new(
            status.range.first.max(self.local.range.first()),
            status.range.last.min(self.local.range.last()),
        )
        .ok()?;
        let local = LocalPorts {
            range,
            reserved: self.local.reserved.clone(),
        };
        let exposed = status.exposed.iter().filter_map(|text| {
            let exposed: Exposed = text.parse().ok()?;
            Some((exposed.transport, exposed.ports))
        });

        Some(GuardedPorts::new(&local, exposed))
    }
}

/// Whether a guard drops what is unsolicited.
pub(super) fn enforces(status: &StatusJson) -> bool {
    status.mode == crate::config::Mode::Enforce
}

fn sysctl(key: &str) -> Option<String> {
    read(&format!("/proc/sys/{}", key.replace('.', "/")))
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;

    Some(text.trim_end_matches(['\n', '\0']).trim().to_owned())
}

fn waiting() -> anyhow::Result<Vec<Waiting>> {
    let everything = LocalPorts {
        range: PortRange::new(1, u16::MAX)?,
        reserved: Vec::new(),
    };
    let mut survey = listeners::survey(&GuardedPorts::new(&everything, []), &[], &[])?;
    listeners::name_here(&mut survey.listeners, NAMING);

    Ok(survey
        .listeners
        .iter()
        .map(|listener| Waiting {
            transport: listener.transport,
            port: listener.port,
            who: who(&listener.owner),
        })
        .collect())
}

/// Such as `sshd, pid 812, unit ssh.service`.
fn who(owner: &SocketOwner) -> String {
    let mut who = owner.to_string();
    let cgroup = owner
        .pid()
        .and_then(|pid| read(&format!("/proc/{pid}/cgroup")))
        .unwrap_or_default();
    if let Some(unit) = unit(&cgroup) {
        who.push_str(&format!(", unit {}", text::plain(unit)));
    }
    if let Some(container) = container(&cgroup) {
        who.push_str(&format!(", container {container}"));
    }

    who
}

/// The innermost systemd unit that a process belongs to, by its control groups.
fn unit(cgroup: &str) -> Option<&str> {
    components(cgroup)
        .rfind(|component| component.ends_with(".service") || component.ends_with(".scope"))
}

/// The container that a process belongs to: runtimes name the control group by an id of 64
/// hexadecimal digits, of which they show twelve.
fn container(cgroup: &str) -> Option<&str> {
    components(cgroup).find_map(|component| {
        let id = component
            .split(['-', '.', ':'])
            .find(|part| part.len() == 64 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        Some(&id[..12])
    })
}

fn components(cgroup: &str) -> impl DoubleEndedIterator<Item = &str> {
    cgroup.lines().flat_map(|line| line.split('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers_by_control_group() {
        let id = "0123456789abcdef".repeat(4);
        // control groups, unit, container
        let table = [
            (
                "0::/system.slice/ssh.service\n".to_owned(),
                Some("ssh.service".to_owned()),
                None,
            ),
            (
                format!("0::/system.slice/docker-{id}.scope\n"),
                Some(format!("docker-{id}.scope")),
                Some("0123456789ab"),
            ),
            (format!("0::/docker/{id}\n"), None, Some("0123456789ab")),
            (
                format!("0::/kubepods.slice/pod5.slice/cri-containerd-{id}.scope\n"),
                Some(format!("cri-containerd-{id}.scope")),
                Some("0123456789ab"),
            ),
            (
                "0::/user.slice/user-0.slice/session-3.scope\n".to_owned(),
                Some("session-3.scope".to_owned()),
                None,
            ),
            ("0::/\n".to_owned(), None, None),
            (String::new(), None, None),
        ];
        for (cgroup, unit_found, container_found) in table {
            assert_eq!(unit(&cgroup), unit_found.as_deref(), "{cgroup}");
            assert_eq!(container(&cgroup), container_found, "{cgroup}");
        }
    }
}
