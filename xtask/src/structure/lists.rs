//! One list each: of outcomes, timers, tallies, maps, hooks, modes, features and configuration keys.
//!
//! Each is written in one place, and everything else is derived from it. A second list is an enum, a
//! structure, an array or a table of strings that repeats most of the words of one. A `match` over a
//! list's own variants is none: the compiler completes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ExprArray, ExprMatch, Fields, Item, Lit, Macro, Pat,
    visit::{self, Visit},
};

use super::source::is_for_tests;
use crate::workspace;

/// Where lists may be, and where second ones are looked for. The reference tells the policy a second
/// time on purpose.
const CRATES: [&str; 4] = [
    "guard-common",
    "guard-ebpf",
    "guard-model",
    "guard-userspace",
];

/// How a list is written.
#[derive(Clone, Copy)]
enum Form {
    /// As entries of calls of this macro, each of which holds a string.
    Macro(&'static str),
    /// As names of BPF maps.
    Maps,
}

/// A list that there is once.
struct List {
    name: &'static str,
    home: &'static str,
    form: Form,
    /// Files that have to name its entries once more, which the compiler compares.
    also: &'static [&'static str],
}

const LISTS: &[List] = &[
    List {
        name: "outcomes",
        home: "guard-common/src/outcome.rs",
        form: Form::Macro("outcomes"),
        also: &[],
    },
    List {
        name: "tallies",
        home: "guard-common/src/outcome.rs",
        form: Form::Macro("tallies"),
        also: &[],
    },
    List {
        name: "timers",
        home: "guard-common/src/flow/timer.rs",
        form: Form::Macro("timers"),
        also: &[],
    },
    List {
        name: "maps",
        home: "guard-ebpf/src/maps.rs",
        form: Form::Maps,
        // What the daemon holds open, each by the type that it writes it with.
        also: &["guard-userspace/src/bpf/maps.rs"],
    },
    List {
        name: "hooks and XDP modes",
        home: "guard-userspace/src/host/hooks.rs",
        form: Form::Macro("hooks"),
        also: &[],
    },
    List {
        name: "pinned links",
        home: "guard-userspace/src/bpf/pins.rs",
        form: Form::Macro("links"),
        also: &[],
    },
    List {
        name: "features",
        home: "guard-userspace/src/host/features.rs",
        form: Form::Macro("features"),
        also: &[],
    },
    List {
        name: "configuration keys",
        home: "guard-userspace/src/config.rs",
        form: Form::Macro("settings"),
        // What one source says about each: its type there, and its help.
        also: &["guard-userspace/src/config/layer.rs"],
    },
];

/// Words that are compared: `tcp-syn`, `tcp_syn` and `TcpSyn` are one.
type Words = BTreeSet<String>;

fn plain(word: &str) -> String {
    word.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

fn text(literal: &Lit) -> Option<String> {
    match literal {
        Lit::Str(text) => Some(text.value()),
        _ => None,
    }
}

/// Finds what looks like a list.
#[derive(Default)]
struct Listings {
    /// Each with the words in it.
    found: Vec<Words>,
    /// Calls of macros, and what stands in them.
    macros: Vec<(String, TokenStream)>,
    maps: Words,
}

impl Listings {
    fn of(text: &str) -> Self {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{error}"));
        let mut listings = Self::default();
        listings.visit_file(&parsed);

        listings
    }

    fn add(&mut self, words: impl IntoIterator<Item = String>) {
        self.found
            .push(words.into_iter().map(|word| plain(&word)).collect());
    }

    /// The words of a list, each entry by its name and by its string.
    fn words(&self, form: Form) -> Vec<Words> {
        match form {
            Form::Maps => vec![self.maps.clone()],
            Form::Macro(name) => {
                let calls = self.macros.iter().filter(|(called, _)| called == name);
                calls.flat_map(|(_, tokens)| entries(tokens)).collect()
            }
        }
    }
}

/// The first names of a macro's entries, and their first strings.
fn entries(tokens: &TokenStream) -> [Words; 2] {
    let mut words = [Words::new(), Words::new()];
    let mut entry: [Option<String>; 2] = [None, None];
    let mut is_attribute = false;
    for token in tokens.clone() {
        match token {
            TokenTree::Punct(point) if point.as_char() == ';' => {
                if let [Some(name), Some(string)] = std::mem::take(&mut entry) {
                    words[0].insert(plain(&name));
                    words[1].insert(plain(&string));
                }
            }
            TokenTree::Punct(point) => is_attribute = point.as_char() == '#',
            TokenTree::Group(_) if is_attribute => is_attribute = false,
            TokenTree::Ident(name) => {
                entry[0].get_or_insert_with(|| name.to_string());
            }
            TokenTree::Literal(literal) => {
                if let Some(string) = text(&Lit::new(literal)) {
                    entry[1].get_or_insert(string);
                }
            }
            TokenTree::Group(_) => {}
        }
    }

    words
}

fn strings(tokens: TokenStream, found: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Literal(literal) => found.extend(text(&Lit::new(literal))),
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

/// The words of one element of an array: strings, and the last names of paths.
fn element(expression: &Expr, found: &mut Vec<String>) {
    match expression {
        Expr::Lit(literal) => found.extend(text(&literal.lit)),
        Expr::Path(path) => {
            let last = path.path.segments.last();
            found.extend(last.map(|segment| segment.ident.to_string()));
        }
        Expr::Tuple(tuple) => tuple.elems.iter().for_each(|one| element(one, found)),
        Expr::Reference(reference) => element(&reference.expr, found),
        Expr::Struct(made) => made.fields.iter().for_each(|one| element(&one.expr, found)),
        _ => {}
    }
}

fn pattern(pattern: &Pat, found: &mut Vec<String>) {
    match pattern {
        Pat::Lit(literal) => found.extend(text(&literal.lit)),
        Pat::Or(either) => either
            .cases
            .iter()
            .for_each(|one| self::pattern(one, found)),
        Pat::TupleStruct(inside) => inside
            .elems
            .iter()
            .for_each(|one| self::pattern(one, found)),
        _ => {}
    }
}

fn map_name(attributes: &[Attribute]) -> Option<String> {
    let declared = attributes
        .iter()
        .find(|attribute| attribute.path().is_ident("btf_map"))?;
    let mut found = Vec::new();
    strings(
        declared.meta.require_list().ok()?.tokens.clone(),
        &mut found,
    );

    found.pop()
}

impl<'a> Visit<'a> for Listings {
    fn visit_item(&mut self, item: &'a Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {}
            Item::Fn(function) if is_for_tests(&function.attrs) => {}
            Item::Enum(item) => {
                let variants = item.variants.iter();
                let names: Vec<_> = variants.map(|variant| variant.ident.to_string()).collect();
                self.add(names);
            }
            Item::Struct(item) => {
                if let Fields::Named(fields) = &item.fields {
                    let names = fields.named.iter().filter_map(|field| field.ident.as_ref());
                    let names: Vec<_> = names.map(ToString::to_string).collect();
                    self.add(names);
                }
            }
            Item::Static(item) => {
                self.maps
                    .extend(map_name(&item.attrs).map(|name| plain(&name)));
                visit::visit_item_static(self, item);
            }
            Item::Macro(item) => {
                let name = item.mac.path.segments.last();
                if let Some(name) = name.filter(|name| name.ident != "macro_rules") {
                    let name = name.ident.to_string();
                    self.macros.push((name, item.mac.tokens.clone()));
                }
            }
            item => visit::visit_item(self, item),
        }
    }

    fn visit_expr_array(&mut self, array: &'a ExprArray) {
        let mut found = Vec::new();
        array.elems.iter().for_each(|one| element(one, &mut found));
        self.add(found);
        visit::visit_expr_array(self, array);
    }

    fn visit_expr_match(&mut self, choice: &'a ExprMatch) {
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for arm in &choice.arms {
            pattern(&arm.pat, &mut asked);
            if let Expr::Lit(literal) = &*arm.body {
                answered.extend(text(&literal.lit));
            }
        }
        self.add(asked);
        self.add(answered);
        visit::visit_expr_match(self, choice);
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        let mut found = Vec::new();
        strings(call.tokens.clone(), &mut found);
        self.add(found);
        if let Ok(elements) = call
            .parse_body_with(syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated)
        {
            let mut found = Vec::new();
            elements.iter().for_each(|one| element(one, &mut found));
            self.add(found);
        }
    }
}

/// Whether some of these words are a list of `all`, once more.
fn repeats(all: &Words, some: &Words) -> bool {
    let enough = if all.len() <= 3 {
        all.len()
    } else {
        all.len() / 2 + 1
    };

    all.len() > 1 && all.intersection(some).count() >= enough
}

/// Files with a second list, by what it is a list of.
fn second_lists(files: &BTreeMap<PathBuf, Listings>) -> Vec<String> {
    let mut second = Vec::new();
    for list in LISTS {
        let words = files[Path::new(list.home)].words(list.form);
        assert!(
            words.iter().any(|words| words.len() > 1),
            "{}: no list of {}",
            list.home,
            list.name
        );
        let is_second = |listings: &Listings| {
            let mut found = listings.found.iter();
            found.any(|some| words.iter().any(|all| repeats(all, some)))
        };
        for (path, listings) in files {
            let may = list.also.iter().any(|also| Path::new(also) == path);
            if !may && is_second(listings) {
                second.push(format!("{}: {}", list.name, path.display()));
            }
        }
    }

    second
}

/// What the sources of the crates hold, but for their tests.
fn sources() -> BTreeMap<PathBuf, Listings> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<PathBuf> = CRATES
        .iter()
        .map(|name| Path::new(name).join("src"))
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace::root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if is_test {
                continue;
            } else if entry.path().is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(entry.path()).unwrap();
                files.insert(path, Listings::of(&text));
            }
        }
    }

    files
}

#[test]
fn every_list_is_written_once() {
    let second = second_lists(&sources());
    assert!(
        second.is_empty(),
        "lists that are written again: {second:#?}"
    );
}

#[test]
fn a_second_list_is_found() {
    let planted = Path::new("guard-userspace/src/planted.rs");
    let table = [
        (
            "outcomes",
            "const O: [&str; 12] = [\"not_ip\", \"vlan_depth\", \"header_depth\", \"malformed\", \"later_fragment\", \"fragment_denied\", \"icmp_info\", \"icmp_outside\", \"other_protocol\", \"outside_range\", \"known_flow\", \"icmp_related\", \"rescued\", \"not_local\", \"exempt\", \"trusted\", \"no_flow\", \"icmp_unrelated\"];",
        ),
        (
            "tallies",
            "pub struct T { rescued_absent: u64, rescued_expired: u64, would_drop_connected: u64 }",
        ),
        (
            "timers",
            "pub enum T { TcpSyn, TcpEstablished, TcpTransitory, Udp, Dns, Group }",
        ),
        (
            "maps",
            "fn f() { g(vec![\"flows_tcp4\", \"flows_udp4\", \"flows_tcp6\", \"flows_udp6\", \"state\", \"devices\", \"counters\", \"refused\", \"tallies\", \"local\", \"trusted\"]) }",
        ),
        (
            "hooks and XDP modes",
            "pub enum Attached { Native, Generic, Offload }",
        ),
        (
            "hooks and XDP modes",
            "fn f(t: &str) -> Option<H> { match t { \"tcx\" => Some(H::A), \"clsact\" => Some(H::B), _ => None } }",
        ),
        (
            "pinned links",
            "const H: [Hook; 3] = [Hook::Xdp, Hook::EgressLast, Hook::Egress];",
        ),
        (
            "features",
            "pub struct F { tcx: bool, xdp_frags: bool, driver_xdp: bool, take_element: bool, sock_diag: bool }",
        ),
        (
            "configuration keys",
            "const K: [(&str, bool); 13] = [(\"iface\", true), (\"egress-iface\", true), (\"mode\", true), (\"xdp-mode\", true), (\"egress-hook\", true), (\"allow-filter-in-front\", true), (\"range\", true), (\"max-flows\", true), (\"expose\", true), (\"trust\", true), (\"listeners\", true), (\"udp-filter\", true), (\"no-rescue\", true)];",
        ),
    ];
    let mut files = sources();
    for (name, text) in table {
        files.insert(planted.to_owned(), Listings::of(text));
        let second = second_lists(&files);
        let expected = format!("{name}: {}", planted.display());
        assert!(second.contains(&expected), "{text}: {second:?}");
    }
    let harmless = "fn f(h: XdpHook) -> bool { match h { XdpHook::Native => true, XdpHook::Generic => false } } \
        #[cfg(test)] mod tests { enum E { Native, Generic } }";
    files.insert(planted.to_owned(), Listings::of(harmless));
    assert_eq!(second_lists(&files), [""; 0]);
}
