//! Routes that say who is a neighbour, and which addresses of other hosts may end here all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Context;
use guard_common::{
    abi::layout::{DIVERTED, LOCAL, UNDECIDED},
    outcome::Family,
};
use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    rule::{RuleAttribute, RuleFlags, RuleMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::local::{self, NEW_ROUTE};
use crate::host::netlink;

/// `RTM_NEWRULE`.
const NEW_RULE: u16 = 32;

/// Routes of a family that are read without asking the kernel for less. A router of the whole
/// internet has a million, of which hardly any is without a gateway.
const MANY: usize = 20_000;

/// Who makes routes to neighbours where there are more: the kernel, the administrator, router
/// advertisements, DHCP, and what keeps addresses up.
const MAKERS: [RouteProtocol; 6] = [
    RouteProtocol::Kernel,
    RouteProtocol::Boot,
    RouteProtocol::Static,
    RouteProtocol::Ra,
    RouteProtocol::Dhcp,
    RouteProtocol::KeepAlived,
];

/// The routes of a namespace, as far as the programs are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Interfaces and the prefixes that they lead to without a gateway.
    pub on_link: BTreeSet<(u32, IpNet)>,
    /// Prefixes of tables other than the local one whose packets end here, by table.
    delivered: BTreeSet<(u32, IpNet)>,
    /// What is said of families that have so many routes that only some were read.
    pub incomplete: Vec<String>,
}

/// Tables that policy rules look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// By a rule for packets with a mark.
    marked: BTreeSet<u32>,
    /// By any other rule.
    unmarked: BTreeSet<u32>,
}

impl Routes {
    /// Those of the calling thread's network namespace at this moment.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub fn read() -> anyhow::Result<Self> {
        let mut routes = Self::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes
                .read_family(family)
                .context("rtnetlink: list routes to neighbours")?;
        }

        Ok(routes)
    }

    fn read_family(&mut self, family: AddressFamily) -> io::Result<()> {
        let mut few = Self::default();
        if few.read_some(family, RouteType::Unspec, RouteProtocol::Unspec, MANY)? {
            self.on_link.append(&mut few.on_link);
            self.delivered.append(&mut few.delivered);
            return Ok(());
        }
        self.incomplete.push(incomplete(family));
        self.read_some(family, RouteType::Local, RouteProtocol::Unspec, usize::MAX)?;
        for maker in MAKERS {
            self.read_some(family, RouteType::Unicast, maker, usize::MAX)?;
        }

        Ok(())
    }

    /// Reads routes of one type and maker, or of all. Returns whether there were no more than
    /// `most`.
    fn read_some(
        &mut self,
        family: AddressFamily,
        kind: RouteType,
        protocol: RouteProtocol,
        most: usize,
    ) -> io::Result<bool> {
        let netlink = Socket::new(NETLINK_ROUTE)?;
        // With it the kernel heeds what the request names.
        let _ = netlink.set_netlink_get_strict_chk(true);
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        ask.header.kind = kind;
        ask.header.protocol = protocol;
        let request = netlink::request(RouteNetlinkMessage::GetRoute(ask));

        let mut count = 0;
        let outcome = netlink::dump(&netlink, &request, |kind, payload| {
            if kind != NEW_ROUTE {
                return Ok(());
            }
            count += 1;
            if count > most {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let route = RouteMessage::parse(payload).map_err(io::Error::other)?;
            self.add(&route);
            Ok(())
        });

        match outcome {
            Err(_) if count > most => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    fn add(&mut self, route: &RouteMessage) {
        let Some(net) = destination(route) else {
            return;
        };
        match route.header.kind {
            RouteType::Unicast => {
                let interfaces = interfaces_without_gateway(&route.attributes);
                self.on_link.extend(interfaces.map(|index| (index, net)));
            }
            RouteType::Local if !local::is_local(route) => {
                self.delivered.insert((local::table(route), net));
            }
            _ => {}
        }
    }

    /// What the programs are told of destinations, given the `local` table: which are this host's,
    /// and which are other hosts' and yet taken by sockets here, where a rule for marked packets
    /// leads to a route to this host, as transparent proxies need. Where the kernel routes a family
    /// by all interfaces, its routes can be asked about that family instead.
    pub fn destinations(
        &self,
        local: &BTreeSet<IpNet>,
        rules: &Rules,
        routed: impl Fn(Family) -> bool,
    ) -> BTreeMap<IpNet, u32> {
        let mut told: BTreeMap<_, _> = local.iter().map(|net| (*net, LOCAL)).collect();
        let by_mark = |table: &u32| rules.marked.contains(table) && !rules.unmarked.contains(table);
        let (routed4, routed6) = (routed(Family::Ipv4), routed(Family::Ipv6));
        let open = |net: &IpNet| {
            !if net.addr().is_ipv4() {
                routed4
            } else {
                routed6
            }
        };
        if !(self.delivered.iter()).any(|(table, net)| by_mark(table) && open(net)) {
            return told;
        }
        // Whatever is more certain of a prefix, or of one around it, has the last word.
        let undecided = |(table, _): &&(u32, IpNet)| rules.unmarked.contains(table);
        let diverted = |(table, net): &&(u32, IpNet)| by_mark(table) && open(net);
        let certain: Vec<(IpNet, u32)> = (self.delivered.iter().filter(undecided))
            .map(|(_, net)| (*net, UNDECIDED))
            .chain((self.delivered.iter().filter(diverted)).map(|(_, net)| (*net, DIVERTED)))
            .collect();
        for (net, what) in certain {
            let covered = told
                .iter()
                .any(|(other, said)| *said != what && other.contains(&net));
            if !covered {
                told.insert(net, what);
            }
        }

        told
    }
}

impl Rules {
    /// Those of the calling thread's network namespace at this moment.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub fn read() -> anyhow::Result<Self> {
        let mut rules = Self::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            rules
                .read_family(family)
                .context("rtnetlink: list policy rules")?;
        }

        Ok(rules)
    }

    fn read_family(&mut self, family: AddressFamily) -> io::Result<()> {
        let netlink = Socket::new(NETLINK_ROUTE)?;
        let mut ask = RuleMessage::default();
        ask.header.family = family;
        let request = netlink::request(RouteNetlinkMessage::GetRule(ask));

        netlink::dump(&netlink, &request, |kind, payload| {
            if kind == NEW_RULE {
                let rule = RuleMessage::parse(payload).map_err(io::Error::other)?;
                self.add(&rule);
            }
            Ok(())
        })
    }

    pub(super) fn add(&mut self, rule: &RuleMessage) {
        let attribute =
            |pick: fn(&RuleAttribute) -> Option<u32>| rule.attributes.iter().find_map(pick);
        let table = attribute(|one| match one {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        });
        let mark = attribute(|one| match one {
            RuleAttribute::FwMark(mark) => Some(*mark),
            _ => None,
        });
        let inverted = rule.header.flags.contains(RuleFlags::Invert);
        let tables = if mark.is_some_and(|mark| mark != 0) && !inverted {
            &mut self.marked
        } else {
            &mut self.unmarked
        };
        tables.insert(table.unwrap_or(u32::from(rule.header.table)));
    }
}

/// What is not known where a family has more than [`MANY`] routes, and what to do.
fn incomplete(family: AddressFamily) -> String {
    let family = match family {
        AddressFamily::Inet6 => "IPv6",
        _ => "IPv4",
    };

    format!(
        "more than {MANY} {family} routes: those of routing daemons are not read, so answers to \
         multicast queries are dropped from hosts that only such a route without a gateway leads \
         to; add one by hand: ip route add PREFIX dev IFACE"
    )
}

/// Whether a route says who is a neighbour, or leads to this host.
pub(super) fn concerns_us(route: &RouteMessage) -> bool {
    match route.header.kind {
        RouteType::Local => true,
        RouteType::Unicast => interfaces_without_gateway(&route.attributes)
            .next()
            .is_some(),
        _ => local::is_local(route),
    }
}

/// The prefix of a route; a default route has none in the message.
fn destination(route: &RouteMessage) -> Option<IpNet> {
    local::prefix(route).or_else(|| {
        let any: IpAddr = match route.header.address_family {
            AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
            AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        (route.header.destination_prefix_length == 0)
            .then(|| IpNet::new(any, 0).ok())
            .flatten()
    })
}

/// The interfaces by which a route leads to its destination itself.
fn interfaces_without_gateway(attributes: &[RouteAttribute]) -> impl Iterator<Item = u32> {
    let alone = direct(attributes).then(|| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => Some(*index),
            _ => None,
        })
    });
    let hops = attributes.iter().filter_map(|attribute| match attribute {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });

    alone.flatten().into_iter().chain(
        hops.flatten()
            .filter(|hop| direct(&hop.attributes))
            .map(|hop| hop.interface_index),
    )
}

fn direct(attributes: &[RouteAttribute]) -> bool {
    !attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_)
        )
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteAddress;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("is a prefix")
    }

    fn rules(marked: &[u32], unmarked: &[u32]) -> Rules {
        Rules {
            marked: marked.iter().copied().collect(),
            unmarked: unmarked.iter().copied().collect(),
        }
    }

    #[test]
    fn loopback_leads_to_no_neighbour() {
        let routes = Routes::read().expect("routes are for everybody to list");
        assert!(
            routes.on_link.iter().all(|(index, _)| *index != 1),
            "{routes:?}"
        );
        let rules = Rules::read().expect("rules are for everybody to list");
        assert!(rules.unmarked.contains(&255), "{rules:?}");
    }

    #[test]
    fn a_route_without_a_gateway_says_who_is_a_neighbour() {
        let gateway = || RouteAttribute::Gateway(RouteAddress::Inet([10, 9, 0, 1].into()));
        let to = || RouteAttribute::Destination(RouteAddress::Inet([192, 0, 2, 0].into()));
        let read = |attributes: Vec<RouteAttribute>, length| {
            let mut route = RouteMessage::default();
            route.header.address_family = AddressFamily::Inet;
            route.header.kind = RouteType::Unicast;
            route.header.destination_prefix_length = length;
            route.attributes = attributes;
            let mut routes = Routes::default();
            routes.add(&route);
            assert_eq!(concerns_us(&route), !routes.on_link.is_empty());
            routes.on_link
        };
        let table = [
            (vec![to(), RouteAttribute::Oif(7)], 24, Some("192.0.2.0/24")),
            (vec![RouteAttribute::Oif(7)], 0, Some("0.0.0.0/0")),
            (vec![to(), RouteAttribute::Oif(7), gateway()], 24, None),
            (vec![RouteAttribute::Oif(7), gateway()], 0, None),
            (vec![to()], 24, None),
        ];
        for (attributes, length, expected) in table {
            let expected = expected.map(|text| (7, net(text))).into_iter().collect();
            assert_eq!(read(attributes.clone(), length), expected, "{attributes:?}");
        }
    }

    #[test]
    fn only_a_mark_diverts() {
        let local = BTreeSet::from([net("10.9.0.2/32"), net("127.0.0.0/8")]);
        let any = net("0.0.0.0/0");
        let prefix = net("192.0.2.0/24");
        let routes = |delivered: &[(u32, IpNet)]| Routes {
            on_link: BTreeSet::new(),
            delivered: delivered.iter().copied().collect(),
            incomplete: Vec::new(),
        };
        let more = |routes: &Routes, rules: &Rules| {
            let told = routes.destinations(&local, rules, |_| false);
            // Where the kernel routes, it knows by itself what it sends on.
            assert_eq!(
                routes.destinations(&local, rules, |_| true).len(),
                local.len()
            );
            assert!(local.iter().all(|net| told[net] == LOCAL));
            let more = told.into_iter().filter(|(net, _)| !local.contains(net));
            more.collect::<Vec<_>>()
        };
        let proxy = routes(&[(100, any)]);
        assert_eq!(more(&proxy, &rules(&[100], &[255, 254])), [(any, DIVERTED)]);
        assert_eq!(more(&proxy, &rules(&[100], &[255, 254, 100])), []);
        assert_eq!(more(&proxy, &rules(&[], &[255, 254])), []);
        let both = routes(&[(100, any), (101, prefix)]);
        assert_eq!(
            more(&both, &rules(&[100], &[255, 101])),
            [(any, DIVERTED), (prefix, UNDECIDED)]
        );
        let inside = routes(&[
            (100, net("192.0.2.7/32")),
            (101, prefix),
            (100, net("127.0.0.9/32")),
        ]);
        assert_eq!(
            more(&inside, &rules(&[100], &[255, 101])),
            [(prefix, UNDECIDED)]
        );
    }
}
