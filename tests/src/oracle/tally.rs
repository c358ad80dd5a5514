//! What is tried, and what was seen.

use std::{collections::BTreeMap, fmt};

use super::policy::EXCEPTIONS;

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number that the encodings are made up from.
    pub seed: u64,
    /// How many.
    pub encodings: u32,
    /// How XDP is attached, `native` or `generic`; `None` for a guard that is not there.
    pub mode: Option<&'static str>,
    /// Whether the guarded host asks its peers.
    pub asks: bool,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Encodings tried.
    pub encodings: u32,
    /// Frames sent to the guarded host.
    pub frames: u64,
    /// Those among them that carry echoes, or pieces of some.
    pub echoes: u64,
    /// What was delivered where nobody guards, by what is unusual: of unsolicited senders and of peers.
    pub delivered: BTreeMap<&'static str, [u32; 2]>,
    /// How often an exception explained a difference.
    pub excepted: BTreeMap<&'static str, u32>,
    /// Differences that were not seen again.
    pub unsteady: u32,
}

impl Tally {
    /// How many of unsolicited senders, and how many of peers, the kernel would have delivered.
    pub fn deliverable(&self) -> [u32; 2] {
        self.delivered.get(ALL).copied().unwrap_or_default()
    }
}

pub(super) const ALL: &str = "everything";

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} encodings, {} frames", self.encodings, self.frames)?;
        writeln!(
            f,
            "delivered without a guard, of unsolicited senders and of peers:"
        )?;
        for (feature, [unsolicited, peers]) in &self.delivered {
            writeln!(f, "  {feature:24} {unsolicited:8} {peers:8}")?;
        }
        for exception in &EXCEPTIONS {
            let count = self.excepted.get(exception.name).copied().unwrap_or(0);
            writeln!(f, "taken from peers: {} {count}", exception.name)?;
        }
        write!(f, "not seen again: {}", self.unsteady)
    }
}
