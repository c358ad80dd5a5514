//! The kernel's local table: every address whose packets end on this host.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    net::IpAddr,
};

use anyhow::Context;
use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::host::netlink;

/// `RT_TABLE_LOCAL`, include/uapi/linux/rtnetlink.h.
const LOCAL: u8 = 255;

/// `RTM_NEWROUTE`.
pub(super) const NEW_ROUTE: u16 = 24;

/// Addresses whose packets end on this host, to be asked about one by one.
#[derive(Debug, Default)]
pub struct LocalAddresses {
    addresses: HashSet<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl LocalAddresses {
    /// What the local table of the calling thread's network namespace holds at this moment.
    ///
    /// # Errors
    /// When the kernel refuses to list routes.
    pub fn read() -> anyhow::Result<Self> {
        Ok(local_table()?.into_iter().collect())
    }

    /// Whether packets to this address end here; those to broadcast addresses do.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
            || self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }
}

impl FromIterator<IpNet> for LocalAddresses {
    fn from_iter<T: IntoIterator<Item = IpNet>>(local: T) -> Self {
        let (addresses, prefixes): (Vec<_>, Vec<_>) = local
            .into_iter()
            .partition(|net| net.prefix_len() == net.max_prefix_len());

        Self {
            addresses: addresses.iter().map(IpNet::addr).collect(),
            prefixes,
        }
    }
}

/// Prefixes of the local table: addresses of all interfaces, broadcast, anycast and multicast
/// addresses, and whatever else was routed to this host.
///
/// # Errors
/// When the kernel refuses to list routes.
pub fn local_table() -> anyhow::Result<BTreeSet<IpNet>> {
    let mut local = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        read(family, &mut local).context("rtnetlink: list routes to this host")?;
    }

    Ok(local)
}

fn read(family: AddressFamily, local: &mut BTreeSet<IpNet>) -> io::Result<()> {
    let netlink = netlink::open(NETLINK_ROUTE)?;
    // With it the kernel heeds the table that the request names; without it a router's whole
    // table comes along, and is left out below.
    let _ = netlink.set_netlink_get_strict_chk(true);

    netlink::dump(&netlink, &request(family), |kind, payload| {
        if kind != NEW_ROUTE {
            return Ok(());
        }
        let route = RouteMessage::parse(payload).map_err(io::Error::other)?;
        local.extend(read_route(&route));
        Ok(())
    })
}

/// The prefix of a route, where it is one to this host.
pub(super) fn read_route(route: &RouteMessage) -> Option<IpNet> {
    is_local(route).then(|| prefix(route)).flatten()
}

fn request(family: AddressFamily) -> Vec<u8> {
    let mut ask = RouteMessage::default();
    ask.header.address_family = family;
    ask.header.table = LOCAL;

    netlink::request(RouteNetlinkMessage::GetRoute(ask))
}

/// Whether a route is in the local table.
pub(super) fn is_local(route: &RouteMessage) -> bool {
    table(route) == u32::from(LOCAL)
}

/// The table that a route is in.
pub(super) fn table(route: &RouteMessage) -> u32 {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });

    table.unwrap_or(u32::from(route.header.table))
}

/// Where a route leads, unless that is everywhere.
pub(super) fn prefix(route: &RouteMessage) -> Option<IpNet> {
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                Some(IpAddr::from(*address))
            }
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                Some(IpAddr::from(*address))
            }
            _ => None,
        })?;

    IpNet::new(destination, route.header.destination_prefix_length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_in_the_local_table_and_no_other_table_is() {
        let local = local_table().expect("routes are for everybody to list");
        let loopback: IpNet = "127.0.0.0/8".parse().expect("is a prefix");
        assert!(local.contains(&loopback), "{local:?}");
        // A default route is never one to this host.
        assert!(local.iter().all(|net| net.prefix_len() != 0), "{local:?}");
    }

    #[test]
    fn addresses_and_prefixes() {
        let local = ["10.9.0.2/32", "10.9.0.255/32", "127.0.0.0/8", "fd09::2/128"];
        let local = LocalAddresses::from_iter(local.map(|net| net.parse().expect("is a prefix")));
        let table = [
            ("10.9.0.2", true),
            ("10.9.0.255", true),
            ("10.9.0.1", false),
            ("127.0.0.53", true),
            ("fd09::2", true),
            ("fd09::1", false),
        ];
        for (address, here) in table {
            let address = address.parse().expect("is an address");
            assert_eq!(local.contains(address), here, "{address}");
        }
    }
}
