//! Patterns over whole names, in RE2's syntax and in linear time: what clients send as regular
//! expressions must cost them no more than it costs us to look at it.

use regex_automata::meta;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 1024;
/// How deep a pattern may be nested.
const MAX_PATTERN_DEPTH: u32 = 32;
/// How often a part of a pattern may be repeated by number, as in RE2.
const MAX_REPEAT: u32 = 1000;
/// How large a pattern's machine may be, in bytes: it is run over many names.
const MAX_MACHINE_BYTES: usize = 128 << 10;
/// What its memory of states it has seen may take.
const MAX_CACHE_BYTES: usize = 512 << 10;

/// A pattern that whole names match. Its alphabet is bytes, as names of topics are ASCII: `\w` is
/// ASCII, and of other text a dot is one byte.
#[derive(Debug, Clone)]
pub struct Pattern(meta::Regex);

impl Pattern {
    /// The pattern of its text; the error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN_BYTES {
            return Err(format!("it has more than {MAX_PATTERN_BYTES} bytes"));
        }
        let parsed = ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .nest_limit(MAX_PATTERN_DEPTH)
            .build()
            .parse(text)
            .map_err(|error| error.to_string())?;
        if repeats(&parsed) > MAX_REPEAT {
            return Err(format!("it repeats a part more than {MAX_REPEAT} times"));
        }
        let whole = [Hir::look(Look::Start), parsed, Hir::look(Look::End)];
        let config = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(MAX_MACHINE_BYTES))
            .onepass(false)
            .backtrack(false)
            .hybrid_cache_capacity(MAX_CACHE_BYTES);
        let built = meta::Builder::new()
            .configure(config)
            .build_from_hir(&Hir::concat(whole.into()));
        built.map(Self).map_err(|error| match error.size_limit() {
            Some(_) => "it is too large".to_owned(),
            None => error.to_string(),
        })
    }

    /// Whether it matches the whole of a name.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// The largest number of repetitions that a pattern names; its depth is bounded.
fn repeats(hir: &Hir) -> u32 {
    let below = |of: &[Hir]| of.iter().map(repeats).max().unwrap_or(0);
    match hir.kind() {
        HirKind::Repetition(part) => {
            let named = part.max.unwrap_or(0).max(part.min);
            named.max(repeats(&part.sub))
        }
        HirKind::Capture(part) => repeats(&part.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => below(parts),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_names() {
        let pattern = Pattern::new(r"a|ab\w*|\d+\.log").unwrap();
        for (name, expected) in [("a", true), ("abc", true), ("ba", false), ("aa", false)] {
            assert_eq!(pattern.matches(name), expected, "{name}");
        }
        assert!(pattern.matches("12.log") && !pattern.matches("12xlog"));
        assert!(Pattern::new("(?x) a b # note").unwrap().matches("ab"));
        assert!(Pattern::new("a{3,1000}").unwrap().matches("aaa"));
        assert!(Pattern::new("foo.*").unwrap().matches("foo-1"));
    }

    #[test]
    fn patterns_that_are_wrong_or_too_large_are_refused() {
        let deep = "(".repeat(100) + &")".repeat(100);
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        for wrong in [
            "a)|(b",
            "[",
            "a{2",
            r"(a)\1",
            "(?=a)",
            "((a{100}){100}){100}",
            "b|(a{1001})",
            "a{2000,}",
            &deep,
            &long,
        ] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }
}
