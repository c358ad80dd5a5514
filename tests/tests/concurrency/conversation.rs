//! What this host sends to many others, and what it receives for it.

use guard_common::outcome::Family;
use guard_tests::{
    frames::{tcp, udp},
    setup::{FIRST, LAST},
    soak::Template,
};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// The first of the hosts that are spoken to: 10.128.0.0, or fd09::a80:0.
const HOSTS: u32 = 0x0a80_0000;
/// The port of theirs.
const SERVICE: u16 = 443;

/// What one processor sends, and what it receives for it.
pub struct Conversation {
    sent: Vec<Template>,
    answers: Vec<Template>,
}

impl Conversation {
    /// Four kinds of flow, one behind the other: UDP and TCP over either family. TCP begins with
    /// a SYN, or in its middle.
    pub fn new(opens: bool) -> Self {
        let (mut sent, mut answers) = (Vec::new(), Vec::new());
        for family in FAMILIES {
            let (out, back) = (udp(FIRST, SERVICE), udp(SERVICE, FIRST));
            sent.push(Template::new(out.sent(family), family, false));
            answers.push(Template::new(back.received(family), family, false));
            let out = tcp(FIRST, SERVICE);
            let out = if opens { out.syn() } else { out };
            let back = tcp(SERVICE, FIRST);
            sent.push(Template::new(out.sent(family), family, true));
            answers.push(Template::new(back.received(family), family, true));
        }
        Self { sent, answers }
    }

    /// The frame that opens this flow.
    pub fn sent(&mut self, flow: u32) -> &[u8] {
        let kind = flow as usize % self.sent.len();
        let frame = &mut self.sent[kind];
        frame.set_ports(port(flow), SERVICE);
        frame.set_destination(HOSTS + flow);
        frame.bytes()
    }

    /// Its answer.
    pub fn answer(&mut self, flow: u32) -> &[u8] {
        let kind = flow as usize % self.answers.len();
        let frame = &mut self.answers[kind];
        frame.set_ports(SERVICE, port(flow));
        frame.set_source(HOSTS + flow);
        frame.bytes()
    }
}

/// Every port of the range is used, by flows of every kind.
const fn port(flow: u32) -> u16 {
    FIRST + (flow / 4 % (LAST - FIRST + 1) as u32) as u16
}
