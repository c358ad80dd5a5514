//! The daemon, guarding a host of this test's own.

mod folder;
mod held;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use guard_common::outcome::Outcome;

use self::folder::{Folder, Program};
pub use self::held::Came;
use crate::{
    bpffs,
    metrics::{self, Packets, Sample},
    netns::Namespace,
    steps::Steps,
};

/// How long the daemon may take to guard. It needs a third of a second; an emulated machine more, and
/// half a minute where it shares a processor.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end.
const STOP: Duration = Duration::from_secs(5);
/// How long counters may lag behind frames.
const SETTLE: Duration = Duration::from_secs(2);

/// What hosts say to each other unasked, and the guard need not be told to expect.
const NOISE: [Outcome; 3] = [
    Outcome::PassIcmpInfo,
    Outcome::PassNotIp,
    Outcome::PassNotRecorded,
];

/// A daemon that runs, and ends with the test.
#[derive(Debug)]
pub struct Guard<'a> {
    host: &'a Namespace,
    interface: String,
    program: Program,
    child: Child,
    steps: Option<Steps>,
    // Dropped after the child has ended.
    folder: Folder,
}

impl<'a> Guard<'a> {
    /// Guards an interface of `host`, with these flags beside those that keep it apart from other
    /// daemons, and waits until it does.
    pub fn start(host: &'a Namespace, interface: &str, flags: &[&str]) -> Result<Self> {
        Self::start_altered(host, interface, &[], flags)
    }

    /// As [`start`](Self::start), where interfaces are missing: waits until it answers, whatever it
    /// says.
    pub fn start_waiting(host: &'a Namespace, interface: &str, flags: &[&str]) -> Result<Self> {
        let pins = Rc::new(bpffs::Folder::new()?);
        let mut guard = Self::spawn(host, interface, pins, Program::Plain, flags)?;
        guard.wait_until_it_answers(|_| true)?;
        Ok(guard)
    }

    /// As [`start`](Self::start), by a command that `change` has seen.
    pub fn start_with(
        host: &'a Namespace,
        interface: &str,
        flags: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let folder = Folder::new(Rc::new(bpffs::Folder::new()?))?;
        let program = Program::Plain;
        let child = folder.run_changed(host, interface, &program, flags, change)?;
        let mut guard = Self {
            host,
            interface: interface.to_owned(),
            program,
            child,
            steps: None,
            folder,
        };
        guard.wait_until_healthy()?;
        Ok(guard)
    }

    /// As [`start`](Self::start), with parts of the daemon switched off: `--without seeding` and
    /// the like, as `portguard-altered` takes them. Without any it is the daemon as it is.
    pub fn start_altered(
        host: &'a Namespace,
        interface: &str,
        alterations: &[&str],
        flags: &[&str],
    ) -> Result<Self> {
        let pins = Rc::new(bpffs::Folder::new()?);
        Self::start_in(host, interface, pins, Program::altered(alterations), flags)
    }

    /// As [`start`](Self::start), on another host, with the pins in the same folder.
    pub fn start_beside(
        &self,
        host: &'a Namespace,
        interface: &str,
        flags: &[&str],
    ) -> Result<Self> {
        let pins = Rc::clone(&self.folder.pins);
        Self::start_in(host, interface, pins, Program::Plain, flags)
    }

    /// As [`start`](Self::start), by the binary of another version.
    pub fn start_other(
        host: &'a Namespace,
        interface: &str,
        binary: &Path,
        flags: &[&str],
    ) -> Result<Self> {
        let pins = Rc::new(bpffs::Folder::new()?);
        let program = Program::Other(binary.to_owned());
        Self::start_in(host, interface, pins, program, flags)
    }

    fn start_in(
        host: &'a Namespace,
        interface: &str,
        pins: Rc<bpffs::Folder>,
        program: Program,
        flags: &[&str],
    ) -> Result<Self> {
        let mut guard = Self::spawn(host, interface, pins, program, flags)?;
        guard.wait_until_healthy()?;
        Ok(guard)
    }

    fn spawn(
        host: &'a Namespace,
        interface: &str,
        pins: Rc<bpffs::Folder>,
        program: Program,
        flags: &[&str],
    ) -> Result<Self> {
        let folder = Folder::new(pins)?;
        let child = folder.run(host, interface, &program, flags)?;
        Ok(Self {
            host,
            interface: interface.to_owned(),
            program,
            child,
            steps: None,
            folder,
        })
    }

    /// Starts it anew where it was, with these flags, after it has ended in whatever way. What
    /// was switched off stays so.
    pub fn start_again(&mut self, flags: &[&str]) -> Result<()> {
        self.child = self
            .folder
            .run(self.host, &self.interface, &self.program, flags)?;
        self.wait_until_healthy()
    }

    /// Switches these parts off from the next start on, and no others.
    pub fn alter(&mut self, alterations: &[&str]) {
        self.program = Program::altered(alterations);
    }

    /// Has the binary of another version run from the next start on.
    pub fn replace(&mut self, binary: &Path) {
        self.program = Program::Other(binary.to_owned());
    }

    /// Ends it as a crash would: it has no say in what becomes of what it has attached.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.steps = None;
        Ok(())
    }

    /// Asks it to end, and waits until it has; it can be started again.
    pub fn end(&mut self) -> Result<ExitStatus> {
        self.signal(libc::SIGTERM);
        self.ended(STOP)?
            .with_context(|| format!("the daemon does not end: {}", self.said()))
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: libc::c_int) {
        if let Ok(None) = self.child.try_wait() {
            // SAFETY: no memory is involved, and the process is this guard's own child, which
            // has not been waited for.
            unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        fs::read_to_string(self.folder.log()).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens for `status`, `flows` and the like.
    pub fn control_socket(&self) -> PathBuf {
        self.folder.files.file("control.sock")
    }

    /// Where it pins maps and links.
    pub fn pins(&self) -> &Path {
        self.folder.pins.path()
    }

    /// Everything it measures.
    pub fn scrape(&self) -> Result<Vec<Sample>> {
        metrics::scrape(self.host)
    }

    /// The frames it has counted.
    pub fn packets(&self) -> Result<Packets> {
        Ok(Packets::new(&self.scrape()?))
    }

    /// Checks that `act` moves these counters so far, and that nothing else moves but what hosts
    /// say unasked.
    pub fn expect(
        &self,
        due: impl IntoIterator<Item = (Outcome, u64)>,
        act: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let due: Vec<(Outcome, u64)> = due.into_iter().collect();
        let before = self.packets()?;
        act()?;
        let deadline = Instant::now() + SETTLE;
        let moved = loop {
            let moved = self.packets()?.since(&before);
            let settled = due
                .iter()
                .all(|(outcome, count)| moved.of(*outcome) >= *count);
            if settled || Instant::now() > deadline {
                break moved;
            }
            thread::sleep(Duration::from_millis(10));
        };

        for outcome in Outcome::ALL {
            let expected = due.iter().find(|(expected, _)| expected == outcome);
            let Some(count) = expected.map(|(_, count)| *count).or_else(|| {
                let tolerated = NOISE.contains(outcome);
                (!tolerated).then_some(0)
            }) else {
                continue;
            };
            let reason = outcome.reason();
            let found = moved.of(*outcome);
            ensure!(
                found == count,
                "{reason} moved by {found}, not {count}:{moved}"
            );
        }
        Ok(())
    }

    /// Asks the daemon to end, and waits until it has.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.end()
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        self.wait_until_it_answers(|code| code == 200)
    }

    fn wait_until_it_answers(&mut self, enough: impl Fn(u16) -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if let Ok((code, _)) = metrics::get(self.host, "/healthz")
                && enough(code)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}: {}", self.said());
            }
            ensure!(
                Instant::now() < deadline,
                "the daemon does not guard: {}",
                self.said()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn ended(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(None)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.signal(libc::SIGTERM);
        if !matches!(self.ended(STOP), Ok(Some(_))) {
            eprintln!("the daemon had to be killed: {}", self.said());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
