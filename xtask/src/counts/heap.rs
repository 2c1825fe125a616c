//! Allocations of a piece, each with its cause: DHAT's file, read.
//!
//! DHAT counts a whole program. A piece runs twice, once with twice as many units: what it
//! allocated more is theirs. The cause of an allocation is the innermost line of the house among
//! those that led to it; what the simulator, or the piece itself, allocates is left out.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{PIECES, Piece, SIMULATOR, of_the_house, output, valgrind};
use crate::process::Failure;

/// Less than so many allocations per unit are none of the unit's: a list that doubles now and then.
const COUNT_MIN: f64 = 0.02;

/// A place that allocates.
#[derive(Debug, PartialEq)]
pub(crate) struct Cause {
    /// File and line.
    pub(crate) place: String,
    /// The function's name, or that of what it was inlined into.
    pub(crate) function: String,
    /// Per unit.
    pub(crate) count: f64,
    /// Per unit.
    pub(crate) bytes: f64,
}

/// Blocks and bytes by place and function.
type Blocks = BTreeMap<(String, String), (u64, u64)>;

/// Runs a piece under DHAT, twice; its causes, the most frequent first.
pub(super) fn causes(program: &Path, piece: &Piece) -> Result<Vec<Cause>, Failure> {
    let once = blocks(program, piece, piece.units)?;
    let twice = blocks(program, piece, 2 * piece.units)?;
    Ok(difference(&once, &twice, piece.units))
}

fn blocks(program: &Path, piece: &Piece, units: u64) -> Result<Blocks, Failure> {
    let file = output(&format!("{}-{units}.dhat", piece.name))?;
    let options = [
        "--tool=dhat".to_owned(),
        "--num-callers=40".to_owned(),
        "--fullpath-after=".to_owned(),
        format!("--dhat-out-file={}", file.display()),
    ];
    valgrind(&options, program, &piece.name, units)?;
    let text = std::fs::read_to_string(&file)?;
    let broken = |reason: String| Failure(format!("{}: {reason}", file.display()));
    let read: Value = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    read_blocks(&read).ok_or_else(|| broken("not what DHAT writes".into()))
}

/// Reads DHAT's points; none if it is something else.
fn read_blocks(file: &Value) -> Option<Blocks> {
    let frames: Vec<&str> = file["ftbl"]
        .as_array()?
        .iter()
        .map(Value::as_str)
        .collect::<Option<_>>()?;
    let mut blocks = Blocks::new();
    for point in file["pps"].as_array()? {
        let (count, bytes) = (point["tbk"].as_u64()?, point["tb"].as_u64()?);
        let mut stack = Vec::new();
        for frame in point["fs"].as_array()? {
            stack.push(*frames.get(usize::try_from(frame.as_u64()?).ok()?)?);
        }
        let Some(cause) = stack.iter().find_map(|frame| place(frame)) else {
            continue;
        };
        if cause.0.starts_with(SIMULATOR) || cause.0.starts_with(PIECES) {
            continue;
        }
        let sum = blocks.entry(cause).or_default();
        *sum = (sum.0 + count, sum.1 + bytes);
    }
    Some(blocks)
}

/// Place and function of a frame, `0x109184: function (file:line)`, if it is of the house.
fn place(frame: &str) -> Option<(String, String)> {
    let (_, frame) = frame.split_once(": ")?;
    let (function, place) = frame.rsplit_once(" (")?;
    let place = of_the_house(place.strip_suffix(')')?)?;
    Some((place.to_owned(), short(function)))
}

/// A function's name with that of its type or module, without what they are made of.
fn short(function: &str) -> String {
    let mut path = String::new();
    let mut rest = function;
    // `<type as trait>::function`: the type tells more
    if let Some((of, after)) = function.strip_prefix('<').and_then(bracketed) {
        path += &without_arguments(of.split(" as ").next().unwrap_or(of));
        rest = after;
    }
    path += &without_arguments(rest);
    let named = |part: &&str| !part.is_empty() && !part.starts_with('{');
    let parts: Vec<&str> = path.split("::").filter(named).collect();
    match &parts[..] {
        [.., of, name] => format!("{of}::{name}"),
        [name] => (*name).to_owned(),
        [] => function.to_owned(),
    }
}

/// What stands before the bracket that closes, and what behind it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        depth += match letter {
            '<' => 1,
            '>' if !text[..at].ends_with('-') => -1,
            _ => 0,
        };
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// A path without anything in angle brackets.
fn without_arguments(path: &str) -> String {
    match path.split_once('<') {
        None => path.to_owned(),
        Some((before, inside)) => match bracketed(inside) {
            Some((_, after)) => before.to_owned() + &without_arguments(after),
            None => before.to_owned(),
        },
    }
}

/// What twice as many units allocate more, per unit.
fn difference(once: &Blocks, twice: &Blocks, units: u64) -> Vec<Cause> {
    let per_unit = |more: u64, less: u64| more.saturating_sub(less) as f64 / units as f64;
    let mut causes: Vec<Cause> = twice
        .iter()
        .map(|(at, (count, bytes))| {
            let (count_once, bytes_once) = once.get(at).copied().unwrap_or_default();
            Cause {
                place: at.0.clone(),
                function: at.1.clone(),
                count: per_unit(*count, count_once),
                bytes: per_unit(*bytes, bytes_once),
            }
        })
        .filter(|cause| cause.count >= COUNT_MIN)
        .collect();
    causes.sort_by(|a, b| b.count.total_cmp(&a.count).then(a.place.cmp(&b.place)));
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(count: u64) -> Value {
        serde_json::json!({
            "pps": [
                { "tb": 100 * count, "tbk": count, "fs": [1, 2, 3, 4] },
                { "tb": 7, "tbk": 1, "fs": [1, 2, 5, 4] },
                { "tb": 8 * count, "tbk": count, "fs": [1, 6, 4] },
                { "tb": 8 * count, "tbk": count, "fs": [1, 7] },
            ],
            "ftbl": [
                "[root]",
                "0x1: malloc (in /usr/libexec/valgrind/vgpreload_dhat.so)",
                "0x2: <alloc::vec::Vec<u8>>::with_capacity (/rustc/x/library/alloc/src/vec/mod.rs:9)",
                "0x3: ringmill_wire::produce::ProduceRequest::decode (engine/wire/src/produce.rs:106)",
                "0x4: ringmill_ring::sim::World::step (net/ring/src/sim/mod.rs:400)",
                "0x5: ringmill_engine::serve::Launch::run (engine/broker/src/serve.rs:230)",
                "0x6: pieces::node::produce (bench/src/pieces/node.rs:190)",
                "0x7: main (in /lib/ld.so)",
            ],
        })
    }

    #[test]
    fn what_more_units_allocate_more_is_theirs_and_has_the_nearest_line_of_the_house() {
        let once = read_blocks(&file(100)).unwrap();
        let twice = read_blocks(&file(200)).unwrap();
        let causes = difference(&once, &twice, 50);
        let [cause] = &causes[..] else {
            panic!("one cause, not {causes:?}");
        };
        assert_eq!(cause.place, "engine/wire/src/produce.rs:106");
        assert_eq!(cause.function, "ProduceRequest::decode");
        assert_eq!((cause.count, cause.bytes), (2.0, 200.0));
    }

    #[test]
    fn names_are_short() {
        let short_of = |name: &str, expected: &str| assert_eq!(short(name), expected, "{name}");
        short_of(
            "ringmill_engine::connection::Connection::push",
            "Connection::push",
        );
        short_of(
            "ringmill_engine::handlers::produce::begin::{closure#0}",
            "produce::begin",
        );
        short_of("ringmill_engine::stage::begin::{{closure}}", "stage::begin");
        short_of(
            "core::ptr::drop_in_place::<alloc::vec::Vec<u8>>",
            "ptr::drop_in_place",
        );
        short_of("<ringmill_ring::core::Core>::run_turn", "Core::run_turn");
        short_of(
            "<a::Slots<fn() -> u8> as b::Table>::put::<u8>",
            "Slots::put",
        );
        short_of("main", "main");
    }

    #[test]
    fn something_else_is_not_read() {
        assert_eq!(read_blocks(&serde_json::json!({ "pps": [] })), None);
    }
}
