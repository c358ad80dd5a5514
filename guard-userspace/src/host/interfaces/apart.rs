//! Which peers the guard has nothing to do with, because they are reached by interfaces that are apart from
//! the guarded ones.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::IpAddr,
};

use netlink_packet_core::Parseable;
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, LinkMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Interface, NextHop, RouteLookup, Topology, query, readable};
use crate::host::netlink;

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;

/// Interfaces that get nothing from the guarded ones, and the neighbours on them.
pub struct Apart {
    lookup: RouteLookup,
    interfaces: BTreeSet<u32>,
    known: HashMap<(IpAddr, IpAddr, u32), bool>,
}

impl Apart {
    /// Asks the kernel for the interfaces of the calling thread's network namespace, of which those with these
    /// names are guarded.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn from(guarded: &[String]) -> io::Result<Self> {
        let mut interfaces = Vec::new();
        let mut paired = BTreeSet::new();
        let netlink = netlink::open(NETLINK_ROUTE)?;
        let request = netlink::request(RouteNetlinkMessage::GetLink(LinkMessage::default()));
        netlink::dump(&netlink, &request, |kind, payload| {
            if kind == NEW_LINK {
                let mut payload = payload.to_vec();
                readable::make_link_readable(&mut payload);
                let link = LinkMessage::parse(&payload[..]).map_err(io::Error::other)?;
                let interface = query::interface(&link);
                let is_elsewhere =
                    |one: &LinkAttribute| matches!(one, LinkAttribute::LinkNetNsId(_));
                // The other end of this veth may be a port of a bridge that a guarded interface is a port of.
                if interface.kind.as_deref() == Some("veth")
                    && !link.attributes.iter().any(is_elsewhere)
                {
                    paired.insert(interface.index);
                }
                interfaces.push(interface);
            }
            Ok(())
        })?;

        Ok(Self {
            lookup: RouteLookup::open()?,
            interfaces: apart(&interfaces, &paired, guarded),
            known: HashMap::new(),
        })
    }

    /// Whether the peer of a connection is a neighbour on an interface that gets nothing from guarded ones, as the
    /// routes say. Of one behind a gateway they do not say by which interface it sends.
    pub fn reaches(&mut self, local: IpAddr, remote: IpAddr, device: u32) -> bool {
        let (lookup, interfaces) = (&mut self.lookup, &self.interfaces);

        *(self.known)
            .entry((local, remote, device))
            .or_insert_with(|| {
                matches!(
                    lookup.next_hop(remote, Some(local), device),
                    Ok(NextHop::Interface { index, direct: true }) if interfaces.contains(&index)
                )
            })
    }
}

fn apart(interfaces: &[Interface], paired: &BTreeSet<u32>, guarded: &[String]) -> BTreeSet<u32> {
    let layers = Topology::new(interfaces);
    let near: BTreeSet<u32> = interfaces
        .iter()
        .filter(|one| guarded.iter().any(|name| one.is_called(name)))
        .flat_map(|one| layers.above(one))
        .map(|one| one.index)
        .collect();
    // Without a guarded one nothing is known.
    if near.is_empty() {
        return near;
    }

    interfaces
        .iter()
        .map(|one| one.index)
        .filter(|index| !near.contains(index) && !paired.contains(index))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, controller: Option<u32>, lower: Option<u32>) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            altnames: Vec::new(),
            mac: None,
            link_type: 1,
            kind: None,
            up: true,
            promiscuous: false,
            mtu: 1500,
            max_mtu: None,
            addresses: Vec::new(),
            controller,
            lower,
            xdp: Vec::new(),
        }
    }

    #[test]
    fn what_gets_frames_from_a_guarded_interface_is_not_apart() {
        let all = [
            interface(2, "eth0", None, None),
            interface(3, "eth0.5", Some(4), Some(2)),
            interface(4, "br5", None, None),
            interface(5, "eth1", None, None),
            interface(6, "docker0", None, None),
            interface(7, "veth7", None, None),
        ];
        let paired = BTreeSet::from([7]);
        let of = |guarded: &[&str]| {
            let guarded: Vec<_> = guarded.iter().map(ToString::to_string).collect();
            apart(&all, &paired, &guarded)
        };
        assert_eq!(of(&["eth0"]), BTreeSet::from([5, 6]));
        assert_eq!(of(&["br5"]), BTreeSet::from([2, 3, 5, 6]));
        assert_eq!(of(&["eth0", "eth1"]), BTreeSet::from([6]));
        assert_eq!(of(&["absent"]), BTreeSet::new());
    }
}
