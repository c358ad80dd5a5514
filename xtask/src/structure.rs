//! The module graph of the crates: arrows point to lower layers alone, and nothing is a circle.
//!
//! An arrow is a path in the code, `use` or not, that leads to another module. Where a module hands
//! on what another one defines, the arrow goes to the latter. Code for tests is left out: it may use
//! everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Ident, Item, ItemImpl, ItemUse, Macro, Type, UseTree, Visibility,
    visit::{self, Visit},
};

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
            "views",
            "api",
            "daemon",
            "cli",
            "fuzz_targets",
        ],
        split: &[
            "bpf::maps::Maps",
            "bpf::maps::state::StateMemory",
            "daemon::event_loop::Daemon",
            "guard::lifecycle::Guard",
        ],
    },
];

/// A module by its path from the root of the crate: `["host", "range"]`.
type Module = Vec<String>;

/// What the source of one module says.
#[derive(Default)]
struct Source {
    /// Where it is, for messages.
    file: PathBuf,
    /// Names of the items that it defines.
    items: BTreeSet<String>,
    /// What it imports: the name here, and the path.
    imports: BTreeMap<String, Module>,
    /// Every path that it mentions, as it is written, with the inline modules around it.
    paths: Vec<(Module, Vec<String>)>,
    /// Types for which it has an `impl` block without a trait.
    impls: BTreeSet<String>,
}

/// A crate as its sources show it.
#[derive(Default)]
struct Graph {
    modules: BTreeMap<Module, Source>,
    /// Which modules use which.
    arrows: BTreeSet<(Module, Module)>,
}

impl Graph {
    /// Reads a crate from its root. `read` returns the text of a file, if there is one.
    fn read(read: &dyn Fn(&Path) -> Option<String>) -> Self {
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
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Reader {
            source: Source {
                file,
                ..Source::default()
            },
            inline: Vec::new(),
            children: Vec::new(),
        };
        reader.visit_file(&parsed);
        self.modules.insert(module.clone(), reader.source);
        for child in reader.children {
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
    fn upward(&self, layers: &[&str]) -> Vec<String> {
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
    fn circles(&self) -> Vec<String> {
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
    fn split(&self) -> Vec<String> {
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

/// Whether something is compiled for tests or the fuzzer only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Ok(list) = attribute.meta.require_list() else {
            return false;
        };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg")
            && !condition.starts_with("not")
            && condition
                .split(|letter: char| !letter.is_alphanumeric())
                .any(|word| word == "test")
    })
}

/// Reads one file.
struct Reader {
    source: Source,
    inline: Module,
    children: Vec<String>,
}

impl Reader {
    fn note(&mut self, path: Vec<String>) {
        self.source.paths.push((self.inline.clone(), path));
    }

    fn note_item(&mut self, name: &Ident) {
        if self.inline.is_empty() {
            self.source.items.insert(name.to_string());
        }
    }

    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
            UseTree::Name(name) if name.ident == "self" => {
                let alias = before.last().cloned().unwrap_or_default();
                self.imported(alias, before.to_vec());
            }
            UseTree::Name(name) => self.imported(name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(rename) => {
                self.imported(rename.rename.to_string(), with(&rename.ident));
            }
            UseTree::Glob(_) => self.note(before.to_vec()),
        }
    }

    fn imported(&mut self, name: String, path: Vec<String>) {
        self.note(path.clone());
        if self.inline.is_empty() {
            self.source.imports.insert(name, path);
        }
    }

    /// Paths among tokens that are no Rust yet, as in `ensure!(crate::range::fits(port))`.
    fn note_tokens(&mut self, tokens: TokenStream) {
        let mut path = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.note_tokens_path(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(point) if point.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.note_tokens_path(&mut path);
                    self.note_tokens(group.stream());
                    colons = 0;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.note_tokens_path(&mut path);
                    colons = 0;
                }
            }
        }
        self.note_tokens_path(&mut path);
    }

    fn note_tokens_path(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.note(std::mem::take(path));
        }
        path.clear();
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        let (attributes, name) = match item {
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            _ => return visit::visit_item(self, item),
        };
        if is_for_tests(attributes) {
            return;
        }
        if let Some(name) = name {
            self.note_item(name);
        }
        match item {
            Item::Mod(module) => {
                let name = module.ident.to_string();
                match &module.content {
                    None if self.inline.is_empty() => self.children.push(name),
                    None => panic!(
                        "{}: a file inside of an inline module",
                        self.source.file.display()
                    ),
                    Some((_, items)) => {
                        self.inline.push(name);
                        for item in items {
                            self.visit_item(item);
                        }
                        self.inline.pop();
                    }
                }
            }
            item => visit::visit_item(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_item_impl(&mut self, item: &'a ItemImpl) {
        if item.trait_.is_none()
            && let Type::Path(of) = &*item.self_ty
            && let Some(name) =
                of.path
                    .get_ident()
                    .or(of.path.segments.last().map(|last| &last.ident))
        {
            self.source.impls.insert(name.to_string());
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter();
        self.note(segments.map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, made: &'a Macro) {
        self.note_tokens(made.tokens.clone());
        visit::visit_macro(self, made);
    }

    // `pub(in ..)` is no use of anything.
    fn visit_visibility(&mut self, _: &'a Visibility) {}
}

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
