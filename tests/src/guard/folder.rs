//! What one daemon has for itself.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    rc::Rc,
};

use anyhow::{Context, Result};

use crate::{bpffs, build, metrics, netns::Namespace, scratch::Scratch};

/// Which daemon runs.
#[derive(Clone, Debug)]
pub(super) enum Program {
    /// The one under test, as it is.
    Plain,
    /// The one with parts switched off, by these flags.
    Altered(Vec<String>),
    /// That of another version.
    Other(PathBuf),
}

impl Program {
    pub(super) fn altered(alterations: &[&str]) -> Self {
        if alterations.is_empty() {
            return Self::Plain;
        }
        Self::Altered(alterations.iter().map(ToString::to_string).collect())
    }
}

/// What is the daemon's own: its pins, its socket and what it says.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) pins: Rc<bpffs::Folder>,
    pub(super) files: Scratch,
}

impl Folder {
    pub(super) fn new(pins: Rc<bpffs::Folder>) -> Result<Self> {
        let files = Scratch::new()?;
        Ok(Self { pins, files })
    }

    /// Starts the daemon, altered or as it is.
    pub(super) fn run(
        &self,
        host: &Namespace,
        interface: &str,
        program: &Program,
        flags: &[&str],
    ) -> Result<Child> {
        self.run_changed(host, interface, program, flags, |_| {})
    }

    /// Starts the daemon by a command that `change` has seen.
    pub(super) fn run_changed(
        &self,
        host: &Namespace,
        interface: &str,
        program: &Program,
        flags: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Child> {
        let mut daemon = match program {
            Program::Plain => host.command(build::binary()),
            Program::Altered(alterations) => {
                let mut altered = host.command(build::altered());
                altered.args(alterations).arg("--");
                altered
            }
            Program::Other(path) => host.command(path),
        };
        daemon.args(["run", "--iface", interface]);
        // Who names another address has it listen on the usual port of loopback, too.
        if !flags.contains(&"--metrics-listen") {
            daemon.args(["--metrics-listen", metrics::ADDRESS]);
        }
        // On the veths of these hosts `auto` is generic. A test that names no mode means the driver,
        // where programs run on most hosts.
        if !flags.contains(&"--xdp-mode") {
            daemon.args(["--xdp-mode", "native"]);
        }
        daemon
            .arg("--control-socket")
            .arg(self.files.file("control.sock"))
            .arg("--pin-dir")
            .arg(self.pins.path())
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.log())?);
        change(&mut daemon);
        daemon.spawn().context("run the daemon")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.files.file("log")
    }
}
