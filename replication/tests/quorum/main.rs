//! The metadata's quorum in a simulated world: lives of three or five nodes from one seed, and what
//! Raft promises, held against what they did.

mod history;
mod node;
mod story;

use story::{Summary, run};

fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SEED").unwrap_or(1);
    first..=first + number("SEEDS").unwrap_or(default) - 1
}

#[test]
fn what_the_quorum_acknowledged_stays_whatever_happens() {
    let mut all = Summary::default();
    for seed in seeds(40) {
        let summary = run(seed).unwrap_or_else(|e| panic!("SEED={seed} SEEDS=1: {e}"));
        all.acknowledged += summary.acknowledged;
        all.terms += summary.terms;
        all.snapshots += summary.snapshots;
    }
    println!("{all:?}");
    assert!(all.acknowledged > 100, "{all:?}");
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [3, 4] {
        assert_eq!(run(seed), run(seed));
    }
}
