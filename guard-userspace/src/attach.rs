//! Putting programs on an interface, and taking them off.
//!
//! Links are pinned as soon as they exist, so that the guard outlives the daemon. A clsact filter
//! is no link: it outlives the daemon by itself, and is found again by its priority and handle.

mod egress;
mod filter;
mod qdisc;
mod refusal;
mod release;
mod xdp;

use std::{io, ops::RangeInclusive, os::fd::AsFd, path::PathBuf};

use anyhow::Context;
use aya::programs::{
    TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcHandle},
};

#[cfg(any(test, fuzzing))]
pub(crate) use self::filter::ours as is_ours;
pub(crate) use self::refusal::{errno, native_remedy};
pub use self::{
    egress::{egress, settle_egress},
    filter::has_filter,
    qdisc::require_room_for_clsact,
    release::release_pin,
    xdp::{Plan, hook_of, xdp, xdp_hook},
};
use crate::{
    bpf,
    bpf::Linked,
    pins::{Hook, Pins},
};

/// Later than any filter that somebody else is likely to add: what rewrites packets must have
/// done so before they are recorded.
const CLSACT_PRIORITY: u16 = 0xfff0;

/// Our filters at that priority. The first is the one that stays; the others are for a run that
/// takes over from an earlier one, whose filter must stay until XDP reads the new maps. Each run
/// that is killed meanwhile leaves one, until the next has taken over.
const CLSACT_HANDLES: RangeInclusive<u16> = 1..=16;

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
    pub fn release(&self) -> anyhow::Result<()> {
        match self {
            Self::Pinned(path) => release_pin(path),
            Self::Clsact(interface) => release_clsact(interface),
        }
    }
}

/// Takes our clsact filters off an interface, if they are there.
///
/// # Errors
/// When the kernel refuses.
pub fn release_clsact(interface: &str) -> anyhow::Result<()> {
    release_filters(interface, CLSACT_HANDLES)
}

fn release_filters(interface: &str, handles: RangeInclusive<u16>) -> anyhow::Result<()> {
    handles
        .into_iter()
        .try_for_each(|handle| release_filter(interface, handle))
}

fn release_filter(interface: &str, handle: u16) -> anyhow::Result<()> {
    match filter_at(interface, handle) {
        // Dropping it detaches it, and is silent where there is no such filter.
        Ok(filter) => drop(filter),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => return Err(error).with_context(|| format!("{interface}: clsact filter")),
    }

    Ok(())
}

/// Our filter with this handle, whether it is there or not.
fn filter_at(interface: &str, handle: u16) -> io::Result<SchedClassifierLink> {
    let handle = TcHandle::new(0, handle);

    SchedClassifierLink::attached(
        interface,
        TcAttachType::Egress,
        CLSACT_PRIORITY,
        handle,
        None,
    )
}

/// A link of ours, and what it should hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where it is pinned.
    pub path: PathBuf,
    /// Our program and the interface.
    pub linked: Linked,
}

impl Link {
    /// Whether it still holds our program on the interface. A link outlives its interface, and says
    /// so; others may take it off, put another program into it, or remove its pin.
    ///
    /// # Errors
    /// When the kernel does not tell, as when no more files may be opened. A link that nobody can
    /// look at may well be in force.
    pub fn is_in_force(&self) -> io::Result<bool> {
        match bpf::open_pin(&self.path) {
            Ok(link) => Ok(bpf::linked(link.as_fd())? == self.linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The XDP programs of ours that are pinned for the interface with this index: in the folder of
/// this layout, and in the others of the namespace.
pub fn pinned_xdp(pins: &Pins, interface: u32) -> Vec<u32> {
    let program = |pins: &Pins| {
        let link = PinnedLink::from_pin(pins.link(interface, Hook::Xdp)).ok()?;
        Some(FdLink::from(link).info().ok()?.program_id())
    };

    pins.others()
        .iter()
        .chain([pins])
        .filter_map(program)
        .collect()
}
