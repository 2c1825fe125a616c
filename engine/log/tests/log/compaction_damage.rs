//! Damage in logs that are to be compacted: it is left alone, and a gap where nothing was cleaned is
//! still damage.

use std::time::Duration;

use ringmill_log::{CleanError, ReadError, Severity};
use ringmill_ring::sleep;
use ringmill_wire::batch::Batches;

use crate::compaction::{Entries, append_some, clean, cleaner, compacted, findings, read_entries};
use crate::fixture::*;

#[test]
fn damage_is_left_alone_and_not_copied() {
    for seed in seeds(20) {
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
        let logs = machine.files(".log");
        let hit = machine.world.random().below(logs.len() as u64 - 1) as usize;
        let (file, len) = logs[hit].clone();
        let mut content = machine.read(&file);
        let at = machine.world.random().below(len) as usize;
        content[at] ^= 1 << machine.world.random().below(8);
        // the leader epoch is the one field that nothing vouches for
        let starts = Batches::new(&machine.read(&file))
            .map_while(Result::ok)
            .map(|(position, _)| position)
            .collect::<Vec<_>>();
        let start = starts[starts.partition_point(|start| *start <= at) - 1];
        if (12..16).contains(&(at - start)) {
            continue;
        }
        machine.put(&file, &content);
        machine.life_from_files(compacted(66_000), async |p| {
            let error = p.clean(&cleaner(), 0).await.unwrap_err();
            assert!(matches!(error, CleanError::Uncleanable { .. }), "{error}");
            assert!(p.is_uncleanable() && p.failure().is_none());
            assert!(p.cleanable(0).await.is_none());
            append_some(&p, &mut Entries::new(), 1, 3).await;
        });
        assert_eq!(machine.read(&file), content, "it is as it was");
        assert_eq!(machine.files(".cleaned"), []);
    }
}

/// A batch that has gone from a segment that was never compacted was not cleaned away.
#[test]
fn a_gap_is_damage_where_nothing_was_cleaned() {
    let mut machine = Machine::new(6);
    machine.life(compacted(66_000), async |p| {
        append_some(&p, &mut Entries::new(), 100, 30).await;
        clean(&p).await;
        append_some(&p, &mut Entries::new(), 100, 30).await;
        p.close().await.unwrap();
    });
    let logs = machine.files(".log");
    let (file, _) = logs[logs.len() - 2].clone();
    let content = machine.read(&file);
    let starts: Vec<_> = Batches::new(&content)
        .map_while(Result::ok)
        .map(|(position, _)| position)
        .collect();
    let (from, to) = (starts[5], starts[6]);
    machine.put(&file, &[&content[..from], &content[to..]].concat());
    let index = file.replace(".log", ".index");
    for lose_index in [false, true] {
        if lose_index {
            machine.put(&index, b"");
        }
        machine.life_from_files(compacted(66_000), async |p| {
            sleep(Duration::from_secs(1)).await;
            let error = read_entries(&p, 0, 200_000).await.unwrap_err();
            assert!(matches!(error, ReadError::Damaged(_)), "{error}");
            assert_ne!(p.damages(), []);
        });
        let found = machine.world.block_on(machine.node, findings());
        let damaged = found.iter().any(|found| found.severity == Severity::Damage);
        assert!(damaged, "{found:?}");
    }
}

#[test]
fn a_disk_that_cannot_be_read_ends_the_cleaning_and_nothing_else() {
    let mut machine = Machine::new(9);
    machine.life(compacted(66_000), async |p| {
        append_some(&p, &mut Entries::new(), 250, 30).await;
        p.close().await.unwrap();
    });
    let (file, _) = machine.files(".log")[1].clone();
    machine.world.power_off(machine.node);
    machine
        .world
        .disk(machine.node)
        .break_sectors(&file, 4_096..8_192);
    machine.life_from_files(compacted(66_000), async |p| {
        let error = p.clean(&cleaner(), 0).await.unwrap_err();
        assert!(matches!(error, CleanError::Io(_)), "{error}");
        assert!(p.is_uncleanable() && p.failure().is_none());
        append_some(&p, &mut Entries::new(), 1, 3).await;
        read_entries(&p, p.log_end_offset() - 1, 100).await.unwrap();
    });
    assert_eq!(machine.files(".cleaned"), []);
}
