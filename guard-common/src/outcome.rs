//! What was done with one frame, and why.

use core::ops::Range;

/// The hook that saw a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Received by an interface: XDP.
    Ingress,
    /// Sent by this host: TC egress.
    Egress,
}

impl Direction {
    /// The value of the metric label `direction`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// What a program does with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The frame goes on to the next program or to the stack.
    Pass,
    /// The frame ends here, unless the guard only monitors.
    Drop,
}

impl Verdict {
    /// Both actions, in the order of the counter slots.
    pub const ALL: [Self; 2] = [Self::Pass, Self::Drop];

    /// The value of the metric label `verdict`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

/// The one list of reasons: number, variant, hook, action, metric label.
///
/// A new one comes last, under the next number, and none is ever taken out or moved: an upgrade keeps
/// counters by their numbers.
macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $number:literal $variant:ident => $direction:ident, $verdict:ident, $reason:literal;)+) => {
        /// What was done with one frame, and why: one counter slot and one metric label each.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Outcome {
            /// Every outcome, in the order of the counter slots.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The hook at which this happens.
            pub const fn direction(self) -> Direction {
                match self {
                    $(Self::$variant => Direction::$direction,)+
                }
            }

            /// What the program does with the frame.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// The value of the metric label `reason`.
            pub const fn reason(self) -> &'static str {
                match self {
                    $(Self::$variant => $reason,)+
                }
            }
        }
    };
}

outcomes! {
    /// Neither IPv4 nor IPv6.
    0 PassNotIp => Ingress, Pass, "not_ip";
    /// More VLAN tags than are walked.
    1 DropVlanDepth => Ingress, Drop, "vlan_depth";
    /// More IPv6 extension headers than are walked.
    2 DropHeaderDepth => Ingress, Drop, "header_depth";
    /// The frame ends inside a header that is needed, or the header contradicts itself.
    3 DropMalformed => Ingress, Drop, "malformed";
    /// A later fragment of a datagram whose first fragment was not refused.
    4 PassLaterFragment => Ingress, Pass, "later_fragment";
    /// A later fragment of a datagram whose first fragment was refused.
    5 DropFragmentDenied => Ingress, Drop, "fragment_denied";
    /// ICMP that quotes no packet.
    6 PassIcmpInfo => Ingress, Pass, "icmp_info";
    /// An ICMP error about a packet from a port that is not guarded.
    7 PassIcmpOutside => Ingress, Pass, "icmp_outside";
    /// An ICMP error about a flow of this host.
    8 PassIcmpRelated => Ingress, Pass, "icmp_related";
    /// An ICMP error about a guarded port that has no such flow.
    9 DropIcmpUnrelated => Ingress, Drop, "icmp_unrelated";
    /// A protocol without ephemeral ports, or one that is not guarded.
    10 PassOtherProtocol => Ingress, Pass, "other_protocol";
    /// To a port outside the local port range.
    11 PassOutsideRange => Ingress, Pass, "outside_range";
    /// To a port of the range that is reserved or exposed.
    12 PassExempt => Ingress, Pass, "exempt";
    /// Of a flow this host opened.
    13 PassKnownFlow => Ingress, Pass, "known_flow";
    /// Of a flow that was not in the map, but for which the kernel has a connected socket.
    14 PassRescued => Ingress, Pass, "rescued";
    /// To another host, through this one.
    15 PassNotLocal => Ingress, Pass, "not_local";
    /// From a trusted prefix.
    16 PassTrusted => Ingress, Pass, "trusted";
    /// To a guarded port, answering nothing.
    17 DropNoFlow => Ingress, Drop, "no_flow";

    /// Nothing is recorded of this frame.
    18 PassNotRecorded => Egress, Pass, "not_recorded";
    /// Of a flow already in the map.
    19 PassRefreshedFlow => Egress, Pass, "known_flow";
    /// Of a flow that is in the map from now on.
    20 PassNewFlow => Egress, Pass, "new_flow";
    /// Of a flow the map had no room for.
    21 PassInsertFailed => Egress, Pass, "insert_failed";
}

// The slots follow from the numbers, which therefore are those of the places in the list.
const _: () = {
    let mut place = 0;
    while place < Outcome::ALL.len() {
        assert!(Outcome::ALL[place] as usize == place);
        place += 1;
    }
};

/// The network protocol of a frame, as a metric label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Neither, or unknown because the frame was not read that far.
    Other,
}

impl Family {
    /// Every family, in the order of the counter slots.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Other];

    /// The value of the metric label `family`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Other => "other",
        }
    }
}

/// The transport protocol of a frame, as a metric label.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// UDP-Lite.
    UdpLite,
    /// ICMP over IPv4, ICMPv6 over IPv6.
    Icmp,
    /// Any other, or unknown because the frame was not read that far.
    Other,
}

impl Protocol {
    /// Every protocol, in the order of the counter slots.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::UdpLite, Self::Icmp, Self::Other];

    /// The value of the metric label `protocol`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Icmp => "icmp",
            Self::Other => "other",
        }
    }
}

/// An outcome and the labels it is counted under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What was done, and why.
    pub outcome: Outcome,
    /// The network protocol, as far as it was read.
    pub family: Family,
    /// The transport protocol, as far as it was read.
    pub protocol: Protocol,
}

impl Decision {
    /// Counter slots of one device.
    pub const SLOTS: u32 = (Outcome::ALL.len() * Self::SLOTS_OF_ONE) as u32;

    /// Counter slots of one outcome.
    pub const SLOTS_OF_ONE: usize = Verdict::ALL.len() * Family::ALL.len() * Protocol::ALL.len();

    /// The counters of one outcome among those of a device.
    pub const fn slots(outcome: Outcome) -> Range<usize> {
        let first = outcome as usize * Self::SLOTS_OF_ONE;

        first..first + Self::SLOTS_OF_ONE
    }

    /// The number of the counter among those of the device, when `verdict` was carried out.
    #[inline(always)]
    pub const fn slot(self, verdict: Verdict) -> u32 {
        let slot = self.outcome as u32 * Verdict::ALL.len() as u32 + verdict as u32;
        let slot = slot * Family::ALL.len() as u32 + self.family as u32;

        slot * Protocol::ALL.len() as u32 + self.protocol as u32
    }
}

/// The one list of what is counted beside the frames: number, variant, name. A new one comes last.
macro_rules! tallies {
    ($($(#[doc = $doc:literal])+ $number:literal $variant:ident, $name:literal;)+) => {
        /// What is counted beside the frames.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u32)]
        pub enum Tally {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Tally {
            /// Every tally, in the order of the elements.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Tallies there are.
            pub const COUNT: usize = Self::ALL.len();

            /// What is counted, in a word.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

tallies! {
    /// A flow was put back that the map had evicted, or that was never in it.
    0 RescuedAbsent, "rescued_absent";
    /// A flow was put back that had expired.
    1 RescuedExpired, "rescued_expired";
    /// In monitor mode: a packet to a connected socket would have been dropped.
    2 WouldDropConnected, "would_drop_connected";
    /// In monitor mode: a packet to a listener would have been dropped.
    3 WouldDropListener, "would_drop_listener";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_an_interface_take_less_than_two_mib_on_128_processors() {
        const PROCESSORS: usize = 128;

        assert!(Decision::SLOTS as usize * size_of::<u64>() * PROCESSORS < 2 << 20);
    }

    #[test]
    fn every_decision_has_a_slot_of_its_own() {
        let mut taken = [false; Decision::SLOTS as usize];
        for &outcome in Outcome::ALL {
            for verdict in Verdict::ALL {
                for family in Family::ALL {
                    for protocol in Protocol::ALL {
                        let decision = Decision {
                            outcome,
                            family,
                            protocol,
                        };
                        let slot = decision.slot(verdict) as usize;
                        // Those of an outcome that is added come behind all others.
                        assert!(Decision::slots(outcome).contains(&slot), "{decision:?}");
                        assert!(!core::mem::replace(&mut taken[slot], true), "{decision:?}");
                    }
                }
            }
        }
        assert!(taken.into_iter().all(|taken| taken));
    }
}
