//! What is kept from one frame to the next.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use crate::{
    policy::Timers,
    read::{Conversation, Flags},
    rules::Rules,
};

/// What a flow is looked up by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct FlowId {
    /// The protocol's number.
    pub protocol: u8,
    /// This host's end.
    pub local: (IpAddr, u16),
    /// The peer; `None` where the packet went to a group.
    pub remote: Option<IpAddr>,
    /// The peer's port; 0 stands for any.
    pub remote_port: u16,
}

/// How far a flow has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// TCP, of which nothing but SYNs were seen.
    SynSent,
    /// TCP.
    Established,
    /// UDP and UDP-Lite.
    Datagram,
    /// UDP to the port of DNS.
    Dns,
    /// UDP to a group.
    Query,
}

/// A flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// When a packet last counted, in ticks.
    pub seen: u32,
    /// How far it has come.
    pub stage: Stage,
    /// This host has sent a FIN.
    pub fin_here: bool,
    /// The peer has sent a FIN.
    pub fin_there: bool,
    /// Nothing but RSTs came since a RST.
    pub reset: bool,
}

impl Flow {
    /// A flow that begins.
    pub const fn new(stage: Stage, now: u32) -> Self {
        Self {
            seen: now,
            stage,
            fin_here: false,
            fin_there: false,
            reset: false,
        }
    }

    /// Whether the flow counts at `now`.
    pub fn alive(&self, now: u32, timers: &Timers, rules: &Rules) -> bool {
        let fins = u8::from(self.fin_here) + u8::from(self.fin_there);
        let limit = match self.stage {
            Stage::SynSent | Stage::Established if self.reset || fins >= rules.fins_needed => {
                timers.tcp_transitory
            }
            Stage::SynSent => timers.tcp_syn,
            Stage::Established => timers.tcp_established,
            Stage::Datagram => timers.udp,
            Stage::Dns => timers.udp_dns,
            Stage::Query => timers.multicast,
        };
        let age = if rules.ages_saturate {
            now.saturating_sub(self.seen)
        } else {
            now.wrapping_sub(self.seen)
        };
        age < limit || age == limit && rules.alive_at_limit
    }

    /// A packet of the peer.
    pub fn received(&mut self, flags: Flags, now: u32, rules: &Rules) {
        if flags.rst && rules.rst_is_transitory {
            return self.reset(now, rules);
        }
        self.refresh(now, rules.received_refreshes, rules);
        self.fin_there |= flags.fin;
    }

    /// A packet of this host.
    pub fn sent(&mut self, flags: Flags, now: u32, rules: &Rules) {
        if flags.syn && !flags.ack && !flags.rst && rules.syn_restarts {
            *self = Self::new(Stage::SynSent, now);
            return;
        }
        if flags.rst && rules.rst_is_transitory {
            return self.reset(now, rules);
        }
        self.refresh(now, rules.sent_refreshes, rules);
        self.fin_here |= flags.fin;
    }

    fn reset(&mut self, now: u32, rules: &Rules) {
        if !self.reset || rules.rst_restarts_timer {
            self.seen = now;
        }
        self.reset = true;
    }

    fn refresh(&mut self, now: u32, refreshes: bool, rules: &Rules) {
        if refreshes {
            self.seen = now;
        }
        if self.stage == Stage::SynSent && rules.receiving_establishes {
            self.stage = Stage::Established;
        }
        if rules.rst_is_cancelled {
            self.reset = false;
        }
    }
}

/// The flow that a packet of this host opens.
pub fn opened_by(talk: &Conversation, by_address: bool, now: u32, rules: &Rules) -> Option<Flow> {
    let flags = talk.flags;
    if talk.protocol != rules.tcp {
        return Some(datagrams(talk, by_address, now, rules));
    }
    if flags.rst && !rules.rst_opens || flags.syn && flags.ack && !rules.syn_ack_opens {
        return None;
    }
    if flags.syn && !flags.ack {
        return Some(Flow::new(Stage::SynSent, now));
    }
    Some(Flow {
        fin_here: flags.fin && rules.opening_fin_counts,
        ..Flow::new(Stage::Established, now)
    })
}

/// The flow of a connected socket that receives this packet.
pub fn rescued_by(talk: &Conversation, by_address: bool, now: u32, rules: &Rules) -> Flow {
    if talk.protocol != rules.tcp {
        return datagrams(talk, by_address, now, rules);
    }
    Flow {
        fin_there: talk.flags.fin,
        reset: talk.flags.rst,
        ..Flow::new(Stage::Established, now)
    }
}

/// One entry that stands for every port of the peer is not DNS's.
fn datagrams(talk: &Conversation, by_address: bool, now: u32, rules: &Rules) -> Flow {
    let asks_dns = talk.remote.1 == rules.dns && !by_address;
    let udp = talk.protocol == rules.udp || rules.dns_udp_lite;
    Flow::new(
        if asks_dns && udp {
            Stage::Dns
        } else {
            Stage::Datagram
        },
        now,
    )
}

/// What a port is used for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Purpose {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// Queries to groups, over UDP.
    Query,
}

/// What the fragments of one datagram share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Datagram {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// Its identification.
    pub id: u32,
    /// Its protocol, in the family in which datagrams differ by it.
    pub protocol: Option<u8>,
}

/// All that is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// Flows.
    pub flows: HashMap<FlowId, Flow>,
    /// In which epoch a port was last in use. A port that is absent was in use in epoch 0.
    pub occupancy: HashMap<(Purpose, u16), u8>,
    /// When a datagram's first fragment was refused.
    pub refused: HashMap<Datagram, u32>,
    /// What is counted beside the frames, by the values of the metric labels.
    pub tallies: BTreeMap<&'static str, u64>,
}
