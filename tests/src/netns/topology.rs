//! Hosts and the links between them.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::Namespace;
use crate::frames::{End, G, P};

/// The guarded host's interface.
const GUARDED_LINK: &str = "vg";
/// The peer's interface.
const PEER_LINK: &str = "vp";

/// How long a busy machine may take to bring up a link.
const PATIENCE: Duration = Duration::from_secs(5);

/// T1: the guarded host and its peer on one link, with the addresses of [`G`] and [`P`].
#[derive(Debug)]
pub struct Direct {
    /// The guarded host. Its interface is [`interface`](Self::interface).
    pub guarded: Namespace,
    /// The peer, whose interface is `vp`.
    pub peer: Namespace,
}

impl Direct {
    /// Sets it up.
    pub fn new() -> Result<Self> {
        let topology = Self {
            guarded: Namespace::new("g")?,
            peer: Namespace::new("p")?,
        };
        topology.connect()?;
        Ok(topology)
    }

    /// Sets it up with two interfaces that are there, the guarded host's and the peer's, and that
    /// frames go between.
    pub fn with((guarded, peer): (&str, &str)) -> Result<Self> {
        let topology = Self {
            guarded: Namespace::new("g")?,
            peer: Namespace::new("p")?,
        };
        for (host, from, name, own, other) in [
            (&topology.guarded, guarded, GUARDED_LINK, &G, &P),
            (&topology.peer, peer, PEER_LINK, &P, &G),
        ] {
            host.take(from)?;
            host.ip(&format!("link set {from} name {name} mtu 1500"))?;
            address(host, name, own)?;
            host.ip(&format!("link set {name} up"))?;
            host.ip(&format!("addr replace {}/64 dev {name} nodad", own.ipv6))?;
            neighbour(host, name, other)?;
        }
        up(&[
            (&topology.guarded, GUARDED_LINK),
            (&topology.peer, PEER_LINK),
        ])?;
        Ok(topology)
    }

    /// Sets it up with the guarded host's addresses on a bridge, `br0`, of which its interface is a
    /// port.
    pub fn bridged() -> Result<Self> {
        let topology = Self::new()?;
        let host = &topology.guarded;
        for command in [
            "addr flush dev vg",
            "link add br0 type bridge",
            "link set br0 address 02:00:00:00:00:02",
            "link set vg address 02:00:00:00:00:09",
            "link set vg master br0",
            "link set br0 up",
        ] {
            host.ip(command)?;
        }
        host.ip(&format!("addr add {}/24 dev br0", G.ipv4))?;
        host.ip(&format!("addr add {}/64 dev br0 nodad", G.ipv6))?;
        Ok(topology)
    }

    /// Makes the link, for the first time or anew.
    pub fn connect(&self) -> Result<()> {
        let (guarded, peer) = (&self.guarded, &self.peer);
        link((guarded, GUARDED_LINK), (peer, PEER_LINK))?;
        address(guarded, GUARDED_LINK, &G)?;
        address(peer, PEER_LINK, &P)?;
        // Nobody need ask who has an address, which would be counted.
        neighbour(guarded, GUARDED_LINK, &P)?;
        neighbour(peer, PEER_LINK, &G)
    }

    /// The interface to be guarded.
    pub const fn interface(&self) -> &'static str {
        GUARDED_LINK
    }

    /// The peer's end of the link.
    pub const fn peer_interface(&self) -> &'static str {
        PEER_LINK
    }
}

/// T2: a router between the guarded host and a peer at 10.8.0.1 and fd08::1.
#[derive(Debug)]
pub struct Routed {
    /// The guarded host, with `vg`.
    pub guarded: Namespace,
    /// The router, with `rg` towards the guarded host and `rp` towards the peer.
    pub router: Namespace,
    /// The peer, with `vp`.
    pub peer: Namespace,
}

impl Routed {
    /// Sets it up. The link behind the router takes no packets longer than `mtu`, in that
    /// direction: the peer's own stay as long as they were.
    pub fn new(mtu: u32) -> Result<Self> {
        let topology = Self {
            guarded: Namespace::new("g")?,
            router: Namespace::new("r")?,
            peer: Namespace::new("p")?,
        };
        let (guarded, router, peer) = (&topology.guarded, &topology.router, &topology.peer);
        link((guarded, GUARDED_LINK), (router, "rg"))?;
        link((peer, PEER_LINK), (router, "rp"))?;
        address(guarded, GUARDED_LINK, &G)?;
        for command in [
            "addr add 10.9.0.254/24 dev rg",
            "addr add fd09::fe/64 dev rg nodad",
            "addr add 10.8.0.254/24 dev rp",
            "addr add fd08::fe/64 dev rp nodad",
        ] {
            router.ip(command)?;
        }
        peer.ip("addr add 10.8.0.1/24 dev vp")?;
        peer.ip("addr add fd08::1/64 dev vp nodad")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        for (host, number) in [(guarded, 9), (peer, 8)] {
            host.ip(&format!("route add default via 10.{number}.0.254"))?;
            host.ip(&format!("-6 route add default via fd0{number}::fe"))?;
        }
        router.ip(&format!("link set rp mtu {mtu}"))?;
        Ok(topology)
    }
}

/// T3: [`Direct`], with a second link: `vg2` at 10.9.1.2 to `vp2` at 10.9.1.1.
#[derive(Debug)]
pub struct TwoLinks(pub Direct);

impl TwoLinks {
    /// Sets it up. Answers may come back by the other link.
    pub fn new() -> Result<Self> {
        let direct = Direct::new()?;
        link((&direct.guarded, "vg2"), (&direct.peer, "vp2"))?;
        direct.guarded.ip("addr add 10.9.1.2/24 dev vg2")?;
        direct.peer.ip("addr add 10.9.1.1/24 dev vp2")?;
        for interface in ["all", GUARDED_LINK, "vg2"] {
            let setting = format!("net/ipv4/conf/{interface}/rp_filter");
            direct.guarded.sysctl(&setting, "0")?;
        }
        Ok(Self(direct))
    }
}

/// A veth pair between two hosts, both ends up.
pub fn link(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    let (ours, theirs) = (a.1, b.1);
    let other = b.0.name();
    a.0.ip(&format!(
        "link add {ours} type veth peer name {theirs} netns {other}"
    ))?;
    for (host, interface) in [a, b] {
        host.ip(&format!("link set {interface} up"))?;
    }
    up(&[a, b])
}

/// Waits until the kernel has noticed that links are up: before, it drops what is sent there.
fn up(links: &[(&Namespace, &str)]) -> Result<()> {
    links.iter().try_for_each(|&(host, interface)| {
        let deadline = Instant::now() + PATIENCE;
        while !host.is_running(interface)? {
            ensure!(Instant::now() < deadline, "{interface} does not come up");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })
}

fn address(host: &Namespace, interface: &str, end: &End) -> Result<()> {
    host.ip(&format!("link set {interface} address {}", mac(end)))?;
    host.ip(&format!("addr add {}/24 dev {interface}", end.ipv4))?;
    host.ip(&format!("addr add {}/64 dev {interface} nodad", end.ipv6))
}

fn neighbour(host: &Namespace, interface: &str, end: &End) -> Result<()> {
    let mac = mac(end);
    for address in [end.ipv4.to_string(), end.ipv6.to_string()] {
        host.ip(&format!(
            "neigh replace {address} lladdr {mac} dev {interface} nud permanent"
        ))?;
    }
    Ok(())
}

fn mac(end: &End) -> String {
    end.mac.map(|byte| format!("{byte:02x}")).join(":")
}
