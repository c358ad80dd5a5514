//! What processes may do, as the kernel shows it.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// What one thread may do: capabilities as a bit each, by their numbers in
/// include/uapi/linux/capability.h.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capabilities {
    /// In force.
    pub effective: u64,
    /// What it can put in force.
    pub permitted: u64,
    /// What programs get that ask for it.
    pub inheritable: u64,
    /// What programs can get at most.
    pub bounding: u64,
    /// What programs get unasked.
    pub ambient: u64,
    /// Programs that it runs get nothing that it has not.
    pub no_new: bool,
}

impl Capabilities {
    /// Those of the thread that asks.
    pub fn own() -> Result<Self> {
        Self::read(Path::new("/proc/thread-self"))
    }

    /// Those of every thread of a process.
    pub fn of_threads(process: u32) -> Result<Vec<Self>> {
        let threads = format!("/proc/{process}/task");
        let threads = fs::read_dir(&threads).with_context(|| format!("read {threads}"))?;
        threads.map(|thread| Self::read(&thread?.path())).collect()
    }

    fn read(process: &Path) -> Result<Self> {
        let path = process.join("status");
        let status =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let set = |name| Ok::<_, anyhow::Error>(u64::from_str_radix(field(&status, name)?, 16)?);
        Ok(Self {
            effective: set("CapEff")?,
            permitted: set("CapPrm")?,
            inheritable: set("CapInh")?,
            bounding: set("CapBnd")?,
            ambient: set("CapAmb")?,
            no_new: field(&status, "NoNewPrivs")? == "1",
        })
    }
}

/// The processes that a process has started and that have not been waited for.
pub fn children(process: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let child = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let parent: u32 = field(&status, "PPid").ok()?.parse().ok()?;
        (parent == process).then_some(child)
    })
    .collect()
}

/// The processes that a process has started, and those that they have, and so on.
pub fn descendants(process: u32) -> Vec<u32> {
    let mut all = children(process);
    let mut number = 0;
    while let Some(&process) = all.get(number) {
        all.extend(children(process));
        number += 1;
    }
    all
}

/// For how long processors were busy with a process.
pub fn busy(process: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, and ends with the last bracket.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = words.next()?.parse::<u64>().ok()? + words.next()?.parse::<u64>().ok()?;
    // SAFETY: no memory is involved.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Some(Duration::from_secs_f64(ticks as f64 / hertz as f64))
}

/// What a process calls itself.
pub fn name(process: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Whether a process is there and has not ended.
pub fn runs(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/status"))
        .is_ok_and(|status| field(&status, "State").is_ok_and(|state| !state.starts_with('Z')))
}

fn field<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .with_context(|| format!("no {name} in the status of a process"))
}
