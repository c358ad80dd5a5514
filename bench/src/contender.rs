//! What is compared: portguard, what a user would take instead, and the limits of either.

mod containers;
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

/// Prefixes of each kind that an administrator trusts.
const TRUSTING: [&str; 6] = [
    "--trust",
    "172.0.0.0/8",
    "--trust",
    "198.51.100.7/32",
    "--trust",
    "2a00:7:1::/48",
];

/// Ports all over the range.
const EXPOSING: [&str; 20] = [
    "--expose",
    "33001/tcp",
    "--expose",
    "36001/tcp",
    "--expose",
    "38001/tcp",
    "--expose",
    "41001/tcp",
    "--expose",
    "44001/tcp",
    "--expose",
    "47001/tcp",
    "--expose",
    "50001/tcp",
    "--expose",
    "53001/tcp",
    "--expose",
    "56001/tcp",
    "--expose",
    "59001/tcp",
];

/// Something that stands between unsolicited senders and a host.
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
    /// The same, on a host that forwards as one with containers does.
    PortguardForwarding,
    /// The same, with trusted prefixes that nothing is from.
    PortguardTrusting,
    /// The same, with ten exposed ports, spread over the range.
    PortguardExposing,
    /// All three at once.
    PortguardAsking,
    /// In monitor mode.
    PortguardMonitoring,
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
            Self::Portguard
                | Self::PortguardClsact
                | Self::PortguardGeneric
                | Self::PortguardForwarding
                | Self::PortguardTrusting
                | Self::PortguardExposing
                | Self::PortguardAsking
                | Self::PortguardMonitoring
        )
    }

    /// What could not be faster with a frame that is dropped, or would be.
    pub const fn limit_of_a_drop(self) -> Self {
        match self {
            Self::BarePass | Self::PortguardMonitoring => Self::BarePass,
            _ => Self::BareDrop,
        }
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
            Self::PortguardForwarding => "portguard, with containers",
            Self::PortguardTrusting => "portguard, trusting prefixes",
            Self::PortguardExposing => "portguard, ten exposed ports",
            Self::PortguardAsking => "portguard, all of these",
            Self::PortguardMonitoring => "portguard, monitor mode",
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
            Self::Portguard => guard(hosts, terms, &[]),
            Self::PortguardClsact => guard(
                hosts,
                Terms {
                    egress: "clsact",
                    ..terms
                },
                &[],
            ),
            Self::PortguardGeneric => guard(
                hosts,
                Terms {
                    mode: Mode::Generic,
                    ..terms
                },
                &[],
            ),
            Self::PortguardForwarding => {
                containers::prepare(host)?;
                guard(hosts, terms, &[])
            }
            Self::PortguardTrusting => guard(hosts, terms, &TRUSTING),
            Self::PortguardExposing => guard(hosts, terms, &EXPOSING),
            Self::PortguardAsking => {
                containers::prepare(host)?;
                guard(hosts, terms, &[&TRUSTING[..], &EXPOSING[..]].concat())
            }
            Self::PortguardMonitoring => guard(hosts, terms, &["--mode", "monitor"]),
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
fn guard<'a>(hosts: &'a Direct, terms: Terms, more: &[&str]) -> Result<Installed<'a>> {
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
    let flags = [&flags[..], more].concat();
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
