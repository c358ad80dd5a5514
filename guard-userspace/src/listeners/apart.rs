//! A process apart that finds out who has sockets open.
//!
//! To look into other processes takes the means to take them over, and the daemon answers
//! strangers. So the daemon leaves it to a process that does nothing else, hears from nobody else,
//! and may do nothing else.

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    time::Duration,
};

use anyhow::Context;
use nix::{
    sys::{
        prctl,
        signal::{SigHandler, Signal, kill, signal},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork},
};

use super::owner::{self, Scan};
use crate::{failure::Failure, privileges};

/// How long it may take to look through all processes. A million file descriptors take it a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `ps` calls it.
const NAME: &std::ffi::CStr = c"portguard-names";

/// A process that finds out who has sockets open. It ends with this value, and with the process
/// that has started it.
#[derive(Debug)]
pub struct Apart {
    process: Pid,
    channel: BufReader<UnixStream>,
}

impl Apart {
    /// Starts it. To be called before this process has a second thread, or anything that a copy
    /// of it should not have: locks, connections, and what it has mapped.
    ///
    /// # Errors
    /// When the kernel starts no more processes.
    pub fn start() -> Result<Self, Failure> {
        let (ours, theirs) = UnixStream::pair().context("make a channel")?;
        ours.set_read_timeout(Some(PATIENCE))
            .context("set the time to wait for an answer")?;
        // Whoever has started this process may have had it ignore how children end. Then nothing
        // would keep the number of one that has ended from being another's.
        // SAFETY: no handler is installed.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }
            .context("expect a process to end")?;
        // SAFETY: there is no other thread whose locks the copy could find held.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { child }) => Ok(Self {
                process: child,
                channel: BufReader::new(ours),
            }),
            Ok(ForkResult::Child) => {
                drop(ours);
                let code = i32::from(serve(theirs).is_err());
                // SAFETY: nothing of the parent's is to run at the end of its copy.
                unsafe { libc::_exit(code) }
            }
            Err(errno) => Err(Failure::runtime(format!(
                "cannot start the process that names listeners: {}",
                errno.desc()
            ))
            .remedy("allow portguard two processes")),
        }
    }

    /// As [`owner::scan`], by that process.
    pub(super) fn scan(&mut self, wanted: &HashSet<u32>) -> io::Result<Scan> {
        let mut question = serde_json::to_vec(wanted)?;
        question.push(b'\n');
        self.channel.get_mut().write_all(&question)?;
        let mut answer = String::new();
        if self.channel.read_line(&mut answer)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }

        Ok(serde_json::from_str(&answer)?)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // It has nothing to put in order.
        let _ = kill(self.process, Signal::SIGKILL);
        let _ = waitpid(self.process, None);
    }
}

/// Answers until nobody is left who could ask.
fn serve(channel: UnixStream) -> anyhow::Result<()> {
    close_others(&channel)?;
    // What ends a session is the daemon's to hear, which goes on.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    prctl::set_name(NAME)?;
    privileges::keep_only(&privileges::TO_LOOK_INTO_OTHERS)?;
    let mut answers = channel.try_clone()?;
    for question in BufReader::new(channel).lines() {
        let wanted = serde_json::from_str(&question?)?;
        let mut answer = serde_json::to_vec(&owner::scan(&wanted))?;
        answer.push(b'\n');
        answers.write_all(&answer)?;
    }

    Ok(())
}

/// Closes what came from the parent: it keeps nothing open that the daemon lets go of.
fn close_others(channel: &UnixStream) -> nix::Result<()> {
    let kept = channel.as_raw_fd() as libc::c_uint;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: none of them is used any more in this process.
            let closed = unsafe { libc::close_range(first, last, 0) };
            nix::errno::Errno::result(closed)?;
        }
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_found_survives_the_channel() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("listen");
        let inode = procfs::process::Process::myself()
            .and_then(|process| process.fd())
            .expect("file descriptors")
            .filter_map(Result::ok)
            .find(|descriptor| descriptor.fd == socket.as_raw_fd())
            .map(|descriptor| descriptor.target);
        let Some(procfs::process::FDTarget::Socket(inode)) = inode else {
            panic!("{inode:?}")
        };
        let inode = u32::try_from(inode).expect("an inode");
        let scan = owner::scan(&HashSet::from([inode]));
        let text = serde_json::to_string(&scan).expect("JSON");
        let back: Scan = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back.owner(inode), scan.owner(inode));
        assert!(back.owner(inode).is_some());
        assert_eq!(back.complete, scan.complete);
    }
}
