//! `bench/counts.toml`: what each piece took when somebody last said that it is as it should be.

use std::collections::BTreeMap;
use std::fmt;

use super::{Measured, Tools};
use crate::process::{Failure, root};

/// Where the figures are kept.
pub(super) const PATH: &str = "bench/counts.toml";
/// A count that has risen by more than this fraction fails.
const RISE_MAX: f64 = 0.05;
/// A count that has changed by less than this fraction stays as it is written.
const NOISE: f64 = 0.005;
/// As for [`RISE_MAX`], of allocations per unit: one more in two units fails.
const ALLOCATIONS_RISE: f64 = 0.5;
/// Why a piece that was not there before has its count.
pub(super) const FIRST: &str = "as first measured";

/// What one unit of a piece takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Figures {
    pub(crate) instructions: f64,
    pub(crate) allocations: f64,
    /// Bytes of the allocations.
    pub(crate) bytes: f64,
}

/// A piece's figures as they are written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    unit: String,
    figures: Figures,
    /// Why they are as they are.
    pub(crate) why: String,
}

/// The file.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(super) tools: Option<Tools>,
    pub(super) entries: BTreeMap<String, Entry>,
}

impl Kept {
    pub(super) fn read() -> Result<Self, Failure> {
        match std::fs::read_to_string(root().join(PATH)) {
            Ok(text) => Self::parse(&text).map_err(|reason| Failure(format!("{PATH}: {reason}"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let file: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let words = |name: &str| file.get(name).and_then(toml::Value::as_str);
        let tools = words("rustc").zip(words("valgrind"));
        let mut kept = Self {
            tools: tools.map(|(rustc, valgrind)| Tools {
                rustc: rustc.to_owned(),
                valgrind: valgrind.to_owned(),
            }),
            ..Self::default()
        };
        for (name, value) in &file {
            if let Some(table) = value.as_table() {
                let entry =
                    Entry::parse(table).ok_or_else(|| format!("[{name}] lacks a figure"))?;
                kept.entries.insert(name.clone(), entry);
            }
        }
        Ok(kept)
    }

    pub(super) fn write(&self, tools: &Tools) -> Result<(), Failure> {
        let path = root().join(PATH);
        std::fs::write(path, self.text(tools))?;
        println!("wrote {PATH}");
        Ok(())
    }

    fn text(&self, tools: &Tools) -> String {
        let mut text = format!(
            "# What one unit of each piece takes (docs/PIECES.md). `cargo xtask counts` fails where
# more than five in a hundred instructions, or half an allocation, have come on top;
# `cargo xtask counts --write --why WORDS` keeps them all the same, with the reason.
rustc = {:?}
valgrind = {:?}
",
            tools.rustc, tools.valgrind
        );
        for (name, entry) in &self.entries {
            let Figures {
                instructions,
                allocations,
                bytes,
            } = entry.figures;
            text += &format!(
                "
[{name}]
unit = {:?}
instructions = {instructions:.1}
allocations = {allocations:.1}
bytes = {bytes:.1}
why = {:?}
",
                entry.unit, entry.why
            );
        }
        text
    }
}

impl Entry {
    fn parse(table: &toml::Table) -> Option<Self> {
        let number = |name: &str| table.get(name)?.as_float();
        let words = |name: &str| Some(table.get(name)?.as_str()?.to_owned());
        Some(Self {
            unit: words("unit")?,
            figures: Figures {
                instructions: number("instructions")?,
                allocations: number("allocations")?,
                bytes: number("bytes")?,
            },
            why: words("why")?,
        })
    }
}

/// How a piece stands to what is written of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Same,
    Rose,
    /// It takes less: nothing is wrong, and the file may say so.
    Fell,
    /// Nothing is written of it.
    New,
    /// There is no such piece any more.
    Gone,
}

impl Outcome {
    pub(super) fn is_bad(self) -> bool {
        matches!(self, Self::Rose | Self::New | Self::Gone)
    }

    fn of(now: &Figures, was: &Figures) -> Self {
        let rose = now.instructions > was.instructions * (1.0 + RISE_MAX)
            || now.allocations >= was.allocations + ALLOCATIONS_RISE;
        let fell = now.instructions < was.instructions * (1.0 - RISE_MAX)
            || now.allocations <= was.allocations - ALLOCATIONS_RISE;
        match (rose, fell) {
            (true, _) => Self::Rose,
            (false, true) => Self::Fell,
            (false, false) => Self::Same,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "",
            Self::Rose => "ROSE",
            Self::Fell => "fell",
            Self::New => "NEW",
            Self::Gone => "GONE",
        })
    }
}

/// One piece, now and then.
pub(super) struct Verdict {
    pub(super) name: String,
    pub(super) unit: String,
    pub(super) now: Option<Figures>,
    pub(super) was: Option<Figures>,
    pub(super) outcome: Outcome,
}

/// Each piece that was measured and, if those are all, each that is gone.
pub(super) fn compare(kept: &Kept, all: &[Measured], is_whole: bool) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = all
        .iter()
        .map(|measured| {
            let was = kept.entries.get(&measured.piece.name);
            let was = was.map(|entry| entry.figures);
            let now = measured.figures;
            Verdict {
                name: measured.piece.name.clone(),
                unit: measured.piece.unit.clone(),
                now: Some(now),
                was,
                outcome: was.map_or(Outcome::New, |was| Outcome::of(&now, &was)),
            }
        })
        .collect();
    let is_there = |name: &String| all.iter().any(|measured| measured.piece.name == *name);
    let gone = kept
        .entries
        .iter()
        .filter(|(name, _)| is_whole && !is_there(name));
    verdicts.extend(gone.map(|(name, entry)| Verdict {
        name: name.clone(),
        unit: entry.unit.clone(),
        now: None,
        was: Some(entry.figures),
        outcome: Outcome::Gone,
    }));
    verdicts
}

/// What is to be written. No figure goes up without a reason: what has risen too far needs one, what
/// has risen a little stays as it was.
pub(super) fn next(kept: &Kept, all: &[Measured], why: Option<&str>) -> Result<Kept, Failure> {
    let mut next = Kept::default();
    for measured in all {
        let (name, now) = (&measured.piece.name, measured.figures);
        let entry = |figures: Figures, why: &str| Entry {
            unit: measured.piece.unit.clone(),
            figures,
            why: why.to_owned(),
        };
        let entry = match (kept.entries.get(name), why) {
            (None, why) => entry(now, why.unwrap_or(FIRST)),
            (Some(was), _) if is_still(&now, &was.figures) => was.clone(),
            (Some(_), Some(why)) => entry(now, why),
            (Some(was), None) if Outcome::of(&now, &was.figures) == Outcome::Rose => {
                let reason = format!("{name} takes more than it did: --why says the reason");
                return Err(Failure(reason));
            }
            (Some(was), None) => entry(now.at_most(&was.figures), &was.why),
        };
        next.entries.insert(name.clone(), entry);
    }
    Ok(next)
}

/// Nothing but noise.
fn is_still(now: &Figures, was: &Figures) -> bool {
    let instructions = (now.instructions - was.instructions).abs();
    let allocations = (now.allocations - was.allocations).abs();
    instructions <= was.instructions * NOISE && allocations < 0.05
}

impl Figures {
    fn at_most(&self, was: &Self) -> Self {
        Self {
            instructions: self.instructions.min(was.instructions),
            allocations: self.allocations.min(was.allocations),
            bytes: self.bytes.min(was.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Piece;
    use super::*;

    fn measured(name: &str, instructions: f64, allocations: f64) -> Measured {
        Measured {
            piece: Piece {
                name: name.into(),
                unit: "turn".into(),
                units: 10,
                what: "a turn".into(),
            },
            figures: Figures {
                instructions,
                allocations,
                bytes: 0.0,
            },
            parts: Vec::new(),
            simulator: 0.0,
            causes: Vec::new(),
        }
    }

    fn kept(all: &[Measured]) -> Kept {
        next(&Kept::default(), all, None).unwrap()
    }

    fn outcomes(kept: &Kept, all: &[Measured]) -> Vec<Outcome> {
        let verdicts = compare(kept, all, true);
        verdicts
            .into_iter()
            .map(|verdict| verdict.outcome)
            .collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let kept = kept(&[measured("turn", 1234.56, 3.0)]);
        let tools = Tools {
            rustc: "rustc 1.0.0".into(),
            valgrind: "valgrind-3".into(),
        };
        let again = Kept::parse(&kept.text(&tools)).unwrap();
        assert_eq!(again.tools, Some(tools));
        assert_eq!(again.entries["turn"].figures.instructions, 1234.6);
        assert_eq!(again.entries["turn"].why, FIRST);
        assert!(Kept::parse("[turn]\nunit = \"turn\"\n").is_err());
    }

    #[test]
    fn a_rise_a_new_piece_and_one_that_is_gone_fail() {
        let kept = kept(&[measured("a", 1000.0, 2.0)]);
        let of = |instructions, allocations| {
            outcomes(&kept, &[measured("a", instructions, allocations)])
        };
        assert_eq!(of(1000.0, 2.0), [Outcome::Same]);
        assert_eq!(of(1050.0, 2.0), [Outcome::Same]);
        assert_eq!(of(1051.0, 2.0), [Outcome::Rose]);
        assert_eq!(of(900.0, 3.0), [Outcome::Rose]);
        assert_eq!(of(900.0, 2.0), [Outcome::Fell]);
        assert_eq!(of(1000.0, 1.0), [Outcome::Fell]);
        let other = outcomes(&kept, &[measured("b", 1.0, 0.0)]);
        assert_eq!(other, [Outcome::New, Outcome::Gone]);
        assert!(other.iter().all(|outcome| outcome.is_bad()));
        assert!(!Outcome::Fell.is_bad());
    }

    #[test]
    fn no_figure_goes_up_without_a_reason() {
        let kept = kept(&[measured("a", 1000.0, 2.0)]);
        let write = |instructions, why| {
            let next = next(&kept, &[measured("a", instructions, 2.0)], why)?;
            let entry = &next.entries["a"];
            Ok::<_, Failure>((entry.figures.instructions, entry.why.clone()))
        };
        assert!(write(1100.0, None).is_err());
        let told = write(1100.0, Some("batches are signed")).unwrap();
        assert_eq!(told, (1100.0, "batches are signed".to_owned()));
        assert_eq!(write(1030.0, None).unwrap().0, 1000.0, "not by small steps");
        assert_eq!(write(970.0, None).unwrap(), (970.0, FIRST.to_owned()));
        // what did not change keeps its words
        assert_eq!(
            write(1001.0, Some("x")).unwrap(),
            (1000.0, FIRST.to_owned())
        );
    }
}
