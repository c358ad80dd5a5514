//! The ways in which XDP sees frames.

use std::fmt;

use anyhow::Result;

use crate::{kernel::Kernel, netns::Direct};

/// How XDP runs, on a link with frames how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mode {
    /// The value of `--xdp-mode`.
    pub xdp: &'static str,
    /// The longest packet of the link, in bytes.
    pub mtu: u32,
}

/// In the driver; in the driver, with frames that come in several pieces; and in the stack.
const MODES: [Mode; 3] = [
    Mode {
        xdp: "native",
        mtu: 1_500,
    },
    Mode {
        xdp: "native",
        mtu: 9_000,
    },
    Mode {
        xdp: "generic",
        mtu: 1_500,
    },
];

impl Mode {
    /// Every mode that this kernel has.
    pub fn every() -> impl Iterator<Item = Self> {
        MODES.into_iter().filter(|mode| {
            // https://github.com/torvalds/linux/commit/c2f2cdbeffda
            let pieces = mode.xdp == "native" && mode.mtu > 1_500;
            !(pieces && Kernel::new(5, 18).is_missing("XDP on frames in several pieces"))
        })
    }

    /// Two hosts on such a link.
    pub fn topology(self) -> Result<Direct> {
        let topology = Direct::new()?;
        for (host, interface) in [
            (&topology.guarded, topology.interface()),
            (&topology.peer, topology.peer_interface()),
        ] {
            host.ip(&format!("link set {interface} mtu {}", self.mtu))?;
        }
        Ok(topology)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, MTU {}", self.xdp, self.mtu)
    }
}
