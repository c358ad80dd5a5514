//! What a process takes of the machine.

use std::{fmt, fs};

use anyhow::{Context, Result};

/// Memory and files of a process at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    /// Resident memory, in kB.
    pub memory: u64,
    /// Open files.
    pub files: usize,
}

impl Footprint {
    /// That of the process with this number.
    pub fn of(process: u32) -> Result<Self> {
        let path = format!("/proc/{process}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|memory| memory.split_whitespace().next())
            .with_context(|| format!("{path} has no VmRSS"))?;
        let path = format!("/proc/{process}/fd");
        let files = fs::read_dir(&path).with_context(|| format!("read {path}"))?;
        Ok(Self {
            memory: memory.parse()?,
            files: files.count(),
        })
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kB, {} files", self.memory, self.files)
    }
}
