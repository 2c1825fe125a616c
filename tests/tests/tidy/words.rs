//! What files are called, how they begin, and words that must not stay.

use crate::source::{Finding, Source};

/// Names that say nothing of what a file holds.
const SHAPELESS: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];

/// A file whose name, or a folder of whose path, fits anything.
pub(crate) fn file_name(path: &str) -> Option<Finding> {
    let mut names = path.split('/').map(|name| name.split('.').next().unwrap());
    let shapeless = names.find(|name| SHAPELESS.contains(name))?;
    let message = format!("`{shapeless}` fits anything: name it by the concept it holds");
    Some(Finding::new(path, 1, message))
}

/// A file that does not begin with its contract.
pub(crate) fn module_docs(source: &Source) -> Option<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    let contract = first.strip_prefix("//!").unwrap_or_default().trim();
    contract
        .is_empty()
        .then(|| source.finding(1, "begins without `//!`: say the module's contract first"))
}

/// Notes to come back later, spelled so that this file does not find itself.
const MARKERS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

/// Comments that put work off.
pub(crate) fn markers(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let Some((_, comment)) = line.split_once("//") else {
            continue;
        };
        let mut words = comment.split(|c: char| !c.is_ascii_alphanumeric());
        if let Some(word) = words.find(|word| MARKERS.contains(word)) {
            let message = format!("{word}: do it, or put it into docs/ROADMAP.md");
            findings.push(source.finding(index + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shapeless_name_is_found_as_file_and_as_folder() {
        assert!(file_name("engine/log/src/utils.rs").is_some());
        assert!(file_name("engine/common/src/lib.rs").is_some());
        assert!(file_name("engine/log/src/segment.rs").is_none());
        assert!(file_name("engine/log/src/common_prefix.rs").is_none());
    }

    #[test]
    fn a_file_without_a_contract_is_found() {
        assert!(module_docs(&Source::parse("a.rs", "//! Offsets to positions.\n")).is_none());
        for bad in ["", "use a::b;\n", "//!\n", "// Plain.\n", "\n//! Late.\n"] {
            assert!(
                module_docs(&Source::parse("a.rs", bad)).is_some(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_note_for_later_is_found_in_comments_alone() {
        let found = |text: &str| markers(&Source::parse("a.rs", text)).len();
        assert_eq!(found(concat!("// TO", "DO: check\n")), 1);
        assert_eq!(found(concat!("fn f() {} // FIX", "ME(x)\n")), 1);
        assert_eq!(found(concat!("fn f() { \"XX", "X\"; }\n")), 0);
        assert_eq!(found("// hacks are told apart by their letters\n"), 0);
    }
}
