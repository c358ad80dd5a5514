//! A host on which portguard is started in ways that must go wrong.

mod attempt;
mod mutation;

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};

pub use self::{
    attempt::{Attempt, Daemon},
    mutation::{Capability, Mutation},
};
use crate::{bpffs, build, kernel::Kernel, netns::Direct, scratch::Scratch};

/// A guarded host, its peer, and what portguard may leave behind there.
#[derive(Debug)]
pub struct Host {
    /// The two ends of the link. The interface to guard is `vg`.
    pub topology: Direct,
    pins: bpffs::Folder,
    files: Scratch,
}

impl Host {
    /// Sets it up.
    pub fn new() -> Result<Self> {
        let topology = Direct::new()?;
        let pins = bpffs::Folder::new()?;
        let files = Scratch::new()?;
        Ok(Self {
            topology,
            pins,
            files,
        })
    }

    /// A folder for what the test writes.
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// Where this host's portguard pins.
    pub fn pins(&self) -> PathBuf {
        self.pins.path().join("pins")
    }

    /// Writes a file of the test's.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        self.files.write(name, text)
    }

    /// `portguard run --iface vg` with these flags, apart from all other daemons.
    pub fn run(&self, flags: &[&str]) -> Attempt<'_> {
        self.attempt(&["run", "--iface", self.topology.interface()])
            .flags(&[OsStr::new("--pin-dir"), self.pins().as_os_str()])
            .flags(&[
                OsStr::new("--control-socket"),
                self.files.file("control.sock").as_os_str(),
            ])
            .flags(flags)
    }

    /// As [`run`](Self::run), by a program that runs others, with its words.
    pub fn run_by(&self, program: &str, words: &[&str]) -> Attempt<'_> {
        self.attempt_with(Path::new(program), words)
            .flags(&[build::binary().as_os_str()])
            .flags(&["run", "--iface", self.topology.interface()])
            .flags(&[OsStr::new("--pin-dir"), self.pins().as_os_str()])
            .flags(&[
                OsStr::new("--control-socket"),
                self.files.file("control.sock").as_os_str(),
            ])
    }

    /// `portguard` with these words and no others.
    pub fn attempt(&self, words: &[&str]) -> Attempt<'_> {
        self.attempt_with(&build::binary(), words)
    }

    /// A copy of `portguard` with these words.
    pub fn attempt_with(&self, binary: &Path, words: &[&str]) -> Attempt<'_> {
        Attempt::new(self, binary).flags(words)
    }

    /// Checks that nothing of portguard's is attached, pinned, mounted or listening.
    pub fn require_clean(&self) -> Result<()> {
        let interface = self.topology.interface();
        let link = self.show("ip", &["-d", "link", "show", "dev", interface])?;
        ensure!(!link.contains("prog/xdp"), "XDP stays attached: {link}");
        ensure!(!self.records()?, "egress stays attached");
        ensure!(!self.pins().exists(), "pins stay: {}", self.pinned());
        let listening = self.listening()?;
        ensure!(listening.is_empty(), "it listens still: {listening:?}");
        ensure!(
            !self.files.file("control.sock").exists(),
            "its socket stays"
        );
        ensure!(mounts() <= 1, "bpffs is mounted {} times", mounts());
        Ok(())
    }

    /// Whether a program of ours records what the interface sends.
    pub fn records(&self) -> Result<bool> {
        let interface = self.topology.interface();
        let filters = self.show("tc", &["filter", "show", "dev", interface, "egress"])?;
        if filters.contains("bpf") {
            return Ok(true);
        }
        if Kernel::new(6, 6) > Kernel::running() {
            return Ok(false);
        }
        let (_, programs) = self
            .topology
            .guarded
            .run(|| SchedClassifier::query_tcx(interface, TcAttachType::Egress))?;
        Ok(!programs.is_empty())
    }

    /// Runs a program inside and returns what it says.
    pub fn show(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .topology
            .guarded
            .command(program)
            .args(arguments)
            .output()
            .with_context(|| format!("run {program}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn pinned(&self) -> String {
        let folders = fs::read_dir(self.pins()).into_iter().flatten().flatten();
        let names: Vec<_> = folders.map(|entry| format!("{:?}", entry.path())).collect();
        names.join(" ")
    }

    /// The TCP sockets that listen inside, as the kernel prints them.
    fn listening(&self) -> Result<Vec<String>> {
        let read = || fs::read_to_string("/proc/thread-self/net/tcp");
        let sockets = self.topology.guarded.run(read)?;
        let listens = |line: &&str| line.split_whitespace().nth(3) == Some("0A");
        Ok(sockets.lines().filter(listens).map(str::to_owned).collect())
    }
}

/// How many BPF file systems lie on top of each other.
fn mounts() -> usize {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let on_top = |line: &&str| line.split(' ').nth(1) == Some("/sys/fs/bpf");
    mounts.lines().filter(on_top).count()
}
