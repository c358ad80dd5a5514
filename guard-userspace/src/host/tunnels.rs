//! UDP ports on which the kernel itself receives: those of tunnels.
//!
//! A socket for which no process is found may be anybody's: a thread with descriptors of its own, a
//! message in flight, a process out of sight. So the kernel is asked for its tunnels instead, over
//! netlink, and a port is the kernel's because a device says so. What is asked loads no module.

mod generic;
mod link;

use std::{collections::BTreeSet, io, net::IpAddr};

use anyhow::Context;

/// More are left out. Only who administers the namespace makes tunnels.
const MOST: usize = 1024;

/// One address and port on which the kernel receives UDP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelPort {
    /// The port.
    pub port: u16,
    /// The local address; the unspecified one of a family stands for all of that family.
    pub address: IpAddr,
    /// What receives there, such as `vxlan`.
    pub kind: &'static str,
}

impl TunnelPort {
    /// What receives at this port of an address; none does at port 0.
    fn at(kind: &'static str, port: u16, address: IpAddr) -> Option<Self> {
        (port != 0).then_some(Self {
            port,
            address,
            kind,
        })
    }

    /// Whether packets to this address, at the port, are the kernel's.
    pub fn covers(&self, address: IpAddr) -> bool {
        let everywhere = self.address.is_unspecified();

        address == self.address || everywhere && address.is_ipv4() == self.address.is_ipv4()
    }
}

/// Asks for the tunnels of the calling thread's network namespace, in order.
///
/// Blocks for as long as the kernel takes, some microseconds a device.
///
/// # Errors
/// When the kernel refuses to list its devices, or to tell about one.
pub fn list() -> anyhow::Result<BTreeSet<TunnelPort>> {
    let devices = link::list().context("rtnetlink: list tunnels")?;
    let mut ports: BTreeSet<TunnelPort> = devices
        .iter()
        .flat_map(|device| device.ports.iter().cloned())
        .collect();
    let wireguard = devices.iter().filter(|device| device.is_wireguard);
    ports.extend(generic::list(wireguard.map(|device| device.index))?);
    while ports.len() > MOST {
        ports.pop_last();
    }

    Ok(ports)
}

/// Reads one message as each of the readers would.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any(payload: &[u8]) {
    let _ = link::read(payload);
    for read in generic::READERS {
        let _ = read(payload);
    }
}

fn other(error: impl Into<anyhow::Error>) -> io::Error {
    io::Error::other(error.into())
}
