//! Standard output of the commands.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    os::fd::AsFd,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    api::control::{Client, Question},
    base::failure::{Exit, Failure},
};

/// Prints what `text` writes.
///
/// # Errors
/// When standard output cannot be written to; a reader that has gone is no failure.
pub fn print(text: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = Output::open();

    finish(text(&mut out).and_then(|()| out.flush()))
}

/// Prints what the guard answers as it is received, with a line end.
///
/// # Errors
/// When there is no answer, or standard output cannot be written to.
pub fn copy(client: &Client, question: Question) -> Result<(), Failure> {
    let mut out = Output::open();
    client.copy(question, &mut out)?;

    finish(out.write_all(b"\n").and_then(|()| out.flush()))
}

/// Whether the reader of a pipe has gone, so that nothing more need be written to it.
pub fn is_closed(out: impl AsFd) -> bool {
    let mut files = [PollFd::new(out.as_fd(), PollFlags::empty())];
    let _ = poll(&mut files, PollTimeout::ZERO);

    files[0]
        .revents()
        .is_some_and(|found| found.contains(PollFlags::POLLERR))
}

/// What has become of writing to standard output.
///
/// # Errors
/// When it could not be written to.
fn finish(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| {
        let error = anyhow::Error::new(error).context("cannot write to standard output");
        Failure::new(Exit::Runtime, error)
    })
}

/// Standard output, on which a reader that has seen enough, such as `head`, is no failure.
pub struct Output(BufWriter<io::StdoutLock<'static>>);

impl Output {
    /// Takes standard output until this is dropped.
    pub fn open() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        forgive(self.0.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        forgive(self.0.flush())
    }
}

fn forgive(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
