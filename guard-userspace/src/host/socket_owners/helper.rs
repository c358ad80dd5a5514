//! The processes that find out who has sockets open.
//!
//! To look into other processes takes the means to take them over, and the daemon answers
//! packets of remote hosts. So the daemon leaves it to processes that do nothing else, are asked by nobody else,
//! and may do nothing else. They are two: the one that looks, and the one that starts it again if
//! it ends. The daemon could not, because it has given up what that takes. If the latter ends, the
//! former takes its place and starts another, so both are only gone when they end at once.

mod budget;
mod messages;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigHandler, Signal, kill, signal},
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, socketpair},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid},
};

pub use self::messages::{OwnersFound, answer, ask};
use self::{
    budget::Budget,
    messages::{Part, receive, report, tell},
};
use super::walk::{DescriptorWalk, OpenSocket};
use crate::{base::failure::Failure, host::privileges};

/// What `ps` calls the process that starts the other.
const NAME: &std::ffi::CStr = c"portguard-names";
/// What it calls the one that looks.
const NAME_OF_WALKER: &std::ffi::CStr = c"portguard-walks";

/// A walk goes on for so long before the daemon is heard.
const PIECE: Duration = Duration::from_millis(20);
/// Who has lived so long did not end because it cannot live.
const LIVED: Duration = Duration::from_secs(30);
/// The rests before a process is started again that ends at once.
const RESTS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// How long the processes may take to end.
const FAREWELL: Duration = Duration::from_millis(500);

/// Processes that find out who has sockets open. They end with this value, and with the process
/// that has started them.
#[derive(Debug)]
pub struct OwnerHelper {
    channel: Option<OwnedFd>,
    /// Whether there is anybody whose end is to be waited for.
    started: bool,
}

impl OwnerHelper {
    /// Starts them. To be called before this process has a second thread, or anything that a copy
    /// of it should not have: locks, connections, and what it has mapped.
    ///
    /// # Errors
    /// When the kernel starts no more processes.
    pub fn start() -> Result<Self, Failure> {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .context("make a channel")?;
        // The one that looks becomes ours when its parent ends, and no process needs to wait for it.
        prctl::set_child_subreaper(true).context("take over processes")?;
        // SAFETY: no handler is installed.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }
            .context("let processes end by themselves")?;
        // SAFETY: there is no other thread whose locks the copy could find held.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => Ok(Self {
                channel: Some(ours),
                started: true,
            }),
            Ok(ForkResult::Child) => {
                drop(ours);
                let code = i32::from(begin(&theirs).is_err());
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

    /// No process to ask.
    pub fn none() -> Self {
        Self {
            channel: None,
            started: false,
        }
    }

    /// The channel to them, if there is one. They end when it is closed.
    pub fn take_channel(&mut self) -> Option<OwnedFd> {
        self.channel.take()
    }
}

impl Drop for OwnerHelper {
    fn drop(&mut self) {
        drop(self.channel.take());
        if !self.started {
            return;
        }
        // Children that no process waits for are gone at once.
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline
            && waitpid(None, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive)
        {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What has happened while a process waited.
struct Happened {
    /// There is something to read, or no process is left to read from.
    asked: bool,
    /// The daemon has ended.
    ended: bool,
    /// So has the other process.
    alone: bool,
}

fn wait(
    channel: BorrowedFd<'_>,
    (asked, other): (PollFlags, Option<BorrowedFd<'_>>),
    time: Option<Duration>,
) -> nix::Result<Happened> {
    let time = time.map_or(PollTimeout::NONE, |time| {
        // A time that is over in less than a millisecond is none.
        PollTimeout::try_from(time.as_millis()).unwrap_or(PollTimeout::MAX)
    });
    let mut polled = vec![PollFd::new(channel, asked)];
    polled.extend(other.map(|other| PollFd::new(other, PollFlags::POLLIN)));
    match poll(&mut polled, time) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno),
    }
    let events = |number: usize| {
        polled
            .get(number)
            .and_then(PollFd::revents)
            .unwrap_or(PollFlags::empty())
    };
    let ends = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;

    Ok(Happened {
        asked: events(0).contains(PollFlags::POLLIN),
        ended: events(0).intersects(ends),
        alone: !events(1).is_empty(),
    })
}

fn begin(channel: &OwnedFd) -> anyhow::Result<()> {
    close_others(channel)?;
    // SAFETY: no handler is installed.
    unsafe {
        // A signal that ends a session is for the daemon, which goes on.
        signal(Signal::SIGHUP, SigHandler::SigIgn)?;
        signal(Signal::SIGCHLD, SigHandler::SigDfl)?;
    }
    privileges::keep_only(&privileges::TO_LOOK_INTO_OTHERS, None)?;
    supervise(channel.as_fd())
}

/// Starts the process that looks, again and again, until the daemon has ended.
fn supervise(channel: BorrowedFd<'_>) -> anyhow::Result<()> {
    prctl::set_name(NAME)?;
    let (shortest, longest) = RESTS;
    let mut rest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let own = Pid::this();
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                return match look(channel, own)? {
                    Ended::Daemon => Ok(()),
                    // Then this is the one that starts others.
                    Ended::Supervisor => supervise(channel),
                };
            }
            Ok(ForkResult::Parent { child }) => {
                let process = process(child);
                let happened = match &process {
                    Ok(process) => {
                        wait(channel, (PollFlags::empty(), Some(process.as_fd())), None)?
                    }
                    // It has ended already.
                    Err(_) => wait(channel, (PollFlags::empty(), None), Some(shortest))?,
                };
                if happened.ended {
                    let _ = kill(child, Signal::SIGKILL);
                    let _ = waitpid(child, None);
                    return Ok(());
                }
                let _ = kill(child, Signal::SIGKILL);
                let _ = waitpid(child, None);
            }
            // The kernel starts no more processes at this moment.
            Err(_) => {}
        }
        if began.elapsed() > LIVED {
            rest = Duration::ZERO;
        }
        if wait(channel, (PollFlags::empty(), None), Some(rest))?.ended {
            return Ok(());
        }
        rest = (rest * 2).clamp(shortest, longest);
    }
}

/// Why a process that looks has come to an end.
enum Ended {
    Daemon,
    Supervisor,
}

/// Answers questions until the daemon or the process `parent` has ended.
fn look(channel: BorrowedFd<'_>, parent: Pid) -> anyhow::Result<Ended> {
    prctl::set_name(NAME_OF_WALKER)?;
    let supervisor = process(parent);
    if getppid() != parent {
        return Ok(Ended::Supervisor);
    }
    let supervisor = supervisor?;
    let mut walk = DescriptorWalk::default();
    let mut question = Vec::new();
    let mut budget = Budget::new();
    if !tell(channel, &OwnersFound::Begun)? {
        return Ok(Ended::Daemon);
    }
    loop {
        let rest = (!walk.is_idle()).then(|| budget.rest());
        let happened = wait(channel, (PollFlags::POLLIN, Some(supervisor.as_fd())), rest)?;
        if happened.asked {
            let Ok(message) = receive(channel, MsgFlags::empty()) else {
                return Ok(Ended::Daemon);
            };
            let part: Part = serde_json::from_slice(&message)?;
            if part.first {
                question.clear();
            }
            let sockets = part.sockets.into_iter();
            question.extend(sockets.map(|(inode, uid)| OpenSocket { inode, uid }));
            if part.last && !report(channel, walk.ask(question.drain(..)))? {
                return Ok(Ended::Daemon);
            }
            continue;
        }
        if happened.ended {
            return Ok(Ended::Daemon);
        }
        if happened.alone {
            return Ok(Ended::Supervisor);
        }
        if !walk.is_idle() && budget.is_rested() {
            let began = Instant::now();
            let found = walk.go_on(PIECE);
            budget.spend(began.elapsed());
            if !report(channel, found)? {
                return Ok(Ended::Daemon);
            }
        }
    }
}

/// A descriptor of a process that can be read from when it has ended.
fn process(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let descriptor = Errno::result(descriptor)?;

    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as libc::c_int) })
}

/// Closes what came from the parent: it keeps nothing open that the daemon lets go of.
fn close_others(channel: &OwnedFd) -> nix::Result<()> {
    let kept = channel.as_raw_fd() as libc::c_uint;
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, libc::c_uint::MAX)] {
        if first <= last {
            // SAFETY: none of them is used any more in this process.
            let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
            Errno::result(closed)?;
        }
    }

    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpListener};

    use super::{super::SocketOwner, *};

    #[test]
    fn a_question_is_answered_over_the_channel() {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .expect("a channel");
        let socket = TcpListener::bind("127.0.0.1:0").expect("listen");
        let link = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let link = std::fs::read_link(link).expect("a link");
        let inode = link.to_string_lossy();
        let inode = inode.trim_matches(|c: char| !c.is_ascii_digit());
        let inode = inode.parse().expect("an inode");
        let uid = nix::unistd::geteuid().as_raw();
        let looks = thread::spawn(move || look(theirs.as_fd(), getppid()).is_ok());
        let answer = || loop {
            match answer(ours.as_fd()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                answer => break answer.expect("an answer"),
            }
        };
        assert_eq!(answer(), OwnersFound::Begun);
        for _ in 0..2 {
            ask(ours.as_fd(), &[OpenSocket { inode, uid }]).expect("asks");
            let OwnersFound::Owners(owners) = answer() else {
                panic!("not found")
            };
            assert!(matches!(owners[..], [(found, SocketOwner::Process { .. })] if found == inode));
        }
        drop(ours);
        assert!(looks.join().expect("ends"));
    }
}
