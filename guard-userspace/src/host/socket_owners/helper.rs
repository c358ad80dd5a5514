//! The processes that find out who has sockets open.
//!
//! To look into other processes takes the means to take them over, and the daemon answers
//! packets of remote hosts. So the daemon leaves it to processes that do nothing else, are asked by nobody else,
//! and may do nothing else. They are two: the one that looks, and the one that starts it again if
//! it ends. The daemon could not, because it has given up what that takes. If the latter ends, the
//! former takes its place and starts another, so both are only gone when they end at once.

use std::{
    io::{self, ErrorKind},
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
        socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getppid},
};
use serde::{Deserialize, Serialize};

use super::{
    SocketOwner,
    walk::{DescriptorWalk, OpenSocket, WalkResult},
};
use crate::{base::failure::Failure, host::privileges};

/// What `ps` calls the process that starts the other.
const NAME: &std::ffi::CStr = c"portguard-names";
/// What it calls the one that looks.
const NAME_OF_WALKER: &std::ffi::CStr = c"portguard-walks";

/// A walk goes on for so long before the daemon is heard.
const PIECE: Duration = Duration::from_millis(20);
/// So much of a walk is made without a rest.
const BURST: Duration = Duration::from_secs(1);
/// A rest is so many times as long as the piece before it: a tenth of a processor is taken at most.
const REST: u32 = 9;

/// Who has lived so long did not end because it cannot live.
const LIVED: Duration = Duration::from_secs(30);
/// The rests before a process is started again that ends at once.
const RESTS: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// How long the processes may take to end.
const FAREWELL: Duration = Duration::from_millis(500);

/// The longest message.
const LONGEST: usize = 48 * 1024;
/// Sockets in one message.
const AT_ONCE: usize = 256;

/// Part of a question: the sockets whose owners are wanted.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    first: bool,
    last: bool,
    /// Inodes, with the users who have opened them.
    sockets: Vec<(u32, u32)>,
}

/// An answer, of which there may be many to a question.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnersFound {
    /// The process has begun, and knows of no question.
    Begun,
    /// These are open in these processes.
    Owners(Vec<(u32, SocketOwner)>),
    /// These are open in no process.
    Nobodys(Vec<u32>),
}

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

/// Asks who has these sockets open, and no longer about any others.
///
/// # Errors
/// [`ErrorKind::WouldBlock`] when the process has not read what it was asked before, and others when
/// it is gone.
pub fn ask(channel: BorrowedFd<'_>, sockets: &[OpenSocket]) -> io::Result<()> {
    let parts = sockets.len().div_ceil(AT_ONCE).max(1);
    for number in 0..parts {
        let sockets = sockets.iter().skip(number * AT_ONCE).take(AT_ONCE);
        let part = Part {
            first: number == 0,
            last: number + 1 == parts,
            sockets: sockets.map(|socket| (socket.inode, socket.uid)).collect(),
        };
        send(
            channel.as_raw_fd(),
            &serde_json::to_vec(&part)?,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        )?;
    }

    Ok(())
}

/// An answer that has come, if one has.
///
/// # Errors
/// When the processes are gone.
pub fn answer(channel: BorrowedFd<'_>) -> io::Result<OwnersFound> {
    let message = receive(channel, MsgFlags::MSG_DONTWAIT)?;

    Ok(serde_json::from_slice(&message)?)
}

fn receive(channel: BorrowedFd<'_>, flags: MsgFlags) -> io::Result<Vec<u8>> {
    let mut message = vec![0; LONGEST];
    let length = loop {
        match recv(channel.as_raw_fd(), &mut message, flags) {
            Err(Errno::EINTR) => {}
            received => break received?,
        }
    };
    if length == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    message.truncate(length);

    Ok(message)
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
    let mut strength = Strength::new();
    if !tell(channel, &OwnersFound::Begun)? {
        return Ok(Ended::Daemon);
    }
    loop {
        let rest = (!walk.is_idle()).then(|| strength.rest());
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
        if !walk.is_idle() && strength.is_rested() {
            let began = Instant::now();
            let found = walk.go_on(PIECE);
            strength.spend(began.elapsed());
            if !report(channel, found)? {
                return Ok(Ended::Daemon);
            }
        }
    }
}

/// Tells what was found, and returns whether the daemon is there to read it.
fn report(channel: BorrowedFd<'_>, found: WalkResult) -> anyhow::Result<bool> {
    for owners in found.owners.chunks(AT_ONCE) {
        if !tell(channel, &OwnersFound::Owners(owners.to_vec()))? {
            return Ok(false);
        }
    }
    for inodes in found.nobodys.chunks(AT_ONCE) {
        if !tell(channel, &OwnersFound::Nobodys(inodes.to_vec()))? {
            return Ok(false);
        }
    }

    Ok(true)
}

fn tell(channel: BorrowedFd<'_>, answer: &OwnersFound) -> anyhow::Result<bool> {
    let message = serde_json::to_vec(answer)?;
    loop {
        match send(channel.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// How much of a processor's time may be taken.
struct Strength {
    /// What may be taken without a rest.
    left: Duration,
    /// Until when to rest.
    rested: Instant,
    /// When `left` was worked out.
    at: Instant,
}

impl Strength {
    fn new() -> Self {
        let now = Instant::now();

        Self {
            left: BURST,
            rested: now,
            at: now,
        }
    }

    fn rest(&self) -> Duration {
        // What is left of a millisecond would be waited for without waiting.
        match self.rested.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Duration::ZERO,
            rest => rest + Duration::from_millis(1),
        }
    }

    fn is_rested(&self) -> bool {
        Instant::now() >= self.rested
    }

    fn spend(&mut self, worked: Duration) {
        let now = Instant::now();
        self.left = (self.left + (now - self.at) / (REST + 1)).min(BURST);
        self.at = now;
        match self.left.checked_sub(worked) {
            Some(left) => self.left = left,
            None => self.rested = now + worked * REST,
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
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn what_is_asked_and_answered_fits_into_messages() {
        let name = "\u{1}".repeat(15);
        let process = SocketOwner::Process {
            pid: i32::MAX,
            name,
        };
        let owners = vec![(u32::MAX, process); AT_ONCE];
        let answer = OwnersFound::Owners(owners);
        let text = serde_json::to_vec(&answer).expect("JSON");
        assert!(text.len() <= LONGEST, "{}", text.len());
        let back: OwnersFound = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(back, answer);

        let part = Part {
            first: true,
            last: true,
            sockets: vec![(u32::MAX, u32::MAX); AT_ONCE],
        };
        let text = serde_json::to_vec(&part).expect("JSON");
        assert!(text.len() <= LONGEST, "{}", text.len());
    }

    #[test]
    fn a_long_walk_takes_a_tenth_of_the_time() {
        let mut strength = Strength::new();
        let mut pieces = 0;
        while strength.is_rested() {
            strength.spend(PIECE);
            pieces += 1;
        }
        let burst = BURST.div_duration_f64(PIECE) as u32;
        assert!((burst..burst + 5).contains(&pieces), "{pieces} pieces");
        assert!(strength.rest() > PIECE * (REST - 1));
    }

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
