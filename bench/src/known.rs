//! Programs that the kernel calls directly.

use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use guard_tests::netns::{Direct, link};

use crate::bpf::{self, Mode};

/// Attaches XDP programs to interfaces that receive nothing, for as long as the result lives. The
/// kernel calls programs that are attached in a driver directly (kernel/bpf/dispatcher.c); others
/// it makes known for each run by hand, which takes it 16 ms.
pub fn make_known(hosts: &Direct, programs: &[BorrowedFd<'_>]) -> Result<Vec<OwnedFd>> {
    let attach = |(index, program): (usize, &BorrowedFd<'_>)| {
        let (here, there) = (format!("idle{index}"), format!("far{index}"));
        link((&hosts.guarded, &here), (&hosts.peer, &there))?;
        hosts
            .guarded
            .run(|| bpf::attach(*program, &here, Mode::Native))
            .with_context(|| format!("attach a program to {here}"))
    };
    programs.iter().enumerate().map(attach).collect()
}
