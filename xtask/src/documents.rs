//! Documents lead where they say: links, headings, files and tests that they name exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

/// Documents that say which test shows what.
const OF_TESTS: [&str; 2] = ["SECURITY.md", "tests/README.md"];
/// Where a suite is that is named without its folder.
const SUITES: &str = "tests/tests";
/// Documents that are read from top to bottom, and how many lines they may have.
const SHORT: [(&str, usize); 2] = [("README.md", 200), ("ARCHITECTURE.md", 200)];
/// The introduction to the code, which names files.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Every document of the project by its path in the checkout, with its text.
fn documents() -> BTreeMap<String, String> {
    const FOLDERS: [&str; 3] = ["docs", "docs/decisions", "tests"];

    let root = workspace::root();
    let mut documents = BTreeMap::new();
    for folder in [""].into_iter().chain(FOLDERS) {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                documents.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    documents
}

/// The lines of a document without its blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links of a line lead.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// What a heading is linked by, as the usual hosts of repositories make it.
fn anchor(heading: &str) -> String {
    heading
        .to_lowercase()
        .chars()
        .filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter))
        .map(|letter| if letter == ' ' { '-' } else { letter })
        .collect()
}

fn anchors(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#').trim()))
}

/// The path from the checkout of what a document in `folder` links to.
fn resolved(folder: &Path, target: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part.as_os_str().to_str() {
            Some("..") => assert!(path.pop(), "{target} leads out of the checkout"),
            Some(".") => {}
            _ => path.push(part),
        }
    }
    path
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    let mut count = 0;
    for (name, text) in &documents {
        let folder = Path::new(name).parent().unwrap();
        for link in prose(text).flat_map(links) {
            if link.contains("://") {
                continue;
            }
            let (target, heading) = link.split_once('#').unwrap_or((link, ""));
            let path = if target.is_empty() {
                PathBuf::from(name)
            } else {
                resolved(folder, target)
            };
            assert!(
                workspace::root().join(&path).exists(),
                "{name}: {link} leads nowhere"
            );
            if !heading.is_empty() {
                let linked = documents.get(path.to_str().unwrap());
                let linked = linked.unwrap_or_else(|| panic!("{name}: {link} is no document"));
                assert!(
                    anchors(linked).any(|anchor| anchor == heading),
                    "{name}: {link} has no such heading"
                );
            }
            count += 1;
        }
    }
    assert!(count > 50, "{count} links");
}

#[test]
fn every_document_is_linked_to() {
    let documents = documents();
    let linked: Vec<PathBuf> = documents
        .iter()
        .flat_map(|(name, text)| {
            let folder = Path::new(name).parent().unwrap();
            let links = prose(text).flat_map(links);
            links
                .filter(|link| !link.contains("://"))
                .map(|link| resolved(folder, link.split('#').next().unwrap_or_default()))
        })
        .collect();
    for name in documents.keys().filter(|name| *name != "README.md") {
        assert!(
            linked.iter().any(|path| path == Path::new(name)),
            "nothing links to {name}"
        );
    }
}

#[test]
fn what_is_read_from_top_to_bottom_is_short() {
    let documents = documents();
    for (name, most) in SHORT {
        let count = documents[name].lines().count();
        assert!(count <= most, "{name} has {count} lines, {most} at most");
    }
}

/// The paths that a line names between backticks: all that have a slash, and files with an ending
/// that are in the folder with which the line begins.
fn paths(line: &str) -> impl Iterator<Item = String> {
    let is_path = |quoted: &&str| {
        let mut letters = quoted.chars();
        !quoted.starts_with('/')
            && letters.all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter))
    };
    let quoted = || line.split('`').skip(1).step_by(2).filter(is_path);
    let folder = quoted().next().filter(|first| first.ends_with('/'));

    quoted().filter_map(move |quoted| {
        if quoted.contains('/') {
            return Some(quoted.to_owned());
        }
        let folder = folder.filter(|_| quoted.ends_with(".rs"))?;
        Some(format!("{folder}{quoted}"))
    })
}

#[test]
fn every_file_that_a_document_names_exists() {
    const OURS: [&str; 10] = [
        "guard-common/",
        "guard-ebpf/",
        "guard-model/",
        "guard-userspace/",
        "reference/",
        "tests/",
        "fuzz/",
        "bench/",
        "xtask/",
        "packaging/",
    ];

    for (name, text) in documents() {
        let is_map = name == ARCHITECTURE;
        let mut count = 0;
        for path in prose(&text).flat_map(paths) {
            let is_ours = OURS.iter().any(|folder| path.starts_with(folder));
            if !is_map && !is_ours {
                continue;
            }
            assert!(
                workspace::root().join(&path).exists(),
                "{name}: {path} does not exist"
            );
            count += 1;
        }
        assert!(!is_map || count > 50, "{name} names {count} files");
    }
}

/// What stands between backticks and names a test: its file, and its name or a star.
fn named(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);

    quoted.filter_map(|quoted| quoted.split_once("::"))
}

/// Whether the file holds a test of this name, or any.
fn holds(source: &str, test: &str) -> bool {
    let name = match test {
        "*" => "fn ".to_owned(),
        test => format!("fn {test}("),
    };

    ["#[test]", "#[tokio::test"]
        .into_iter()
        .flat_map(|attribute| source.split(attribute).skip(1))
        .filter_map(|after| after.split('{').next())
        .any(|head| head.contains(&name))
}

#[test]
fn every_test_that_is_named_exists() {
    for document in OF_TESTS {
        let text = fs::read_to_string(workspace::root().join(document)).unwrap();
        let mut count = 0;
        for (file, test) in named(&text).filter(|(file, _)| file.ends_with(".rs")) {
            let source = ["", SUITES]
                .into_iter()
                .find_map(|folder| {
                    fs::read_to_string(workspace::root().join(folder).join(file)).ok()
                })
                .unwrap_or_else(|| panic!("{document}: no file {file}"));
            assert!(holds(&source, test), "{document}: no {file}::{test}");
            count += 1;
        }
        assert!(count > 20, "{document} names {count} tests");
    }
}

#[test]
fn a_test_is_told_from_what_it_calls() {
    let source = "fn one() {}\n#[test]\nfn two() -> Result<()> { one() }";
    assert!(holds(source, "two"));
    assert!(!holds(source, "one"));
    assert!(!holds(source, "three"));
    assert!(holds(source, "*"));
    assert!(!holds("fn one() {}", "*"));
}

#[test]
fn links_anchors_and_paths_are_found() {
    let text = "# A `b` c\nsee [x](d.md#e-f), [y](#g)\n```\n[no](link)\n```\n`a/`, `b.rs`, `b`, `c d`, `/x/y`";
    let found: Vec<_> = prose(text).flat_map(links).collect();
    assert_eq!(found, ["d.md#e-f", "#g"]);
    assert_eq!(anchors(text).collect::<Vec<_>>(), ["a-b-c"]);
    assert_eq!(anchor("`--listeners expose`"), "--listeners-expose");
    let found: Vec<_> = prose(text).flat_map(paths).collect();
    assert_eq!(found, ["a/", "a/b.rs"]);
    let seen = resolved(Path::new("docs/decisions"), "../../README.md");
    assert_eq!(seen, Path::new("README.md"));
}
