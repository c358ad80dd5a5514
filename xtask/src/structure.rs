//! The module graph of the crates: arrows point to lower layers alone, and nothing is a circle.
//!
//! An arrow is a path in the code, `use` or not, that leads to another module. Where a module hands
//! on what another one defines, the arrow goes to the latter. Code for tests is left out: it may use
//! everything.

mod graph;
mod lists;
mod source;

use std::{collections::BTreeSet, fs};

use self::graph::Graph;
use crate::workspace;

/// A crate, and the layers that it has.
struct Layered {
    /// Its folder in the checkout.
    name: &'static str,
    /// Its layers, from the lowest to the highest.
    layers: &'static [&'static str],
    /// Types with methods in several files, as many as there still are.
    split: &'static [&'static str],
}

/// Every crate that has layers. ARCHITECTURE.md shows the same, see the test.
const CRATES: &[Layered] = &[
    Layered {
        name: "guard-common",
        layers: &["outcome", "frame", "flow", "ports", "abi", "policy"],
        split: &[],
    },
    Layered {
        name: "guard-model",
        layers: &["frames", "setup", "memory"],
        split: &[],
    },
    Layered {
        name: "guard-userspace",
        layers: &[
            "base",
            "host",
            "config",
            "bpf",
            "guard",
            "api",
            "daemon",
            "cli",
            "fuzz_targets",
        ],
        split: &["guard::lifecycle::Guard"],
    },
];

fn graph_of(name: &str) -> Graph {
    let src = workspace::root().join(name).join("src");

    Graph::read(&|file| fs::read_to_string(src.join(file)).ok())
}

#[test]
fn arrows_point_down_and_nothing_is_a_circle() {
    for layered in CRATES {
        let graph = graph_of(layered.name);
        let mut wrong: BTreeSet<_> = graph.upward(layered.layers).into_iter().collect();
        wrong.extend(graph.circles());
        assert!(wrong.is_empty(), "{}: {wrong:#?}", layered.name);
    }
}

#[test]
fn methods_of_a_type_are_in_one_file() {
    for layered in CRATES {
        let split = graph_of(layered.name).split();
        assert_eq!(split, layered.split, "{}", layered.name);
    }
}

#[test]
fn the_layers_are_those_that_the_architecture_shows() {
    let text = fs::read_to_string(workspace::root().join("ARCHITECTURE.md")).unwrap();
    for layered in CRATES {
        let layers: Vec<_> = layered
            .layers
            .iter()
            .map(|layer| format!("`{layer}`"))
            .collect();
        let line = format!("`{}`: {}", layered.name, layers.join(", "));
        assert!(
            text.contains(&line),
            "ARCHITECTURE.md does not say {line:?}"
        );
    }
}
