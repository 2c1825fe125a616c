//! One partition on three to five nodes, from one seed: the three state machines of
//! `ringmill_replication::partition` with logs of plain values, messages that are lost, late and out
//! of order, crashes that lose what was not durable, disks that are replaced; and what replication
//! promises, held against what it did.

mod node;
mod world;

use world::{Summary, World};

fn seeds(default: u64) -> std::ops::RangeInclusive<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SEED").unwrap_or(1);
    first..=first + number("SEEDS").unwrap_or(default) - 1
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_visible_changes() {
    let mut all = Summary::default();
    for seed in seeds(3_000) {
        let summary = World::new(seed)
            .live()
            .unwrap_or_else(|e| panic!("SEED={seed} SEEDS=1: {e}"));
        all.acknowledged += summary.acknowledged;
        all.leaders += summary.leaders;
        all.truncated += summary.truncated;
        all.offline += summary.offline;
    }
    println!("{all:?}");
    assert!(all.acknowledged > 1_000 && all.truncated > 100, "{all:?}");
}
