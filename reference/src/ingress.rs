//! What is received.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    decision::Reason,
    memory::{Datagram, Flow, Purpose, rescued_by},
    model::{Model, Port, Way},
    policy::{Taker, unspecified},
    read::{self, Broken, Conversation, Packet, Part},
};

impl Model {
    pub(crate) fn received(&mut self, packet: &Packet<'_>) -> Result<Reason, Broken> {
        if packet.part == Part::Later && packet.owns(0) {
            return Ok(self.later_fragment(packet));
        }
        let decision = self.datagram(packet);
        if packet.part == Part::First {
            let refused = decision.is_err() || decision.is_ok_and(Reason::drops);
            self.remember(packet, refused);
        }
        decision
    }

    fn datagram_id(&self, packet: &Packet<'_>) -> Datagram {
        let by_protocol = if packet.source.is_ipv4() {
            self.rules.ipv4_fragment_protocol
        } else {
            self.rules.ipv6_fragment_protocol
        };
        Datagram {
            source: packet.source,
            destination: packet.destination,
            id: if self.rules.fragment_id_counts {
                packet.id
            } else {
                0
            },
            protocol: by_protocol.then_some(packet.number),
        }
    }

    fn later_fragment(&self, packet: &Packet<'_>) -> Reason {
        let Some(since) = self.memory.refused.get(&self.datagram_id(packet)) else {
            return Reason::LaterFragment;
        };
        let age = self.now.saturating_sub(*since);
        let limit = self.policy.timers.fragment;
        if age < limit || age == limit && self.rules.denied_at_limit {
            Reason::FragmentDenied
        } else {
            Reason::LaterFragment
        }
    }

    fn remember(&mut self, packet: &Packet<'_>, refused: bool) {
        let id = self.datagram_id(packet);
        if refused && self.rules.fragments_remembered {
            self.memory.refused.insert(id, self.now);
        } else if !refused && self.rules.acceptance_clears {
            self.memory.refused.remove(&id);
        }
    }

    fn datagram(&mut self, packet: &Packet<'_>) -> Result<Reason, Broken> {
        if !packet.owns(0) {
            return Err(Broken::Cut);
        }
        if self.is_guarded(packet.number) {
            if !packet.owns(self.rules.ports_length) {
                return Err(Broken::Cut);
            }
            let talk = Conversation::of(packet, false, &self.rules)?;
            return Ok(self.talk(&talk));
        }
        if packet.number == self.icmp(packet) {
            return self.message(packet);
        }
        Ok(Reason::OtherProtocol)
    }

    fn talk(&mut self, talk: &Conversation) -> Reason {
        match self.port(talk.protocol, talk.local.1) {
            Port::Outside => return Reason::OutsideRange,
            Port::Exempt => return Reason::Exempt,
            Port::Guarded => {}
        }
        if let Some(reason) = self.expected(talk, true) {
            return reason;
        }
        if self.is_for_kernel(talk) {
            return Reason::Exempt;
        }
        let way = Way {
            from: talk.remote.0,
            to: talk.local.0,
            number: talk.protocol,
        };
        if let Some(exception) = self.exception(&way, way.from) {
            return exception;
        }
        if self.policy.monitor {
            match self.taker(talk) {
                Taker::Nobody => {}
                Taker::Connected => self.tally("would_drop_connected"),
                Taker::Listener => self.tally("would_drop_listener"),
            }
        }
        Reason::NoFlow
    }

    /// ICMP, which may quote what this host has sent.
    fn message(&mut self, packet: &Packet<'_>) -> Result<Reason, Broken> {
        let kind = *packet.body.first().ok_or(Broken::Cut)?;
        if !packet.owns(1) {
            return Err(Broken::Cut);
        }
        let behind = packet.body.get(self.rules.quote_at..).unwrap_or(&[]);
        let mut quoted = if packet.source.is_ipv4() {
            if !self.rules.icmp_errors.contains(&kind) {
                return Ok(Reason::IcmpInfo);
            }
            read::ipv4(behind, &self.rules)?
        } else {
            if kind >= self.rules.first_icmpv6_info {
                return Ok(Reason::IcmpInfo);
            }
            read::ipv6(behind, &self.rules)?
        };
        quoted.headers += packet.headers + self.rules.quote_at;
        quoted.ends = packet.ends;
        if !quoted.owns(0) {
            return Err(Broken::Cut);
        }
        let way = Way {
            from: packet.source,
            to: packet.destination,
            number: packet.number,
        };
        let icmp = self.icmp(packet);
        if !self.is_guarded(quoted.number) {
            if quoted.number == icmp && packet.source.is_ipv4() {
                let kind = *quoted.body.first().ok_or(Broken::Cut)?;
                if kind == self.rules.unreported {
                    return Ok(self.error_about_nothing(&way, way.from));
                }
            }
            return Ok(Reason::IcmpOutside);
        }
        if quoted.part == Part::Later && self.rules.quoted_later_is_unrelated {
            return Ok(self.error_about_nothing(&way, way.from));
        }

        if !quoted.owns(self.rules.ports_length) {
            return Err(Broken::Cut);
        }
        let talk = Conversation::of(&quoted, self.rules.quoted_source_is_local, &self.rules)?;
        if self.port(talk.protocol, talk.local.1) != Port::Guarded
            || self.is_tunnel(&talk) && self.rules.errors_about_tunnels_pass
        {
            return Ok(Reason::IcmpOutside);
        }
        if self.is_open_query(&talk) || self.expected(&talk, false).is_some() {
            return Ok(Reason::IcmpRelated);
        }
        if self.is_for_kernel(&talk) {
            return Ok(Reason::IcmpOutside);
        }
        let sender = if self.rules.sender_of_error_is_trusted {
            packet.source
        } else {
            talk.remote.0
        };
        let goes = Way {
            from: way.from,
            to: if self.rules.errors_go_by_destination {
                way.to
            } else {
                talk.local.0
            },
            number: if self.rules.errors_are_icmp {
                way.number
            } else {
                talk.protocol
            },
        };
        Ok(self.error_about_nothing(&goes, sender))
    }

    /// An ICMP error about no flow passes if it is for another host, or if its sender is trusted.
    fn error_about_nothing(&self, way: &Way, sender: IpAddr) -> Reason {
        self.exception(way, sender).unwrap_or(Reason::IcmpUnrelated)
    }

    /// Whether the quoted packet is a query of this host to a group, whose answers still pass.
    fn is_open_query(&mut self, talk: &Conversation) -> bool {
        if talk.protocol != self.rules.udp
            || !self.is_group(talk.remote.0)
            || !self.rules.errors_about_queries_pass
            || !self.in_use(Purpose::Udp, talk.local.1)
        {
            return false;
        }
        self.is_asking(talk)
    }

    /// Whether a query to a group was sent from here not long ago.
    fn is_asking(&mut self, talk: &Conversation) -> bool {
        if !self.in_use(Purpose::Query, talk.local.1) {
            return false;
        }
        let id = self.query_id(talk);
        self.touched.push(id);
        let (now, timers, rules) = (self.now, self.policy.timers, &self.rules);
        let query = self.memory.flows.get(&id);
        query.is_some_and(|query| query.alive(now, &timers, rules))
    }

    /// Why a packet of this conversation passes. One that is only quoted leaves no trace.
    fn expected(&mut self, talk: &Conversation, itself: bool) -> Option<Reason> {
        if !self.in_use(self.purpose(talk.protocol), talk.local.1) {
            return None;
        }
        let changes = itself || !self.rules.error_changes_nothing;
        let id = self.flow_id(talk);
        self.touched.push(id);
        let (now, timers, rules) = (self.now, self.policy.timers, &self.rules);
        let alive = |flow: &Flow| flow.alive(now, &timers, rules);
        let flow = self.memory.flows.get_mut(&id);
        let expired = flow.is_some();
        if let Some(flow) = flow.filter(|flow| alive(flow)) {
            if changes {
                flow.received(talk.flags, now, rules);
            }
            return Some(Reason::KnownFlow);
        }

        let udp = talk.protocol == self.rules.udp;
        if itself && udp && self.is_asking(talk) {
            let mut links = self.host.addresses.iter();
            let on_link = links.any(|link| link.covers(talk.remote.0));
            let dhcp = self.is_dhcp(talk)
                && talk.remote.0 != unspecified(talk.remote.0)
                && !self.rules.dhcp_on_link;
            if on_link || dhcp || !self.rules.answers_on_link {
                return Some(Reason::KnownFlow);
            }
        }

        let taker = self.taker(talk);
        let proven =
            taker == Taker::Connected || taker == Taker::Listener && self.rules.listeners_rescue;
        if !self.policy.rescue || !proven {
            return None;
        }
        if changes {
            let flow = rescued_by(talk, self.policy.by_address, now, &self.rules);
            if expired || self.host.room {
                self.memory.flows.insert(id, flow);
            }
            self.tally(if expired {
                "rescued_expired"
            } else {
                "rescued_absent"
            });
        }
        Some(Reason::Rescued)
    }

    fn taker(&self, talk: &Conversation) -> Taker {
        self.host.taker(talk.protocol, talk.local, talk.remote)
    }

    /// Whether the kernel itself receives where a conversation ends here.
    fn is_for_kernel(&self, talk: &Conversation) -> bool {
        let (to, port) = talk.local;
        let mut ends = self.policy.kernel.iter();

        (talk.protocol == self.rules.udp || !self.rules.kernel_by_protocol)
            && ends.any(|&(address, received)| {
                let everywhere = address.is_unspecified() && address.is_ipv4() == to.is_ipv4();
                let here = address == to || everywhere || !self.rules.kernel_address_counts;
                here && received == port
            })
    }

    /// Why an unsolicited packet passes all the same.
    fn exception(&self, way: &Way, sender: IpAddr) -> Option<Reason> {
        let (host, rules) = (&self.host, &self.rules);
        let to = way.to;
        let mut own = host.addresses.iter();
        let ours = own.any(|prefix| prefix.address == to) && rules.own_is_local
            || self.is_group(to) && rules.groups_are_local
            || to == Ipv4Addr::UNSPECIFIED && rules.unspecified_is_local
            || self.in_local_table(to);
        let diverted = rules.proxies_count && host.diverted.iter().any(|prefix| prefix.covers(to));
        if host.some_forward && host.forwards() && !ours && (diverted || self.goes_on(way)) {
            return Some(Reason::NotLocal);
        }
        let mut trusted = self.policy.trusted.iter();
        trusted
            .any(|prefix| prefix.covers(sender))
            .then_some(Reason::Trusted)
    }
}
