//! The program on an interface that records what is sent.

use std::{io, path::Path};

use anyhow::Context;
use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{
        NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle,
        qdisc_add_clsact,
    },
};

use super::{
    CLSACT_HANDLES, CLSACT_PRIORITY, Hold, filter_at,
    qdisc::require_room_for_clsact,
    refusal::{cause, errno, errno_tc, refused_clsact},
    release_clsact, release_filters, release_pin,
};
use crate::{failure::Failure, observation::EgressHook, settings};

/// Puts the program that records what is sent on an interface, as [`xdp`](super::xdp) does. Returns why it is
/// not TCX where it could not be.
///
/// `beside` leaves what an earlier run has left in force, until [`settle_egress`].
///
/// # Errors
/// When neither hook works: exit code 69.
pub fn egress(
    program: &mut SchedClassifier,
    name: &str,
    hook: settings::EgressHook,
    (pin, beside): (&Path, bool),
) -> Result<(Hold, EgressHook, Option<String>), Failure> {
    let settle = |hook| {
        if beside {
            Ok(())
        } else {
            release_other(name, hook)
        }
    };
    if hook == settings::EgressHook::Clsact {
        let hold = clsact(program, name, beside)?;
        // A link from an earlier run would record everything twice.
        release_pin(pin)?;
        settle(EgressHook::Clsact)?;
        return Ok((hold, EgressHook::Clsact, None));
    }
    if adopt(program, pin) {
        settle(EgressHook::Tcx)?;
        return Ok((Hold::Pinned(pin.to_owned()), EgressHook::Tcx, None));
    }

    match tcx(program, name, pin) {
        Ok(hold) => {
            settle(EgressHook::Tcx)?;
            Ok((hold, EgressHook::Tcx, None))
        }
        Err(error) if hook == settings::EgressHook::Auto => {
            let reason = format!("{name}: the kernel has no TCX: {}", cause(&error));
            let hold = clsact(program, name, beside)?;
            settle(EgressHook::Clsact)?;
            Ok((hold, EgressHook::Clsact, Some(reason)))
        }
        Err(error) => Err(Failure::unavailable(format!(
            "{name}: the kernel has no TCX: {}",
            cause(&error)
        ))
        .remedy("run Linux 6.6 or later, or leave --egress-hook at auto")),
    }
}

/// Ends what an earlier run has left in force beside a program that was attached at `hook`.
///
/// # Errors
/// When the kernel refuses.
pub fn settle_egress(
    program: &mut SchedClassifier,
    name: &str,
    hook: EgressHook,
) -> Result<(), Failure> {
    if hook == EgressHook::Clsact {
        // In one step: the filter of the earlier run becomes ours.
        clsact(program, name, false)?;
    }

    Ok(release_other(name, hook)?)
}

/// Takes off the filters that are not in force with a program at `hook`.
fn release_other(name: &str, hook: EgressHook) -> anyhow::Result<()> {
    match hook {
        EgressHook::Tcx => release_clsact(name),
        EgressHook::Clsact => {
            let (stays, last) = (*CLSACT_HANDLES.start(), *CLSACT_HANDLES.end());
            release_filters(name, stays + 1..=last)
        }
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

fn clsact(program: &mut SchedClassifier, name: &str, beside: bool) -> Result<Hold, Failure> {
    match qdisc_add_clsact(name) {
        Ok(()) => {}
        // Somebody has one, or what is in its place.
        Err(error) if errno_tc(&error) == Some(libc::EEXIST) => require_room_for_clsact(name)?,
        Err(error) => return Err(refused_clsact(name, &error.into())),
    }

    let attached = if beside {
        add_beside(program, name)
    } else {
        add_or_replace(program, name, *CLSACT_HANDLES.start())
    };
    let link = attached.map_err(|error| refused_clsact(name, &error))?;
    let link = program
        .take_link(link)
        .context("keep the clsact filter")
        .map_err(Failure::from)?;
    // The filter is to outlive this process; `Hold` takes it off by name when the time comes.
    std::mem::forget(link);

    Ok(Hold::Clsact(name.to_owned()))
}

/// Leaves every filter that is there, as far as there is room: which of them feeds the maps that
/// XDP reads, not even the kernel would tell a process that is not root.
fn add_beside(
    program: &mut SchedClassifier,
    name: &str,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let (stays, last) = (*CLSACT_HANDLES.start(), *CLSACT_HANDLES.end());
    for handle in stays + 1..last {
        match add(program, name, handle) {
            Err(error) if errno(&error) == Some(libc::EEXIST) => {}
            result => return result,
        }
    }

    add_or_replace(program, name, last)
}

/// In one step where there is one already, left by an earlier run.
fn add_or_replace(
    program: &mut SchedClassifier,
    name: &str,
    handle: u16,
) -> Result<SchedClassifierLinkId, ProgramError> {
    match add(program, name, handle) {
        Err(error) if errno(&error) == Some(libc::EEXIST) => {
            let left = filter_at(name, handle).map_err(ProgramError::IOError)?;
            program.attach_to_link(left)
        }
        result => result,
    }
}

fn add(
    program: &mut SchedClassifier,
    name: &str,
    handle: u16,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: TcHandle::new(0, handle),
        classid: None,
    });

    program.attach_with_options(name, TcAttachType::Egress, options)
}
