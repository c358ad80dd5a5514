//! Asks the kernel how it would send to an address.

use std::{collections::HashMap, io, net::IpAddr};

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Parseable,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::local::NEW_ROUTE;
use crate::host::netlink::Questions;

/// Where the kernel sends what goes to an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NextHop {
    /// To this host itself, or to a group of hosts.
    Here,
    /// To another host.
    Interface {
        /// By the interface with this index.
        index: u32,
        /// Whether that host is a neighbour there, and no gateway is between.
        direct: bool,
    },
    /// Nowhere: no route leads there, or one that discards.
    Discarded,
}

/// Look-ups in the routes of the network namespace of its opener.
pub struct RouteLookup {
    questions: Questions,
    /// What was answered about destinations.
    forwarded: HashMap<IpAddr, bool>,
}

impl RouteLookup {
    /// Opens a socket to the kernel. Its answers about what is forwarded are remembered, so it should
    /// not live long.
    ///
    /// # Errors
    /// When the kernel refuses the socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            questions: Questions::open(NETLINK_ROUTE)?,
            forwarded: HashMap::new(),
        })
    }

    /// Whether the routes send what is addressed so to another host. What cannot be told is not.
    pub fn forwards(&mut self, to: IpAddr) -> bool {
        if let Some(known) = self.forwarded.get(&to) {
            return *known;
        }
        let forwarded = matches!(self.next_hop(to, None, 0), Ok(NextHop::Interface { .. }));
        self.forwarded.insert(to, forwarded);

        forwarded
    }

    /// Where this host sends what goes to an address `from` one of its own, by a socket that is bound to
    /// the interface `device`, or to none where that is 0.
    ///
    /// # Errors
    /// When the kernel refuses for another reason than its routes.
    pub fn next_hop(
        &mut self,
        to: IpAddr,
        from: Option<IpAddr>,
        device: u32,
    ) -> io::Result<NextHop> {
        let answer = self
            .questions
            .ask(&request(to, from, device), |kind, payload| {
                if kind != NEW_ROUTE {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                RouteMessage::parse(payload)
                    .map(|route| read(&route))
                    .map_err(io::Error::other)
            });
        match answer.as_ref().map_err(io::Error::raw_os_error) {
            // What the kernel says of no route, and of one to nowhere: unreachable, blackhole, prohibit.
            Err(Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)) => {
                Ok(NextHop::Discarded)
            }
            _ => answer,
        }
    }
}

fn read(route: &RouteMessage) -> NextHop {
    let interface = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        });
    let direct = !route.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
        )
    });

    match (route.header.kind, interface) {
        (RouteType::Unicast, Some(index)) => NextHop::Interface { index, direct },
        (RouteType::Unicast, None) => NextHop::Discarded,
        _ => NextHop::Here,
    }
}

fn request(to: IpAddr, from: Option<IpAddr>, device: u32) -> Vec<u8> {
    let mut ask = RouteMessage::default();
    let (family, length) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    ask.header.address_family = family;
    ask.header.destination_prefix_length = length;
    ask.attributes
        .push(RouteAttribute::Destination(address(to)));
    if let Some(from) = from {
        ask.header.source_prefix_length = length;
        ask.attributes.push(RouteAttribute::Source(address(from)));
    }
    if device != 0 {
        ask.attributes.push(RouteAttribute::Oif(device));
    }
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let ask = RouteNetlinkMessage::GetRoute(ask);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(ask));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    bytes
}

fn address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_here_in_both_families() {
        let mut lookup = RouteLookup::open().expect("routes are for everybody to ask about");
        for address in ["127.0.0.1", "127.9.9.9", "::1"] {
            let address = address.parse().expect("is an address");
            let found = lookup.next_hop(address, None, 0).expect("is answered");
            assert_eq!(found, NextHop::Here, "{address}");
            assert!(!lookup.forwards(address));
        }
    }
}
