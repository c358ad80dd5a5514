//! Routes that say who is a neighbour, and which addresses of other hosts may end here all the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Instant,
};

use anyhow::Context;
use guard_common::{
    abi::layout::{DIVERTED, LOCAL, UNDECIDED},
    outcome::Family,
};
use ipnet::{IpNet, Ipv6Net};
use netlink_packet_core::Parseable;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAttribute, RuleFlags, RuleMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::local::{self, NEW_ROUTE};
use crate::host::netlink::{self, Dump, Progress};

/// `RTM_NEWRULE`.
const NEW_RULE: u16 = 32;

/// The routes of a namespace, as far as the programs are told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Interfaces and the prefixes that they lead to without a gateway.
    pub on_link: BTreeSet<(u32, IpNet)>,
    /// Prefixes of tables other than the local one whose packets end here, by table.
    delivered: BTreeSet<(u32, IpNet)>,
    /// What the local table holds.
    pub local: BTreeSet<IpNet>,
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
    /// Those of the calling thread's network namespace at this moment; nothing where the deadline
    /// comes first.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub fn read(deadline: Option<Instant>) -> anyhow::Result<Option<Self>> {
        let mut routes = Self::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let done = routes
                .read_family(family, RouteType::Unspec, deadline)
                .context("rtnetlink: list routes")?;
            if !done {
                return Ok(None);
            }
        }

        Ok(Some(routes))
    }

    /// Those to this host, which are few even where there are a million others: the kernel leaves
    /// those out.
    ///
    /// # Errors
    /// When the kernel refuses to list them.
    pub fn read_local() -> anyhow::Result<Self> {
        let mut routes = Self::default();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            routes
                .read_family(family, RouteType::Local, None)
                .context("rtnetlink: list routes to this host")?;
        }
        routes.local.append(&mut local::local_table()?);

        Ok(routes)
    }

    /// Returns whether it was done before the deadline.
    fn read_family(
        &mut self,
        family: AddressFamily,
        kind: RouteType,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let netlink = netlink::open(NETLINK_ROUTE)?;
        // With it the kernel heeds what the request names.
        let _ = netlink.set_netlink_get_strict_chk(true);
        let mut ask = RouteMessage::default();
        ask.header.address_family = family;
        ask.header.kind = kind;
        let mut dump = Dump::begin(
            netlink,
            &netlink::request(RouteNetlinkMessage::GetRoute(ask)),
        )?;

        loop {
            let progress = dump.next(|kind, payload| {
                if kind == NEW_ROUTE && may_concern_us(payload) {
                    let route = RouteMessage::parse(payload).map_err(io::Error::other)?;
                    self.add(&route);
                }
                Ok(())
            })?;
            if progress == Progress::Done {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
        }
    }

    fn add(&mut self, route: &RouteMessage) {
        self.local.extend(local::read_route(route));
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
    /// by all interfaces, its routes can be asked about that family instead. Where it sends on what
    /// of IPv6 is `forced`, and they cannot be asked, all that is not this host's is other hosts'.
    pub fn destinations(
        &self,
        local: &BTreeSet<IpNet>,
        rules: &Rules,
        routed: impl Fn(Family) -> bool,
        forced: bool,
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
        let forced = (forced && !routed6).then(|| (all_of_ipv6(), DIVERTED));
        let by_marks = (self.delivered.iter()).any(|(table, net)| by_mark(table) && open(net));
        if !by_marks && forced.is_none() {
            return told;
        }
        // Whatever is more certain of a prefix, or of one around it, has the last word.
        let undecided = |(table, _): &&(u32, IpNet)| rules.unmarked.contains(table);
        let diverted = |(table, net): &&(u32, IpNet)| by_mark(table) && open(net);
        let certain: Vec<(IpNet, u32)> = (self.delivered.iter().filter(undecided))
            .map(|(_, net)| (*net, UNDECIDED))
            .chain((self.delivered.iter().filter(diverted)).map(|(_, net)| (*net, DIVERTED)))
            .chain(forced)
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
        let netlink = netlink::open(NETLINK_ROUTE)?;
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

/// Every IPv6 address.
fn all_of_ipv6() -> IpNet {
    IpNet::V6(Ipv6Net::default())
}

/// Whether a message may be about a route that [concerns us](concerns_us): all of a router's but a
/// few are by a gateway, or lead nowhere, which shows without parsing them. The message is a
/// `struct rtmsg`, and then attributes.
fn may_concern_us(message: &[u8]) -> bool {
    const HEADER: usize = 12;
    const UNICAST: u8 = 1;
    const LOCAL_TABLE: u8 = 255;
    const LEADS_NOWHERE: std::ops::RangeInclusive<u8> = 6..=9;
    const RTA_GATEWAY: u16 = 5;
    const RTA_VIA: u16 = 18;

    let (Some(&table), Some(&kind)) = (message.get(4), message.get(7)) else {
        return true;
    };
    if table == LOCAL_TABLE {
        return true;
    }
    if kind != UNICAST {
        return !LEADS_NOWHERE.contains(&kind);
    }
    let mut rest = message.get(HEADER..).unwrap_or_default();
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        if matches!(u16::from_ne_bytes([k0, k1]), RTA_GATEWAY | RTA_VIA) {
            return false;
        }
        // Attributes start at multiples of four bytes. A length of less than its own is none.
        rest = rest
            .get(length.next_multiple_of(4).max(4)..)
            .unwrap_or_default();
    }

    true
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
    use netlink_packet_core::Emitable;
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
        let routes = Routes::read(None).expect("routes are for everybody to list");
        let routes = routes.expect("there is no deadline");
        assert_eq!(
            Routes::read_local().map(|few| few.local).ok(),
            Some(routes.local.clone())
        );
        assert!(
            routes.on_link.iter().all(|(index, _)| *index != 1),
            "{routes:?}"
        );
        let rules = Rules::read().expect("rules are for everybody to list");
        assert!(rules.unmarked.contains(&255), "{rules:?}");
    }

    fn by_gateway(route: &RouteMessage) -> bool {
        let mut attributes = route.attributes.iter();
        attributes.any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
    }

    #[test]
    fn messages_that_end_anywhere_are_parsed_to_say_so() {
        let route: Vec<u8> = [2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0]
            .into_iter()
            .chain([8, 0, 5, 0, 10, 9, 0, 1])
            .collect();
        assert!(!may_concern_us(&route));
        for length in 0..16 {
            assert!(may_concern_us(&route[..length]), "{length}");
        }
        // An attribute without a length.
        assert!(may_concern_us(&[&route[..12], &[0; 8]].concat()));
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
            let mut bytes = vec![0; route.buffer_len()];
            route.emit(&mut bytes);
            assert_eq!(may_concern_us(&bytes), !by_gateway(&route));
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
            local: BTreeSet::new(),
        };
        let more = |routes: &Routes, rules: &Rules| {
            let told = routes.destinations(&local, rules, |_| false, false);
            // Where the kernel routes, it knows by itself what it sends on.
            assert_eq!(
                routes.destinations(&local, rules, |_| true, false).len(),
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

    #[test]
    fn forced_forwarding_leaves_to_others_what_is_not_local() {
        let local = BTreeSet::from([net("10.9.0.2/32"), net("fd09::2/128")]);
        let (routes, rules) = (Routes::default(), rules(&[], &[255, 254]));
        let told = |routed, forced| {
            let told = routes.destinations(&local, &rules, |_| routed, forced);
            told.get(&net("::/0")).copied()
        };
        assert_eq!(told(false, true), Some(DIVERTED));
        assert_eq!(told(false, false), None);
        // The routes can be asked.
        assert_eq!(told(true, true), None);
        let told = routes.destinations(&local, &rules, |_| false, true);
        assert!(local.iter().all(|net| told[net] == LOCAL));
        assert_eq!(told.len(), local.len() + 1);
    }
}
