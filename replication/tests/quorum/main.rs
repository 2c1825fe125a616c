//! The metadata's quorum in a simulated world: lives of three or five nodes from one seed, and what
//! Raft promises, held against what they did.

mod history;
mod node;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use ringmill_ring::sim::World;
use ringmill_ring::sleep;

use node::{address, alone, wait_to_lead};
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
fn a_node_that_is_not_settled_does_not_lead_though_its_log_names_it_alone() {
    let mut world = World::new(5);
    let node = world.add_node("n1", [10, 0, 0, 1].into());
    let outputs = world.start(node, async {
        let begun = alone(true).await;
        begun
            .begin(BTreeMap::from([(1, address(1))]))
            .await
            .unwrap();
        wait_to_lead(&begun).await;
        begun.close().await;
        let again = alone(false).await;
        sleep(Duration::from_secs(5)).await;
        assert_eq!(again.view().voters, BTreeSet::from([1]));
        assert_eq!(again.view().leader, None);
        again.settle();
        wait_to_lead(&again).await;
    });
    world.run_for(Duration::from_secs(30));
    assert_eq!(outputs.take().len(), 1);
}

/// Bytes of an AppendEntries of this term from node 9, without entries.
fn append_of(term: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(1);
    out.put_u64(term);
    out.put_i32(9);
    // committed, nothing before it, nothing committed, no entries
    out.put_slice(&[1, 0, 0]);
    out.put_u32(0);
    out.freeze()
}

/// Anybody who reaches the port can send them.
#[test]
fn who_votes_alone_takes_no_orders_and_nobody_takes_senseless_terms() {
    let mut world = World::new(6);
    let node = world.add_node("n1", [10, 0, 0, 1].into());
    let outputs = world.start(node, async {
        let quorum = alone(true).await;
        for term in [u64::MAX, u64::MAX - 1, 1 << 62, 1 << 33] {
            let refused = quorum.answer(append_of(term)).await;
            assert!(refused.is_err(), "term {term}, of a node that knows nobody");
        }
        let first = BTreeMap::from([(1, address(1))]);
        quorum.begin(first).await.unwrap();
        wait_to_lead(&quorum).await;
        let before = quorum.view();
        for term in [u64::MAX, 1 << 40, before.term, before.term + 1] {
            let refused = quorum.answer(append_of(term)).await;
            assert!(refused.is_err(), "term {term}, of a node that votes alone");
        }
        let proposed = quorum.propose(Bytes::from_static(b"0123456789abcdef"));
        proposed.await.expect("it leads on");
        assert_eq!(quorum.view().term, before.term);
    });
    world.run_for(Duration::from_secs(30));
    assert_eq!(outputs.take().len(), 1);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [3, 4] {
        assert_eq!(run(seed), run(seed));
    }
}
