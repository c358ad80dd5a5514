//! Other people's programs on both sides of the guard, and what they find there.

mod counted;
mod service;
mod ssh;

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

pub use self::{counted::moves, service::Service, ssh::Ssh};
use crate::netns::Namespace;

/// How long a program may take that should succeed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the words of `line` inside `host`, and returns what they print when they succeed.
pub fn run(host: &Namespace, line: &str) -> Result<String> {
    let output = attempt(host, PATIENCE, line)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{line}: {}: {printed}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}

/// Runs the words of `line` inside `host`, for so long at most.
pub fn attempt(host: &Namespace, patience: Duration, line: &str) -> Result<Output> {
    let seconds = patience.as_secs_f32().to_string();
    host.command("timeout")
        .args(["--kill-after=1", &seconds])
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {line}"))
}

/// A program that runs until the test ends.
#[derive(Debug)]
pub struct Server(Child);

impl Server {
    /// Runs the words of `line` inside `host`.
    pub fn start(host: &Namespace, line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        let mut command = host.command(words.next().context("no program")?);
        Self::spawn(command.args(words))
    }

    /// Runs a program without input or output.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let silent = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = silent.spawn().with_context(|| format!("run {command:?}"))?;
        Ok(Self(child))
    }

    /// Waits until it listens on a port of `host`.
    pub fn listening(mut self, host: &Namespace, protocol: Protocol, port: u16) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        while !listens(host, protocol, port) {
            if let Some(status) = self.0.try_wait()? {
                anyhow::bail!("the server of {protocol:?} port {port} ended with {status}");
            }
            ensure!(
                Instant::now() < deadline,
                "nobody listens on {protocol:?} port {port}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a server speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

fn listens(host: &Namespace, protocol: Protocol, port: u16) -> bool {
    // The state as the kernel prints it: LISTEN, or without a peer.
    let (tables, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
    };
    let ending = format!(":{port:04X}");
    tables.iter().any(|table| {
        let path = format!("/proc/thread-self/net/{table}");
        let sockets = host.run(|| fs::read_to_string(&path)).unwrap_or_default();
        sockets.lines().any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next().is_some_and(|local| local.ends_with(&ending))
                && columns.nth(1) == Some(state)
        })
    })
}

/// A number that the kernel counts for a host: the table below `/proc/net`, and the line's name
/// and column's, as in `("netstat", "TcpExt", "TCPFastOpenActive")`.
pub fn kernel_counter(host: &Namespace, table: &str, line: &str, column: &str) -> Result<u64> {
    let path = format!("/proc/thread-self/net/{table}");
    let text = host.run(|| fs::read_to_string(&path))?;
    let prefix = format!("{line}: ");
    let mut lines = text.lines().filter_map(|text| text.strip_prefix(&prefix));
    let (names, values) = (lines.next(), lines.next());
    let mut pairs = names
        .into_iter()
        .flat_map(str::split_whitespace)
        .zip(values.into_iter().flat_map(str::split_whitespace));
    let (_, value) = pairs
        .find(|(name, _)| *name == column)
        .with_context(|| format!("{path} has no {line} {column}"))?;
    Ok(value.parse()?)
}
