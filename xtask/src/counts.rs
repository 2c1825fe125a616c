//! `cargo xtask counts`: instructions and allocations of each piece of the engine, which do not
//! depend on who else uses the machine, against what they were (`bench/counts.toml`).
//!
//! Callgrind counts the instructions of a piece (`bench/src/pieces`), DHAT names who allocates in
//! it. Valgrind knows nothing of io_uring, so what needs a disk or a network has the simulated
//! ones, whose own share is taken off. A profile of its own builds the pieces: optimised as a
//! release, but without link-time optimisation, which would take most of the time.

mod callgrind;
mod figures;
mod heap;
mod page;
mod times;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{Failure, apt_install, cargo, root, run, shown, succeeds, target_dir};
use crate::report::table;
use figures::{Figures, Kept, Verdict};

#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Only these pieces; all if none is named
    pieces: Vec<String>,
    /// Write what is measured into bench/counts.toml and docs/PIECES.md
    #[arg(long, conflicts_with = "pieces")]
    write: bool,
    /// Why counts have risen: goes next to them
    #[arg(long, requires = "write")]
    why: Option<String>,
    /// Run the benches of the pieces first, for the times of docs/PIECES.md
    #[arg(long, requires = "write")]
    times: bool,
    /// Measure each piece so many times; fails if they differ by 0.5 % or more
    #[arg(long, default_value_t = 1)]
    repeat: usize,
}

/// How much the counts of one piece may differ between two measures, as a fraction.
const SPREAD_MAX: f64 = 0.005;

/// A piece as the program names it.
pub(crate) struct Piece {
    pub(crate) name: String,
    /// What one of its units is.
    pub(crate) unit: String,
    /// How many of them are measured.
    pub(crate) units: u64,
    pub(crate) what: String,
}

/// A piece and what it took.
pub(crate) struct Measured {
    pub(crate) piece: Piece,
    pub(crate) figures: Figures,
    /// Of its instructions those of our own code, per unit, by the part of the house.
    pub(crate) parts: Vec<(String, f64)>,
    /// Instructions of the simulator, per unit, which are in no other figure.
    pub(crate) simulator: f64,
    /// Who allocates in it.
    pub(crate) causes: Vec<heap::Cause>,
}

pub(crate) fn counts(args: &Args) -> Result<(), Failure> {
    if !succeeds("valgrind", &["--version"]) {
        apt_install(&["valgrind"])?;
    }
    let mut build = cargo();
    build.args(["build", "--profile", "counts", "-p", "ringmill-bench"]);
    run(build.args(["--bin", "pieces"]))?;
    let program = target_dir().join("counts").join("pieces");
    let mut pieces = listed(&said(Command::new(&program))?)?;
    for wanted in &args.pieces {
        if !pieces.iter().any(|piece| piece.name == *wanted) {
            return Err(Failure(format!("there is no piece {wanted}")));
        }
    }
    pieces.retain(|piece| args.pieces.is_empty() || args.pieces.contains(&piece.name));
    let mut all = Vec::new();
    for piece in pieces {
        all.push(measure(&program, piece, args.repeat)?);
    }
    let kept = Kept::read()?;
    let is_whole = args.pieces.is_empty();
    let verdicts = figures::compare(&kept, &all, is_whole);
    println!("\n{}", table(&rows(&verdicts)));
    if args.write {
        let next = figures::next(&kept, &all, args.why.as_deref())?;
        let tools = Tools::here()?;
        next.write(&tools)?;
        let times = match args.times {
            true => Some(times::measure()?),
            false => None,
        };
        return page::write(&all, &next, &tools, times);
    }
    verdict(&verdicts, &kept)
}

/// Fails unless all is as it was, or better.
fn verdict(verdicts: &[Verdict], kept: &Kept) -> Result<(), Failure> {
    let bad: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| verdict.outcome.is_bad())
        .map(|verdict| verdict.name.as_str())
        .collect();
    if bad.is_empty() {
        return Ok(());
    }
    let mut reason = format!(
        "other counts than in {}: {}; if they are as they should be, \
         `cargo xtask counts --write --why WORDS`",
        figures::PATH,
        bad.join(", ")
    );
    let here = Tools::here()?;
    if let Some(tools) = kept.tools.as_ref().filter(|tools| **tools != here) {
        reason += &format!(" (they were measured by {tools}, these by {here})");
    }
    Err(Failure(reason))
}

fn rows(verdicts: &[Verdict]) -> Vec<Vec<String>> {
    let head = ["piece", "per", "instructions", "was", "allocations", "was"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows[0].push(String::new());
    for verdict in verdicts {
        let number = |of: Option<f64>| of.map_or("–".to_owned(), |of| format!("{of:.1}"));
        let now = |of: fn(&Figures) -> f64| number(verdict.now.as_ref().map(of));
        let was = |of: fn(&Figures) -> f64| number(verdict.was.as_ref().map(of));
        rows.push(vec![
            verdict.name.clone(),
            verdict.unit.clone(),
            now(|figures| figures.instructions),
            was(|figures| figures.instructions),
            now(|figures| figures.allocations),
            was(|figures| figures.allocations),
            verdict.outcome.to_string(),
        ]);
    }
    rows
}

/// What a program prints.
fn said(mut command: Command) -> Result<String, Failure> {
    let line = shown(&command);
    let output = command
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| Failure(format!("cannot start `{line}`: {error}")))?;
    if !output.status.success() {
        return Err(Failure(format!("`{line}` failed: {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads the program's list: name, unit, units and words, a tabulator between them.
fn listed(text: &str) -> Result<Vec<Piece>, Failure> {
    let parse = |line: &str| {
        let mut fields = line.splitn(4, '\t').map(str::to_owned);
        Some(Piece {
            name: fields.next()?,
            unit: fields.next()?,
            units: fields.next()?.parse().ok()?,
            what: fields.next()?,
        })
    };
    let lines = text.lines();
    lines
        .map(|line| parse(line).ok_or_else(|| Failure(format!("not a piece: {line:?}"))))
        .collect()
}

/// Measures a piece, `repeat` times.
fn measure(program: &Path, piece: Piece, repeat: usize) -> Result<Measured, Failure> {
    let units = piece.units as f64;
    let per_unit = |count: u64| count as f64 / units;
    let counted = callgrind::count(program, &piece)?;
    for _ in 1..repeat.max(1) {
        let again = callgrind::count(program, &piece)?;
        let (a, b) = (counted.own as f64, again.own as f64);
        if (a - b).abs() >= a.min(b) * SPREAD_MAX {
            return Err(Failure(format!(
                "{}: {a} instructions, then {b}: it does not do the same each time",
                piece.name
            )));
        }
    }
    let causes = heap::causes(program, &piece)?;
    let figures = Figures {
        instructions: per_unit(counted.own),
        allocations: causes.iter().fold(0.0, |sum, cause| sum + cause.count),
        bytes: causes.iter().fold(0.0, |sum, cause| sum + cause.bytes),
    };
    let parts = counted.parts.into_iter();
    Ok(Measured {
        figures,
        parts: parts.map(|(part, count)| (part, per_unit(count))).collect(),
        simulator: per_unit(counted.simulator),
        causes,
        piece,
    })
}

/// Runs a piece under one of valgrind's tools, alone with its arguments: what is in the
/// environment moves the stack, and with it what some copies take.
fn valgrind(options: &[String], program: &Path, piece: &str, units: u64) -> Result<(), Failure> {
    let mut command = Command::new("valgrind");
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command.arg("-q").args(options).arg(program);
    run(command.args([piece, &units.to_string()]))
}

/// A file that valgrind writes.
fn output(name: &str) -> Result<PathBuf, Failure> {
    let folder = target_dir().join("counts");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(name))
}

/// What counts depend on beside the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tools {
    pub(crate) rustc: String,
    pub(crate) valgrind: String,
}

impl Tools {
    fn here() -> Result<Self, Failure> {
        let version = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--version");
            Ok::<_, Failure>(said(command)?.trim().to_owned())
        };
        let rustc = version("rustc")?;
        Ok(Self {
            rustc: rustc.split(" (").next().unwrap_or_default().to_owned(),
            valgrind: version("valgrind")?,
        })
    }
}

impl std::fmt::Display for Tools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} and {}", self.rustc, self.valgrind)
    }
}

/// A source file as the house knows it, relative to its root; none if it is not of the house.
fn of_the_house(path: &str) -> Option<&str> {
    let root = root().to_str()?;
    let inside = path
        .strip_prefix(root)
        .map(|rest| rest.trim_start_matches('/'));
    let relative = inside.unwrap_or(path);
    let folders = ["bench/", "client/", "engine/", "net/", "replication/"];
    folders
        .iter()
        .any(|folder| relative.starts_with(folder))
        .then_some(relative)
}

/// Where the simulator is.
const SIMULATOR: &str = "net/ring/src/sim/";
/// Where the pieces themselves are.
const PIECES: &str = "bench/src/pieces/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_pieces_is_read_and_anything_else_refused() {
        let pieces = listed("turn\tturn\t5000\ta turn of a core\n").unwrap();
        assert_eq!((pieces[0].name.as_str(), pieces[0].units), ("turn", 5000));
        assert!(listed("turn\tturn\tmany\ta turn\n").is_err());
        assert!(listed("turn\n").is_err());
    }

    #[test]
    fn files_of_the_house_are_known_from_all_others() {
        let here = format!("{}/engine/log/src/trie.rs", root().display());
        assert_eq!(of_the_house(&here), Some("engine/log/src/trie.rs"));
        assert_eq!(
            of_the_house("net/ring/src/core.rs"),
            Some("net/ring/src/core.rs")
        );
        assert_eq!(of_the_house("/rustc/1/library/core/src/ptr/mod.rs"), None);
        assert_eq!(of_the_house("/registry/bytes-1.12.0/src/bytes.rs"), None);
    }
}
