//! docs/PIECES.md: what each piece takes, where it goes, and how long it takes on some machine.

use super::figures::{FIRST, Kept};
use super::times::{Time, shown};
use super::{Measured, Tools};
use crate::process::{Failure, root};

const PATH: &str = "docs/PIECES.md";

/// The page's head.
const HEAD: &str = "# Pieces

What each piece of the engine takes by itself. `cargo xtask counts` measures instructions and
allocations, which are the same on a busy machine, and compares them with `bench/counts.toml`:
a piece that takes more than five in a hundred instructions more, or half an allocation, fails the
continuous check until somebody says why. `cargo xtask counts --write` writes this page;
`--times` beside it runs the benches too; `cargo xtask counts --repeat 3` shows that a piece takes
the same each time.

The pieces are `bench/src/pieces`, built with the profile `counts`: optimised as a release, but
without link-time optimisation, which takes minutes; a release takes somewhat less. What needs a
disk or a network has the simulated ones, whose own instructions and allocations are taken off; the
clients' own sends and receives are in. What the kernel does is in no count.
";

/// Pieces whose allocations are listed by cause.
const LISTED: [&str; 6] = [
    "node-produce-1",
    "node-produce-1000",
    "node-produce-10x1",
    "node-fetch",
    "log-append-1",
    "client-produce",
];

/// Where times begin: they stay when only counts are measured.
const TIMES: &str = "## Times\n";

pub(super) fn write(
    all: &[Measured],
    kept: &Kept,
    tools: &Tools,
    times: Option<Vec<Time>>,
) -> Result<(), Failure> {
    let path = root().join(PATH);
    let times = match times {
        Some(times) => Some(times_section(&times, &processor())),
        None => std::fs::read_to_string(&path)
            .ok()
            .and_then(|page| Some(page[page.find(TIMES)?..].to_owned())),
    };
    let mut text = format!("{HEAD}\nMeasured with {tools}.\n\n{}", counts(all, kept));
    text += &parts(all);
    text += &allocations(all);
    if let Some(times) = times {
        text += &format!("\n{times}");
    }
    std::fs::write(&path, text)?;
    println!("wrote {PATH}");
    Ok(())
}

fn counts(all: &[Measured], kept: &Kept) -> String {
    let mut text = "## Counts\n
| piece | what | per | instructions | allocations | bytes of them | why they rose |
| --- | --- | --- | ---: | ---: | ---: | --- |\n"
        .to_owned();
    for measured in all {
        let (piece, figures) = (&measured.piece, measured.figures);
        let why = kept.entries.get(&piece.name);
        let why = why.map(|entry| entry.why.as_str());
        let why = why.filter(|why| *why != FIRST);
        text += &format!(
            "| {} | {} | {} | {} | {:.1} | {} | {} |\n",
            piece.name,
            piece.what,
            piece.unit,
            grouped(figures.instructions),
            figures.allocations,
            grouped(figures.bytes),
            why.unwrap_or_default(),
        );
    }
    text
}

/// Where the instructions of the pieces that run in a world go.
fn parts(all: &[Measured]) -> String {
    let in_worlds: Vec<&Measured> = all.iter().filter(|of| of.simulator > 0.0).collect();
    let mut names: Vec<&str> = Vec::new();
    for (part, _) in in_worlds.iter().flat_map(|measured| &measured.parts) {
        if !names.contains(&part.as_str()) {
            names.push(part);
        }
    }
    names.sort_unstable();
    let cells = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = ["piece"].into_iter().chain(names.iter().copied());
    let head = head.chain(["the rest", "the simulator"]).map(str::to_owned);
    let mut text = "\n## Where they go\n
Instructions per unit by the crate whose source they come from. The rest are the standard
library's, other crates', the allocator's and the copying of bytes, on whosever behalf; the
simulator's are in no other figure of this page.\n\n"
        .to_owned();
    text += &cells(head.collect());
    text += &format!("| --- |{}\n", " ---: |".repeat(names.len() + 2));
    for measured in in_worlds {
        let of = |name: &str| {
            let part = measured.parts.iter().find(|(part, _)| part == name);
            part.map_or(0.0, |(_, count)| *count)
        };
        let named: f64 = names.iter().map(|name| of(name)).sum();
        let mut row = vec![measured.piece.name.clone()];
        row.extend(names.iter().map(|name| grouped(of(name))));
        row.push(grouped((measured.figures.instructions - named).max(0.0)));
        row.push(grouped(measured.simulator));
        text += &cells(row);
    }
    text
}

/// Who allocates.
fn allocations(all: &[Measured]) -> String {
    let mut text = "\n## Allocations by their cause\n
Of each allocation the innermost line of ours that led to it, counted by DHAT, which does not count
a block that grows where it lies.\n"
        .to_owned();
    for measured in all {
        let name = measured.piece.name.as_str();
        if !LISTED.contains(&name) {
            continue;
        }
        text += &format!(
            "\n### {name}: {:.1} per {}\n\n| per {1} | bytes | where | what stands there |\n| ---: | ---: | --- | --- |\n",
            measured.figures.allocations, measured.piece.unit
        );
        for cause in &measured.causes {
            text += &format!(
                "| {:.2} | {} | {} | `{}` |\n",
                cause.count,
                grouped(cause.bytes),
                cause.place,
                cause.code.replace('|', "\\|")
            );
        }
    }
    text
}

fn times_section(times: &[Time], processor: &str) -> String {
    let mut text = format!(
        "{TIMES}\n{processor}; medians of criterion, and between what bounds they are with 95 in 100 \
         (`cargo bench --profile counts -p ringmill-wire --bench wire`, `-p ringmill-log --bench pieces`, \
         `-p ringmill-ring --bench executor`).\n\n| bench | median | between |\n| --- | ---: | --- |\n"
    );
    for time in times {
        text += &format!(
            "| {} | {} | {} and {} |\n",
            time.name,
            shown(time.median),
            shown(time.low),
            shown(time.high)
        );
    }
    text
}

/// What this machine computes with, in words.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names = info.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    let names: Vec<String> = names.collect();
    match names.first() {
        Some(name) => format!("{} cores of {name}", names.len()),
        None => "A processor without a name".to_owned(),
    }
}

/// A number without its fraction, in groups of three digits; of small ones one digit of it.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        let text = format!("{number:.1}");
        return text.strip_suffix(".0").unwrap_or(&text).to_owned();
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups() {
        let shown: Vec<String> = [0.0, 7.25, 99.0, 123.4, 1_234.0, 1_234_567.8]
            .into_iter()
            .map(grouped)
            .collect();
        assert_eq!(shown, ["0", "7.2", "99", "123", "1,234", "1,234,568"]);
    }
}
