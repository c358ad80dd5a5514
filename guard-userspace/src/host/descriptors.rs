//! How many files this process may have open.
//!
//! Connections, netlink sockets, maps and programs are files. What a login shell allows is soon used
//! up, and what comes after it fails wherever it is, so the limit is raised as far as it may be, and
//! a process that cannot have what it needs says so before it begins.

use std::{io, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    sys::{
        eventfd::EventFd,
        resource::{Resource, getrlimit, setrlimit},
    },
};

use crate::base::failure::Failure;

/// What a command needs that asks a daemon or the kernel something.
pub const FOR_A_QUESTION: usize = 16;
/// What a guard needs apart from its interfaces.
const FOR_A_GUARD: usize = 72;
/// What each interface takes while its programs are loaded.
const FOR_AN_INTERFACE: usize = 6;

/// What a guard of so many interfaces needs to start.
pub fn for_a_guard(interfaces: usize) -> usize {
    FOR_A_GUARD + interfaces * FOR_AN_INTERFACE
}

/// Lets this process open as many files as it may allow itself.
pub fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Where it stays, what is needed is asked for all the same.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Checks that `needed` more files can be opened.
///
/// # Errors
/// Says how many there is room for, and what to raise: exit code 69.
pub fn require(needed: usize) -> Result<(), Failure> {
    let mut opened: Vec<OwnedFd> = Vec::with_capacity(needed);
    while opened.len() < needed {
        match EventFd::new() {
            Ok(file) => opened.push(file.into()),
            Err(errno) => return Err(refused(needed, opened.len(), errno)),
        }
    }

    Ok(())
}

/// Checks that a guard of so many interfaces could open what it needs to start, whatever this process
/// has open.
///
/// # Errors
/// As [`require`].
pub fn require_for_a_run(interfaces: usize) -> Result<(), Failure> {
    /// What a run has open when it asks, and a check has not: the way to the process that finds out
    /// who listens.
    const MORE: usize = 1;
    let held: Vec<_> = (0..MORE).map_while(|_| EventFd::new().ok()).collect();
    let required = require(for_a_guard(interfaces));
    drop(held);

    required
}

/// How many more files can be opened, if those are no more than `most`.
pub fn room(most: usize) -> usize {
    let files = (0..most).map_while(|_| EventFd::new().ok());

    files.collect::<Vec<_>>().len()
}

fn refused(needed: usize, opened: usize, errno: Errno) -> Failure {
    match errno {
        Errno::EMFILE => {
            let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
            let enough = limit + (needed - opened) as u64;
            Failure::unavailable(format!(
                "room for {opened} more open files, and this takes {needed}: the limit is {limit}"
            ))
            .remedy(format!(
                "allow {enough} with `ulimit -n {enough}`, or LimitNOFILE={enough} in a unit"
            ))
        }
        Errno::ENFILE => Failure::unavailable(format!(
            "room for {opened} more open files on this host, and this takes {needed}"
        ))
        .remedy("raise the sysctl fs.file-max, or end what has them open"),
        errno => Failure::unavailable(format!(
            "files cannot be opened: {}",
            io::Error::from(errno)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_is_said_with_the_remedy() {
        require(8).expect("there is room");
        assert_eq!(room(8), 8);
        let failure = refused(40, 30, Errno::EMFILE);
        let line = failure.to_string();
        let limit = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit").0;
        assert!(line.contains("room for 30 more"), "{line}");
        let remedy = format!("ulimit -n {}", limit + 10);
        assert!(line.contains(&remedy), "{line}");
        let line = refused(40, 30, Errno::ENFILE).to_string();
        assert!(line.contains("fs.file-max"), "{line}");
    }
}
