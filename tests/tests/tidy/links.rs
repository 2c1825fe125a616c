//! Links between the documents: each leads to a file or heading that is there.

use std::path::{Component, Path, PathBuf};

use crate::source::{Finding, Tree};

/// Links of a page that lead nowhere. Addresses on the web are not visited.
pub(crate) fn broken(page: &str, text: &str, tree: &Tree) -> Vec<Finding> {
    let here = Path::new(page).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (line, link) in links(text) {
        let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
        let target = match file {
            "" => PathBuf::from(page),
            _ => inside(&here.join(file)),
        };
        let there = tree.exists(&target)
            && (heading.is_empty() || {
                let target = target.to_string_lossy();
                let pages = tree.files.iter().filter(|other| other.path == target);
                let mut pages = pages.map(|other| other.text.as_str());
                pages.any(|text| headings(text).any(|slug| slug == heading))
            });
        if !there {
            findings.push(Finding::new(page, line, format!("{link} leads nowhere")));
        }
    }
    findings
}

/// Local targets of `[text](target)`, with their lines; what stands in code is no link.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (line, content) in prose(text) {
        let outside_code: String = content.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for rest in outside_code.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// Lines outside fenced code, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// Anchors of a page's headings, as the forges make them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
}

/// The path without `.` and `..`.
fn inside(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        broken("docs/PAGE.md", text, &Tree::load()).len()
    }

    #[test]
    fn a_link_to_nothing_is_found() {
        assert_eq!(found("[a](NOTHING.md)"), 1);
        assert_eq!(found("[a](../NOTHING.md) and [b](../Cargo.toml)"), 1);
        assert_eq!(found("[a](ARCHITECTURE.md#no-such-heading)"), 1);
    }

    #[test]
    fn files_folders_headings_and_the_web_pass() {
        assert_eq!(
            found("[a](../Cargo.toml) [b](../engine) [c](https://x.example/y)"),
            0
        );
        assert_eq!(found("```\n[a](NOTHING.md)\n```\nand `[b](NOTHING.md)`"), 0);
        assert!(headings("## The path, of `one` batch").any(|h| h == "the-path-of-one-batch"));
    }
}
