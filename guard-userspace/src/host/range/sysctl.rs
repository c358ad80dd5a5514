//! The two sysctls about local ports: strict parsing, and one function that reads.

use std::{fs::File, os::unix::fs::FileExt};

use anyhow::{bail, ensure};

use super::{PortRange, parse_port};
use crate::base::failure::{Exit, Failure};

/// Where the kernel shows the range it takes local ports from.
pub const LOCAL_PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Where the kernel shows the ports it leaves out of that range.
pub const LOCAL_RESERVED_PORTS: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Larger than any list of all 65,536 ports can be.
const LONGEST: usize = 512 * 1024;

/// Parses `ip_local_port_range`: two ports with white space between.
///
/// # Errors
/// When there are not exactly two ports, one of them is 0, or the first is above the last.
pub fn parse_range(text: &str) -> anyhow::Result<PortRange> {
    let mut ports = text.split_ascii_whitespace().map(parse_port);
    let (Some(first), Some(last), None) = (ports.next(), ports.next(), ports.next()) else {
        bail!("expected two ports");
    };

    PortRange::new(first?, last?)
}

/// Parses `ip_local_reserved_ports`: ports and ranges with commas between, or nothing.
///
/// # Errors
/// When an entry is neither a port nor a range.
pub fn parse_reserved(text: &str) -> anyhow::Result<Vec<PortRange>> {
    let list = text.trim_ascii();
    if list.is_empty() {
        return Ok(Vec::new());
    }

    let mut reserved = Vec::new();
    for entry in list.split(',') {
        let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
        let (first, last) = (parse_port(first)?, parse_port(last)?);
        ensure!(first <= last, "range {entry} is empty");
        // The kernel lets port 0 be reserved, though nothing can use it.
        if last != 0 {
            reserved.push(PortRange::new(first.max(1), last)?);
        }
    }

    Ok(reserved)
}

/// One sysctl of one network namespace.
#[derive(Debug)]
pub(super) struct Sysctl {
    path: &'static str,
    file: File,
}

impl Sysctl {
    /// Opens the sysctl `path` of the calling thread's network namespace.
    pub(super) fn open(path: &'static str) -> anyhow::Result<Self> {
        let file = File::open(path).map_err(|error| unreadable(path, error.into()))?;

        Ok(Self { path, file })
    }

    /// Reads what it says now.
    pub(super) fn read<T>(&self, parse: fn(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let path = self.path;
        let text = read_whole(&self.file).map_err(|error| unreadable(path, error))?;
        let ports = parse(&text).map_err(|error| {
            let shown: String = text.trim().chars().take(60).collect();
            let error = error.context(format!("{path}: cannot make sense of {shown:?}"));
            Failure::new(Exit::Runtime, error).remedy("write it again with sysctl")
        })?;

        Ok(ports)
    }
}

fn unreadable(path: &str, error: anyhow::Error) -> Failure {
    Failure::new(
        Exit::Runtime,
        error.context(format!("{path}: cannot be read")),
    )
    .remedy("show the process the whole of /proc/sys/net")
}

fn read_whole(file: &File) -> anyhow::Result<String> {
    let mut size = 4096;
    while size <= LONGEST {
        let mut bytes = vec![0; size];
        // A sysctl gives its text to the first read alone and cuts what does not fit, so a short
        // buffer, such as the probe of `fs::read_to_string`, would lose the end without an error.
        let length = file.read_at(&mut bytes, 0)?;
        if length < size {
            bytes.truncate(length);
            return Ok(String::from_utf8(bytes)?);
        }
        size *= 2;
    }

    bail!("longer than {LONGEST} bytes")
}
