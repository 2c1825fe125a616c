//! A damaged copy that is had anew from another one: what was broken and all behind it goes, and what
//! comes in its place is as the other's, producers, epochs and transactions with it.

use std::path::Path;

use ringmill_log::{CacheLimits, CleanError, CoreCaches, LogConfig, Partition, Severity, verify};
use ringmill_wire::batch::Batches;

use crate::compaction::{Entries, append_some, clean, cleaner, compacted, read_entries};
use crate::fixture::*;
use crate::follow::{FOLLOWER, follow, pieces};
use crate::transactions::{data, end, marker, put};

/// Every read goes to the files.
async fn follower(config: LogConfig) -> Partition {
    let caches = CoreCaches::new(CacheLimits {
        tail_bytes: 0,
        open_files: 4,
    });
    let p = Partition::open(FOLLOWER, config, &caches).await.unwrap();
    p.set_high_watermark(Some(0));
    p
}

/// A leader's log, and a follower's with all of it.
async fn two_copies(leader: &Partition) {
    for epoch in 3..6 {
        leader.begin_leadership(epoch);
        for n in 0..12 {
            let sequence = n + 12 * (epoch - 3);
            put(leader, data(1, 0, sequence, 200), 1, 0).await.unwrap();
            let plain = leader.append(batch(2, 30, 5)).unwrap();
            leader.flushed(&plain.receipt).await.unwrap();
        }
        end(leader, marker(1, 0, epoch == 4)).await.unwrap();
    }
    let p = follower(small_segments(2_000)).await;
    follow(&p, &pieces(leader, 0, 700).await).await;
    p.set_high_watermark(Some(p.log_end_offset()));
    p.close().await.unwrap();
}

/// Reads until something broken is met.
async fn meets_damage(p: &Partition) -> bool {
    for offset in 0..p.log_end_offset() {
        if p.read_for_replica(offset, 1).await.is_err() {
            return p.is_damaged();
        }
    }
    false
}

async fn is_whole(dir: &str) {
    let damaged = |severity| severity == Severity::Damage;
    let mut found = Vec::new();
    verify(Path::new(dir), |finding| found.push(finding))
        .await
        .unwrap();
    found.retain(|finding| damaged(finding.severity));
    assert_eq!(found, []);
}

async fn is_the_leaders(p: &Partition, leader: &Partition) {
    assert_eq!(p.log_end_offset(), leader.log_end_offset());
    p.set_high_watermark(Some(p.log_end_offset()));
    let (own, theirs) = (pieces(p, 0, 900).await, pieces(leader, 0, 900).await);
    assert!(own.concat() == theirs.concat());
    assert_eq!(p.leader_epochs(), leader.leader_epochs());
    assert_eq!(p.producers(9), leader.producers(9));
    assert_eq!(p.last_stable_offset(), leader.last_stable_offset());
    let stable = p.last_stable_offset();
    let aborted = leader.aborted(0, stable).await.unwrap();
    assert_eq!(p.aborted(0, stable).await.unwrap(), aborted);
    assert_eq!(aborted.len(), 2);
}

/// A byte of one of a folder's logs, but for the leader epochs, which nothing vouches for.
fn hit(machine: &mut Machine, dir: &str) -> (String, u64) {
    let mut logs = machine.files(".log");
    logs.retain(|(path, len)| path.starts_with(dir) && *len > 0);
    loop {
        let random = machine.world.random();
        let (file, len) = logs[random.index(logs.len())].clone();
        let at = random.below(len);
        let content = machine.read(&file);
        let starts = Batches::new(&content).map_while(Result::ok);
        let start = starts.map(|(at, _)| at as u64).take_while(|s| *s <= at);
        if !(12..16).contains(&(at - start.last().unwrap_or(0))) {
            return (file, at);
        }
    }
}

/// A machine with a leader and its follower, and a byte of the follower's.
fn two_copies_and_a_byte(seed: u64) -> (Machine, (String, u64)) {
    let mut machine = Machine::new(seed);
    machine.life(small_segments(2_000), async |leader| {
        two_copies(&leader).await;
        leader.close().await.unwrap();
    });
    let byte = hit(&mut machine, FOLLOWER);
    (machine, byte)
}

#[test]
fn what_is_broken_is_had_from_another_copy() {
    let mut met = 0;
    for seed in seeds(40) {
        let _seed = Seed(seed);
        let (mut machine, (file, at)) = two_copies_and_a_byte(seed);
        let mask = 1 << machine.world.random().below(8);
        machine.world.disk(machine.node).corrupt(&file, at, mask);
        let found = machine.life(small_segments(2_000), async |leader| {
            let p = follower(small_segments(2_000)).await;
            let whole = p.log_end_offset();
            if !meets_damage(&p).await {
                return false;
            }
            let from = p.first_damage().unwrap().offsets.start;
            let end = p.throw_away_damage().await.unwrap();
            assert!(end <= from && end < whole && !p.is_damaged());
            assert!(
                p.high_watermark().unwrap() <= end,
                "what is gone counts no more"
            );
            follow(&p, &pieces(&leader, end, 700).await).await;
            is_the_leaders(&p, &leader).await;
            p.close().await.unwrap();
            is_whole(FOLLOWER).await;
            let p = follower(small_segments(2_000)).await;
            is_the_leaders(&p, &leader).await;
            true
        });
        met += u32::from(found);
    }
    assert!(met > 20, "{met}");
}

/// The process dies at any time while it is thrown away: the damage is found again, or is gone.
#[test]
fn a_crash_while_it_is_thrown_away_leaves_a_part_of_the_copy() {
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let (mut machine, (file, at)) = two_copies_and_a_byte(seed);
        machine.world.disk(machine.node).corrupt(&file, at, 4);
        let node = machine.node;
        machine.world.start(node, async {
            let p = follower(small_segments(2_000)).await;
            if meets_damage(&p).await {
                let _ = p.throw_away_damage().await;
            }
            std::future::pending::<()>().await
        });
        let time = machine.world.random().between(1, 60_000);
        machine
            .world
            .run_for(std::time::Duration::from_micros(time));
        match machine.world.random().coin() {
            true => machine.world.power_off(node),
            false => machine.world.kill(node),
        }
        machine.life(small_segments(2_000), async |leader| {
            let p = follower(small_segments(2_000)).await;
            if meets_damage(&p).await {
                p.throw_away_damage().await.unwrap();
            }
            let end = p.log_end_offset();
            follow(&p, &pieces(&leader, end, 700).await).await;
            is_the_leaders(&p, &leader).await;
            p.close().await.unwrap();
            is_whole(FOLLOWER).await;
        });
    }
}

/// What others have compacted does not fit to a part of a log that was not, or not so far.
#[test]
fn of_a_compacted_log_all_is_had_anew_and_the_cleaner_tries_again() {
    for seed in seeds(10) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life(compacted(66_000), async |p| {
            append_some(&p, &mut Entries::new(), 250, 30).await;
            if below(2) == 0 {
                clean(&p).await;
                append_some(&p, &mut Entries::new(), 250, 30).await;
            }
            p.close().await.unwrap();
        });
        let mut logs = machine.files(".log");
        logs.pop();
        let (file, len) = logs[machine.world.random().index(logs.len())].clone();
        if len < 100 {
            continue;
        }
        machine.world.disk(machine.node).corrupt(&file, len - 1, 1);
        machine.life_from_files(compacted(66_000), async |p| {
            p.set_high_watermark(Some(p.log_end_offset()));
            let error = p.clean(&cleaner(), 0).await.unwrap_err();
            assert!(matches!(error, CleanError::Uncleanable { .. }), "{error}");
            assert!(p.is_damaged(), "what the cleaner meets is known");
            assert_eq!(p.throw_away_damage().await.unwrap(), p.log_start_offset());
            assert!(!p.is_damaged() && !p.is_uncleanable());
            p.set_high_watermark(None);
            append_some(&p, &mut Entries::new(), 250, 30).await;
            clean(&p).await;
            read_entries(&p, 0, 1 << 20).await.unwrap();
        });
    }
}
