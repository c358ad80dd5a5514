//! The XDP program on an interface.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use aya::programs::{
    Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use super::{
    Hold,
    refusal::{cause, native_refused, refused_xdp},
    release_pin,
};
use crate::{
    failure::Failure,
    interfaces::{AttachedMode, Interface},
    observation::XdpHook,
    settings,
};

/// Puts the XDP program on an interface: in place of the one that is pinned at one of `left`,
/// without a gap, or anew. Pins it at `pin`. Returns why it is not native where it could not be.
///
/// # Errors
/// When the interface is taken, or neither mode works: exit code 69.
pub fn xdp(
    program: &mut Xdp,
    (name, index): (&str, u32),
    mode: settings::XdpMode,
    (pin, left): (&Path, &[PathBuf]),
) -> Result<(Hold, Option<String>), Failure> {
    for left in left {
        if adopt(program, left) {
            if left != pin {
                // In one step: a link that is pinned nowhere is gone with this process.
                fs::rename(left, pin)
                    .with_context(|| format!("{}: cannot be moved", left.display()))?;
            }
            return Ok((Hold::Pinned(pin.to_owned()), None));
        }
        // What cannot be adopted is of an interface that is gone.
        release_pin(left)?;
    }

    let attempt = |program: &mut Xdp, mode| program.attach_to_if_index(index, mode);
    let (link, fallback) = match mode {
        settings::XdpMode::Native => (attempt(program, XdpMode::Driver), None),
        settings::XdpMode::Generic => (attempt(program, XdpMode::Skb), None),
        settings::XdpMode::Auto => match attempt(program, XdpMode::Driver) {
            Err(error) if native_refused(&error) => {
                let reason = format!("{name}: the driver takes no XDP program: {}", cause(&error));
                (attempt(program, XdpMode::Skb), Some(reason))
            }
            result => (result, None),
        },
    };
    let link = link.map_err(|error| refused_xdp(name, mode, &error))?;
    let link = program
        .take_link(link)
        .context("keep the XDP link")
        .map_err(Failure::from)?;

    let hold = match FdLink::try_from(link) {
        Ok(link) => {
            link.pin(pin)
                .with_context(|| format!("{}: cannot be pinned", pin.display()))?;
            Hold::Pinned(pin.to_owned())
        }
        Err(_) => {
            return Err(Failure::unavailable(format!(
                "{name}: the kernel has no links for XDP programs"
            ))
            .remedy("run Linux 5.10 or later"));
        }
    };

    Ok((hold, fallback))
}

/// The mode that rtnetlink shows.
///
/// # Errors
/// When it shows none.
pub fn xdp_hook(interface: &Interface) -> anyhow::Result<XdpHook> {
    let program = interface
        .xdp
        .first()
        .with_context(|| format!("{}: the XDP program is gone", interface.name))?;

    Ok(hook_of(program.mode))
}

/// How a program in this mode sits on its interface.
pub const fn hook_of(mode: AttachedMode) -> XdpHook {
    match mode {
        AttachedMode::Native | AttachedMode::Offload => XdpHook::Native,
        AttachedMode::Generic => XdpHook::Generic,
    }
}

/// Replaces the program of the link that is pinned at `left`, if there is one.
fn adopt(program: &mut Xdp, left: &Path) -> bool {
    PinnedLink::from_pin(left)
        .ok()
        .and_then(|pinned| XdpLink::try_from(FdLink::from(pinned)).ok())
        .and_then(|link| program.attach_to_link(link).ok())
        .and_then(|link| program.take_link(link).ok())
        .is_some()
}
