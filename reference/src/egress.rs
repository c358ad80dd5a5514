//! What is sent.

use crate::{
    decision::Reason,
    memory::{Flow, Purpose, Stage, opened_by},
    model::{Model, Port},
    policy::unspecified,
    read::{Broken, Conversation, Packet, Part},
};

impl Model {
    pub(crate) fn sent(
        &mut self,
        packet: &Packet<'_>,
        to_ethernet_group: bool,
        passes: bool,
    ) -> Result<Reason, Broken> {
        if !self.is_guarded(packet.number) || packet.part == Part::Later {
            return Ok(Reason::NotRecorded);
        }
        let talk = Conversation::of(packet, true, &self.rules)?;
        let (remote, _) = talk.remote;
        if self.port(talk.protocol, talk.local.1) != Port::Guarded
            || passes && self.rules.passing_is_not_recorded && self.is_anothers(&talk)
        {
            return Ok(Reason::NotRecorded);
        }

        let over_udp = talk.protocol == self.rules.udp
            || talk.protocol == self.rules.udp_lite && self.rules.query_udp_lite;
        let group = self.is_group(remote) || to_ethernet_group && self.rules.ethernet_groups;
        if over_udp && group {
            return Ok(self.query(&talk));
        }
        // No host answers from there.
        if remote == unspecified(remote) {
            return Ok(Reason::NotRecorded);
        }
        Ok(self.flow(&talk))
    }

    /// Whether another host has sent it: its answers would be forwarded there.
    fn is_anothers(&self, talk: &Conversation) -> bool {
        let source = talk.local.0;
        !self.in_local_table(source) && self.host.sends_on(talk.remote.0, source)
    }

    /// Whether a guest or a container has sent it, which no address of this host's does.
    fn is_carried(&self, talk: &Conversation) -> bool {
        let host = &self.host;
        host.some_forward
            && host.carries
            && !self.is_own_mac()
            && !self.in_local_table(talk.local.0)
            && self.rules.containers_are_not_recorded
    }

    pub(crate) fn is_tunnel(&self, talk: &Conversation) -> bool {
        let udp = talk.protocol == self.rules.udp || !self.rules.tunnels_udp_only;
        udp && self.policy.unrecorded.contains(&talk.remote.1)
    }

    fn flow(&mut self, talk: &Conversation) -> Reason {
        let id = self.flow_id(talk);
        self.touched.push(id);
        let (now, timers, rules) = (self.now, self.policy.timers, &self.rules);
        let purpose = self.purpose(talk.protocol);
        let known = self.memory.flows.get_mut(&id);
        let expired = known.is_some();
        if let Some(flow) = known.filter(|flow| flow.alive(now, &timers, rules)) {
            flow.sent(talk.flags, now, rules);
            if rules.known_marks {
                self.mark(purpose, talk.local.1);
            }
            return Reason::Refreshed;
        }
        if self.is_carried(talk) {
            return Reason::NotRecorded;
        }

        let Some(flow) = opened_by(talk, self.policy.by_address, now, rules) else {
            return Reason::NotRecorded;
        };
        if !expired && self.is_tunnel(talk) {
            return Reason::NotRecorded;
        }
        if !expired && !self.host.room {
            if self.rules.failed_marks {
                self.mark(purpose, talk.local.1);
            }
            return Reason::InsertFailed;
        }
        self.memory.flows.insert(id, flow);
        self.mark(purpose, talk.local.1);
        Reason::NewFlow
    }

    /// A query to a group, which any neighbour may answer.
    fn query(&mut self, talk: &Conversation) -> Reason {
        if self.is_tunnel(talk) || self.is_carried(talk) {
            return Reason::NotRecorded;
        }
        let id = self.query_id(talk);
        self.touched.push(id);
        let (now, timers) = (self.now, self.policy.timers);
        let known = self.memory.flows.get(&id);
        let alive = known.is_some_and(|flow| flow.alive(now, &timers, &self.rules));
        let room = known.is_some() || self.host.room;
        if room {
            let query = Flow::new(Stage::Query, now);
            self.memory.flows.insert(id, query);
        }
        self.mark(Purpose::Udp, talk.local.1);
        if self.rules.query_marks {
            self.mark(Purpose::Query, talk.local.1);
        }
        match (alive, room) {
            (true, _) => Reason::Refreshed,
            (false, true) => Reason::NewFlow,
            (false, false) => Reason::InsertFailed,
        }
    }

    fn mark(&mut self, purpose: Purpose, port: u16) {
        self.memory.occupancy.insert((purpose, port), self.epoch);
    }
}
