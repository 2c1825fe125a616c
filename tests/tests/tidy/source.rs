//! What the rules look at: the workspace's files as text, and Rust files as tokens with lines.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit_mut::{self, VisitMut};

/// Paths (a trailing `/` means everything below) that a rule lets pass, each with its reason.
pub(crate) type Exceptions = &'static [(&'static str, &'static str)];

/// Whether `path` is among the exceptions.
pub(crate) fn excepted(path: &str, exceptions: Exceptions) -> bool {
    exceptions.iter().any(|(place, _)| covers(place, path))
}

fn covers(place: &str, path: &str) -> bool {
    place == path || (place.ends_with('/') && path.starts_with(place))
}

/// Exceptions that no file of `paths` needs: they would hide the next offender of that name.
pub(crate) fn stale(exceptions: Exceptions, paths: &[&str]) -> Vec<Finding> {
    let unused = exceptions
        .iter()
        .filter(|(place, _)| !paths.iter().any(|path| covers(place, path)));
    unused
        .map(|(place, _)| Finding::new(place, 1, "an exception that nothing needs: remove it"))
        .collect()
}

/// A broken rule: where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            path: path.to_owned(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// A text file of the workspace; the path is relative to its root.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// Every Rust, TOML and Markdown file of the workspace, sorted by path.
pub(crate) struct Tree {
    root: PathBuf,
    pub(crate) files: Vec<TextFile>,
}

/// What is built or run in the root, and never committed (.gitignore).
const IGNORED: [&str; 2] = ["target", "ringmill-data"];

impl Tree {
    /// Reads the workspace that this test was built from.
    pub(crate) fn load() -> Tree {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut tree = Tree {
            root: root.to_owned(),
            files: Vec::new(),
        };
        for name in tree.top_folders() {
            tree.read_below(&name);
        }
        tree.read_files_of("");
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(tree.files.len() > 10, "no workspace at {}", root.display());
        tree
    }

    /// Names of the folders in the root, but for hidden and ignored ones.
    pub(crate) fn top_folders(&self) -> Vec<String> {
        let mut names = self.names_in("", true);
        names.retain(|name| !name.starts_with('.') && !IGNORED.contains(&name.as_str()));
        names
    }

    fn names_in(&self, folder: &str, folders: bool) -> Vec<String> {
        let entries = fs::read_dir(self.root.join(folder)).unwrap();
        entries
            .map(Result::unwrap)
            .filter(|entry| entry.file_type().unwrap().is_dir() == folders)
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    fn read_below(&mut self, folder: &str) {
        self.read_files_of(folder);
        for name in self.names_in(folder, true) {
            if !name.starts_with('.') && !IGNORED.contains(&name.as_str()) {
                self.read_below(&format!("{folder}/{name}"));
            }
        }
    }

    fn read_files_of(&mut self, folder: &str) {
        for name in self.names_in(folder, false) {
            if [".rs", ".toml", ".md"].iter().any(|e| name.ends_with(e)) {
                let path = Path::new(folder).join(name).to_str().unwrap().to_owned();
                let text = fs::read_to_string(self.root.join(&path)).unwrap();
                self.files.push(TextFile { path, text });
            }
        }
    }

    pub(crate) fn with_ending(&self, ending: &'static str) -> impl Iterator<Item = &TextFile> {
        self.files.iter().filter(move |f| f.path.ends_with(ending))
    }

    /// Every Rust file, parsed.
    pub(crate) fn sources(&self) -> Vec<Source> {
        self.with_ending(".rs")
            .map(|file| Source::parse(&file.path, &file.text))
            .collect()
    }

    /// Paths of the Rust files below a crate's `src`, but for tests beside their subject.
    pub(crate) fn crate_files(&self) -> Vec<&str> {
        self.with_ending(".rs")
            .map(|file| file.path.as_str())
            .filter(|path| path.contains("/src/") && !path.ends_with("_test.rs"))
            // what drives foreign clients is shown as one folder
            .filter(|path| !path.starts_with("tests/conformance/"))
            .collect()
    }

    pub(crate) fn text(&self, path: &str) -> &str {
        match self.files.iter().find(|file| file.path == path) {
            Some(file) => &file.text,
            None => panic!("{path} is missing"),
        }
    }

    pub(crate) fn exists(&self, path: &Path) -> bool {
        self.root.join(path).exists()
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.root.join(path), text).unwrap();
    }
}

/// A Rust file: its text, its syntax, and the tokens that are compiled outside tests.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) file: syn::File,
    /// Empty for files that are test code as a whole.
    pub(crate) product: TokenStream,
}

impl Source {
    pub(crate) fn parse(path: &str, text: &str) -> Source {
        let file = syn::parse_file(text).unwrap_or_else(|error| {
            panic!("{path}:{}: {error}", error.span().start().line);
        });
        let product = if is_test_file(path) {
            TokenStream::new()
        } else {
            let mut product = file.clone();
            WithoutTests.visit_file_mut(&mut product);
            product.into_token_stream()
        };
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            file,
            product,
        }
    }

    pub(crate) fn finding(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding::new(&self.path, line, message)
    }
}

/// Whether the whole file is test code, by its place or name.
pub(crate) fn is_test_file(path: &str) -> bool {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    stem.ends_with("_test") || stem.ends_with("/tests") || path.contains("/tests/")
}

/// Removes what only `cargo test` compiles.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !is_test_item(item));
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut module.content {
            items.retain(|item| !is_test_item(item));
        }
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, block: &mut syn::ItemImpl) {
        block.items.retain(|item| match item {
            syn::ImplItem::Fn(function) => !function.attrs.iter().any(is_test_attribute),
            _ => true,
        });
        visit_mut::visit_item_impl_mut(self, block);
    }
}

fn is_test_item(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(is_test_attribute)
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn is_test_attribute(attribute: &syn::Attribute) -> bool {
    if attribute.path().is_ident("test") {
        return true;
    }
    let syn::Meta::List(list) = &attribute.meta else {
        return false;
    };
    let condition = list.tokens.to_string();
    attribute.path().is_ident("cfg")
        && (condition == "test" || condition.replace(' ', "").starts_with("all(test,"))
}

/// A path as written, with the names of grouped imports spelled out: `use a::{b, c::*}` gives
/// `a::b` and `a::c::*`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WrittenPath {
    pub(crate) names: Vec<String>,
    pub(crate) line: usize,
}

/// Every path in the tokens, in macros' arguments too.
pub(crate) fn paths(tokens: TokenStream) -> Vec<WrittenPath> {
    let mut found = Vec::new();
    collect_paths(&tokens.into_iter().collect::<Vec<_>>(), &[], &mut found);
    found
}

fn collect_paths(tokens: &[TokenTree], prefix: &[String], found: &mut Vec<WrittenPath>) {
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(first) => {
                let mut names = prefix.to_vec();
                names.push(first.to_string());
                let line = first.span().start().line;
                at = follow_path(tokens, at + 1, names, line, found);
            }
            TokenTree::Punct(star) if star.as_char() == '*' && !prefix.is_empty() => {
                let mut names = prefix.to_vec();
                names.push("*".to_owned());
                let line = star.span().start().line;
                found.push(WrittenPath { names, line });
                at += 1;
            }
            TokenTree::Group(group) => {
                collect_paths(&inside(group), &[], found);
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Reads the rest of a path from `at`; returns where it ends.
fn follow_path(
    tokens: &[TokenTree],
    mut at: usize,
    mut names: Vec<String>,
    line: usize,
    found: &mut Vec<WrittenPath>,
) -> usize {
    while is_double_colon(tokens, at) {
        match tokens.get(at + 2) {
            Some(TokenTree::Ident(name)) => names.push(name.to_string()),
            Some(TokenTree::Punct(star)) if star.as_char() == '*' => names.push("*".to_owned()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                collect_paths(&inside(group), &names, found);
                return at + 3;
            }
            _ => break,
        }
        at += 3;
    }
    found.push(WrittenPath { names, line });
    at
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(tokens.get(at)) && colon(tokens.get(at + 1))
}

pub(crate) fn inside(group: &proc_macro2::Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Vec<String> {
        let all = paths(Source::parse("a/src/a.rs", text).product);
        all.iter().map(|path| path.names.join("::")).collect()
    }

    #[test]
    fn a_path_is_found_in_imports_calls_and_macros() {
        assert!(written("use std::{io, fs::{self, File}};").contains(&"std::fs::File".into()));
        assert!(written("use std::{io, fs::*};").contains(&"std::fs::*".into()));
        assert!(written("fn f() { ::std::fs::read(p) }").contains(&"std::fs::read".into()));
        assert!(written("fn f() { g!(a, std::fs::read) }").contains(&"std::fs::read".into()));
    }

    #[test]
    fn only_what_tests_alone_compile_is_left_out() {
        let tests = "#[cfg(test)] mod tests { use std::fs; } #[test] fn t() { std::fs::f() }";
        assert!(!written(tests).iter().any(|p| p.starts_with("std::fs")));
        assert!(!written("#[cfg(all(test, unix))] use std::fs;").contains(&"std::fs".into()));
        let inner = "impl A { #[cfg(test)] fn t() { std::fs::f() } }";
        assert!(!written(inner).contains(&"std::fs::f".into()));
        assert!(written("#[cfg(not(test))] use std::fs;").contains(&"std::fs".into()));
        assert!(written("#[cfg(any(test, unix))] use std::fs;").contains(&"std::fs".into()));
    }

    #[test]
    fn an_exception_nobody_needs_is_found() {
        let exceptions: Exceptions = &[("a/b.rs", "why"), ("c/", "why")];
        assert_eq!(stale(exceptions, &["a/b.rs", "c/d.rs"]), []);
        assert_eq!(stale(exceptions, &["a/b.rs"]).len(), 1);
        assert!(excepted("c/d.rs", exceptions) && !excepted("cd.rs", exceptions));
    }
}
