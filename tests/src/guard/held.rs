//! The daemon, step by step, and killed on the way.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Guard, START, STOP};
use crate::steps::{self, Steps};

/// How the line starts by which it says that it guards.
const GUARDS: &str = "guarding ";

/// How far a daemon has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Came {
    /// It was killed when it was about to do this.
    Before(&'static str),
    /// It has come to the end, and has done these things.
    Through(Vec<&'static str>),
}

impl Came {
    /// What was done by a daemon that has come to the end.
    pub fn through(self) -> Result<Vec<&'static str>> {
        match self {
            Self::Through(deeds) => Ok(deeds),
            Self::Before(deed) => bail!("it was killed before it did this: {deed}"),
        }
    }
}

impl Guard<'_> {
    /// Starts it anew, and kills it before the step with this number, counted from 0. A daemon
    /// that guards before it comes so far lives on, until it is killed or
    /// [`ended`](Self::end_until).
    pub fn start_until(&mut self, step: usize, flags: &[&str]) -> Result<Came> {
        let hold = |daemon: &mut Command| steps::hold(daemon);
        let (interface, program) = (&self.interface, &self.program);
        self.child = self
            .folder
            .run_changed(self.host, interface, program, flags, hold)?;
        let steps = Steps::of(&self.child)?;
        let deadline = Instant::now() + START;
        let mut taken = Vec::new();
        loop {
            if let Some(next) = steps.next(Duration::from_millis(20))? {
                if taken.len() == step {
                    self.kill()?;
                    return Ok(Came::Before(next.deed));
                }
                steps.allow(&next)?;
                taken.push(next.deed);
            } else if self.said().contains(GUARDS) {
                // Its server would wait for leave to answer.
                self.steps = Some(steps);
                return Ok(Came::Through(taken));
            } else if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended with {status}: {}", self.said());
            }
            ensure!(
                Instant::now() < deadline,
                "it does not guard: {}",
                self.said()
            );
        }
    }

    /// Starts it anew, and kills it after so long, wherever it is then.
    pub fn start_for(&mut self, time: Duration, flags: &[&str]) -> Result<()> {
        let (interface, program) = (&self.interface, &self.program);
        self.child = self.folder.run(self.host, interface, program, flags)?;
        thread::sleep(time);
        self.kill()
    }

    /// Asks it to end, after [`start_until`](Self::start_until), and kills it before the step with
    /// this number.
    pub fn end_until(&mut self, step: usize) -> Result<Came> {
        let steps = self.steps.take().context("it is not held")?;
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + STOP;
        let mut taken = Vec::new();
        while self.child.try_wait()?.is_none() {
            if let Some(next) = steps.next(Duration::from_millis(5))? {
                if taken.len() == step {
                    self.kill()?;
                    return Ok(Came::Before(next.deed));
                }
                steps.allow(&next)?;
                taken.push(next.deed);
            }
            ensure!(
                Instant::now() < deadline,
                "it does not end: {}",
                self.said()
            );
        }
        Ok(Came::Through(taken))
    }
}
