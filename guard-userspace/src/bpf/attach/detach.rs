//! Taking programs off so that they are off.
//!
//! The kernel forgets an XDP link whatever the driver answers, and warns in its log when the driver
//! refuses (`dev_xdp_detach_link`, net/core/dev.c): then the program stays in the driver, shown
//! by nothing, and drops every answer once nothing is recorded any more. So the driver is asked
//! first, by a program that passes everything.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use anyhow::{Context, bail};
use nix::net::if_::if_indextoname;

use crate::{
    bpf::syscalls,
    host::{driver, features::Feature},
};

/// Every driver takes and lets go of programs at this MTU.
const SAFE_MTU: u32 = 1500;

/// Drivers that refuse a program at some MTU, but never refuse to let go of one: the condition is
/// on new programs only in what each of them has for `ndo_bpf`.
const LETS_GO: [&str; 4] = ["hv_netvsc", "mana", "mlx5_core", "veth"];

/// Takes off whatever is pinned at `path`.
///
/// # Errors
/// When the kernel or the driver refuses; then it stays in force and pinned.
pub fn release_pin(path: &Path) -> anyhow::Result<()> {
    if let Ok(link) = syscalls::open_pin(path) {
        detach(link.as_fd()).with_context(|| format!("{}: cannot be detached", path.display()))?;
    }
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("{}: cannot be unpinned", path.display())),
    }
}

fn detach(link: BorrowedFd<'_>) -> anyhow::Result<()> {
    let linked = syscalls::linked(link)?;
    // An interface that is gone, or in another namespace, is not ours to look at.
    let name = if_indextoname(linked.interface)
        .ok()
        .and_then(|name| name.into_string().ok());
    match name {
        Some(name) if syscalls::is_xdp(link)? => detach_xdp(link, &name),
        Some(_) | None => Ok(syscalls::detach_link(link)?),
    }
}

fn detach_xdp(link: BorrowedFd<'_>, name: &str) -> anyhow::Result<()> {
    let Err(refusal) = pass_everything(link) else {
        return Ok(syscalls::detach_link(link)?);
    };
    let lets_go = driver::name(name).is_some_and(|driver| LETS_GO.contains(&driver.as_str()));
    if lets_go {
        return Ok(syscalls::detach_link(link)?);
    }

    let mtu = driver::mtu(name)?;
    if mtu <= SAFE_MTU {
        bail!("the driver of {name} does not let go of the program: {refusal}");
    }
    tracing::info!(
        "{name}: its MTU is {SAFE_MTU} for a moment, at {mtu} its driver does not let go of the program"
    );
    driver::set_mtu(name, SAFE_MTU)
        .with_context(|| format!("the driver of {name} does not let go at MTU {mtu}"))?;
    let detached = pass_everything(link).and_then(|()| syscalls::detach_link(link));
    driver::set_mtu(name, mtu)
        .with_context(|| format!("{name}: its MTU stays at {SAFE_MTU} instead of {mtu}"))?;

    detached.with_context(|| format!("the driver of {name} does not let go of the program"))
}

/// Has the driver take a program that passes everything in place of ours. One that does so also
/// takes none, and were it not to, nothing would be dropped.
fn pass_everything(link: BorrowedFd<'_>) -> io::Result<()> {
    let Ok(program) = syscalls::load_pass(Feature::XdpFrags.is_expected()) else {
        // Without a program to ask with, all that is left is to try.
        return Ok(());
    };
    match syscalls::update_link(link, program.as_fd()) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
