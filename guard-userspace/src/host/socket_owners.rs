//! Which process has a socket open.

pub mod helper;
mod walk;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{
    helper::{OwnerHelper, OwnersFound},
    walk::{DescriptorWalk, OpenSocket, WalkResult},
};

/// Who has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketOwner {
    /// A process, or the first found of several that share it.
    Process {
        /// Its id.
        pid: i32,
        /// Its name, cut by the kernel to 15 bytes, which may be any.
        name: String,
    },
    /// No process could be found, for lack of privilege or because it has gone.
    Unknown,
}

impl SocketOwner {
    /// The process id, where one is known.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Process { pid, .. } => Some(*pid),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for SocketOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => {
                write!(f, "{}, pid {pid}", crate::base::text::plain(name))
            }
            Self::Unknown => f.write_str("unknown process"),
        }
    }
}
