//! Words that the project does not use, because a reader would have to decode them.
//!
//! `words.txt` lists them, each with the folders that are free of it and with what to write instead.
//! A word is looked for as a whole: as a part of an identifier (`judge_flow` and `JudgeFlow` have
//! `judge`), and in prose unless the list says that only names are meant.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace;

/// The list, from the workspace's folder.
const LIST: &str = "xtask/words.txt";

/// Files that must name the words.
const NOT_READ: [&str; 2] = [LIST, "xtask/src/words.rs"];

/// Endings of the files that are read.
const ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".service", ".sh", ".txt"];

/// Where a word is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// In names and in prose.
    Any,
    /// In names alone: in prose it is a plain English word.
    Name,
}

/// A word that is refused.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    /// The word, split as identifiers are.
    segments: Vec<String>,
    /// Beginnings of the paths where it is refused.
    areas: Vec<String>,
    instead: String,
}

/// A place where a refused word may stand.
#[derive(Debug)]
struct Exception {
    path: String,
    segments: Vec<String>,
}

/// The whole list.
#[derive(Debug, Default)]
struct Words {
    entries: Vec<Entry>,
    exceptions: Vec<Exception>,
}

/// A refused word that was found.
#[derive(PartialEq, Eq, Debug)]
struct Finding {
    path: String,
    line: usize,
    word: String,
    instead: String,
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            word,
            instead,
        } = self;
        write!(f, "{path}:{line}: `{word}`: write {instead}")
    }
}

impl Words {
    /// Reads the list: `any` or `name`, the word, the folders and what to write instead, or `except`,
    /// the word, the file and the reason, apart by `|`.
    fn read(text: &str) -> Result<Self> {
        let mut words = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [kind, word, places, reason] = fields[..] else {
                bail!("{LIST}:{}: expected four fields apart by `|`", index + 1);
            };
            ensure!(
                !word.is_empty() && !places.is_empty() && !reason.is_empty(),
                "{LIST}:{}: a field is empty",
                index + 1
            );
            let segments = segments(word);
            match kind {
                "any" | "name" => words.entries.push(Entry {
                    kind: if kind == "any" { Kind::Any } else { Kind::Name },
                    segments,
                    areas: places.split_whitespace().map(str::to_owned).collect(),
                    instead: reason.to_owned(),
                }),
                "except" => words.exceptions.push(Exception {
                    path: places.to_owned(),
                    segments,
                }),
                other => bail!("{LIST}:{}: `{other}` is no kind of line", index + 1),
            }
        }
        Ok(words)
    }

    /// The refused words of one file.
    fn find(&self, path: &str, text: &str) -> Vec<Finding> {
        let entries: Vec<&Entry> = self
            .entries
            .iter()
            .filter(|entry| entry.areas.iter().any(|area| path.starts_with(area)))
            .filter(|entry| {
                !self
                    .exceptions
                    .iter()
                    .any(|other| other.path == path && other.segments == entry.segments)
            })
            .collect();
        let code = path.ends_with(".rs");
        let mut found = Vec::new();
        for (index, line) in text.lines().enumerate() {
            for (word, is_name) in tokens(line, code) {
                let parts = segments(word);
                for entry in &entries {
                    if (is_name || entry.kind == Kind::Any) && contains(&parts, &entry.segments) {
                        found.push(Finding {
                            path: path.to_owned(),
                            line: index + 1,
                            word: word.to_owned(),
                            instead: entry.instead.clone(),
                        });
                    }
                }
            }
        }
        found
    }
}

/// Whether `parts` has `wanted` in it, one part behind the other.
fn contains(parts: &[String], wanted: &[String]) -> bool {
    parts.windows(wanted.len()).any(|window| window == wanted)
}

/// The parts of an identifier, in lower case.
fn segments(word: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut before = '_';
    for letter in word.chars() {
        if letter == '_' || letter == '-' {
            before = '_';
            continue;
        }
        let begins = before == '_' || letter.is_uppercase() && before.is_lowercase();
        match parts.last_mut() {
            Some(part) if !begins => part.extend(letter.to_lowercase()),
            _ => parts.push(letter.to_lowercase().collect()),
        }
        before = letter;
    }
    parts
}

/// The words of a line, and whether each is a name: in code, but for comments and strings, and
/// between backticks.
fn tokens(line: &str, code: bool) -> Vec<(&str, bool)> {
    let mut found = Vec::new();
    let mut start = None;
    let (mut comment, mut string, mut ticks, mut before) = (!code, false, false, ' ');
    for (at, letter) in line.char_indices().chain([(line.len(), ' ')]) {
        if letter.is_alphanumeric() || letter == '_' {
            start.get_or_insert(at);
            before = letter;
            continue;
        }
        if let Some(start) = start.take() {
            let word = &line[start..at];
            let is_name = ticks || !comment && !string || word.contains('_');
            found.push((word, is_name));
        }
        match letter {
            '/' if before == '/' && !string => comment = true,
            '"' if !comment && before != '\\' => string = !string,
            '`' => ticks = !ticks,
            _ => {}
        }
        before = letter;
    }
    found
}

/// Refuses the words of the list in every file of the tree.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let list = fs::read_to_string(root.join(LIST)).with_context(|| format!("read {LIST}"))?;
    let words = Words::read(&list)?;
    let listed = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z"])
        .output()
        .context("run git ls-files")?;
    ensure!(listed.status.success(), "git ls-files failed");
    let listed = String::from_utf8(listed.stdout).context("read git ls-files")?;

    let mut found = Vec::new();
    for path in listed.split_terminator('\0') {
        let text = ENDINGS.iter().any(|ending| path.ends_with(ending));
        if !text || NOT_READ.contains(&path) || path.contains("/corpus/") {
            continue;
        }
        // A file may be deleted and not yet committed.
        let Ok(text) = fs::read_to_string(root.join(path)) else {
            continue;
        };
        found.extend(words.find(path, &text));
    }
    if found.is_empty() {
        return Ok(());
    }

    let lines: Vec<String> = found.iter().map(Finding::to_string).collect();
    bail!(
        "{} words are not used here, see {LIST}:\n{}",
        lines.len(),
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "
        # A comment.
        any    | stranger       | src/ docs/ | an unsolicited packet
        name   | reach          | src/       | the size of the Bloom filter
        name   | passes_through | src/       | forwarded
        except | stranger       | src/old.rs | it is told there why it is not used
    ";

    fn found(path: &str, text: &str) -> Vec<(usize, String)> {
        let words = Words::read(LIST).expect("the list can be read");
        words
            .find(path, text)
            .into_iter()
            .map(|finding| (finding.line, finding.word))
            .collect()
    }

    #[test]
    fn a_planted_word_is_found() {
        let text = "/// A stranger is dropped.\nfn a() {}\n";
        assert_eq!(found("src/a.rs", text), [(1, "stranger".to_owned())]);
        assert_eq!(
            found("docs/a.md", "Strangers: a stranger."),
            [(1, "stranger".to_owned())]
        );
        assert_eq!(
            found("src/a.rs", "let from_stranger = 1;"),
            [(1, "from_stranger".to_owned())]
        );
        assert_eq!(
            found("src/a.rs", "enum FromStranger {}"),
            [(1, "FromStranger".to_owned())]
        );
        assert_eq!(
            found("src/a.rs", "say(\"a stranger\");"),
            [(1, "stranger".to_owned())]
        );
    }

    #[test]
    fn a_name_is_refused_where_the_english_word_is_not() {
        assert_eq!(found("src/a.rs", "// They reach the port.\n"), []);
        assert_eq!(found("src/a.rs", "say(\"they reach it\");"), []);
        assert_eq!(
            found("src/a.rs", "// The `reach` of it.\n"),
            [(1, "reach".to_owned())]
        );
        assert_eq!(found("src/a.rs", "let reach = set_reach();").len(), 2);
        assert_eq!(found("src/a.rs", "fn it_passes_through() {}").len(), 1);
        assert_eq!(found("src/a.rs", "// It passes through.\n"), []);
    }

    #[test]
    fn what_is_not_refused() {
        assert_eq!(found("other/a.rs", "// stranger\n"), []);
        assert_eq!(found("src/old.rs", "// stranger\n"), []);
        assert_eq!(found("src/a.rs", "// A strange frame, unreachable.\n"), []);
    }

    #[test]
    fn a_line_that_says_too_little_is_an_error() {
        for list in ["any | stranger | src/", "some | a | b | c", "any | a | | c"] {
            assert!(Words::read(list).is_err(), "{list}");
        }
    }

    /// The same check as in CI.
    #[test]
    fn the_tree_has_none_of_the_words() {
        check().expect("no word of the list is used");
    }
}
