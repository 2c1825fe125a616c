//! Allocations of a piece, each with its cause: DHAT's file, read.
//!
//! DHAT counts a whole program. A piece runs twice, once with twice as many units: what it
//! allocated more is theirs. The cause of an allocation is the innermost line of the house among
//! those that led to it; what the simulator, the piece itself, or the client of a node allocates is
//! left out.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::{PIECES, Piece, SIMULATOR, of_the_house, output, valgrind};
use crate::process::{Failure, root};

/// Less than so many allocations per unit are none of the unit's: a list that doubles now and then.
const COUNT_MIN: f64 = 0.02;

/// A place that allocates.
#[derive(Debug, PartialEq)]
pub(crate) struct Cause {
    /// File and line.
    pub(crate) place: String,
    /// What stands there.
    pub(crate) code: String,
    /// Per unit.
    pub(crate) count: f64,
    /// Per unit.
    pub(crate) bytes: f64,
}

/// Blocks and bytes by place.
type Blocks = BTreeMap<String, (u64, u64)>;

/// The client of a node that is measured.
const CLIENT: &str = "bench/src/pieces/node.rs";
/// Where a core has its turn, and what is further out is no part of what it runs.
const TURN: &str = "net/ring/src/core.rs";

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
            let frame = frames.get(usize::try_from(frame.as_u64()?).ok()?)?;
            stack.extend(place(frame));
        }
        if let Some(cause) = cause(&stack) {
            let sum = blocks.entry(cause.to_owned()).or_default();
            *sum = (sum.0 + count, sum.1 + bytes);
        }
    }
    Some(blocks)
}

/// The cause of an allocation that these lines of the house led to, the innermost first.
fn cause<'a>(stack: &[&'a str]) -> Option<&'a str> {
    let nearest = *stack.first()?;
    let turn = stack.iter().position(|place| place.starts_with(TURN));
    let within = &stack[..turn.unwrap_or(0)];
    let is_clients = within.iter().any(|place| place.starts_with(CLIENT));
    let is_staged = nearest.starts_with(SIMULATOR) || nearest.starts_with(PIECES);
    (!is_clients && !is_staged).then_some(nearest)
}

/// The place of a frame, `0x109184: function (file:line)`, if it is of the house.
fn place(frame: &str) -> Option<&str> {
    let (_, place) = frame.rsplit_once(" (")?;
    of_the_house(place.strip_suffix(')')?)
}

/// What stands at a place.
fn code(place: &str) -> Option<String> {
    let (file, line) = place.rsplit_once(':')?;
    let text = std::fs::read_to_string(root().join(file)).ok()?;
    let line = text
        .lines()
        .nth(line.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(line.trim().to_owned())
}

/// What twice as many units allocate more, per unit.
fn difference(once: &Blocks, twice: &Blocks, units: u64) -> Vec<Cause> {
    let per_unit = |more: u64, less: u64| more.saturating_sub(less) as f64 / units as f64;
    let mut causes: Vec<Cause> = twice
        .iter()
        .map(|(at, (count, bytes))| {
            let (count_once, bytes_once) = once.get(at).copied().unwrap_or_default();
            Cause {
                code: code(at).unwrap_or_default(),
                place: at.clone(),
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
        assert_eq!((cause.count, cause.bytes), (2.0, 200.0));
    }

    #[test]
    fn what_the_client_of_a_node_allocates_is_left_out() {
        let decode = "engine/wire/src/produce.rs:321";
        let (client, turn) = ("bench/src/pieces/node.rs:140", "net/ring/src/core.rs:240");
        let stage = "bench/src/pieces/stage.rs:80";
        assert_eq!(cause(&[decode, client, turn, stage]), None);
        assert_eq!(
            cause(&[decode, "engine/broker/src/stage.rs:9", turn, client]),
            Some(decode)
        );
        assert_eq!(
            cause(&[decode, client]),
            Some(decode),
            "no world, no client"
        );
        assert_eq!(cause(&[client, turn]), None);
        assert_eq!(cause(&[]), None);
    }

    #[test]
    fn something_else_is_not_read() {
        assert_eq!(read_blocks(&serde_json::json!({ "pps": [] })), None);
    }
}
