//! The Debian mirror that this machine already uses.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where Debian's suites are fetched from.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Holds `bookworm` and its like.
    main: String,
    /// Holds `bookworm-security` and its like.
    security: String,
}

/// One line of apt's sources, or one of its stanzas.
#[derive(Debug, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
}

impl Mirror {
    /// Reads it from apt's own sources.
    pub fn of_this_machine() -> Result<Self> {
        let mut sources = Vec::new();
        for path in source_files() {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            if path
                .extension()
                .is_some_and(|extension| extension == "sources")
            {
                sources.extend(stanzas(&text));
            } else {
                sources.extend(lines(&text));
            }
        }
        Self::among(&sources).context(
            "no Debian mirror is named in /etc/apt: kernels are fetched from the mirror of the \
             machine, so add one, main and security, to /etc/apt/sources.list",
        )
    }

    /// A sources list for `suites`.
    pub fn list(&self, suites: &[&str]) -> String {
        let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
        suites
            .iter()
            .map(|suite| {
                let uri = if is_security(suite) {
                    &self.security
                } else {
                    &self.main
                };
                format!("deb [signed-by={keyring}] {uri} {suite} main\n")
            })
            .collect()
    }

    fn among(sources: &[Source]) -> Option<Self> {
        let uri = |wanted: &dyn Fn(&str) -> bool| {
            sources
                .iter()
                .filter(|source| source.suites.iter().any(|suite| wanted(suite)))
                .find_map(|source| source.uris.first().cloned())
        };
        let main = uri(&|suite| DEBIAN.contains(&suite))?;
        // A mirror of the one without the other is common inside containers.
        let security = uri(&is_security).unwrap_or_else(|| format!("{main}-security"));

        Some(Self { main, security })
    }
}

/// Names of Debian's releases, which tell its mirror from other people's.
const DEBIAN: [&str; 9] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
];

fn is_security(suite: &str) -> bool {
    suite
        .strip_suffix("-security")
        .is_some_and(|release| DEBIAN.contains(&release))
}

fn source_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|kind| kind == "sources" || kind == "list")
        })
        .collect();
    files.sort();
    files.insert(0, Path::new("/etc/apt/sources.list").to_path_buf());
    files.retain(|path| path.is_file());
    files
}

/// Reads the format of `*.sources`: stanzas of fields.
fn stanzas(text: &str) -> Vec<Source> {
    let mut sources = vec![Source::default()];
    for line in text.lines() {
        if line.trim().is_empty() {
            sources.push(Source::default());
            continue;
        }
        let (Some((field, value)), Some(source)) = (line.split_once(':'), sources.last_mut())
        else {
            continue;
        };
        let words = value.split_whitespace().map(str::to_owned);
        match field {
            "URIs" => source.uris.extend(words),
            "Suites" => source.suites.extend(words),
            _ => {}
        }
    }
    sources
}

/// Reads the format of `*.list`: `deb [options] uri suite component...`.
fn lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(line).collect()
}

fn line(text: &str) -> Option<Source> {
    let mut rest = text.trim().strip_prefix("deb ")?.trim_start();
    if rest.starts_with('[') {
        rest = rest.split_once(']')?.1;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);

    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror() -> Option<Mirror> {
        Some(Mirror {
            main: "http://mirror.test/debian".into(),
            security: "http://mirror.test/debian-security".into(),
        })
    }

    #[test]
    fn stanzas_name_the_mirror() {
        let text = "Types: deb\n# http://elsewhere.test/snapshot\n\
                    URIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n\n\
                    Types: deb\nURIs: http://mirror.test/debian-security\n\
                    Suites: bookworm-security\n";
        assert_eq!(Mirror::among(&stanzas(text)), mirror());
    }

    #[test]
    fn lines_name_the_mirror_and_other_peoples_are_skipped() {
        let text = "# deb http://commented.test/debian bookworm main\n\
                    deb https://packages.test/apt nodistro main\n\
                    deb [signed-by=/a/b] http://mirror.test/debian bookworm main\n\
                    deb http://mirror.test/debian-security bookworm-security main\n";
        assert_eq!(Mirror::among(&lines(text)), mirror());
    }

    #[test]
    fn without_a_security_mirror_it_stands_beside_the_main_one() {
        let text = "deb http://mirror.test/debian stable main";
        assert_eq!(Mirror::among(&lines(text)), mirror());
    }

    #[test]
    fn a_machine_without_debian_has_no_mirror() {
        assert_eq!(
            Mirror::among(&lines("deb http://other.test/ubuntu noble main")),
            None
        );
        assert_eq!(Mirror::among(&stanzas("")), None);
    }

    #[test]
    fn every_suite_comes_from_its_own_half_of_the_mirror() {
        let list = mirror().unwrap().list(&["bullseye", "bullseye-security"]);
        let lines: Vec<&str> = list.lines().collect();
        assert!(
            lines[0].ends_with(" http://mirror.test/debian bullseye main"),
            "{list}"
        );
        assert!(
            lines[1].ends_with(" http://mirror.test/debian-security bullseye-security main"),
            "{list}",
        );
    }
}
