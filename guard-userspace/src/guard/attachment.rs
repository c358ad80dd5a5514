//! One interface as the guard shows it: which programs are there, and what shows that they work.

use crate::{
    bpf::attach::{EgressHook, XdpHook},
    guard::evidence::Evidence,
};

/// One guarded or recorded interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The interface's name.
    pub interface: String,
    /// Whether unsolicited packets are dropped here, or what is sent is only recorded.
    pub guarded: bool,
    /// Whether and how it is guarded.
    pub xdp: Option<XdpHook>,
    /// Whether and how what it sends is recorded.
    pub egress: Option<EgressHook>,
    /// What shows that the XDP program sees what is received.
    pub received: Proof,
    /// What shows that the egress program sees what is sent.
    pub sent: Proof,
    /// Who else sees what it sends.
    pub chain: Chain,
}

/// What shows that the program at one hook sees the packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Proof {
    /// What is known.
    pub evidence: Evidence,
    /// How many packets the interface has counted while the program saw none.
    pub unseen: u64,
}

/// TCX programs and filters of others that see what an interface sends, in words, such as
/// `u32 filter, priority 10, handle 800::800`. Bounded, and without control characters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Chain {
    /// Those that run before our program and can keep packets from it.
    pub in_front: Vec<String>,
    /// Those that run after it and can change what was recorded.
    pub behind: Vec<String>,
}
