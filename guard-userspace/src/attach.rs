//! Putting programs on an interface, and taking them off.
//!
//! Links are pinned as soon as they exist, so that the guard outlives the daemon. A clsact filter
//! is no link: it outlives the daemon by itself, and is found again by its priority and handle.

mod egress;
mod filter;
mod refusal;
mod xdp;

use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aya::programs::{
    TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcHandle},
};

pub(crate) use self::refusal::errno;
pub use self::{
    egress::{egress, settle_egress},
    filter::has_filter,
    xdp::{xdp, xdp_hook},
};
use crate::bpf;

/// Later than any filter that somebody else is likely to add: what rewrites packets must have
/// done so before they are recorded.
const CLSACT_PRIORITY: u16 = 0xfff0;

/// Our filter at that priority.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// Our filter while that of an earlier run, whose maps are of another size, must stay.
const CLSACT_BESIDE: TcHandle = TcHandle::new(0, 2);

/// A program on an interface, and how to take it off again.
#[derive(Debug)]
pub enum Hold {
    /// A link that is pinned here.
    Pinned(PathBuf),
    /// A clsact filter on the interface of this name.
    Clsact(String),
}

impl Hold {
    /// Takes the program off at once. Nothing happens where it is off already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(self) -> anyhow::Result<()> {
        match self {
            Self::Pinned(path) => release_pin(&path),
            Self::Clsact(interface) => release_clsact(&interface),
        }
    }
}

/// Takes off whatever is pinned at `path`.
///
/// # Errors
/// When the kernel refuses.
pub fn release_pin(path: &Path) -> anyhow::Result<()> {
    if let Ok(link) = bpf::open_pin(path) {
        bpf::detach_link(link.as_fd())
            .with_context(|| format!("{}: cannot be detached", path.display()))?;
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be unpinned", path.display())),
    }
}

/// Takes our clsact filters off an interface, if they are there.
///
/// # Errors
/// When the kernel refuses.
pub fn release_clsact(interface: &str) -> anyhow::Result<()> {
    [CLSACT_HANDLE, CLSACT_BESIDE]
        .into_iter()
        .try_for_each(|handle| release_filter(interface, handle))
}

fn release_filter(interface: &str, handle: TcHandle) -> anyhow::Result<()> {
    match SchedClassifierLink::attached(
        interface,
        TcAttachType::Egress,
        CLSACT_PRIORITY,
        handle,
        None,
    ) {
        // Dropping it detaches it, and is silent where there is no such filter.
        Ok(filter) => drop(filter),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => return Err(error).with_context(|| format!("{interface}: clsact filter")),
    }

    Ok(())
}

/// Whether the link pinned at `path` still holds a program on the interface with this index. A
/// link outlives its interface, and says so.
pub fn holds(path: &Path, interface: u32) -> bool {
    bpf::open_pin(path)
        .and_then(|link| bpf::link_interface(link.as_fd()))
        .is_ok_and(|index| index == interface)
}

/// The program that the link pinned at `path` holds, if there is such a link.
pub fn pinned_program(path: &Path) -> Option<u32> {
    let link = FdLink::from(PinnedLink::from_pin(path).ok()?);

    Some(link.info().ok()?.program_id())
}
