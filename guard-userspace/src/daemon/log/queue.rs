//! Lines that wait for anyone who reads stderr. A daemon must not stand still because a pipe, a terminal or
//! the journal takes no more.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes of lines that wait. What does not fit is lost, and counted.
const ROOM: usize = 256 * 1024;

/// What a pipe, a terminal or a socket takes at once when it says that it takes something
/// (`PIPE_BUF`, pipe(7)).
const AT_ONCE: usize = 4096;

/// For how long the end of the process waits for its last lines.
const FAREWELL: Duration = Duration::from_millis(300);

/// How lines get to stderr.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Manner {
    /// At once, however long it takes.
    #[default]
    Wait,
    /// As far as it takes them at once. The rest is written with the next line.
    Attempt,
    /// By a thread that does nothing else.
    Aside,
}

/// Lines on their way to stderr.
pub struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    manner: Manner,
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    lost: u64,
    /// Whether the thread is writing a line that is no longer waiting.
    writing: bool,
}

impl Queue {
    /// One with nothing in it, which has anyone who adds a line wait until it is written.
    pub const fn new() -> Self {
        Self {
            lines: Mutex::new(Lines {
                manner: Manner::Wait,
                waiting: VecDeque::new(),
                bytes: 0,
                lost: 0,
                writing: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Has nobody wait for stderr from now on.
    pub fn wait_no_more(&self) {
        self.lock().manner = Manner::Attempt;
    }

    /// Leaves the writing to a thread that does nothing else, and that never holds what the calling
    /// thread has given up. Where the kernel starts none, lines are written as far as they can be.
    pub fn write_aside(&'static self) {
        let started = thread::Builder::new()
            .name("portguard-log".to_owned())
            .spawn(|| self.write_all());
        if started.is_ok() {
            self.lock().manner = Manner::Aside;
        }
    }

    /// Adds a line, with its end.
    pub fn add(&self, line: &str, note: impl Fn(u64) -> String) {
        let mut lines = self.lock();
        match lines.manner {
            Manner::Wait => {
                // Anyone who has closed stderr wants no lines.
                let _ = io::stderr().write_all(line.as_bytes());
            }
            Manner::Attempt => {
                lines.add(line, note);
                lines.attempt(is_ready, write);
            }
            Manner::Aside => {
                lines.add(line, note);
                self.changed.notify_all();
            }
        }
    }

    /// Waits a moment for what is still to be written, before the process ends.
    pub fn finish(&self) {
        let deadline = Instant::now() + FAREWELL;
        let mut lines = self.lock();
        while !lines.waiting.is_empty() || lines.writing {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if lines.manner == Manner::Aside {
                lines = self
                    .changed
                    .wait_timeout(lines, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            } else {
                lines.attempt(|| wait_until_ready(left), write);
            }
        }
    }

    /// Writes lines as they come, without end.
    fn write_all(&self) {
        loop {
            let mut lines = self.lock();
            lines.writing = false;
            self.changed.notify_all();
            let line = loop {
                if let Some(line) = lines.take() {
                    break line;
                }
                lines = self
                    .changed
                    .wait(lines)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            lines.writing = true;
            drop(lines);
            let mut rest = &line[..];
            while !rest.is_empty() {
                match write(rest) {
                    Ok(written) => rest = &rest[written..],
                    // Somebody else has made it so that writing does not wait.
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        wait_until_ready(Duration::from_secs(60));
                    }
                    Err(_) => break,
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Adds a line where there is room, behind a note of those that found none.
    fn add(&mut self, line: &str, note: impl Fn(u64) -> String) {
        if self.bytes + line.len() > ROOM {
            self.lost += 1;
            return;
        }
        if self.lost > 0 {
            let note = note(self.lost);
            self.lost = 0;
            self.push(note.into_bytes());
        }
        self.push(line.as_bytes().to_vec());
    }

    fn push(&mut self, line: Vec<u8>) {
        self.bytes += line.len();
        self.waiting.push_back(line);
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.waiting.pop_front()?;
        self.bytes -= line.len();

        Some(line)
    }

    /// Writes what waits for as long as there is room for it.
    fn attempt(&mut self, ready: impl Fn() -> bool, write: impl Fn(&[u8]) -> io::Result<usize>) {
        while !self.waiting.is_empty() && ready() {
            let Some(mut line) = self.take() else { return };
            match write(&line) {
                Ok(written) if written < line.len() => {
                    line.drain(..written);
                    self.bytes += line.len();
                    self.waiting.push_front(line);
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.bytes += line.len();
                    self.waiting.push_front(line);
                    return;
                }
                // Anyone who has closed stderr wants no lines.
                Err(_) => {}
            }
        }
    }
}

/// Writes as much as is certain not to block where there is room at all.
fn write(bytes: &[u8]) -> io::Result<usize> {
    let some = &bytes[..bytes.len().min(AT_ONCE)];
    match io::stderr().write(some) {
        Ok(0) => Err(ErrorKind::WriteZero.into()),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        outcome => outcome,
    }
}

fn is_ready() -> bool {
    ready_within(PollTimeout::ZERO)
}

fn wait_until_ready(time: Duration) -> bool {
    ready_within(time.try_into().unwrap_or(PollTimeout::MAX))
}

fn ready_within(time: PollTimeout) -> bool {
    let stderr = io::stderr();
    let mut asked = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    // One that is closed, or whose reader has gone, is as good as ready: it says so when written to.
    matches!(poll(&mut asked, time), Ok(ready) if ready > 0)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn note(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    #[test]
    fn what_finds_no_room_is_counted_and_said() {
        let mut lines = Lines::default();
        let long = "x".repeat(ROOM / 2);
        for _ in 0..5 {
            lines.add(&long, note);
        }
        assert_eq!((lines.waiting.len(), lines.lost, lines.bytes), (2, 3, ROOM));
        assert!(lines.take().is_some());
        lines.add("more\n", note);
        let said: Vec<_> = lines.waiting.iter().skip(1).cloned().collect();
        assert_eq!(said, [b"3 lost\n".to_vec(), b"more\n".to_vec()]);
        assert_eq!(lines.lost, 0);
    }

    #[test]
    fn nothing_is_written_to_what_takes_nothing() {
        let mut lines = Lines::default();
        let written = RefCell::new(String::new());
        let room = RefCell::new(0);
        let attempt = |lines: &mut Lines| {
            lines.attempt(
                || *room.borrow() > 0,
                |bytes| {
                    let some = bytes.len().min(*room.borrow());
                    *room.borrow_mut() -= some;
                    let text = String::from_utf8_lossy(&bytes[..some]).into_owned();
                    written.borrow_mut().push_str(&text);
                    Ok(some)
                },
            );
        };
        for line in ["one\n", "two\n", "three\n"] {
            lines.add(line, note);
            attempt(&mut lines);
        }
        assert_eq!(*written.borrow(), "");
        *room.borrow_mut() = 6;
        attempt(&mut lines);
        assert_eq!(*written.borrow(), "one\ntw");
        *room.borrow_mut() = 100;
        attempt(&mut lines);
        assert_eq!(*written.borrow(), "one\ntwo\nthree\n");
        assert_eq!(lines.bytes, 0);
    }
}
