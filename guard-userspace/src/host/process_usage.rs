//! What this process takes of the host, by /proc/self.

use std::fs;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit};
use procfs::{WithCurrentSystemInfo, process::Process};

/// What a process takes. Metrics name it as every exporter of Prometheus does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProcessUsage {
    /// Processor time in user space and in the kernel, in seconds.
    pub cpu_seconds: f64,
    /// When it was started, in seconds since 1970.
    pub start_seconds: f64,
    /// Memory that it has in RAM, in bytes.
    pub resident_bytes: u64,
    /// Address space that it has, in bytes.
    pub virtual_bytes: u64,
    /// Descriptors that are open.
    pub open_fds: u64,
    /// Descriptors that may be, or nothing where there is no limit.
    pub max_fds: Option<u64>,
    /// Threads.
    pub threads: u64,
}

impl ProcessUsage {
    /// That of the calling process at this moment.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn read() -> anyhow::Result<Self> {
        let process = Process::myself().context("/proc/self")?;
        let stat = process.stat().context("/proc/self/stat")?;
        let boot = procfs::boot_time_secs().context("/proc/stat")?;
        let hertz = procfs::ticks_per_second() as f64;
        let limit = getrlimit(Resource::RLIMIT_NOFILE);

        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / hertz,
            start_seconds: boot as f64 + stat.starttime as f64 / hertz,
            resident_bytes: stat.rss_bytes().get(),
            virtual_bytes: stat.vsize,
            // One of them is the folder that is read.
            open_fds: (fs::read_dir("/proc/self/fd")
                .context("/proc/self/fd")?
                .count() as u64)
                .saturating_sub(1),
            max_fds: limit
                .ok()
                .map(|(soft, _)| soft)
                .filter(|soft| *soft != libc::RLIM_INFINITY),
            threads: stat.num_threads.unsigned_abs(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn this_process_is_young_and_small() {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970")
            .as_secs_f64();
        let files: Vec<_> = (0..20)
            .map(|_| fs::File::open("/").expect("a folder"))
            .collect();
        let usage = ProcessUsage::read().expect("readable");
        assert!(
            (now - 600.0..now + 2.0).contains(&usage.start_seconds),
            "{usage:?}"
        );
        assert!(
            (1 << 20..1 << 32).contains(&usage.resident_bytes),
            "{usage:?}"
        );
        assert!(usage.virtual_bytes > usage.resident_bytes, "{usage:?}");
        assert!(usage.open_fds >= files.len() as u64, "{usage:?}");
        assert!(
            usage.max_fds.is_none_or(|most| most >= usage.open_fds),
            "{usage:?}"
        );
        assert!(usage.threads >= 1 && usage.cpu_seconds >= 0.0, "{usage:?}");
    }
}
