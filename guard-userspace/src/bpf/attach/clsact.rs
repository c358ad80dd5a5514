//! Our filters on the clsact qdisc: adding them, and taking them off.

use std::io;

use anyhow::Context;
use aya::programs::{
    ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, SchedClassifierLinkId, TcAttachOptions, TcHandle},
};
use nix::{errno::Errno, net::if_::if_nametoindex};

use super::{
    errors::errno,
    filter::{self, HANDLES, Ours, TcFilter, filters},
};

/// Takes all our filters off an interface, whichever run has added them.
///
/// # Errors
/// When the kernel refuses.
pub fn release_clsact(interface: &str) -> anyhow::Result<()> {
    release_those(interface, |_| true)
}

/// Takes off those of our filters that `unwanted` names.
pub(super) fn release_those(
    interface: &str,
    unwanted: impl Fn(&TcFilter) -> bool,
) -> anyhow::Result<()> {
    let index = match if_nametoindex(interface) {
        Ok(index) => index,
        Err(Errno::ENODEV) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("{interface}: clsact filters")),
    };
    let filters = filters(index).with_context(|| format!("{interface}: list filters of clsact"))?;
    let ours = filters.iter().filter(|filter| filter.ours().is_some());
    for filter in ours.filter(|filter| unwanted(filter)) {
        match at(interface, filter.priority, filter.handle) {
            // Dropping it takes it off, and is silent where it is gone.
            Ok(link) => drop(link),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => return Err(error).with_context(|| format!("{interface}: clsact filter")),
        }
    }

    Ok(())
}

/// Adds a filter before all others, or behind them. Where something stands at the first priority that
/// ours cannot share, it comes behind that. A handle that is in use is only taken again where
/// there is no other.
pub(super) fn add(
    program: &mut SchedClassifier,
    interface: &str,
    role: Ours,
    present: &[TcFilter],
) -> Result<(), ProgramError> {
    let priority = match role {
        Ours::Egress => first_priority(present),
        Ours::Last => filter::LAST_PRIORITY,
    };
    for handle in HANDLES {
        let taken = present.iter().any(|one| one.handle == handle);
        if taken {
            continue;
        }
        match add_at(program, interface, priority, handle) {
            Err(error) if errno(&error) == Some(libc::EEXIST) => {}
            Ok(link) => return keep(program, link),
            Err(error) => return Err(error),
        }
    }

    replace(program, interface, priority, *HANDLES.end())
}

/// Replaces the program of a filter, in one step.
pub(super) fn replace(
    program: &mut SchedClassifier,
    interface: &str,
    priority: u16,
    handle: u32,
) -> Result<(), ProgramError> {
    let left = at(interface, priority, handle).map_err(ProgramError::IOError)?;
    let link = program.attach_to_link(left)?;

    keep(program, link)
}

/// The lowest priority that a filter of ours can have.
fn first_priority(present: &[TcFilter]) -> u16 {
    let taken = |priority: &u16| {
        let there = present.iter().filter(|one| one.priority == *priority);
        there.into_iter().any(|one| !one.admits_ours())
    };

    (filter::FIRST_PRIORITY..filter::LAST_PRIORITY)
        .find(|priority| !taken(priority))
        .unwrap_or(filter::FIRST_PRIORITY)
}

fn add_at(
    program: &mut SchedClassifier,
    interface: &str,
    priority: u16,
    handle: u32,
) -> Result<SchedClassifierLinkId, ProgramError> {
    let options = TcAttachOptions::Netlink(NlOptions {
        priority,
        handle: TcHandle::from(handle),
        classid: None,
    });

    program.attach_with_options(interface, TcAttachType::Egress, options)
}

/// The filter is to outlive this process; it is taken off by its handle when the time comes.
fn keep(program: &mut SchedClassifier, link: SchedClassifierLinkId) -> Result<(), ProgramError> {
    std::mem::forget(program.take_link(link)?);

    Ok(())
}

/// The filter of this priority and handle, whether it is there or not.
fn at(interface: &str, priority: u16, handle: u32) -> io::Result<SchedClassifierLink> {
    let handle = TcHandle::from(handle);

    SchedClassifierLink::attached(interface, TcAttachType::Egress, priority, handle, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_priority_that_can_be_shared() {
        let of = |kind: &str, priority, every_protocol| TcFilter {
            kind: kind.to_owned(),
            priority,
            every_protocol,
            handle: 1,
            name: None,
            program: None,
        };
        // filters, priority of ours
        let table = [
            (vec![], 1),
            (vec![of("bpf", 1, true)], 1),
            (vec![of("bpf", 1, false)], 2),
            (vec![of("u32", 1, true)], 2),
            (vec![of("u32", 2, true)], 1),
            (vec![of("u32", 1, true), of("flower", 2, true)], 3),
        ];
        for (present, due) in table {
            assert_eq!(first_priority(&present), due, "{present:?}");
        }
    }
}
