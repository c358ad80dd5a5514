//! What is said about a frame, by the names that the outside knows.

/// What was done with a frame, and why.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// Received: neither IPv4 nor IPv6.
    NotIp,
    /// Received: too many VLAN tags.
    VlanDepth,
    /// Received: too many extension headers.
    HeaderDepth,
    /// Received: cut off, or self-contradictory.
    Malformed,
    /// Received: a later fragment.
    LaterFragment,
    /// Received: a later fragment whose first one was refused.
    FragmentDenied,
    /// Received: ICMP that quotes nothing.
    IcmpInfo,
    /// Received: an ICMP error that is not about a guarded port.
    IcmpOutside,
    /// Received: an ICMP error about a flow.
    IcmpRelated,
    /// Received: an ICMP error about a guarded port without a flow.
    IcmpUnrelated,
    /// Received: a protocol that is not guarded.
    OtherProtocol,
    /// Received: to a port out of the range.
    OutsideRange,
    /// Received: to a reserved or exposed port.
    Exempt,
    /// Received: of a flow.
    KnownFlow,
    /// Received: of a connected socket.
    Rescued,
    /// Received: to another host.
    NotLocal,
    /// Received: from a trusted source.
    Trusted,
    /// Received: unsolicited.
    NoFlow,
    /// Sent: nothing is recorded.
    NotRecorded,
    /// Sent: of a flow.
    Refreshed,
    /// Sent: opens a flow.
    NewFlow,
    /// Sent: would open a flow, but there is no room.
    InsertFailed,
}

impl Reason {
    /// The value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::VlanDepth => "vlan_depth",
            Self::HeaderDepth => "header_depth",
            Self::Malformed => "malformed",
            Self::LaterFragment => "later_fragment",
            Self::FragmentDenied => "fragment_denied",
            Self::IcmpInfo => "icmp_info",
            Self::IcmpOutside => "icmp_outside",
            Self::IcmpRelated => "icmp_related",
            Self::IcmpUnrelated => "icmp_unrelated",
            Self::OtherProtocol => "other_protocol",
            Self::OutsideRange => "outside_range",
            Self::Exempt => "exempt",
            Self::KnownFlow | Self::Refreshed => "known_flow",
            Self::Rescued => "rescued",
            Self::NotLocal => "not_local",
            Self::Trusted => "trusted",
            Self::NoFlow => "no_flow",
            Self::NotRecorded => "not_recorded",
            Self::NewFlow => "new_flow",
            Self::InsertFailed => "insert_failed",
        }
    }

    /// Whether the frame ends here, unless the guard only monitors.
    pub const fn drops(self) -> bool {
        matches!(
            self,
            Self::VlanDepth
                | Self::HeaderDepth
                | Self::Malformed
                | Self::FragmentDenied
                | Self::IcmpUnrelated
                | Self::NoFlow
        )
    }
}

/// What is decided about a frame, and its labels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Decision {
    /// What was done, and why.
    pub reason: Reason,
    /// `ipv4`, `ipv6`, or `other` where the frame was not read that far.
    pub family: &'static str,
    /// `tcp`, `udp`, `udplite`, `icmp`, or `other`, likewise.
    pub protocol: &'static str,
    /// `drop` where the frame is dropped in fact.
    pub verdict: &'static str,
}
