//! What the headers of a frame look like.

use std::fmt;

use guard_common::outcome::Family;
use guard_tests::frames::{Frame, VLAN};
use serde::Serialize;

/// The headers in front of the transport's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// IPv4 behind one VLAN tag.
    Tagged,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ipv4, Self::Ipv6, Self::Tagged];

    /// The family of the frame.
    pub const fn family(self) -> Family {
        match self {
            Self::Ipv4 | Self::Tagged => Family::Ipv4,
            Self::Ipv6 => Family::Ipv6,
        }
    }

    /// The frame in this shape.
    pub fn of(self, frame: &Frame) -> Frame {
        match self {
            Self::Ipv4 | Self::Ipv6 => frame.clone(),
            Self::Tagged => frame.clone().tag(VLAN, 7),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
            Self::Tagged => "tagged",
        })
    }
}
