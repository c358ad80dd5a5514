//! What the project depends on: under which licences, from where, and whether it is used.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::build::Programs;
use crate::process::{self, announce};
use crate::{cargo, workspace};

/// Licences that what is built into the binary, the programs or the tests may be under.
const LICENCES: [&str; 7] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "MIT",
    "NCSA",
    "Unicode-3.0",
    "Zlib",
];
/// Where every dependency must come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// What no line of ours names, and why it is needed all the same.
const UNNAMED: [(&str, &str, &str); 1] = [(
    "fuzz",
    "tokio",
    "has the features that the tests of guard-userspace ask for",
)];

/// Checks the dependencies of all workspaces.
///
/// # Errors
/// When one has an unknown licence or source, or is not used.
pub fn check() -> Result<()> {
    announce("licences, sources and use of dependencies");
    let mut complaints = BTreeSet::new();
    let programs = Programs::ALL.map(Programs::manifest);
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml"]
        .into_iter()
        .chain(programs)
    {
        let mut metadata = cargo::plain();
        metadata
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
            .args(["--manifest-path", manifest]);
        let metadata: Value = serde_json::from_str(&process::output(&mut metadata)?)
            .with_context(|| format!("cargo's description of {manifest}"))?;
        let packages = metadata["packages"].as_array();
        for package in packages.context("a list of packages")? {
            if package["source"].is_null() {
                complaints.extend(unused(package)?);
            } else {
                complaints.extend(package_complaint(package));
            }
        }
    }
    let complaints: Vec<_> = complaints.into_iter().collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}

/// What is wrong with where a package of others comes from, or with its licence.
fn package_complaint(package: &Value) -> Option<String> {
    let (name, source) = (&package["name"], &package["source"]);
    if source.as_str() != Some(REGISTRY) {
        return Some(format!("{name} comes from {source}"));
    }
    let licence = package["license"].as_str().unwrap_or("no known licence");
    (!is_permitted(licence)).then(|| format!("{name} is under {licence}"))
}

/// Whether a licence expression leaves a choice that is permitted.
fn is_permitted(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    if let Some((before, group, after)) = parenthesised(&expression) {
        let known = if is_permitted(group) {
            "MIT"
        } else {
            "unknown"
        };
        return is_permitted(&format!("{before}{known}{after}"));
    }

    expression.split(" OR ").any(|choice| {
        choice
            .split(" AND ")
            .all(|licence| LICENCES.contains(&licence.trim()))
    })
}

/// The innermost group in parentheses, with what stands before and after it.
fn parenthesised(expression: &str) -> Option<(&str, &str, &str)> {
    let (before, after) = expression.split_once(')')?;
    let (before, group) = before.rsplit_once('(')?;

    Some((before, group, after))
}

/// The dependencies that a package of ours does not name anywhere in its sources.
fn unused(package: &Value) -> Result<Vec<String>> {
    let manifest = package["manifest_path"].as_str();
    let folder = Path::new(manifest.context("a path")?).parent();
    let folder = folder.context("a folder")?;
    let place = folder.strip_prefix(workspace::root()).unwrap_or(folder);
    let place = place.display().to_string();
    let sources = sources(folder)?;
    let dependencies = package["dependencies"].as_array();
    let names: BTreeMap<String, &Value> = dependencies
        .context("a list of dependencies")?
        .iter()
        .filter_map(|dependency| {
            let name = dependency["rename"]
                .as_str()
                .or(dependency["name"].as_str());
            Some((name?.to_owned(), dependency))
        })
        .collect();

    Ok(names
        .into_keys()
        .filter(|name| {
            let unnamed = UNNAMED
                .iter()
                .any(|(package, dependency, _)| *package == place && dependency == name);
            !unnamed && !is_named(&sources, &name.replace('-', "_"))
        })
        .map(|name| format!("{place} does not use {name}"))
        .collect())
}

/// Whether a path, a `use` or a macro begins with this name.
fn is_named(sources: &str, name: &str) -> bool {
    sources.match_indices(name).any(|(at, _)| {
        let before = sources[..at].chars().next_back();
        let after = &sources[at + name.len()..];
        let is_whole = before.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_');
        let is_path = ["::", ";", " as ", "!", ", ", "}", ",\n"]
            .iter()
            .any(|next| after.starts_with(next));
        is_whole && is_path
    })
}

/// Every source below a folder but those of other packages, as one text without comments.
fn sources(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let is_other = path.join("Cargo.toml").exists() || path.ends_with("target");
        if path.is_dir() && !is_other {
            text += &sources(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)?;
            let code = source
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            text.extend(code.flat_map(|line| [line, "\n"]));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_read_as_choices() {
        // expression, whether it is permitted
        let table = [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("AGPL-3.0", false),
            ("AGPL-3.0 OR MIT", true),
            ("MIT AND AGPL-3.0", false),
            ("(MIT OR AGPL-3.0) AND Unicode-3.0", true),
            ("MIT AND (AGPL-3.0 AND Zlib)", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("no known licence", false),
        ];
        for (expression, permitted) in table {
            assert_eq!(is_permitted(expression), permitted, "{expression}");
        }
    }

    #[test]
    fn names_are_told_from_parts_of_others() {
        let source = "use one::Two;\nthree_four!();\nlet five = six_seven::eight();\n";
        for name in ["one", "three_four", "six_seven"] {
            assert!(is_named(source, name), "{name}");
        }
        for name in ["seven", "three", "nine", "on"] {
            assert!(!is_named(source, name), "{name}");
        }
    }
}
