//! The module graph of a crate.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::source::{Module, Source};

/// A crate as its sources show it.
#[derive(Default)]
pub struct Graph {
    modules: BTreeMap<Module, Source>,
    /// Which modules use which.
    arrows: BTreeSet<(Module, Module)>,
}

impl Graph {
    /// Reads a crate from its root. `read` returns the text of a file, if there is one.
    pub fn read(read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut graph = Self::default();
        graph.add(read, Vec::new(), PathBuf::from("lib.rs"), PathBuf::new());
        graph.make_imports_absolute();
        let mut arrows = BTreeSet::new();
        for (module, source) in &graph.modules {
            for (base, path) in &source.paths {
                let inside: Module = [module.as_slice(), base].concat();
                let Some(target) = graph.follow(module, &inside, path) else {
                    continue;
                };
                if target != *module {
                    arrows.insert((module.clone(), target));
                }
            }
        }
        graph.arrows = arrows;

        graph
    }

    fn add(
        &mut self,
        read: &dyn Fn(&Path) -> Option<String>,
        module: Module,
        file: PathBuf,
        folder: PathBuf,
    ) {
        let text = read(&file).unwrap_or_else(|| panic!("{}: no such file", file.display()));
        let (source, children) = Source::read(file, &text);
        self.modules.insert(module.clone(), source);
        for child in children {
            let path = [module.as_slice(), std::slice::from_ref(&child)].concat();
            self.add(
                read,
                path,
                folder.join(format!("{child}.rs")),
                folder.join(child),
            );
        }
    }

    /// Writes imports from the root of the crate on, and forgets those from other crates.
    fn make_imports_absolute(&mut self) {
        let mut all = BTreeMap::new();
        for (module, source) in &mut self.modules {
            all.insert(module.clone(), std::mem::take(&mut source.imports));
        }
        for (module, imports) in all {
            let absolute = imports
                .into_iter()
                .filter_map(|(name, path)| Some((name, self.absolute(&module, &module, &path)?)));
            let absolute = absolute.collect();
            if let Some(source) = self.modules.get_mut(&module) {
                source.imports = absolute;
            }
        }
    }

    /// The module that defines what a path leads to, if that is in this crate.
    fn follow(&self, module: &Module, inside: &Module, path: &[String]) -> Option<Module> {
        let absolute = self.absolute(module, inside, path)?;

        Some(self.resolve(&absolute, 0))
    }

    fn absolute(&self, module: &Module, inside: &Module, path: &[String]) -> Option<Module> {
        let (first, rest) = path.split_first()?;
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let imports = &self.modules[module].imports;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([inside.as_slice(), rest].concat()),
            "super" => {
                let up = inside.len().checked_sub(supers)?;
                Some([&inside[..up], &path[supers..]].concat())
            }
            name => {
                let child = [module.as_slice(), std::slice::from_ref(first)].concat();
                if self.modules.contains_key(&child) {
                    return Some([child.as_slice(), rest].concat());
                }
                let import = imports.get(name)?;
                Some([import.as_slice(), rest].concat())
            }
        }
    }

    /// Follows what modules hand on.
    fn resolve(&self, absolute: &Module, depth: usize) -> Module {
        let mut length = absolute.len();
        while !self.modules.contains_key(&absolute[..length]) {
            length -= 1;
        }
        let (module, rest) = absolute.split_at(length);
        let source = &self.modules[module];
        match rest.first() {
            Some(name) if !source.items.contains(name) && depth < 9 => {
                match source.imports.get(name) {
                    Some(import) => {
                        self.resolve(&[import.as_slice(), &rest[1..]].concat(), depth + 1)
                    }
                    None => module.to_vec(),
                }
            }
            _ => module.to_vec(),
        }
    }

    /// Arrows to a higher layer, and layers that are not declared.
    pub fn upward(&self, layers: &[&str]) -> Vec<String> {
        let height = |module: &Module| {
            let layer = module.first()?;
            Some(layers.iter().position(|declared| declared == layer))
        };
        let mut found = Vec::new();
        for module in self.modules.keys() {
            if height(module) == Some(None) && module.len() == 1 {
                found.push(format!("{} is in no layer", module[0]));
            }
        }
        for (from, to) in &self.arrows {
            if let (Some(Some(low)), Some(Some(high))) = (height(from), height(to))
                && low < high
            {
                found.push(shown(from, to));
            }
        }

        found
    }

    /// Circles among the modules that have the same parent, each with all that is inside of it. One
    /// among layers has an arrow that points up.
    pub fn circles(&self) -> Vec<String> {
        let mut found = Vec::new();
        for parent in self.modules.keys().filter(|parent| !parent.is_empty()) {
            let child = |module: &Module| {
                let inside = module.len() > parent.len() && module.starts_with(parent);
                inside.then(|| module[parent.len()].clone())
            };
            let mut uses = BTreeMap::<String, BTreeSet<String>>::new();
            for (from, to) in &self.arrows {
                if let (Some(from), Some(to)) = (child(from), child(to))
                    && from != to
                {
                    uses.entry(from).or_default().insert(to);
                }
            }
            for members in knots(&uses) {
                let arrows = self.arrows.iter().filter(|(from, to)| {
                    let ends = (child(from), child(to));
                    matches!(ends, (Some(from), Some(to))
                        if from != to && members.contains(&from) && members.contains(&to))
                });
                found.extend(arrows.map(|(from, to)| shown(from, to)));
            }
        }

        found
    }

    /// Types with methods of their own in more than one file.
    pub fn split(&self) -> Vec<String> {
        let mut files = BTreeMap::<(Module, String), BTreeSet<&Path>>::new();
        for (module, source) in &self.modules {
            for name in &source.impls {
                let home = if source.items.contains(name) {
                    module.clone()
                } else if let Some(import) = source.imports.get(name) {
                    self.resolve(import, 0)
                } else {
                    continue;
                };
                files
                    .entry((home, name.clone()))
                    .or_default()
                    .insert(&source.file);
            }
        }

        files
            .into_iter()
            .filter(|(_, files)| files.len() > 1)
            .map(|((home, name), _)| format!("{}::{name}", home.join("::")))
            .collect()
    }
}

fn shown(from: &Module, to: &Module) -> String {
    format!("{} -> {}", from.join("::"), to.join("::"))
}

/// Groups of nodes that reach each other.
fn knots(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<BTreeSet<String>> {
    let reach = |start: &String| {
        let mut found = BTreeSet::new();
        let mut next = vec![start];
        while let Some(node) = next.pop() {
            for other in uses.get(node).into_iter().flatten() {
                if found.insert(other.clone()) {
                    next.push(other);
                }
            }
        }
        found
    };
    let all: BTreeMap<_, _> = uses.keys().map(|node| (node, reach(node))).collect();
    let mut found: Vec<BTreeSet<String>> = Vec::new();
    for (node, reached) in &all {
        if !reached.contains(*node) || found.iter().any(|knot| knot.contains(*node)) {
            continue;
        }
        let back = |other: &&String| {
            all.get(other)
                .is_some_and(|reached| reached.contains(*node))
        };
        found.push(reached.iter().filter(back).cloned().collect());
    }

    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A made-up crate: files and their text.
    fn made_up(files: &[(&str, &str)]) -> Graph {
        Graph::read(&|file| {
            let found = files.iter().find(|(name, _)| Path::new(name) == file);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    const LOW_AND_HIGH: [(&str, &str); 4] = [
        ("lib.rs", "pub mod low; pub mod high;"),
        ("low.rs", "pub mod a; pub mod b;"),
        ("low/b.rs", "use super::a::A; pub struct B(A);"),
        (
            "high.rs",
            "use crate::low::{a::A, b}; pub struct High(A, b::B); impl High {}",
        ),
    ];

    fn planted(text: &'static str) -> Graph {
        made_up(&[LOW_AND_HIGH.as_slice(), &[("low/a.rs", text)]].concat())
    }

    #[test]
    fn a_tree_without_fault_passes() {
        let graph = planted("pub struct A; impl A { fn a(&self) -> Option<Self> { None } }");
        assert_eq!(graph.upward(&["low", "high"]), [""; 0]);
        assert_eq!(graph.circles(), [""; 0]);
        assert_eq!(graph.split(), [""; 0]);
        assert_eq!(graph.arrows.len(), 3, "{:?}", graph.arrows);
    }

    #[test]
    fn planted_arrows_are_found() {
        // the text of the module `low::a`, arrows that point up, and arrows of a circle there
        let up = "low::a -> high";
        let back = ["low::a -> low::b", "low::b -> low::a"];
        let table: [(&str, bool, bool); 9] = [
            ("use crate::high::High; pub struct A;", true, false),
            ("pub struct A(crate::high::High);", true, false),
            (
                "pub struct A; fn f() { super::super::high::f() }",
                true,
                false,
            ),
            (
                "use crate::high; pub struct A; fn f() { high::f() }",
                true,
                false,
            ),
            (
                "pub struct A; fn f() { println!(\"{}\", crate::high::f()) }",
                true,
                false,
            ),
            (
                "pub struct A; mod inner { use super::super::super::high::High; }",
                true,
                false,
            ),
            ("use super::b::B; pub struct A;", false, true),
            ("pub struct A; fn f(b: &super::b::B) {}", false, true),
            (
                "pub struct A; #[cfg(test)] mod tests { use crate::high::High; }",
                false,
                false,
            ),
        ];
        for (text, is_upward, is_circle) in table {
            let graph = planted(text);
            let upward = graph.upward(&["low", "high"]);
            assert_eq!(
                upward.contains(&up.to_owned()),
                is_upward,
                "{text}: {upward:?}"
            );
            let circles = graph.circles();
            assert_eq!(
                back.iter()
                    .all(|arrow| circles.contains(&(*arrow).to_owned())),
                is_circle,
                "{text}: {circles:?}"
            );
        }
    }

    #[test]
    fn arrows_lead_to_what_defines() {
        let mut files = LOW_AND_HIGH.to_vec();
        files[1].1 = "pub mod a; pub mod b; pub use self::b::B;";
        files.push(("low/a.rs", "use super::B; pub struct A;"));
        let circles = made_up(&files).circles();
        assert_eq!(circles, ["low::a -> low::b", "low::b -> low::a"]);
    }

    #[test]
    fn undeclared_layers_and_split_types_are_found() {
        let graph = planted("pub struct A; impl super::b::B { fn b(&self) {} }");
        assert_eq!(graph.upward(&["low"]), ["high is in no layer"]);
        let mut files = LOW_AND_HIGH.to_vec();
        files[2].1 = "use super::a::A; impl A {} pub struct B;";
        files.push(("low/a.rs", "pub struct A; impl A {}"));
        assert_eq!(made_up(&files).split(), ["low::a::A"]);
    }
}
