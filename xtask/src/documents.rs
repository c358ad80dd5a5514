//! The tests that documents name exist.

use std::fs;

use crate::workspace;

/// Documents that say which test shows what.
const DOCUMENTS: [&str; 2] = ["SECURITY.md", "tests/README.md"];
/// Where a suite is that is named without its folder.
const SUITES: &str = "tests/tests";

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
    for document in DOCUMENTS {
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
