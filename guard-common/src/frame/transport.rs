//! The protocols whose local ports are guarded.

use crate::{frame::headers::protocol, outcome::Protocol};

/// A protocol whose local ports are guarded. Counted like [`Use`](crate::ports::occupancy::Use) and
/// [`Protocol`], so that neither costs a comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// UDP-Lite: another protocol number, the same port range.
    UdpLite = 2,
}

impl Transport {
    /// The guarded protocol with this IANA number.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            protocol::UDP_LITE => Some(Self::UdpLite),
            _ => None,
        }
    }

    /// The protocol's IANA number.
    #[inline(always)]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::UdpLite => protocol::UDP_LITE,
        }
    }

    /// The metric label.
    #[inline(always)]
    pub const fn label(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
            Self::UdpLite => Protocol::UdpLite,
        }
    }
}
