//! Where `unsafe` may stand, and that each use says why it is sound.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;

use crate::source::{Exceptions, Finding, Source, excepted, inside, stale};

/// Uses of `unsafe` outside the listed files, and listed files without one.
pub(crate) fn places(sources: &[Source], allowed: Exceptions) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut users = Vec::new();
    for source in sources {
        let lines = uses(source.file.to_token_stream());
        if let Some(first) = lines.first() {
            users.push(source.path.as_str());
            if !excepted(&source.path, allowed) {
                let message = "`unsafe` outside the files that tests/tests/tidy.rs lists";
                findings.push(source.finding(first.line, message));
            }
        }
    }
    findings.extend(stale(allowed, &users));
    findings
}

/// A crate's root that leaves `unsafe` open although none of its files may hold it.
pub(crate) fn forbidden(source: &Source, allowed: Exceptions) -> Option<Finding> {
    let (package, file) = source.path.split_once("/src/")?;
    let root = file == "lib.rs" || file == "main.rs" || file.starts_with("bin/");
    let holds_unsafe = allowed.iter().any(|(place, _)| place.starts_with(package));
    let forbids = source.file.attrs.iter().any(|attribute| {
        let written = attribute.to_token_stream().to_string().replace(' ', "");
        written == "#![forbid(unsafe_code)]"
    });
    (root && !holds_unsafe && !forbids)
        .then(|| source.finding(1, "a crate root without `#![forbid(unsafe_code)]`"))
}

/// Blocks, implementations and foreign items marked `unsafe` without a `// SAFETY:` above.
pub(crate) fn comments(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    uses(source.file.to_token_stream())
        .into_iter()
        .filter(|found| found.needs_comment && !explained(&lines, found.line))
        .map(|found| source.finding(found.line, "`unsafe` without `// SAFETY:` above it"))
        .collect()
}

/// Whether the comment directly above the statement that holds `line` says `SAFETY:`.
fn explained(lines: &[&str], line: usize) -> bool {
    let mut above = lines[..line - 1].iter().rev().map(|text| text.trim());
    let mut in_comment = false;
    loop {
        match above.next() {
            Some(text) if text.starts_with("//") => {
                if text.trim_start_matches('/').trim().starts_with("SAFETY:") {
                    return true;
                }
                in_comment = true;
            }
            _ if in_comment => return false,
            Some(text) if text.starts_with("#[") => {}
            // The statement may have begun on an earlier line.
            Some(text) if text.ends_with(['=', '(', '.', '|', '&', '+']) => {}
            Some(text) if text.ends_with("=>") || text.ends_with("return") => {}
            _ => return false,
        }
    }
}

/// An `unsafe` keyword.
struct Use {
    line: usize,
    /// A block, implementation or foreign block; a declared `unsafe fn` has its `# Safety` docs.
    needs_comment: bool,
}

/// Every `unsafe` in the tokens, in macros' arguments too.
fn uses(tokens: TokenStream) -> Vec<Use> {
    let mut found = Vec::new();
    collect(&tokens.into_iter().collect::<Vec<_>>(), &mut found);
    found
}

fn collect(tokens: &[TokenTree], found: &mut Vec<Use>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => {
                let needs_comment = match tokens.get(at + 1) {
                    Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
                    Some(TokenTree::Ident(next)) => {
                        let function = matches!(tokens.get(at + 3), Some(TokenTree::Ident(word)) if word == "fn");
                        next == "impl" || (next == "extern" && !function)
                    }
                    _ => false,
                };
                let line = word.span().start().line;
                found.push(Use {
                    line,
                    needs_comment,
                });
            }
            TokenTree::Group(group) => collect(&inside(group), found),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Exceptions = &[("net/ring/src/uring.rs", "the kernel")];

    fn unexplained(text: &str) -> usize {
        comments(&Source::parse("net/ring/src/uring.rs", text)).len()
    }

    #[test]
    fn an_unexplained_block_is_found_in_code_and_in_macros() {
        assert_eq!(unexplained("fn f() {\n    unsafe { g() }\n}"), 1);
        assert_eq!(unexplained("fn f() {\n    h!(unsafe { g() });\n}"), 1);
        assert_eq!(unexplained("struct A;\nunsafe impl Send for A {}"), 1);
        assert_eq!(unexplained("unsafe extern \"C\" { fn f(); }"), 1);
        let late = "// SAFETY: of another.\nfn f() {\n    unsafe { g() }\n}";
        assert_eq!(unexplained(late), 1);
        let plain = "fn f() {\n    // Quick.\n    unsafe { g() }\n}";
        assert_eq!(unexplained(plain), 1);
    }

    #[test]
    fn a_comment_above_the_statement_explains_it() {
        let good = [
            "fn f() {\n    // SAFETY: `g` has no rule.\n    unsafe { g() }\n}",
            "fn f() {\n    // SAFETY: long\n    // words.\n    let a = unsafe { g() };\n}",
            "fn f() {\n    // SAFETY: x.\n    let a =\n        unsafe { g() };\n}",
            "// SAFETY: x.\n#[cfg(unix)]\nunsafe impl Send for A {}",
            "/// # Safety\n/// `a` is live.\npub unsafe fn f() {}",
            "pub unsafe extern \"C\" fn f() {}",
        ];
        for text in good {
            assert_eq!(unexplained(text), 0, "{text}");
        }
    }

    #[test]
    fn unsafe_outside_the_list_is_found_and_so_is_an_unused_entry() {
        let user = |path| Source::parse(path, "// SAFETY: x.\nunsafe impl A for B {}");
        assert_eq!(places(&[user("net/ring/src/uring.rs")], ALLOWED), []);
        let elsewhere = [user("net/ring/src/uring.rs"), user("engine/log/src/a.rs")];
        assert_eq!(places(&elsewhere, ALLOWED).len(), 1);
        assert_eq!(places(&[], ALLOWED).len(), 1);
    }

    #[test]
    fn a_root_that_does_not_forbid_unsafe_is_found() {
        let root = |path, text| forbidden(&Source::parse(path, text), ALLOWED).is_some();
        assert!(root("engine/log/src/lib.rs", "//! A log."));
        assert!(root("tests/src/bin/sim.rs", "//! Seeds."));
        assert!(root("engine/log/src/lib.rs", "#![deny(unsafe_code)]"));
        assert!(!root("engine/log/src/lib.rs", "#![forbid(unsafe_code)]"));
        assert!(!root("engine/log/src/index.rs", "//! An index."));
        assert!(!root("net/ring/src/lib.rs", "//! The ring."));
    }
}
