//! T4: a container behind the guarded host.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use guard_tests::{
    frames::{End, G},
    guard::Guard,
    netns::{Direct, Namespace, link},
};

/// T4: a container at 10.9.5.2 and fd05::2 behind the guarded host.
pub struct Behind {
    pub topology: Direct,
    pub container: Namespace,
}

/// The container as those see it to whom it is routed.
pub const C: End = End {
    ipv4: std::net::Ipv4Addr::new(10, 9, 5, 2),
    ipv6: std::net::Ipv6Addr::new(0xfd05, 0, 0, 0, 0, 0, 0, 2),
    ..G
};

impl Behind {
    fn new() -> Result<Self> {
        let behind = Self {
            topology: Direct::new()?,
            container: Namespace::new("c")?,
        };
        let (host, container) = (&behind.topology.guarded, &behind.container);
        link((host, "gc"), (container, "vc"))?;
        for command in [
            "addr add 10.9.5.1/24 dev gc",
            "addr add fd05::1/64 dev gc nodad",
        ] {
            host.ip(command)?;
        }
        for command in [
            "addr add 10.9.5.2/24 dev vc",
            "addr add fd05::2/64 dev vc nodad",
            "route add default via 10.9.5.1",
            "-6 route add default via fd05::1",
        ] {
            container.ip(command)?;
        }
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(behind)
    }

    /// The peer knows the way.
    pub fn routed() -> Result<Self> {
        let behind = Self::new()?;
        let peer = &behind.topology.peer;
        peer.ip("route add 10.9.5.0/24 via 10.9.0.2")?;
        peer.ip("-6 route add fd05::/64 via fd09::2")?;
        Ok(behind)
    }

    /// The host lends its address.
    pub fn masqueraded() -> Result<Self> {
        Self::translated("masquerade;")
    }

    /// The host translates to addresses that nobody holds, as routers of many customers do: they lead
    /// to it, and what it would send there is discarded, of IPv6 because no route leads there.
    pub fn pooled() -> Result<Self> {
        let behind = Self::translated(
            "snat ip to 10.9.8.5-10.9.8.8; oifname \"vg\" snat ip6 to fd08::5-fd08::8;",
        )?;
        behind
            .topology
            .guarded
            .ip("route add blackhole 10.9.8.0/24")?;
        let peer = &behind.topology.peer;
        peer.ip("route add 10.9.8.0/24 via 10.9.0.2")?;
        peer.ip("-6 route add fd08::/64 via fd09::2")?;
        Ok(behind)
    }

    fn translated(statements: &str) -> Result<Self> {
        let behind = Self::new()?;
        let rules = &format!(
            "table inet nat {{ chain post {{ type nat hook postrouting priority 100; \
             oifname \"vg\" {statements} }}; }}"
        );
        let status = behind
            .topology
            .guarded
            .command("nft")
            .arg(rules)
            .stdin(Stdio::null())
            .status()
            .context("run nft")?;
        ensure!(status.success(), "nft takes no {rules}");
        Ok(behind)
    }

    pub fn guard(&self, mode: &str, flags: &[&str]) -> Result<Guard<'_>> {
        let host = &self.topology.guarded;
        let flags: Vec<&str> = ["--xdp-mode", mode].iter().chain(flags).copied().collect();
        Guard::start(host, self.topology.interface(), &flags)
    }
}
