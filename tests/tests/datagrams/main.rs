//! UDP as resolvers, discovery and media use it.

mod answers;
mod discovery;
mod fragments;
mod leases;
mod services;

use std::net::UdpSocket;

use anyhow::{Context, Result};
use guard_common::outcome::Family;
use guard_tests::{
    frames::P,
    guard::Guard,
    netns::Direct,
    peers::{bound, unspecified},
    wire::Wire,
};

const MODES: [&str; 2] = ["native", "generic"];
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// The port that this host asks from.
const PORT: u16 = 40_000;

/// Two hosts, and the peer's interface to make answers on.
struct Lab {
    topology: Direct,
    wire: Wire,
}

impl Lab {
    fn new() -> Result<Self> {
        let topology = Direct::new()?;
        Ok(Self {
            wire: Wire::open(&topology.peer, topology.peer_interface())?,
            topology,
        })
    }

    fn guard(&self, mode: &str, flags: &[&str]) -> Result<Guard<'_>> {
        let flags: Vec<&str> = ["--xdp-mode", mode].iter().chain(flags).copied().collect();
        Guard::start(&self.topology.guarded, self.topology.interface(), &flags)
    }

    /// A socket of this host that is connected to nobody.
    fn socket(&self, family: Family, port: u16) -> Result<UdpSocket> {
        let local = unspecified(P.address(family));
        let socket = bound(&self.topology.guarded, || UdpSocket::bind((local, port)))
            .with_context(|| format!("bind {port}"))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// A socket of the peer, which hears queries to this port.
    fn server(&self, family: Family, port: u16) -> Result<UdpSocket> {
        let address = (P.address(family), port);
        let server = bound(&self.topology.peer, || UdpSocket::bind(address))
            .with_context(|| format!("bind {port} of the peer"))?;
        server.set_read_timeout(Some(std::time::Duration::from_secs(2)))?;
        Ok(server)
    }
}

/// How many datagrams arrive until none has for a while.
fn delivered(socket: &UdpSocket) -> usize {
    let mut buffer = vec![0; 65_536];
    guard_tests::wire::count(guard_tests::wire::QUIET, || {
        socket.recv_from(&mut buffer).is_ok()
    })
}
