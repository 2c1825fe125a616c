//! Instructions of a piece: callgrind's file, read.
//!
//! A file has for each function lines of costs, each for the source file that the code came from
//! (what is inlined keeps its own), and for each call the cost of all that it led to. Of a piece
//! that runs in a simulated world it counts what the world's calls of a core's turn led to, less
//! what these led to when they came back to the simulator, by way of the driver. Where no world is,
//! all counts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{PIECES, Piece, SIMULATOR, of_the_house, output, valgrind};
use crate::process::Failure;

/// Instructions, of all units of a piece together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// All that the piece took, but for the simulator.
    pub(super) own: u64,
    /// The simulator's.
    pub(super) simulator: u64,
    /// By the crate whose source they are: of the house's own alone.
    pub(super) parts: BTreeMap<String, u64>,
}

/// Runs a piece under callgrind.
pub(super) fn count(program: &Path, piece: &Piece) -> Result<Counted, Failure> {
    let file = output(&format!("{}.callgrind", piece.name))?;
    let options = [
        "--tool=callgrind".to_owned(),
        "--toggle-collect=*collect_here*".to_owned(),
        "--compress-strings=no".to_owned(),
        "--compress-pos=no".to_owned(),
        format!("--callgrind-out-file={}", file.display()),
    ];
    valgrind(&options, program, &piece.name, piece.units)?;
    let text = std::fs::read_to_string(&file)?;
    let counted = Reading::of(&text)
        .and_then(Reading::counted)
        .map_err(|reason| Failure(format!("{}: {reason}", file.display())))?;
    if counted.own == 0 {
        return Err(Failure(format!("{}: nothing was counted", piece.name)));
    }
    Ok(counted)
}

/// A function's place, or that of a piece of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Simulator,
    /// Of the house, and not the simulator.
    House,
    /// The standard library, other crates, the C library.
    Else,
}

/// The seam between a core and its driver: beyond it everything is the simulator's.
const SEAM: &str = "net/ring/src/driver.rs";
/// The simulator's wrapping of what a process runs: it stands within a turn, and leads on.
const ROOT: &str = "sim::process::Process::start";

impl Side {
    fn of(path: &str) -> Self {
        match of_the_house(path) {
            Some(path) if path.starts_with(SIMULATOR) || path == SEAM => Self::Simulator,
            Some(_) => Self::House,
            None => Self::Else,
        }
    }

    /// Of a file's part in a function, or of all of it.
    fn of_function(path: &str, name: &str) -> Self {
        match name.contains(ROOT) {
            true => Self::House,
            false => Self::of(path),
        }
    }
}

/// A call's two ends.
#[derive(Debug)]
struct Edge<'a> {
    /// The function that calls, and where its source begins.
    from: &'a str,
    from_side: Side,
    /// Where the source of the call itself is: it may be inlined.
    at_side: Side,
    to: &'a str,
    to_side: Side,
    inclusive: u64,
}

/// All of a file.
#[derive(Debug, Default)]
struct Reading<'a> {
    total: u64,
    edges: Vec<Edge<'a>>,
    parts: BTreeMap<String, u64>,
    /// What functions of the house cost in lines that are the simulator's, by function.
    inlined: BTreeMap<&'a str, u64>,
}

/// Where in the file one is.
#[derive(Default)]
struct Cursor<'a> {
    function: &'a str,
    /// Of the function.
    home: &'a str,
    /// Of the lines that follow.
    file: &'a str,
    called: &'a str,
    called_file: Option<&'a str>,
    /// The next line is a call's.
    is_call: bool,
}

impl<'a> Reading<'a> {
    fn of(text: &'a str) -> Result<Self, String> {
        let (mut reading, mut at) = (Self::default(), Cursor::default());
        for line in text.lines() {
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                reading.cost(&mut at, line)?;
            } else if let Some((key, value)) = line.split_once('=') {
                match key {
                    "fl" => (at.home, at.file) = (value, value),
                    "fi" | "fe" => at.file = value,
                    "fn" => (at.function, at.file) = (value, at.home),
                    "cfi" | "cfl" => at.called_file = Some(value),
                    "cfn" => at.called = value,
                    "calls" => at.is_call = true,
                    _ => {}
                }
            }
        }
        Ok(reading)
    }

    /// A line of costs: the source's line, and instructions.
    fn cost(&mut self, at: &mut Cursor<'a>, line: &str) -> Result<(), String> {
        let count = line.split(' ').nth(1).and_then(|count| count.parse().ok());
        let count: u64 = count.ok_or_else(|| format!("not a line of costs: {line:?}"))?;
        let home = Side::of_function(at.home, at.function);
        if std::mem::take(&mut at.is_call) {
            self.edges.push(Edge {
                from: at.function,
                from_side: home,
                at_side: Side::of_function(at.file, at.function),
                to: at.called,
                to_side: Side::of_function(at.called_file.take().unwrap_or(at.file), at.called),
                inclusive: count,
            });
            return Ok(());
        }
        self.total += count;
        if let Some(file) = of_the_house(at.file).filter(|file| !file.starts_with(PIECES)) {
            *self.parts.entry(part(file)).or_default() += count;
        }
        let is_inlined = Side::of_function(at.file, at.function) == Side::Simulator;
        if home == Side::House && is_inlined {
            *self.inlined.entry(at.function).or_default() += count;
        }
        Ok(())
    }

    fn counted(mut self) -> Result<Counted, String> {
        let of_simulator = self.parts.remove(SIMULATOR_PART).unwrap_or(0);
        let turns = self.edges.iter().filter(|edge| edge.is_turn());
        let within: u64 = turns.map(|edge| edge.inclusive).sum();
        if within == 0 {
            return match of_simulator {
                0 => Ok(Counted {
                    own: self.total,
                    simulator: 0,
                    parts: self.parts,
                }),
                _ => Err("a world without a turn of a core".into()),
            };
        }
        // What the world asks of a core outside of its turn comes back to it too.
        let asked: BTreeSet<&str> = self
            .edges
            .iter()
            .filter(|edge| edge.from_side == Side::Simulator && !edge.is_turn())
            .map(|edge| edge.to)
            .collect();
        let is_within = |function: &str| !asked.contains(function);
        let back = self.edges.iter();
        let back = back.filter(|edge| edge.returns() && is_within(edge.from));
        let back: u64 = back.map(|edge| edge.inclusive).sum();
        let inlined = self.inlined.iter();
        let inlined = inlined.filter(|(function, _)| is_within(function));
        let inlined: u64 = inlined.map(|(_, count)| count).sum();
        let own = within
            .checked_sub(back + inlined)
            .ok_or("more came back to the simulator than it asked for")?;
        Ok(Counted {
            own,
            simulator: self.total - own,
            parts: self.parts,
        })
    }
}

impl Edge<'_> {
    /// The world has one of its cores take a turn.
    fn is_turn(&self) -> bool {
        let is_turn = self.to.contains("::core::Core") && self.to.contains("turn");
        self.from_side == Side::Simulator && is_turn
    }

    /// What runs in the world comes back to the simulator; who runs the world is outside of it.
    fn returns(&self) -> bool {
        let is_back = self.to_side == Side::Simulator || self.at_side == Side::Simulator;
        self.from_side == Side::House && is_back && !self.to.contains(WORLD)
    }
}

/// What a piece calls to have a world go on.
const WORLD: &str = "::sim::World";

const SIMULATOR_PART: &str = "simulator";

/// The crate that a file of the house is of.
fn part(file: &str) -> String {
    if Side::of(file) == Side::Simulator {
        return SIMULATOR_PART.to_owned();
    }
    let before_src = file.split("/src/").next().unwrap_or(file);
    before_src.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A piece runs a world, whose step (100) has a core take a turn (50), which polls a task of the
    /// broker (30) that submits to the simulated driver (12, of which 5 in a copy).
    const STORY: &str = "events: Ir
fl=bench/src/pieces/stage.rs
fn=pieces::stage::act::{closure#0}
1 1
cfi=net/ring/src/sim/mod.rs
cfn=ringmill_ring::sim::World::step
calls=1 3
1 213

fl=net/ring/src/sim/mod.rs
fn=ringmill_ring::sim::World::step
3 100
cfi=net/ring/src/core.rs
cfn=<ringmill_ring::core::Core>::run_turn
calls=1 9
4 92
cfi=net/ring/src/core.rs
cfn=<ringmill_ring::core::Core>::has_work
calls=1 9
4 21

fl=net/ring/src/core.rs
fn=<ringmill_ring::core::Core>::run_turn
9 50
cfi=net/ring/src/sim/process.rs
cfn=ringmill_ring::sim::process::Process::start::{closure#0}
calls=1 1
10 42
fn=<ringmill_ring::core::Core>::has_work
30 20
cfi=net/ring/src/driver.rs
cfn=<ringmill_ring::driver::Driver>::is_ready
calls=1 1
31 1

fl=net/ring/src/sim/process.rs
fn=ringmill_ring::sim::process::Process::start::{closure#0}
cfi=engine/broker/src/connection.rs
cfn=ringmill_engine::connection::serve
calls=1 1
5 42

fl=engine/broker/src/connection.rs
fn=ringmill_engine::connection::serve
1 20
fi=engine/wire/src/frame.rs
2 8
fi=net/ring/src/sim/driver.rs
2 2
fe=engine/broker/src/connection.rs
cfi=net/ring/src/driver.rs
cfn=<ringmill_ring::driver::Driver>::submit
calls=1 7
3 12

fl=net/ring/src/driver.rs
fn=<ringmill_ring::driver::Driver>::submit
7 7
cfi=???
cfn=memcpy
calls=1 0
8 5
fn=<ringmill_ring::driver::Driver>::is_ready
7 1

fl=???
fn=memcpy
0 5
totals: 214
";

    #[test]
    fn the_simulator_is_taken_off_on_every_way_back_to_it() {
        let counted = Reading::of(STORY).unwrap().counted().unwrap();
        // 92 of the turn, less 12 that were submitted and 2 that were inlined
        assert_eq!(counted.own, 78);
        assert_eq!(counted.simulator, 214 - 78);
        let part = |name: &str| counted.parts.get(name).copied();
        assert_eq!(part("engine/broker"), Some(20));
        assert_eq!(part("engine/wire"), Some(8));
        assert_eq!(part("net/ring"), Some(70));
        assert_eq!(part(SIMULATOR_PART), None);
    }

    #[test]
    fn without_a_world_everything_counts() {
        let text = "fl=/rustc/x/core.rs\nfn=a\n1 5\nfl=engine/wire/src/batch.rs\nfn=b\n2 7\n";
        let counted = Reading::of(text).unwrap().counted().unwrap();
        assert_eq!((counted.own, counted.simulator), (12, 0));
        assert_eq!(counted.parts.len(), 1);
    }

    #[test]
    fn a_world_in_which_no_core_takes_a_turn_is_not_read_as_a_count() {
        let text = "fl=net/ring/src/sim/mod.rs\nfn=step\n1 5\n";
        assert!(Reading::of(text).unwrap().counted().is_err());
        assert!(Reading::of("fl=a\nfn=b\n1 x\n").is_err());
    }
}
