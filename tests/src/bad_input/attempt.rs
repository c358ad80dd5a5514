//! One try to start portguard, and what becomes of it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Host, Mutation};

/// How long the binary may take to refuse or to guard, also on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command line that is about to be tried.
#[derive(Debug)]
pub struct Attempt<'a> {
    host: &'a Host,
    command: Command,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(host: &'a Host, binary: &Path) -> Self {
        Self {
            host,
            command: Command::new(binary),
        }
    }

    /// Adds flags.
    #[must_use]
    pub fn flags(mut self, flags: &[impl AsRef<OsStr>]) -> Self {
        self.command.args(flags);
        self
    }

    /// Starts the process with something amiss.
    #[must_use]
    pub fn with(mut self, mutation: Mutation) -> Self {
        // SAFETY: between fork and exec it makes system calls, and neither allocates nor locks.
        unsafe { self.command.pre_exec(move || mutation.apply()) };
        self
    }

    /// Checks that it ends with this code and one line that holds all of `parts`, in this order,
    /// and leaves nothing.
    pub fn is_refused(self, code: i32, parts: &[&str]) -> Result<()> {
        let host = self.host;
        self.ends(code, parts)?;
        host.require_clean()
    }

    /// As [`is_refused`](Self::is_refused), on a host where something else is left on purpose.
    pub fn ends(self, code: i32, parts: &[&str]) -> Result<()> {
        let shown = format!("{:?}", self.command);
        let mut daemon = self.start()?;
        let status = daemon.wait()?;
        let said = daemon.said();
        ensure!(
            status.code() == Some(code),
            "{shown}: {status}, not {code}: {said}"
        );
        ensure!(said.lines().count() == 1, "{shown}: not one line: {said}");
        let mut rest = said.as_str();
        for part in parts {
            let found = rest.find(part);
            let found = found.with_context(|| format!("{shown}: no {part:?} in {said:?}"))?;
            rest = &rest[found + part.len()..];
        }
        Ok(())
    }

    /// Checks that it guards, and that it leaves nothing when it is asked to end.
    pub fn guards(self) -> Result<()> {
        let host = self.host;
        let mut daemon = self.start()?;
        daemon.wait_until_it_guards()?;
        daemon.stop()?;
        host.require_clean()
    }

    /// Checks that it guards, and lets it.
    pub fn keeps_guarding(self) -> Result<Daemon> {
        let mut daemon = self.start()?;
        daemon.wait_until_it_guards()?;
        Ok(daemon)
    }

    /// Starts it, and waits until it has said this.
    pub fn says(self, part: &str) -> Result<Daemon> {
        let mut daemon = self.start()?;
        daemon.wait_until_it_says(part)?;
        Ok(daemon)
    }

    /// Starts it, whatever becomes of it.
    pub fn starts(self) -> Result<Daemon> {
        self.start()
    }

    /// Runs it to its end and returns its code and what it prints.
    pub fn output(mut self) -> Result<(Option<i32>, String)> {
        let output = self.host.topology.guarded.run(|| self.command.output())?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status.code(), printed))
    }

    /// Runs it to its end and returns its code and what it complains of.
    pub fn said(mut self) -> Result<(Option<i32>, String)> {
        let output = self.host.topology.guarded.run(|| self.command.output())?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok((output.status.code(), said))
    }

    fn start(mut self) -> Result<Daemon> {
        let log = self.host.files.file(format!("log-{}", count()));
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let spawned = self.host.topology.guarded.run(|| self.command.spawn());
        Ok(Daemon {
            child: spawned.with_context(|| format!("run {:?}", self.command))?,
            log,
        })
    }
}

/// A process that may guard. Killed when it is dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where it says so.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Waits until it has said this.
    pub fn wait_until_it_says(&mut self, part: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(part) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{status}: {}", self.said());
            }
            ensure!(
                Instant::now() < deadline,
                "it does not say {part:?}: {}",
                self.said()
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends it as a fault would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and checks that it does so well.
    pub fn stop(mut self) -> Result<()> {
        // SAFETY: no memory is involved, and the process is this one's own child.
        unsafe { libc::kill(self.child.id() as libc::pid_t, libc::SIGTERM) };
        let status = self.wait()?;
        ensure!(status.success(), "{status}: {}", self.said());
        Ok(())
    }

    fn wait_until_it_guards(&mut self) -> Result<()> {
        self.wait_until_it_says("guarding vg")
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("it does not end: {}", self.said())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn count() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}
