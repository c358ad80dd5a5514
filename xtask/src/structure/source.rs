//! What the source of one module says: what it defines, imports and mentions.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Ident, Item, ItemImpl, ItemUse, Macro, Type, UseTree, Visibility,
    visit::{self, Visit},
};

/// A module by its path from the root of the crate: `["host", "range"]`.
pub type Module = Vec<String>;

/// What the source of one module says.
#[derive(Default)]
pub struct Source {
    /// Where it is, for messages.
    pub file: PathBuf,
    /// Names of the items that it defines.
    pub items: BTreeSet<String>,
    /// What it imports: the name here, and the path.
    pub imports: BTreeMap<String, Module>,
    /// Every path that it mentions, as it is written, with the inline modules around it.
    pub paths: Vec<(Module, Vec<String>)>,
    /// Types for which it has an `impl` block without a trait.
    pub impls: BTreeSet<String>,
}

impl Source {
    /// Reads the text of a file, and returns what it says and the names of the modules that are files
    /// below it.
    pub fn read(file: PathBuf, text: &str) -> (Self, Vec<String>) {
        let parsed =
            syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Reader {
            source: Self {
                file,
                ..Self::default()
            },
            inline: Vec::new(),
            children: Vec::new(),
        };
        reader.visit_file(&parsed);

        (reader.source, reader.children)
    }
}

/// Whether something is compiled for tests or the fuzzer only.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
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
