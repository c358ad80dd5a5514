//! The program on an interface that records what is sent.

use std::{io, path::Path};

use anyhow::Context;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact},
};

use super::{
    CLSACT_HANDLE, CLSACT_PRIORITY, Hold,
    refusal::{cause, errno, errno_tc, refused_clsact},
    release_clsact, release_pin,
};
use crate::{failure::Failure, observation::EgressHook, settings};

/// Puts the program that records what is sent on an interface, as [`xdp`](super::xdp) does. Returns why it is
/// not TCX where it could not be.
///
/// # Errors
/// When neither hook works: exit code 69.
pub fn egress(
    program: &mut SchedClassifier,
    name: &str,
    hook: settings::EgressHook,
    pin: &Path,
) -> Result<(Hold, EgressHook, Option<String>), Failure> {
    if hook == settings::EgressHook::Clsact {
        // A link from an earlier run would record everything twice.
        release_pin(pin)?;
        return clsact(program, name).map(|hold| (hold, EgressHook::Clsact, None));
    }
    if adopt(program, pin) {
        release_clsact(name)?;
        return Ok((Hold::Pinned(pin.to_owned()), EgressHook::Tcx, None));
    }

    match tcx(program, name, pin) {
        Ok(hold) => {
            release_clsact(name)?;
            Ok((hold, EgressHook::Tcx, None))
        }
        Err(error) if hook == settings::EgressHook::Auto => {
            let reason = format!("{name}: the kernel has no TCX: {}", cause(&error));
            clsact(program, name).map(|hold| (hold, EgressHook::Clsact, Some(reason)))
        }
        Err(error) => Err(Failure::unavailable(format!(
            "{name}: the kernel has no TCX: {}",
            cause(&error)
        ))
        .remedy("run Linux 6.6 or later, or leave --egress-hook at auto")),
    }
}

fn adopt(program: &mut SchedClassifier, pin: &Path) -> bool {
    let adopted = PinnedLink::from_pin(pin)
        .ok()
        .and_then(|pinned| SchedClassifierLink::try_from(FdLink::from(pinned)).ok())
        .and_then(|link| program.attach_to_link(link).ok())
        .and_then(|link| program.take_link(link).ok())
        .is_some();
    if !adopted {
        let _ = release_pin(pin);
    }

    adopted
}

fn tcx(program: &mut SchedClassifier, name: &str, pin: &Path) -> Result<Hold, ProgramError> {
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = program.attach_with_options(name, TcAttachType::Egress, options)?;
    let link = FdLink::try_from(program.take_link(link)?)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;
    link.pin(pin)
        .map_err(|error| ProgramError::IOError(io::Error::other(error)))?;

    Ok(Hold::Pinned(pin.to_owned()))
}

fn clsact(program: &mut SchedClassifier, name: &str) -> Result<Hold, Failure> {
    match qdisc_add_clsact(name) {
        Ok(()) => {}
        Err(error) if errno_tc(&error) == Some(libc::EEXIST) => {}
        Err(error) => return Err(refused_clsact(name, &error.into())),
    }

    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let link = match program.attach_with_options(name, TcAttachType::Egress, options) {
        Ok(link) => link,
        // Left by an earlier run: replaced in one step.
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let left = SchedClassifierLink::attached(
                name,
                TcAttachType::Egress,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            )
            .with_context(|| format!("{name}: clsact filter"))?;
            program
                .attach_to_link(left)
                .map_err(|error| refused_clsact(name, &error))?
        }
        Err(error) => return Err(refused_clsact(name, &error)),
    };
    let link = program
        .take_link(link)
        .context("keep the clsact filter")
        .map_err(Failure::from)?;
    // The filter is to outlive this process; `Hold` takes it off by name when the time comes.
    std::mem::forget(link);

    Ok(Hold::Clsact(name.to_owned()))
}
