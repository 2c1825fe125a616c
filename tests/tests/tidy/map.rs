//! The map of `docs/ARCHITECTURE.md` against the files there are.
//!
//! A line ``- `net/ring/src`: `lib.rs` the contract · `sim/{disk,network}.rs` the seeded world``
//! lists files of one folder; braces list several at once. Tests beside their subject
//! (`x_test.rs`) need no entry.

use std::collections::BTreeSet;

use crate::source::Finding;

/// Where the map is.
pub(crate) const PATH: &str = "docs/ARCHITECTURE.md";

/// Lines of the whole document at most.
pub(crate) const LINES_MAX: usize = 200;

/// A document that nobody reads to its end.
pub(crate) fn too_long(text: &str) -> Option<Finding> {
    let lines = text.lines().count();
    let message = format!("{lines} lines, at most {LINES_MAX}");
    (lines > LINES_MAX).then(|| Finding::new(PATH, lines, message))
}

/// Files that the map lacks, and entries without a file. `files` are paths below a crate's `src`.
pub(crate) fn differences(text: &str, files: &[&str]) -> Vec<Finding> {
    let mut listed = BTreeSet::new();
    let mut findings = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for path in entries(line) {
            if !files.contains(&path.as_str()) {
                findings.push(Finding::new(PATH, index + 1, format!("no file {path}")));
            }
            if !listed.insert(path.clone()) {
                findings.push(Finding::new(PATH, index + 1, format!("{path}: twice")));
            }
        }
    }
    let missing = files.iter().filter(|path| !listed.contains(**path));
    findings.extend(missing.map(|path| {
        let message = format!("the map lacks {path} (`cargo xtask tidy --fix-map` adds its name)");
        Finding::new(PATH, 1, message)
    }));
    findings
}

/// The document with entries of vanished files taken out and missing files put at the end of their
/// folder's line, with the words that `first_line` of the file gives; better ones are welcome.
pub(crate) fn fixed(text: &str, files: &[&str], first_line: impl Fn(&str) -> String) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let listed: BTreeSet<String> = text.lines().flat_map(entries).collect();
    let folders: Vec<String> = text.lines().filter_map(folder).collect();
    // The innermost folder that has a line.
    let home = |path: &str| {
        let above = folders
            .iter()
            .filter(|f| path.starts_with(&format!("{f}/")));
        above.max_by_key(|folder| folder.len())
    };
    for line in &mut lines {
        let Some(folder) = folder(line) else { continue };
        let (head, rest) = line.split_once("`: ").unwrap_or((line, ""));
        let lives = |entry: &&str| {
            let paths = entries_of(&folder, entry);
            paths.is_empty() || paths.iter().any(|path| files.contains(&path.as_str()))
        };
        let mut kept: Vec<String> = rest.split(" · ").filter(lives).map(str::to_owned).collect();
        for path in files.iter().filter(|path| !listed.contains(**path)) {
            if home(path) == Some(&folder) {
                let entry = format!(
                    "`{}` {}",
                    &path[folder.len() + 1..],
                    words(&first_line(path))
                );
                kept.push(entry.trim_end().to_owned());
            }
        }
        kept.retain(|entry| !entry.is_empty());
        *line = format!("{head}`: {}", kept.join(" · "));
    }
    lines.join("\n") + "\n"
}

/// The first clause of a module's contract, as an entry of the map.
fn words(first_line: &str) -> String {
    let contract = first_line
        .trim_start_matches("//!")
        .replace(['`', '[', ']'], "");
    let clause = contract
        .split(['.', ':', ';', '('])
        .next()
        .unwrap_or_default();
    let clause = match clause.split_once(',') {
        Some((start, _)) if clause.len() > WORDS_AIM => start.trim(),
        _ => clause.trim(),
    };
    let (initial, rest) = clause.split_at(clause.ceil_char_boundary(1));
    let word = rest.split(' ').next().unwrap_or_default();
    // Abbreviations and names of requests keep their capital.
    if word.chars().any(char::is_uppercase) {
        clause.to_owned()
    } else {
        initial.to_lowercase() + rest
    }
}

/// Characters of an entry's words that call for a shorter clause.
const WORDS_AIM: usize = 70;

/// The folder that a line of the map describes.
fn folder(line: &str) -> Option<String> {
    let (folder, _) = line.strip_prefix("- `")?.split_once("`:")?;
    let in_crate = folder.ends_with("/src") || folder.contains("/src/");
    in_crate.then(|| folder.to_owned())
}

/// Paths of the files that a line of the map lists.
fn entries(line: &str) -> Vec<String> {
    match folder(line) {
        Some(folder) => {
            let rest = line.split_once("`:").map_or("", |(_, rest)| rest);
            entries_of(&folder, rest)
        }
        None => Vec::new(),
    }
}

fn entries_of(folder: &str, text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.ends_with(".rs"))
        .flat_map(expanded)
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(name: &str) -> Vec<String> {
    let parts = name
        .split_once('{')
        .and_then(|(before, rest)| Some((before, rest.split_once('}')?)));
    match parts {
        Some((before, (inside, after))) => inside
            .split(',')
            .map(|part| format!("{before}{}{after}", part.trim()))
            .collect(),
        None => vec![name.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "# Map\n\n- `net/ring/src`: `lib.rs` the contract · `sim/{disk,clock}.rs` the world\n- `target`: x\n";
    const FILES: [&str; 3] = [
        "net/ring/src/lib.rs",
        "net/ring/src/sim/clock.rs",
        "net/ring/src/sim/disk.rs",
    ];

    #[test]
    fn a_map_that_shows_the_house_passes() {
        assert_eq!(differences(MAP, &FILES), []);
    }

    #[test]
    fn a_file_the_map_lacks_is_found() {
        let more = [&FILES[..], &["net/ring/src/tcp.rs"]].concat();
        assert_eq!(differences(MAP, &more).len(), 1);
        assert_eq!(differences("", &FILES).len(), 3);
    }

    #[test]
    fn an_entry_without_a_file_or_listed_twice_is_found() {
        assert_eq!(differences(MAP, &FILES[..2]).len(), 1);
        let twice = format!("{MAP}- `net/ring/src`: `lib.rs`\n");
        assert_eq!(differences(&twice, &FILES).len(), 1);
    }

    #[test]
    fn a_fixed_map_passes_and_keeps_its_words() {
        let now = ["net/ring/src/lib.rs", "net/ring/src/tcp.rs"];
        let text = fixed(MAP, &now, |_| "//! TCP: thin handles.".into());
        assert_eq!(differences(&text, &now), []);
        assert!(
            text.contains("`lib.rs` the contract · `tcp.rs` TCP\n"),
            "{text}"
        );
        assert!(text.starts_with("# Map\n\n") && text.ends_with("- `target`: x\n"));
    }

    #[test]
    fn a_new_file_goes_to_the_innermost_folder_that_has_a_line() {
        let map = "- `a/src`: `lib.rs`\n- `a/src/b`: `x.rs`\n";
        let now = [
            "a/src/lib.rs",
            "a/src/b/x.rs",
            "a/src/b/y.rs",
            "a/src/c/z.rs",
        ];
        let text = fixed(map, &now, |path| format!("//! What {path} is: one."));
        let (outer, inner) = text.split_once('\n').unwrap();
        assert!(outer.contains("`c/z.rs` what a/src/c/z"), "{text}");
        assert!(inner.contains("`y.rs` what a/src/b/y"), "{text}");
        assert_eq!(differences(&text, &now), []);
    }

    #[test]
    fn an_entry_takes_the_first_clause_of_the_contract() {
        assert_eq!(
            words("//! Mailboxes between cores: a mesh."),
            "mailboxes between cores"
        );
        assert_eq!(words("//! UDP: datagrams."), "UDP");
        assert_eq!(words("//! CreateTopics (KIP-4)."), "CreateTopics");
        assert_eq!(
            words("//! Targets of `ringmill-wire`: all."),
            "targets of ringmill-wire"
        );
        let long =
            "//! A partition as its core serves it, the log, and what else waits for room there";
        assert_eq!(words(long), "a partition as its core serves it");
        assert_eq!(words(""), "");
    }

    #[test]
    fn a_map_nobody_reads_to_its_end_is_found() {
        assert!(too_long(&"x\n".repeat(LINES_MAX)).is_none());
        assert!(too_long(&"x\n".repeat(LINES_MAX + 1)).is_some());
    }
}
