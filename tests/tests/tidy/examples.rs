//! What applications see of the client library has an example, which the compiler checks.
//!
//! The surface is what `client/src/lib.rs` exports at its root: its types and traits, and the public
//! functions of those types. Exempt by rule: what has no use of its own to show (fields, variants,
//! trait implementations, type aliases), errors, which are shown where they are returned, and the
//! blocking twins that [`TWINS`] makes, each of which links to the asynchronous one.

use std::collections::BTreeSet;

use syn::spanned::Spanned;

use crate::source::{Finding, Source};

/// The crate's root.
const ROOT: &str = "client/src/lib.rs";
/// The file of the blocking twins, all of which but for their constructors are made by a macro.
const TWINS: &str = "client/src/application/blocking.rs";
/// Where single-threaded shells have the names of applications' handles.
const SHELLS: &[&str] = &[
    "client/src/admin/",
    "client/src/consumer/mod.rs",
    "client/src/producer/mod.rs",
    "client/src/producer/delivery.rs",
    "client/src/producer/transacting.rs",
];
/// Names of both a handle and a shell.
const HANDLES: &[&str] = &["Admin", "Consumer", "Delivery", "Producer"];

/// Items without an example.
pub(crate) fn missing(sources: &[Source]) -> Vec<Finding> {
    let root = sources.iter().find(|source| source.path == ROOT);
    let root = root.expect("the client library has a root");
    let surface = exported(&root.file);
    assert!(surface.contains("Consumer"), "the root exports something");
    let files = sources.iter().filter(|source| {
        let is_client = source.path.starts_with("client/src/");
        is_client && source.path != ROOT && !source.path.ends_with("_test.rs")
    });
    files
        .flat_map(|source| missing_in(source, &surface))
        .collect()
}

/// The names that the root exports by `pub use`, outside of its modules.
fn exported(root: &syn::File) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for item in &root.items {
        if let syn::Item::Use(item) = item
            && is_public(&item.vis)
        {
            leaves(&item.tree, &mut names);
        }
    }
    names
}

fn leaves(tree: &syn::UseTree, names: &mut BTreeSet<String>) {
    match tree {
        syn::UseTree::Path(path) => leaves(&path.tree, names),
        syn::UseTree::Group(group) => group.items.iter().for_each(|tree| leaves(tree, names)),
        syn::UseTree::Name(name) => _ = names.insert(name.ident.to_string()),
        syn::UseTree::Rename(name) => _ = names.insert(name.rename.to_string()),
        syn::UseTree::Glob(_) => {}
    }
}

fn missing_in(source: &Source, surface: &BTreeSet<String>) -> Vec<Finding> {
    let is_shell = SHELLS.iter().any(|shell| source.path.starts_with(shell));
    let counts = |name: &str| {
        let is_handle = HANDLES.contains(&name);
        surface.contains(name) && !(is_shell && is_handle)
    };
    let is_shown =
        |visibility: &syn::Visibility, name: &syn::Ident, attributes: &[syn::Attribute]| {
            is_public(visibility) && counts(&name.to_string()) && !is_error(attributes)
        };
    let mut findings = Vec::new();
    let mut demand = |name: String, attributes: &[syn::Attribute], line: usize| {
        if !has_example(attributes) {
            let message = format!("`{name}` is what applications see: give it an example");
            findings.push(source.finding(line, message));
        }
    };
    for item in &source.file.items {
        let line = item.span().start().line;
        match item {
            syn::Item::Struct(item) if is_shown(&item.vis, &item.ident, &item.attrs) => {
                demand(item.ident.to_string(), &item.attrs, line);
            }
            syn::Item::Enum(item) if is_shown(&item.vis, &item.ident, &item.attrs) => {
                demand(item.ident.to_string(), &item.attrs, line);
            }
            syn::Item::Trait(item) if counts(&item.ident.to_string()) => {
                demand(item.ident.to_string(), &item.attrs, line);
            }
            syn::Item::Fn(item) if counts(&item.sig.ident.to_string()) => {
                demand(item.sig.ident.to_string(), &item.attrs, line);
            }
            syn::Item::Impl(item) if item.trait_.is_none() => {
                let name = implemented(item);
                if counts(&name) && !name.ends_with("Error") && source.path != TWINS {
                    for (function, attributes, line) in public_functions(item) {
                        demand(format!("{name}::{function}"), attributes, line);
                    }
                }
            }
            _ => {}
        }
    }
    findings
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn implemented(item: &syn::ItemImpl) -> String {
    match &*item.self_ty {
        syn::Type::Path(path) => match path.path.segments.last() {
            Some(segment) => segment.ident.to_string(),
            None => String::new(),
        },
        _ => String::new(),
    }
}

fn public_functions(
    item: &syn::ItemImpl,
) -> impl Iterator<Item = (String, &[syn::Attribute], usize)> {
    item.items.iter().filter_map(|item| match item {
        syn::ImplItem::Fn(function) if is_public(&function.vis) => {
            let name = function.sig.ident.to_string();
            let line = function.sig.span().start().line;
            Some((name, &function.attrs[..], line))
        }
        _ => None,
    })
}

/// Whether it is an error, by its derived trait.
fn is_error(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = match &attribute.meta {
            syn::Meta::List(list) if list.path.is_ident("derive") => list.tokens.to_string(),
            _ => return false,
        };
        tokens.split(", ").any(|derived| derived.trim() == "Error")
    })
}

fn has_example(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            syn::Expr::Lit(literal) => match &literal.lit {
                syn::Lit::Str(text) => text.value().trim().starts_with("```"),
                _ => false,
            },
            _ => false,
        },
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let root = Source::parse(ROOT, "pub use a::{Consumer, Place, Failed}; use a::Hidden;");
        let file = Source::parse(path, text);
        let findings = missing(&[root, file]);
        findings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_root_exports_needs_an_example() {
        let path = "client/src/a.rs";
        let bare = "pub struct Place; impl Place { pub fn go(&self) {} fn hidden(&self) {} }";
        let findings = found(path, bare);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[1].contains("Place::go"));
        let shown = "/// ```\n/// ```\npub struct Place; impl Place {\n/// ```no_run\n/// ```\npub fn go(&self) {} }";
        assert!(found(path, shown).is_empty());
    }

    #[test]
    fn what_it_does_not_export_and_what_the_rule_exempts_needs_none() {
        let path = "client/src/a.rs";
        assert!(found(path, "pub struct Hidden; pub enum Other { A }").is_empty());
        assert!(found(path, "#[derive(Debug, Error)] pub enum Failed { A }").is_empty());
        assert!(
            found(
                path,
                "impl From<u8> for Place { fn from(_: u8) -> Self { Place } }"
            )
            .is_empty()
        );
        let shell = "client/src/consumer/mod.rs";
        assert!(
            found(
                shell,
                "pub struct Consumer; impl Consumer { pub fn a() {} }"
            )
            .is_empty()
        );
        assert!(!found(path, "pub struct Consumer;").is_empty());
    }
}
