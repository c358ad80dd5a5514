//! Putting programs on an interface, and taking them off.
//!
//! Links are pinned as soon as they exist, so that the guard outlives the daemon. A clsact filter
//! is no link: it outlives the daemon by itself, and is found again by its priority and handle.

mod chain;
mod clsact;
mod detach;
mod egress;
mod errors;
mod filter;
mod qdisc;
mod xdp;

use std::{io, os::fd::AsFd, path::PathBuf};

pub(crate) use self::errors::native_remedy;
#[cfg(any(test, fuzzing))]
pub(crate) use self::filter::read as read_filter;
pub use self::{
    chain::{OtherProgram, ProgramNames, Row, Standing},
    clsact::release_clsact,
    detach::release_pin,
    egress::{
        AttachPoint, EgressRequest, egress, look, move_to_front, obstacles, others, place_last,
        refused_behind, release_egress, release_links, settle_egress,
    },
    filter::{has_filter, has_program},
    qdisc::require_room_for_clsact,
    xdp::{Plan, xdp, xdp_hook},
};
use crate::bpf::{
    pins::{Hook, Pins},
    syscalls::{self, LinkTarget},
};
pub use crate::host::hooks::{EgressHook, XdpHook};

/// A program on an interface, and how to take it off again.
#[derive(Debug)]
pub enum Attached {
    /// A link that is pinned here.
    Pinned(PathBuf),
    /// A clsact filter on the interface of this name.
    Clsact(String),
}

impl Attached {
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

/// A link of ours, and what it should hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Where it is pinned.
    pub path: PathBuf,
    /// Our program and the interface.
    pub linked: LinkTarget,
}

impl Link {
    /// Whether it still holds our program on the interface. A link outlives its interface, and says
    /// so; others may take it off, put another program into it, or remove its pin.
    ///
    /// # Errors
    /// When the kernel does not tell, as when no more files may be opened. A link that cannot be
    /// looked at may well be in force.
    pub fn is_in_force(&self) -> io::Result<bool> {
        match syscalls::open_pin(&self.path) {
            Ok(link) => Ok(syscalls::linked(link.as_fd())? == self.linked),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The XDP programs of ours that are pinned for the interface with this index: in the folder of
/// this layout, and in the others of the namespace.
pub fn pinned_xdp(pins: &Pins, interface: u32) -> Vec<u32> {
    pinned(pins, interface, [Hook::Xdp])
}

/// The programs of ours that see what this interface sends, likewise.
pub fn pinned_egress(pins: &Pins, interface: u32) -> Vec<u32> {
    pinned(pins, interface, Hook::of_egress())
}

fn pinned(pins: &Pins, interface: u32, hooks: impl IntoIterator<Item = Hook>) -> Vec<u32> {
    let hooks: Vec<_> = hooks.into_iter().collect();
    let others = pins.others();
    let folders = others.iter().chain([pins]);
    let paths = folders.flat_map(|pins| hooks.iter().map(|hook| pins.link(interface, *hook)));
    let program = |path: PathBuf| {
        let link = syscalls::open_pin(&path).ok()?;
        Some(syscalls::linked(link.as_fd()).ok()?.program)
    };

    paths.filter_map(program).collect()
}
