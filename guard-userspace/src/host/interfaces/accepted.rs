//! Link addresses that an interface takes frames for beside its own: those of the containers above
//! it, whose interfaces are in namespaces that cannot be seen from here.

use std::{collections::BTreeSet, io};

use anyhow::Context;
use guard_common::frame::ethernet::MacAddress;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::host::netlink;

/// `RTM_NEWNEIGH`.
const NEW_NEIGHBOUR: u16 = 28;

/// Link addresses in the unicast filter of the interface with this index.
///
/// # Errors
/// When the kernel refuses to list them.
pub fn accepted(index: u32) -> anyhow::Result<BTreeSet<MacAddress>> {
    read_filter(index).context("rtnetlink: list link addresses that are accepted")
}

fn read_filter(index: u32) -> io::Result<BTreeSet<MacAddress>> {
    let netlink = netlink::open(NETLINK_ROUTE)?;
    // With it the kernel heeds the interface that the request names; without it all come along,
    // and are left out below.
    let _ = netlink.set_netlink_get_strict_chk(true);

    let mut accepted = BTreeSet::new();
    netlink::dump(&netlink, &request(index), |kind, payload| {
        if kind != NEW_NEIGHBOUR {
            return Ok(());
        }
        let entry = NeighbourMessage::parse(payload).map_err(io::Error::other)?;
        if entry.header.ifindex == index {
            accepted.extend(read(&entry));
        }
        Ok(())
    })?;

    Ok(accepted)
}

/// The link address of an entry of an interface's own filter, unless it is a group's.
pub(super) fn read(entry: &NeighbourMessage) -> Option<MacAddress> {
    if !entry.header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    entry
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => octets.as_slice().try_into().ok(),
            _ => None,
        })
        .map(MacAddress::new)
        .filter(|address| !address.is_group())
}

fn request(index: u32) -> Vec<u8> {
    let mut ask = NeighbourMessage::default();
    ask.header.family = AddressFamily::Bridge;
    ask.header.ifindex = index;

    netlink::request(RouteNetlinkMessage::GetNeighbour(ask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_takes_frames_for_nobody_else() {
        assert_eq!(
            accepted(1).expect("is for everybody to list"),
            BTreeSet::new()
        );
    }

    #[test]
    fn only_unicast_addresses_of_its_own_filter() {
        let entry = |flags, octets: &[u8]| {
            let mut entry = NeighbourMessage::default();
            entry.header.flags = flags;
            entry.attributes = vec![NeighbourAttribute::LinkLayerAddress(octets.to_vec())];
            read(&entry).map(MacAddress::octets)
        };
        let own = NeighbourFlags::Own;
        let table = [
            (own, &[2, 0, 0, 0, 0, 1][..], Some([2, 0, 0, 0, 0, 1])),
            (own, &[0x33, 0x33, 0, 0, 0, 1], None),
            (own, &[2, 0, 0, 0, 0], None),
            (NeighbourFlags::Controller, &[2, 0, 0, 0, 0, 1], None),
        ];
        for (flags, octets, expected) in table {
            assert_eq!(entry(flags, octets), expected, "{flags:?}, {octets:?}");
        }
    }
}
