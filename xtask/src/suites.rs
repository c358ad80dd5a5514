//! The test executables, compiled at one go.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build::{Built, OBJECT_VARIABLE};
use crate::{cargo, process};

/// The package whose test executables need root.
const SUITES: &str = "guard-tests";
/// Measures; the short form of it is part of what is tested.
const BENCH: &str = "guard-bench";

/// Names the binary under test to the suites.
pub const BINARY_VARIABLE: &str = "PORTGUARD_BIN";

/// One test executable.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suite {
    pub name: String,
    pub package: String,
    pub executable: PathBuf,
    /// The folder of its package, in which cargo would run it.
    pub folder: PathBuf,
}

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Compiled {
    /// Unit tests, which need no privileges.
    pub units: Vec<Suite>,
    /// What is to run as root.
    pub suites: Vec<Suite>,
}

/// Compiles everything there is to test but xtask itself, as the caller.
///
/// At one go, because cargo gives each selection of packages features of its own, and compiles
/// anew what another selection has compiled already.
pub fn compile(built: &Built) -> Result<Compiled> {
    let mut compile = selected("build");
    compile
        .args(["--tests", "--bin", BENCH])
        .arg("--message-format=json-render-diagnostics")
        .env(OBJECT_VARIABLE, &built.object)
        .env(BINARY_VARIABLE, &built.binary)
        .stdin(Stdio::null());
    let messages = process::output(&mut compile).context("the suites were not compiled")?;
    let (suites, units): (Vec<Suite>, Vec<Suite>) = parse(&messages)?
        .into_iter()
        .partition(|suite| suite.package == SUITES);
    ensure!(
        !suites.is_empty(),
        "package {SUITES} has no suites: nothing was tested"
    );

    Ok(Compiled { units, suites })
}

/// A call of cargo that selects just the packages that [`compile`] does.
pub fn selected(subcommand: &str) -> Command {
    let mut command = cargo::host(subcommand);
    command.args(["--workspace", "--exclude", "xtask"]);
    command
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
        package: package(message["package_id"].as_str()?).to_owned(),
        executable: message["executable"].as_str()?.into(),
        folder: Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .to_path_buf(),
    })
}

/// The name in the id of a package: `path+file:///src/bench#guard-bench@0.1.0`, or without a name
/// where that is the folder's, `path+file:///src/guard-common#0.1.0`.
fn package(id: &str) -> &str {
    let (path, fragment) = id.split_once('#').unwrap_or((id, ""));
    let folder = path.rsplit('/').next().unwrap_or(path);
    fragment.split_once('@').map_or(folder, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARTIFACT: &str = r#"{"reason":"compiler-artifact","package_id":"path+file:///src/tests#guard-tests@0.1.0","manifest_path":"/src/tests/Cargo.toml","target":{"kind":["test"],"name":"verdicts"},"profile":{"test":true},"executable":"/target/debug/deps/verdicts-1"}"#;

    #[test]
    fn a_test_executable_is_a_suite() {
        let suites = parse(ARTIFACT).unwrap();
        assert_eq!(
            suites,
            [Suite {
                name: "verdicts".into(),
                package: "guard-tests".into(),
                executable: "/target/debug/deps/verdicts-1".into(),
                folder: "/src/tests".into(),
            }],
        );
    }

    #[test]
    fn a_package_may_be_named_by_its_folder() {
        assert_eq!(
            package("path+file:///src/guard-common#0.1.0"),
            "guard-common"
        );
        assert_eq!(
            package("path+file:///src/tests#guard-tests@0.1.0"),
            "guard-tests"
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
