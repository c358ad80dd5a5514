//! Where it was measured.

use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::processor;

/// A machine, as far as it explains figures.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    kernel: String,
    processor: String,
    processors: usize,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = read("/proc/sys/kernel/osrelease");
        // The rest is the name that anyone who built it gave it.
        let kernel = release.trim().split('-').next().unwrap_or_default();
        let processors = read("/proc/cpuinfo");
        let model = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("unknown", |name| name.trim_start_matches([' ', '\t', ':']));
        Self {
            kernel: kernel.to_owned(),
            processor: model.to_owned(),
            processors: processor::count(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Linux {}, {} x {}",
            self.kernel, self.processors, self.processor
        )
    }
}
