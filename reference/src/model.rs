//! The guard as the design describes it.

use std::net::IpAddr;

use crate::{
    decision::{Decision, Reason},
    memory::{FlowId, Memory, Purpose},
    policy::{self, Host, Policy},
    read::{self, Broken, Carried, Conversation, Packet},
    rules::Rules,
};

/// One guard.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the user has asked for.
    pub policy: Policy,
    /// The host around it.
    pub host: Host,
    /// The time in ticks.
    pub now: u32,
    /// The epoch of the occupancy.
    pub epoch: u8,
    /// What it keeps.
    pub memory: Memory,
    /// The flows that the last decision depended on, or might have.
    pub touched: Vec<FlowId>,
    /// The destination MAC address of a received frame, or the source MAC address of a sent one.
    pub(crate) link: [u8; 6],
    /// What it goes by.
    pub(crate) rules: Rules,
}

/// The way that a packet goes, as routes see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) number: u8,
}

/// The class of a port of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Port {
    Guarded,
    Exempt,
    Outside,
}

impl Model {
    /// A guard that has seen nothing.
    pub fn new(policy: Policy, host: Host, now: u32) -> Self {
        Self::with(Rules::default(), policy, host, now)
    }

    /// A guard that goes by other rules.
    pub fn with(rules: Rules, policy: Policy, host: Host, now: u32) -> Self {
        Self {
            policy,
            host,
            now,
            // What the daemon starts with, so that ports never seen are not in use.
            epoch: 3,
            memory: Memory::default(),
            touched: Vec::new(),
            link: [0; 6],
            rules,
        }
    }

    /// A frame that the interface receives.
    pub fn receive(&mut self, frame: &[u8]) -> Decision {
        self.touched.clear();
        self.link = link_at(frame, 0);
        self.each(frame, Broken::reason, Self::received)
    }

    /// A frame that the interface sends; `passes` where another interface has received it.
    pub fn send(&mut self, frame: &[u8], passes: bool) -> Decision {
        self.touched.clear();
        self.link = link_at(frame, 6);
        let everybody = frame.len() >= 6 && frame[..6].iter().all(|byte| *byte == 0xff);
        let multicast = frame.first().is_some_and(|byte| byte & 1 != 0);
        let group = everybody || multicast && self.rules.ethernet_multicast;
        let sent = |model: &mut Self, packet: &Packet<'_>| model.sent(packet, group, passes);
        self.each(frame, |_| Reason::NotRecorded, sent)
    }

    /// Reads a frame as far as it goes, and decides about what is readable.
    fn each(
        &mut self,
        frame: &[u8],
        broken: impl Fn(Broken) -> Reason,
        decide: impl Fn(&mut Self, &Packet<'_>) -> Result<Reason, Broken>,
    ) -> Decision {
        let sent = broken(Broken::Cut) == Reason::NotRecorded;
        let (mut family, mut protocol) = ("other", "other");
        let reason = match read::link(frame, &self.rules) {
            Err(why) => broken(why),
            Ok(Carried::Other) if sent => Reason::NotRecorded,
            Ok(Carried::Other) => Reason::NotIp,
            Ok(carried) => {
                family = match carried {
                    Carried::Ipv6(_) => "ipv6",
                    _ => "ipv4",
                };
                match self.packet(carried) {
                    Err(_) if !sent && self.rules.looped && read::comes_back(frame, carried) => {
                        family = "other";
                        Reason::NotIp
                    }
                    Err(why) => broken(why),
                    Ok(packet) => {
                        protocol = self.label(&packet);
                        decide(self, &packet).unwrap_or_else(broken)
                    }
                }
            }
        };
        let drops = reason.drops() && !self.policy.monitor;
        Decision {
            reason,
            family,
            protocol,
            verdict: if drops { "drop" } else { "pass" },
        }
    }

    /// Whether a packet is for another host, given that its destination is not known to be here.
    pub(crate) fn goes_on(&self, way: &Way) -> bool {
        let (host, rules) = (&self.host, &self.rules);
        if host.shares {
            return true;
        }
        let group = self.link[0] & 1 != 0 && rules.group_links_are_nobodys;
        let theirs = if group {
            way.number == rules.tcp
        } else {
            !self.is_own_mac()
        };
        host.carries && theirs || host.router && host.sends_on(way.from, way.to)
    }

    pub(crate) fn is_own_mac(&self) -> bool {
        self.host.own_links.contains(&self.link) && self.rules.links_count
    }

    fn packet<'a>(&self, carried: Carried<'a>) -> Result<Packet<'a>, Broken> {
        match carried {
            Carried::Ipv4(bytes) => read::ipv4(bytes, &self.rules),
            Carried::Ipv6(bytes) => read::ipv6(bytes, &self.rules),
            Carried::Other => Err(Broken::Cut),
        }
    }

    fn label(&self, packet: &Packet<'_>) -> &'static str {
        let number = packet.number;
        if number == self.icmp(packet) {
            "icmp"
        } else if number == self.rules.tcp {
            "tcp"
        } else if number == self.rules.udp {
            "udp"
        } else if number == self.rules.udp_lite {
            "udplite"
        } else {
            "other"
        }
    }

    /// The number of ICMP in the packet's family.
    pub(crate) fn icmp(&self, packet: &Packet<'_>) -> u8 {
        match packet.source {
            IpAddr::V4(_) => self.rules.icmp.0,
            IpAddr::V6(_) => self.rules.icmp.1,
        }
    }

    pub(crate) fn is_guarded(&self, number: u8) -> bool {
        [self.rules.tcp, self.rules.udp, self.rules.udp_lite].contains(&number)
    }

    /// The class of a port of this host.
    pub(crate) fn port(&self, protocol: u8, port: u16) -> Port {
        let (policy, rules) = (&self.policy, &self.rules);
        let (first, last) = policy.range;
        if port < first || port > last {
            return Port::Outside;
        }
        if port == first && !rules.first_port_guarded || port == last && !rules.last_port_guarded {
            return Port::Outside;
        }
        let tcp = protocol == rules.tcp || protocol == rules.udp_lite && !rules.udp_lite_as_udp;
        let exposed = if rules.exposed_by_protocol {
            [&policy.exposed_udp, &policy.exposed_tcp][usize::from(tcp)].contains(&port)
        } else {
            policy.exposed_udp.contains(&port) || policy.exposed_tcp.contains(&port)
        };
        if exposed || rules.reserved_exempt && policy.reserved.contains(&port) {
            Port::Exempt
        } else {
            Port::Guarded
        }
    }

    pub(crate) fn purpose(&self, protocol: u8) -> Purpose {
        if protocol == self.rules.tcp {
            Purpose::Tcp
        } else if protocol == self.rules.udp {
            Purpose::Udp
        } else {
            Purpose::UdpLite
        }
    }

    /// Whether a port is in use, by the sweeps and by what was sent.
    pub(crate) fn in_use(&self, purpose: Purpose, port: u16) -> bool {
        let marked = self.memory.occupancy.get(&(purpose, port));
        let marked = marked.copied().unwrap_or(0);
        let (back, ahead) = (
            self.epoch.wrapping_sub(marked),
            marked.wrapping_sub(self.epoch),
        );
        back <= self.rules.fresh_back
            || ahead <= self.rules.fresh_ahead
            || !self.rules.occupancy_counts
    }

    /// The name of a conversation's flow.
    pub(crate) fn flow_id(&self, talk: &Conversation) -> FlowId {
        let by_address = self.policy.by_address
            && (talk.protocol != self.rules.tcp || self.rules.by_address_tcp);
        let local = if self.rules.local_address_counts {
            talk.local.0
        } else {
            policy::unspecified(talk.local.0)
        };
        let any_port = by_address || !self.rules.remote_port_counts;
        FlowId {
            protocol: talk.protocol,
            local: (local, talk.local.1),
            remote: Some(talk.remote.0),
            remote_port: if any_port { 0 } else { talk.remote.1 },
        }
    }

    /// The name of a query to a group.
    pub(crate) fn query_id(&self, talk: &Conversation) -> FlowId {
        let dhcp = self.is_dhcp(talk) && !self.rules.dhcp_of_address;
        let local = if self.rules.query_of_address && !dhcp {
            talk.local.0
        } else {
            policy::unspecified(talk.local.0)
        };
        FlowId {
            protocol: talk.protocol,
            local: (local, talk.local.1),
            remote: None,
            remote_port: 0,
        }
    }

    /// Whether this is between a DHCP client here and a server.
    pub(crate) fn is_dhcp(&self, talk: &Conversation) -> bool {
        let family = talk.local.0.is_ipv4() || self.rules.dhcp_ipv6;
        family && (talk.local.1, talk.remote.1) == self.rules.dhcp
    }

    pub(crate) fn is_group(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => {
                let multicast = address.octets()[0] & 0xf0 == self.rules.ipv4_groups;
                multicast || address.octets() == [255; 4] && self.rules.broadcast_is_group
            }
            IpAddr::V6(address) => address.octets()[0] == 0xff,
        }
    }

    /// Whether the daemon has written that `address` is this host's.
    pub(crate) fn in_local_table(&self, address: IpAddr) -> bool {
        let mut table = self.host.local_table.iter();
        table.any(|prefix| prefix.covers(address)) && self.rules.local_table_counts
    }

    pub(crate) fn tally(&mut self, name: &'static str) {
        *self.memory.tallies.entry(name).or_insert(0) += 1;
    }
}

fn link_at(frame: &[u8], at: usize) -> [u8; 6] {
    let octets = frame.get(at..at + 6);
    octets.map_or([0; 6], |octets| octets.try_into().unwrap_or([0; 6]))
}
