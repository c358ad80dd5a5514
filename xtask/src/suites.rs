//! The test executables of the package guard-tests.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build::{Built, OBJECT_VARIABLE};
use crate::{cargo, process};

const PACKAGE: &str = "guard-tests";

/// Names the binary under test to the suites.
pub const BINARY_VARIABLE: &str = "PORTGUARD_BIN";

/// One test executable.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    pub name: String,
    pub executable: PathBuf,
    /// The folder of its package, in which cargo would run it.
    pub folder: PathBuf,
}

/// Compiles the suites, as the caller, and returns them by name.
pub fn compile(built: &Built) -> Result<Vec<Suite>> {
    let mut compile = cargo::host("test");
    compile
        .args([
            "--package",
            PACKAGE,
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .env(OBJECT_VARIABLE, &built.object)
        .env(BINARY_VARIABLE, &built.binary)
        .stdin(Stdio::null());
    let messages = process::output(&mut compile).context("the suites were not compiled")?;
    let suites = parse(&messages)?;
    ensure!(
        !suites.is_empty(),
        "package {PACKAGE} has no suites: nothing was tested"
    );

    Ok(suites)
}

/// The daemon with parts of it switched off, which cargo has built with the suites.
pub fn altered(suites: &[Suite]) -> Result<PathBuf> {
    suites
        .iter()
        .find_map(|suite| {
            let path = suite
                .executable
                .parent()?
                .with_file_name("portguard-altered");
            path.is_file().then_some(path)
        })
        .context("portguard-altered was not built beside the suites")
}

fn parse(messages: &str) -> Result<Vec<Suite>> {
    let mut suites = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line)
            .with_context(|| format!("cargo printed a message that is not JSON: {line}"))?;
        suites.extend(suite(&message));
    }
    suites.sort();
    Ok(suites)
}

/// The suite that `message` announces, if it announces one.
fn suite(message: &Value) -> Option<Suite> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    if !is_test {
        return None;
    }
    Some(Suite {
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: message["executable"].as_str()?.into(),
        folder: Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .to_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTIFACT: &str = r#"{"reason":"compiler-artifact","manifest_path":"/src/tests/Cargo.toml","target":{"kind":["test"],"name":"verdicts"},"profile":{"test":true},"executable":"/target/debug/deps/verdicts-1"}"#;

    #[test]
    fn a_test_executable_is_a_suite() {
        let suites = parse(ARTIFACT).unwrap();
        assert_eq!(
            suites,
            [Suite {
                name: "verdicts".into(),
                executable: "/target/debug/deps/verdicts-1".into(),
                folder: "/src/tests".into(),
            }],
        );
    }

    #[test]
    fn libraries_and_the_end_of_the_build_are_no_suites() {
        let others = r#"{"reason":"compiler-artifact","manifest_path":"/src/Cargo.toml","target":{"kind":["lib"],"name":"aya"},"profile":{"test":false},"executable":null}
{"reason":"build-finished","success":true}"#;
        assert_eq!(parse(others).unwrap(), []);
    }

    #[test]
    fn a_torn_message_is_an_error() {
        assert!(parse(r#"{"reason":"#).is_err());
    }
}
