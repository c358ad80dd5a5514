//! Which process has a socket open.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    os::unix::fs::MetadataExt,
};

use procfs::process::{FDTarget, Process, all_processes};
use serde::{Deserialize, Serialize};

use crate::privileges;

/// The inode of the first process namespace: `PROC_PID_INIT_INO`, include/linux/proc_ns.h.
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Who has a socket open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// A process, or the first found of several that share it.
    Process {
        /// Its id.
        pid: i32,
        /// Its name, cut by the kernel to 15 bytes.
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
            Self::Process { pid, name } => write!(f, "{name}, pid {pid}"),
            Self::Kernel => f.write_str("the kernel itself"),
            Self::Unknown => f.write_str("unknown process"),
        }
    }
}

/// The owners that one look through all processes has found.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Scan {
    owners: HashMap<u32, Owner>,
    /// Whether every process of this host could be looked into.
    pub(super) complete: bool,
}

impl Scan {
    /// The process that has the socket with this inode open.
    pub(super) fn owner(&self, inode: u32) -> Option<&Owner> {
        self.owners.get(&inode)
    }
}

/// Looks through the file descriptors of all processes for sockets with the `wanted` inodes.
pub(super) fn scan(wanted: &HashSet<u32>) -> Scan {
    let mut scan = Scan {
        owners: HashMap::new(),
        complete: sees_all_processes() && privileges::may_look_into_others(),
    };
    let Ok(processes) = all_processes() else {
        scan.complete = false;
        return scan;
    };
    for process in processes {
        if scan.owners.len() == wanted.len() {
            return scan;
        }
        match process.and_then(|process| collect(&process, wanted, &mut scan.owners)) {
            Ok(()) => {}
            // A process that ends meanwhile has closed its sockets.
            Err(procfs::ProcError::NotFound(_)) => {}
            Err(_) => scan.complete = false,
        }
    }

    scan
}

fn collect(
    process: &Process,
    wanted: &HashSet<u32>,
    owners: &mut HashMap<u32, Owner>,
) -> procfs::ProcResult<()> {
    for descriptor in process.fd()? {
        let FDTarget::Socket(inode) = descriptor?.target else {
            continue;
        };
        let Ok(inode) = u32::try_from(inode) else {
            continue;
        };
        if wanted.contains(&inode) && !owners.contains_key(&inode) {
            let name = process.stat()?.comm;
            owners.insert(
                inode,
                Owner::Process {
                    pid: process.pid(),
                    name,
                },
            );
        }
    }

    Ok(())
}

/// Whether /proc shows the processes of all containers, and not just those of this one.
fn sees_all_processes() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == FIRST_PID_NAMESPACE)
}
