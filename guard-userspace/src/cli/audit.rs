//! `portguard audit`: what of this host's ephemeral ports others reach, and what would weaken the
//! guard.

mod facts;
mod findings;
mod firewall;

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

use self::{facts::AuditFacts, findings::assess};
use crate::base::failure::{Exit, Failure};

/// Changes whenever a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Others reach what they should not, or the guard does not do what it says.
    High,
    /// Something will go wrong at the next boot, or is open that need not be.
    Medium,
    /// A safeguard that is missing.
    Low,
    /// Worth knowing.
    Info,
}

impl Severity {
    /// What one finding adds to the score.
    pub const fn weight(self) -> u32 {
        match self {
            Self::High => 10,
            Self::Medium => 3,
            Self::Low => 1,
            Self::Info => 0,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
            Self::Info => "info",
        })
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// Names the kind of finding; does not change between versions.
    pub id: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Why it matters.
    pub why: &'static str,
    /// What was seen.
    pub evidence: String,
    /// The command or the change that mends it, where there is one.
    pub remedy: Option<String>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Report {
    schema_version: u32,
    /// Ports of the range that others reach without a guard, and with this one.
    reachable: Reachable,
    score: u32,
    findings: Vec<AuditFinding>,
}

/// How many ports of the range others reach, TCP and UDP counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reachable {
    /// Without a guard.
    before: u32,
    /// With the guard that runs, or as many where none does.
    now: u32,
}

/// Looks at this host and at the guard whose socket is `control`, and prints what it finds. Blocks:
/// call it outside a runtime.
///
/// Returns [`Exit::Fine`] where the score is at most `threshold`, else [`Exit::Runtime`].
///
/// # Errors
/// When the host cannot be looked at, or nothing can be printed.
pub fn run(control: &Path, threshold: u32, json: bool) -> Result<Exit, Failure> {
    let facts = AuditFacts::gather(control)?;
    let report = Report::new(&facts);
    let text = if json {
        serde_json::to_string_pretty(&report).map_err(anyhow::Error::from)?
    } else {
        report.to_string()
    };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            return Err(Failure::new(Exit::Runtime, error));
        }
        Ok(()) | Err(_) => {}
    }

    Ok(if report.score <= threshold {
        Exit::Fine
    } else {
        Exit::Runtime
    })
}

impl Report {
    fn new(facts: &AuditFacts) -> Self {
        let mut findings = assess(facts);
        findings.sort_by_key(|finding| (finding.severity, finding.id));

        Self {
            schema_version: SCHEMA_VERSION,
            reachable: facts.reachable(),
            score: findings.iter().map(|found| found.severity.weight()).sum(),
            findings,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(
                f,
                "{:<7} {:<22} {}",
                finding.severity, finding.id, finding.evidence
            )?;
            write!(f, "{:<31}{}", "", finding.why)?;
            match &finding.remedy {
                Some(remedy) => writeln!(f, ": {remedy}")?,
                None => writeln!(f)?,
            }
        }
        let Reachable { before, now } = self.reachable;
        let share = f64::from(now) * 100.0 / f64::from(before.max(1));
        writeln!(
            f,
            "others reach {now} of {before} ports of the range ({share:.2} %; TCP and UDP)"
        )?;

        write!(f, "score {}", self.score)
    }
}
