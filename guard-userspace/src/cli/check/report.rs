//! What a check has found, for people and as JSON.

use std::{
    fmt,
    io::{self, Write},
};

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::base::{
    failure::{Exit, Failure},
    text::one_line,
};

/// Changes whenever a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// What one thing means for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// As it should be.
    Ok,
    /// Worth knowing; the run would start.
    Note,
    /// The run would not start.
    Problem,
}

impl fmt::Display for CheckResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Item {
    /// What was looked at.
    pub item: String,
    /// What it means for a run.
    pub verdict: CheckResult,
    /// What was found.
    pub text: String,
    /// What can be done about it.
    pub remedy: Option<String>,
}

impl Item {
    /// Something that is as it should be.
    pub fn ok(item: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            item: item.into(),
            verdict: CheckResult::Ok,
            text: text.into(),
            remedy: None,
        }
    }

    /// Something that is worth knowing.
    pub fn note(item: impl Into<String>, text: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            item: item.into(),
            verdict: CheckResult::Note,
            text: text.into(),
            remedy,
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The names of interfaces are said once: `xdp eth0` and `eth0: taken` are about the same.
        let item = match self.item.split_once(' ') {
            Some((kind, name)) if self.text.starts_with(&format!("{name}: ")) => kind,
            _ => &self.item,
        };
        let text = one_line(&self.text);
        write!(f, "{:<8} {item:<14} {text}", self.verdict)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {}", one_line(remedy)),
            None => Ok(()),
        }
    }
}

/// Everything that was looked at, in the order of a run.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// What was looked at.
    pub items: Vec<Item>,
    /// Interfaces that are there to be guarded.
    pub there: Vec<String>,
    /// Interfaces that are not there, and that a run waits for.
    pub missing: Vec<String>,
    exit: Exit,
}

impl Default for CheckReport {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            there: Vec::new(),
            missing: Vec::new(),
            exit: Exit::Fine,
        }
    }
}

impl CheckReport {
    /// Adds something that is as it should be.
    pub fn ok(&mut self, item: impl Into<String>, text: impl Into<String>) {
        self.items.push(Item::ok(item, text));
    }

    /// Adds something that is worth knowing.
    pub fn note(&mut self, item: impl Into<String>, text: impl Into<String>) {
        self.items.push(Item::note(item, text, None));
    }

    /// Adds what a run would fail with. The first one is what it would end with.
    pub fn problem(&mut self, item: impl Into<String>, failure: &Failure) {
        if self.exit == Exit::Fine {
            self.exit = failure.code;
        }
        self.items.push(Item {
            item: item.into(),
            verdict: CheckResult::Problem,
            text: failure.message(),
            remedy: failure.advice().map(str::to_owned),
        });
    }

    /// How a run would end.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints it.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn print(&self, json: bool) -> Result<(), Failure> {
        let text = if json {
            serde_json::to_string_pretty(self).map_err(anyhow::Error::from)?
        } else {
            self.to_string()
        };
        match writeln!(io::stdout(), "{text}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let error = anyhow::Error::new(error).context("cannot write to standard output");
                Err(Failure::new(Exit::Runtime, error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{item}")?;
        }
        let missing = one_line(&self.missing.join(", "));
        match self.exit {
            Exit::Fine if self.missing.is_empty() => f.write_str("a run would guard"),
            Exit::Fine if self.there.is_empty() => {
                write!(f, "a run would guard nothing, and wait for {missing}")
            }
            Exit::Fine => {
                let there = one_line(&self.there.join(", "));
                write!(f, "a run would guard {there}, and wait for {missing}")
            }
            exit => write!(f, "a run would end with exit code {}", exit as u8),
        }
    }
}

impl Serialize for CheckReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Report", 5)?;
        object.serialize_field("schema_version", &SCHEMA_VERSION)?;
        object.serialize_field("items", &self.items)?;
        object.serialize_field("would_run", &(self.exit == Exit::Fine))?;
        object.serialize_field("waits_for", &self.missing)?;
        object.serialize_field("exit_code", &(self.exit as u8))?;
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_waits_is_not_called_one_that_guards() {
        // there, missing, the last line
        let table: [(&[&str], &[&str], &str); 3] = [
            (&["eth0"], &[], "a run would guard"),
            (
                &[],
                &["ens5"],
                "a run would guard nothing, and wait for ens5",
            ),
            (
                &["eth0"],
                &["ens5", "ppp0"],
                "a run would guard eth0, and wait for ens5, ppp0",
            ),
        ];
        for (there, missing, expected) in table {
            let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
            let report = CheckReport {
                there: owned(there),
                missing: owned(missing),
                ..CheckReport::default()
            };
            assert_eq!(report.to_string(), expected);
            assert_eq!(report.exit(), Exit::Fine);
        }
    }

    #[test]
    fn the_first_problem_decides() {
        let mut report = CheckReport::default();
        report.ok("kernel", "Linux 6.12");
        report.note("listeners", "udp port 40000");
        assert_eq!(report.exit(), Exit::Fine);
        report.problem("instance", &Failure::unavailable("taken").remedy("stop it"));
        report.problem("listeners", &Failure::bad_configuration("refused"));
        report.problem("xdp eth0", &Failure::unavailable("eth0: taken"));
        assert_eq!(report.exit(), Exit::Unavailable);

        assert_eq!(
            report.to_string(),
            "ok       kernel         Linux 6.12\n\
             note     listeners      udp port 40000\n\
             problem  instance       taken; stop it\n\
             problem  listeners      refused\n\
             problem  xdp            eth0: taken\n\
             a run would end with exit code 69"
        );
        let json = serde_json::to_value(&report).expect("is JSON");
        assert_eq!(json["would_run"], false);
        assert_eq!(json["exit_code"], 69);
        assert_eq!(json["items"][2]["verdict"], "problem");
        assert_eq!(json["items"][2]["remedy"], "stop it");
    }
}
