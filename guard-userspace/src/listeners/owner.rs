//! Which process has a socket open.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A process, or the first found of several that share it.
    Process {
        /// Its id.
        pid: i32,
        /// Its name, cut by the kernel to 15 bytes, which may be any.
        name: String,
    },
    /// The kernel itself: WireGuard, VXLAN and the like.
    Kernel,
    /// Nobody could be found, for lack of privilege or because it has gone.
    Unknown,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{}, pid {pid}", crate::text::plain(name)),
            Self::Kernel => f.write_str("the kernel itself"),
            Self::Unknown => f.write_str("unknown process"),
        }
    }
}
