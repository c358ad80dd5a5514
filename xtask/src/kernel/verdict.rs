//! What one boot proved, read from its console.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::suites::Suite;
use crate::version::Version;

/// How the suites fared on one kernel.
#[derive(Debug)]
pub struct Verdict {
    release: String,
    results: Vec<SuiteResult>,
    /// Whether a filter chose among the tests, so that a suite may be left with none.
    filtered: bool,
}

#[derive(Debug, Default)]
struct SuiteResult {
    name: String,
    /// What the guest's init said at the end; nothing if the suite did not end.
    ending: Option<String>,
    passed: u32,
    failed: u32,
    ignored: u32,
    /// What its tests have to say although they pass: why one was skipped, and how many
    /// instructions the verifier followed.
    notes: BTreeSet<String>,
}

impl Verdict {
    /// Reads the verdict on `suites` from the console's text.
    pub fn read(console: &str, suites: &[Suite], filtered: bool) -> Self {
        let release = console
            .lines()
            .find_map(|line| line.strip_prefix("release: "));
        Self {
            release: release.unwrap_or("did not boot").to_owned(),
            results: suites
                .iter()
                .map(|suite| SuiteResult::read(console, &suite.name))
                .collect(),
            filtered,
        }
    }

    /// Whether every test ran and passed.
    pub fn passed(&self) -> bool {
        self.results
            .iter()
            .all(|result| self.objection(result).is_none())
            && self.results.iter().any(|result| result.passed > 0)
    }

    /// One line for each suite, and its notes below.
    pub fn table(&self, kernel: Version) -> String {
        let mut table = String::new();
        for result in &self.results {
            let SuiteResult {
                name,
                passed,
                failed,
                ignored,
                notes,
                ..
            } = result;
            let end = self.objection(result).unwrap_or_else(|| "ok".to_owned());
            let release = &self.release;
            // Writing into a string cannot fail.
            let _ = writeln!(
                table,
                "{:<6} {release:<24} {name:<12} {passed:>4} passed {failed:>4} failed \
                 {ignored:>4} not run  {end}",
                kernel.to_string(),
            );
            for note in notes {
                let _ = writeln!(table, "{:<6}   {note}", "");
            }
        }
        table
    }

    /// Why `result` is not good enough, if it is not.
    fn objection(&self, result: &SuiteResult) -> Option<String> {
        match result.ending.as_deref() {
            None => Some("did not end".to_owned()),
            Some("ok") if result.ignored > 0 => Some("tests did not run".to_owned()),
            Some("ok") if result.passed == 0 && !self.filtered => Some("no test ran".to_owned()),
            Some("ok") => None,
            Some(ending) => Some(ending.to_owned()),
        }
    }
}

impl SuiteResult {
    fn read(console: &str, name: &str) -> Self {
        let prefix = format!("suite {name}: ");
        let mut result = Self {
            name: name.to_owned(),
            ..Self::default()
        };
        let mut inside = false;
        for line in console.lines() {
            match line.strip_prefix(&prefix) {
                Some("started") => inside = true,
                Some(ending) => {
                    result.ending = Some(ending.to_owned());
                    inside = false;
                }
                None if inside => result.take(line),
                None => {}
            }
        }
        result
    }

    /// Takes what there is to keep of a line that the suite has printed.
    fn take(&mut self, line: &str) {
        if line.starts_with("skipped: ") || line.ends_with(" verified") {
            self.notes.insert(line.to_owned());
        }
        self.count(line);
    }

    /// Takes the numbers from `test result: ok. 12 passed; 0 failed; 1 ignored; ...`.
    fn count(&mut self, line: &str) {
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|r| r.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            match count
                .split_once(' ')
                .map(|(number, what)| (number.parse().unwrap_or(0), what))
            {
                Some((number, "passed")) => self.passed = number,
                Some((number, "failed")) => self.failed = number,
                Some((number, "ignored")) => self.ignored = number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "release: 5.10.0-35-amd64\nsuite verdicts: started\nrunning 12 tests\n\
        test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in \
        1.20s\nsuite verdicts: ok\nsuites: done\n";

    fn verdict(console: &str, filtered: bool) -> Verdict {
        let suite = Suite {
            name: "verdicts".into(),
            package: "guard-tests".into(),
            executable: "/verdicts".into(),
            folder: "/".into(),
        };
        Verdict::read(console, &[suite], filtered)
    }

    #[test]
    fn a_suite_that_ends_well_passes_and_is_counted() {
        let verdict = verdict(GOOD, false);
        assert!(verdict.passed());
        let table = verdict.table(Version::new(5, 10));
        assert!(
            table.contains("5.10.0-35-amd64") && table.contains("12 passed"),
            "{table}"
        );
    }

    #[test]
    fn what_was_skipped_and_what_was_verified_is_told() {
        let skip = "skipped: TCX links needs Linux 6.6, this is 5.10";
        let size = "egress: 2116 instructions, 41234 verified";
        let said = format!("{skip}\n{size}\n{skip}\ntest result");
        let table = verdict(&GOOD.replace("test result", &said), false).table(Version::new(5, 10));
        assert_eq!(table.matches(skip).count(), 1, "{table}");
        assert_eq!(table.matches(size).count(), 1, "{table}");
    }

    #[test]
    fn whatever_did_not_run_has_failed() {
        for (what, console, objection) in [
            ("panic on boot", String::new(), "did not end"),
            (
                "panic in a test",
                GOOD.replace("suite verdicts: ok", "Kernel panic"),
                "did not end",
            ),
            (
                "failed test",
                GOOD.replace(": ok\n", ": failed with exit status 101\n"),
                "101",
            ),
            (
                "ignored test",
                GOOD.replace("0 ignored", "1 ignored"),
                "tests did not run",
            ),
            (
                "empty suite",
                GOOD.replace("12 passed", "0 passed"),
                "no test ran",
            ),
        ] {
            let verdict = verdict(&console, false);
            assert!(!verdict.passed(), "{what}");
            let table = verdict.table(Version::new(5, 10));
            assert!(table.contains(objection), "{what}: {table}");
        }
    }

    #[test]
    fn a_filter_may_empty_a_suite_but_not_all_of_them() {
        let empty = verdict(&GOOD.replace("12 passed", "0 passed"), true);
        assert!(!empty.table(Version::new(5, 10)).contains("no test ran"));
        assert!(!empty.passed());
    }
}
