//! How long files and functions may be: rooms one can take in at a glance.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::{Finding, Source};

/// Lines of a file that call for a second room.
pub(crate) const FILE_LINES_AIM: usize = 600;
/// Lines of a file at most.
pub(crate) const FILE_LINES_MAX: usize = 800;
/// Lines of a function at most, from `fn` to its closing brace.
pub(crate) const FUNCTION_LINES_MAX: usize = 70;

/// A file past the limit.
pub(crate) fn too_long(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by concept");
        source.finding(lines, message)
    })
}

/// A file past the aim, but not yet past the limit.
pub(crate) fn grown(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES_AIM).then(|| {
        let message = format!("{lines} lines, aim {FILE_LINES_AIM}, limit {FILE_LINES_MAX}");
        source.finding(lines, message)
    })
}

/// Functions past the limit that are not among the exceptions, and exceptions without need.
pub(crate) fn functions(sources: &[Source], exceptions: &[(&str, &str, &str)]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut needed = Vec::new();
    for source in sources {
        for (name, line, lines) in long_functions(source) {
            let excepted = exceptions
                .iter()
                .position(|(path, function, _)| *path == source.path && *function == name);
            match excepted {
                Some(index) => needed.push(index),
                None => findings.push(source.finding(
                    line,
                    format!("`{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}"),
                )),
            }
        }
    }
    for (index, (path, function, _)) in exceptions.iter().enumerate() {
        if !needed.contains(&index) {
            let message = format!("`{function}` no longer needs its exception: remove it");
            findings.push(Finding::new(path, 1, message));
        }
    }
    findings
}

fn long_functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut functions = Functions(Vec::new());
    functions.visit_file(&source.file);
    functions
        .0
        .retain(|(_, _, lines)| *lines > FUNCTION_LINES_MAX);
    functions.0
}

/// Name, first line and number of lines of each function met.
struct Functions(Vec<(String, usize, usize)>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let first = signature.span().start().line;
        let last = body.span().end().line;
        self.0
            .push((signature.ident.to_string(), first, last - first + 1));
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_body(head: &str, lines: usize, tail: &str) -> Source {
        let body = "    f();\n".repeat(lines);
        Source::parse("a.rs", &format!("{head} {{\n{body}}}{tail}\n"))
    }

    #[test]
    fn a_file_past_the_limit_is_found_and_one_at_it_is_not() {
        let file = |lines: usize| Source::parse("a.rs", &"//\n".repeat(lines));
        assert!(too_long(&file(FILE_LINES_MAX)).is_none());
        assert!(too_long(&file(FILE_LINES_MAX + 1)).is_some());
        assert!(grown(&file(FILE_LINES_AIM)).is_none());
        assert!(grown(&file(FILE_LINES_AIM + 1)).is_some());
    }

    #[test]
    fn a_function_past_the_limit_is_found_wherever_it_stands() {
        for (head, tail) in [
            ("fn long()", ""),
            ("mod m { async fn long()", "}"),
            ("impl A { pub fn long(&self)", "}"),
            ("trait A { fn long(&self)", "}"),
            ("fn outer() { g(); } fn long()", ""),
            ("#[test] fn long()", ""),
        ] {
            let lines = FUNCTION_LINES_MAX - 1;
            let found = functions(&[with_body(head, lines, tail)], &[]);
            assert_eq!(found.len(), 1, "{head}: {found:?}");
            let short = functions(&[with_body(head, lines - 1, tail)], &[]);
            assert_eq!(short, [], "{head}");
        }
    }

    #[test]
    fn an_exception_holds_for_its_function_alone_and_must_be_needed() {
        let long = || [with_body("fn long()", 100, "")];
        assert_eq!(functions(&long(), &[("a.rs", "long", "a table")]), []);
        assert_eq!(functions(&long(), &[("b.rs", "long", "a table")]).len(), 2);
        assert_eq!(functions(&[], &[("a.rs", "long", "a table")]).len(), 1);
    }
}
