//! The kernel's local table: every address whose packets end on this host.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::Context;
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use rtnetlink::Handle;

/// `RT_TABLE_LOCAL`, include/uapi/linux/rtnetlink.h.
const LOCAL: u32 = 255;

/// Prefixes of the local table: addresses of all interfaces, broadcast, anycast and multicast
/// addresses, and whatever else was routed to this host.
///
/// # Errors
/// When the kernel refuses to list routes.
pub async fn local_table(netlink: &Handle) -> anyhow::Result<BTreeSet<IpNet>> {
    let mut local = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        let routes: Vec<_> = netlink
            .route()
            .get(ask)
            .execute()
            .try_collect()
            .await
            .context("rtnetlink: list routes")?;
        local.extend(
            routes
                .iter()
                .filter(|route| is_local(route))
                .filter_map(prefix),
        );
    }

    Ok(local)
}

fn is_local(route: &RouteMessage) -> bool {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });

    table.unwrap_or(u32::from(route.header.table)) == LOCAL
}

fn prefix(route: &RouteMessage) -> Option<IpNet> {
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
