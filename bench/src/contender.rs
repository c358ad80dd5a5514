//! What is compared: portguard, what a user would take instead, and the limits of either.

mod firewall;
mod xdp_filter;

use std::{
    fmt, fs,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use guard_tests::{guard::Guard, netns::Direct};
use serde::Serialize;

pub use self::firewall::succeed;
use self::xdp_filter::XdpFilter;
use crate::{
    bpf::{self, Mode},
    processor,
    programs::BenchPrograms,
};

/// Something that stands between strangers and a host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// An XDP program that drops everything: nothing in XDP can be faster.
    BareDrop,
    /// An XDP program that passes everything, and so leaves all to the host.
    BarePass,
    /// An XDP program that drops UDP, and passes the rest: nothing in XDP keeps more of a client
    /// beside a flood of UDP.
    BareUdpDrop,
    /// The release daemon, with all its defaults but long timers and room for the flows.
    Portguard,
    /// The same, with a classifier of the older kind on the way out.
    PortguardClsact,
    /// The same, with XDP in the stack.
    PortguardGeneric,
    /// nftables with conntrack, where packets for the host come in.
    NftInput,
    /// nftables with conntrack, before the host looks for a route.
    NftPrerouting,
    /// nftables at the interface, without conntrack.
    NftIngress,
    /// iptables with conntrack, in the table filter.
    IptablesInput,
    /// iptables without conntrack, in the table raw.
    IptablesRaw,
    /// The XDP filter of Debian's xdp-tools, with every port of the range denied.
    XdpFilter,
}

impl Contender {
    /// Those that a user would take instead of portguard.
    pub const PEERS: [Self; 6] = [
        Self::NftInput,
        Self::NftPrerouting,
        Self::NftIngress,
        Self::IptablesInput,
        Self::IptablesRaw,
        Self::XdpFilter,
    ];

    /// Whether it is portguard, in whatever way it is attached.
    pub const fn is_portguard(self) -> bool {
        matches!(
            self,
            Self::Portguard | Self::PortguardClsact | Self::PortguardGeneric
        )
    }

    /// Whether it is one of [`PEERS`](Self::PEERS).
    pub fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BareDrop => "bare XDP_DROP",
            Self::BarePass => "bare XDP_PASS",
            Self::BareUdpDrop => "bare XDP_DROP of all UDP",
            Self::Portguard => "portguard",
            Self::PortguardClsact => "portguard, clsact",
            Self::PortguardGeneric => "portguard, generic XDP",
            Self::NftInput => "nft, conntrack, input",
            Self::NftPrerouting => "nft, conntrack, prerouting",
            Self::NftIngress => "nft, stateless, netdev ingress",
            Self::IptablesInput => "iptables, conntrack, input",
            Self::IptablesRaw => "iptables, stateless, raw",
            Self::XdpFilter => "xdp-filter, stateless",
        })
    }
}

/// How a contender is attached, where it can be attached in more than one way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Where XDP programs run.
    pub mode: Mode,
    /// The egress hook of portguard.
    pub egress: &'static str,
    /// Flows that portguard has room for in each map.
    pub max_flows: u32,
    /// Whether there are sockets behind portguard's flows.
    pub sockets: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            mode: Mode::Native,
            egress: "tcx",
            max_flows: 1 << 16,
            sockets: true,
        }
    }
}

/// A contender in its place, for as long as this lives.
pub enum Installed<'a> {
    /// An XDP program that does nothing.
    Bare { _link: OwnedFd },
    /// The daemon.
    Guard(Guard<'a>),
    /// Rules, which go with the host.
    Rules,
    /// The XDP filter.
    XdpFilter { _filter: XdpFilter<'a> },
}

impl Contender {
    /// Puts it in its place.
    ///
    /// # Errors
    /// When it is not installed, or refuses.
    pub fn install<'a>(
        self,
        hosts: &'a Direct,
        bare: &BenchPrograms,
        terms: Terms,
    ) -> Result<Installed<'a>> {
        let host = &hosts.guarded;
        let bare = |name| {
            let program = bare.descriptor(name)?.as_fd();
            let link = host
                .run(|| bpf::attach(program, hosts.interface(), terms.mode))
                .with_context(|| format!("attach {name}"))?;
            Ok(Installed::Bare { _link: link })
        };
        let rules = |installed: Result<()>| installed.map(|()| Installed::Rules);
        let conntrack = || firewall::remember_long(host);
        match self {
            Self::BareDrop => bare("bare_drop"),
            Self::BarePass => bare("bare_pass"),
            Self::BareUdpDrop => bare("bare_udp_drop"),
            Self::Portguard => guard(hosts, terms),
            Self::PortguardClsact => guard(
                hosts,
                Terms {
                    egress: "clsact",
                    ..terms
                },
            ),
            Self::PortguardGeneric => guard(
                hosts,
                Terms {
                    mode: Mode::Generic,
                    ..terms
                },
            ),
            Self::NftInput => {
                conntrack()?;
                rules(firewall::nft_conntrack(host, "input"))
            }
            Self::NftPrerouting => {
                conntrack()?;
                rules(firewall::nft_conntrack(host, "prerouting"))
            }
            Self::NftIngress => rules(firewall::nft_ingress(host, hosts.interface())),
            Self::IptablesInput => {
                conntrack()?;
                rules(firewall::iptables_conntrack(host))
            }
            Self::IptablesRaw => rules(firewall::iptables_raw(host)),
            Self::XdpFilter => {
                XdpFilter::load(hosts).map(|filter| Installed::XdpFilter { _filter: filter })
            }
        }
    }
}

/// The release daemon. It is kept off the processor that is measured on, as the other parts of the
/// bench are.
fn guard(hosts: &Direct, terms: Terms) -> Result<Installed<'_>> {
    let mode = terms.mode.to_string();
    let max_flows = terms.max_flows.to_string();
    let flags = [
        "--xdp-mode",
        &mode,
        "--egress-hook",
        terms.egress,
        "--max-flows",
        &max_flows,
        // No flow of the bench expires while it is measured.
        "--timeout",
        "udp=3600",
    ];
    let guard = Guard::start(&hosts.guarded, hosts.interface(), &flags)?;
    processor::pin_process(guard.pid(), processor::other())?;
    Ok(Installed::Guard(guard))
}

/// Where a map of the daemon's is pinned.
///
/// # Errors
/// When it is not.
pub fn pinned(guard: &Guard<'_>, map: &str) -> Result<PathBuf> {
    find(guard.pins(), map)?.with_context(|| format!("{map} is not pinned"))
}

fn find(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, name)? {
                return Ok(Some(found));
            }
        } else if path.ends_with(name) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
