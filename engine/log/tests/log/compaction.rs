//! Compacted logs: what stays, how it is found, what a run costs, and what it leaves alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{
    CleanError, Cleaned, Cleaner, CompactionConfig, Finding, LogConfig, Partition, ReadError,
    verify,
};
use ringmill_ring::{now, sleep, spawn, wall_clock_ms};
use ringmill_wire::batch::{BatchHeader, Batches, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::record::{Records, decoded};

use crate::fixture::*;

/// A record: key, and value or tombstone.
pub(crate) type Entry = (u16, Option<Vec<u8>>);

/// Records by their offsets.
pub(crate) type Entries = BTreeMap<i64, Entry>;

pub(crate) fn compacted(segment_bytes: u32) -> LogConfig {
    LogConfig {
        compaction: Some(CompactionConfig {
            delete_retention_ms: 1_000,
            ..CompactionConfig::default()
        }),
        file_delete_delay: Duration::from_millis(5),
        ..small_segments(segment_bytes)
    }
}

pub(crate) fn cleaner() -> Cleaner {
    Cleaner::new(1 << 20, f64::INFINITY)
}

/// Some records of `keys` keys, as a producer sends them.
pub(crate) fn some_entries(keys: u64) -> Vec<Entry> {
    let entry = |_| {
        let value = (below(6) > 0).then(|| {
            let marks = (0..=below(120)).map(|_| below(u64::MAX));
            marks.flat_map(u64::to_be_bytes).collect()
        });
        (below(keys) as u16, value)
    };
    (0..=below(5)).map(entry).collect()
}

pub(crate) fn batch_of(entries: &[Entry], codec: Compression, stamp: ProducerStamp) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    for (key, value) in entries {
        let record = NewRecord {
            timestamp: wall_clock_ms() + below(50) as i64,
            key: Some(&key.to_be_bytes()),
            value: value.as_deref(),
            headers: &[],
        };
        builder.append(&record).unwrap();
    }
    builder.seal(codec, stamp)
}

/// All records that a consumer gets from an offset on.
pub(crate) async fn read_entries(
    p: &Partition,
    from: i64,
    max_bytes: usize,
) -> Result<Entries, ReadError> {
    let (mut found, mut offset) = (Entries::new(), from);
    while offset < p.visible_end() {
        let slice = p.read(offset, max_bytes).await?;
        let bytes = bytes_of(&slice).await;
        if bytes.is_empty() {
            break;
        }
        offset = entries_in(&bytes, from, &mut found).max(offset + 1);
        assert_eq!(offset, slice.next_offset);
    }
    Ok(found)
}

/// Adds the records of batches from an offset on; returns the offset after them.
pub(crate) fn entries_in(bytes: &[u8], from: i64, found: &mut Entries) -> i64 {
    let mut next = 0;
    for batch in Batches::new(bytes) {
        let (_, view) = batch.expect("whole");
        view.check_crc().expect("whole");
        assert!(view.header().base_offset >= next, "offsets go up");
        next = view.header().next_offset();
        let records = decoded(&view, 1 << 20).unwrap();
        for record in Records::new(view.header(), &records) {
            let record = record.unwrap();
            if record.offset < from || view.header().is_control() {
                continue;
            }
            let key = record.key.expect("all have keys").try_into().unwrap();
            let entry = (u16::from_be_bytes(key), record.value.map(<[u8]>::to_vec));
            found.insert(record.offset, entry);
        }
    }
    next
}

/// What compaction must leave: below `end` the last record of every key, behind it all of them.
fn expected(all: &Entries, end: i64) -> Entries {
    let mut last = BTreeMap::new();
    for (offset, (key, _)) in all.range(..end) {
        last.insert(*key, *offset);
    }
    let stays = |(offset, (key, _)): &(&i64, &Entry)| **offset >= end || last[key] == **offset;
    let left = all.iter().filter(stays);
    left.map(|(offset, entry)| (*offset, entry.clone()))
        .collect()
}

/// The value of each key, without those that were deleted.
pub(crate) fn values(all: &Entries) -> BTreeMap<u16, Vec<u8>> {
    let mut values = BTreeMap::new();
    for (key, value) in all.values() {
        match value {
            Some(value) => drop(values.insert(*key, value.clone())),
            None => drop(values.remove(key)),
        }
    }
    values
}

pub(crate) async fn append_some(p: &Partition, all: &mut Entries, batches: usize, keys: u64) {
    for _ in 0..batches {
        let entries = some_entries(keys);
        let codec = Compression::ALL[below(5) as usize];
        let appended = p
            .append(batch_of(&entries, codec, ProducerStamp::NONE))
            .unwrap();
        p.acknowledged(&appended.receipt).await.unwrap();
        all.extend((appended.base_offset..).zip(entries));
    }
}

pub(crate) async fn clean(p: &Partition) -> Cleaned {
    let done = p.clean(&cleaner(), wall_clock_ms()).await.unwrap();
    done.expect("there is something to clean")
}

pub(crate) async fn findings() -> Vec<Finding> {
    let mut found = Vec::new();
    verify(DIR.as_ref(), |finding| found.push(finding))
        .await
        .unwrap();
    found
}

/// Every offset leads to the batch that holds it, or to the first one behind it; every timestamp to
/// the first record that is not older.
async fn check_lookups(p: &Partition) {
    let mut headers: Vec<BatchHeader> = Vec::new();
    let mut times = Vec::new();
    let mut offset = p.log_start_offset();
    while offset < p.visible_end() {
        let slice = p.read(offset, 10_000).await.unwrap();
        let bytes = bytes_of(&slice).await;
        if bytes.is_empty() {
            break;
        }
        for batch in Batches::new(&bytes) {
            let (_, view) = batch.unwrap();
            headers.push(*view.header());
            let records = decoded(&view, 1 << 20).unwrap();
            let records = Records::new(view.header(), &records).map(Result::unwrap);
            times.extend(records.map(|record| (record.timestamp, record.offset)));
        }
        offset = headers.last().unwrap().next_offset();
    }
    for offset in p.log_start_offset()..p.visible_end() {
        let after = headers.partition_point(|header| header.last_offset() < offset);
        let slice = p.read(offset, 1).await.unwrap();
        match headers.get(after) {
            Some(header) => assert_eq!(slice.base_offset, header.base_offset, "at {offset}"),
            None => assert_eq!(slice.len, 0, "at {offset}"),
        }
    }
    for _ in 0..20 {
        let (timestamp, _) = times[below(times.len() as u64) as usize];
        let timestamp = timestamp + below(3) as i64 - 1;
        let first = times.iter().find(|(t, _)| *t >= timestamp).copied();
        let found = p.offset_for_timestamp(timestamp).await.unwrap();
        assert_eq!(found.map(|f| (f.timestamp, f.offset)), first);
    }
    let max = times.iter().map(|(t, _)| *t).max().unwrap();
    let first = times.iter().find(|(t, _)| *t == max).copied();
    let found = p.offset_of_max_timestamp().await.unwrap();
    assert_eq!(found.map(|f| (f.timestamp, f.offset)), first);
}

#[test]
fn the_last_record_of_every_key_stays_and_is_found() {
    for seed in seeds(6) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let keys = machine.world.random().pick(&[3, 40, 2_000]);
        let all = Rc::new(RefCell::new(Entries::new()));
        for _ in 0..3 {
            let known = all.clone();
            machine.life_from_files(compacted(66_000), async move |p| {
                let mut all = known.borrow().clone();
                append_some(&p, &mut all, 120, keys).await;
                let (before, segments) = (p.size(), p.segments());
                let done = clean(&p).await;
                assert!(p.size() < before && done.segments.0 < segments);
                assert_eq!(p.cleaner_checkpoint().first_dirty, done.first_dirty);
                let found = read_entries(&p, 0, 20_000).await.unwrap();
                // tombstones may have gone with the time that other lives took
                let expected = expected(&all, done.first_dirty);
                assert_eq!(values(&found), values(&expected));
                assert!(
                    found
                        .iter()
                        .all(|(at, entry)| expected.get(at) == Some(entry))
                );
                check_lookups(&p).await;
                assert!(p.clean(&cleaner(), 0).await.unwrap().is_none(), "done");
                *known.borrow_mut() = found;
                if below(2) == 0 {
                    p.close().await.unwrap();
                }
            });
            let lost = machine.world.random().below(3);
            if lost == 0 {
                for suffix in [".index", ".timeindex"] {
                    for (file, _) in machine.files(suffix) {
                        machine.put(&file, b"");
                    }
                }
            }
            let known = all.borrow().clone();
            machine.life_from_files(compacted(66_000), async move |p| {
                assert_eq!(read_entries(&p, 0, 3_000).await.unwrap(), known);
                check_lookups(&p).await;
                assert_eq!(p.damages(), []);
                p.close().await.unwrap();
            });
            let found = machine.world.block_on(machine.node, findings());
            assert_eq!(found, [], "nothing is wrong with the folder");
        }
    }
}

#[test]
fn a_map_that_is_too_small_cleans_as_far_as_it_goes() {
    let mut machine = Machine::new(1);
    machine.life_from_files(compacted(66_000), async |p| {
        let mut all = Entries::new();
        append_some(&p, &mut all, 400, 3_000).await;
        let small = Cleaner::new(5_000, f64::INFINITY);
        let (mut reached, mut runs) = (0, 0);
        while let Some(done) = p.clean(&small, 0).await.unwrap() {
            assert!(done.map_bytes <= 5_000 && done.keys <= 5_000 / 24);
            assert!(done.first_dirty > reached, "every run gets on");
            (reached, runs) = (done.first_dirty, runs + 1);
            let found = read_entries(&p, 0, 20_000).await.unwrap();
            assert_eq!(values(&found), values(&all));
        }
        assert!(runs > 3, "{runs} runs");
        let found = read_entries(&p, 0, 20_000).await.unwrap();
        let keys: Vec<_> = found.range(..reached).map(|(_, entry)| entry.0).collect();
        let once = std::collections::BTreeSet::from_iter(&keys);
        // of a key that came again in a later run only the last is left
        assert_eq!(keys.len(), once.len());
        check_lookups(&p).await;
    });
}

#[test]
fn tombstones_go_when_nobody_can_have_missed_them() {
    let mut machine = Machine::new(2);
    machine.life_from_files(compacted(66_000), async |p| {
        let mut all = Entries::new();
        let fill = async |all: &mut Entries| {
            let large = [
                (9_999, Some(vec![0; 60_000])),
                (9_999, Some(vec![1; 9_000])),
            ];
            for entry in large {
                let bytes = batch_of(
                    std::slice::from_ref(&entry),
                    Compression::None,
                    ProducerStamp::NONE,
                );
                let appended = p.append(bytes).unwrap();
                p.acknowledged(&appended.receipt).await.unwrap();
                all.insert(appended.base_offset, entry);
            }
        };
        let deleted = [(7, Some(vec![1])), (7, None)];
        let bytes = batch_of(&deleted, Compression::None, ProducerStamp::NONE);
        let appended = p.append(bytes).unwrap();
        p.acknowledged(&appended.receipt).await.unwrap();
        let has_tombstone = async || {
            let found = read_entries(&p, 0, 200_000).await.unwrap();
            found.get(&(appended.base_offset + 1)) == Some(&(7, None))
        };
        for (now_ms, stays) in [(5_000, true), (5_999, true), (6_000, false)] {
            fill(&mut all).await;
            p.clean(&cleaner(), now_ms).await.unwrap().unwrap();
            assert_eq!(has_tombstone().await, stays, "at {now_ms}");
        }
    });
}

#[test]
fn young_records_and_undecided_ones_are_left_alone() {
    let mut machine = Machine::new(3);
    machine.life_from_files(compacted(66_000), async |p| {
        let mut all = Entries::new();
        append_some(&p, &mut all, 200, 5).await;
        let now_ms = wall_clock_ms();
        let mut config = compacted(66_000);
        let compaction = config.compaction.as_mut().unwrap();
        compaction.min_compaction_lag_ms = 3_600_000;
        p.update_config(config);
        assert!(p.clean(&cleaner(), now_ms).await.unwrap().is_none());
        let found = p.cleanable(now_ms).await.unwrap();
        assert_eq!((found.dirty_bytes, found.ratio()), (0, 0.0));
        assert!(
            p.clean(&cleaner(), now_ms + 4_000_000)
                .await
                .unwrap()
                .is_some()
        );
        p.update_config(small_segments(66_000));
        append_some(&p, &mut all, 200, 5).await;
        assert!(p.cleanable(now_ms).await.is_none(), "not to be compacted");
        assert!(p.clean(&cleaner(), now_ms).await.unwrap().is_none());
        // a transaction that is open holds all behind it
        let mut config = compacted(66_000);
        config.compaction.as_mut().unwrap().max_compaction_lag_ms = 1;
        p.update_config(config);
        let found = p.cleanable(now_ms + 1_000_000).await.unwrap();
        assert!(found.is_overdue && found.dirty_bytes > 0);
    });
}

#[test]
fn readers_in_the_middle_of_a_log_are_not_disturbed() {
    for seed in seeds(12) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life_from_files(compacted(66_000), async |p| {
            let mut all = Entries::new();
            append_some(&p, &mut all, 250, 30).await;
            let (all, stop) = (Rc::new(all), Rc::new(Cell::new(false)));
            let mut readers = Vec::new();
            for _ in 0..6 {
                let (p, all, stop) = (p.clone(), all.clone(), stop.clone());
                readers.push(spawn(async move {
                    let mut reads = 0;
                    while !stop.get() {
                        let from = below(p.visible_end() as u64) as i64;
                        let slice = p.read(from, 1 + below(100_000) as usize).await.unwrap();
                        // read later, from a file that may have been replaced
                        sleep(Duration::from_micros(below(3_000))).await;
                        let mut found = Entries::new();
                        entries_in(&bytes_of(&slice).await, 0, &mut found);
                        let known = |(at, entry): (&i64, &Entry)| all.get(at) == Some(entry);
                        assert!(found.iter().all(known));
                        let time = all.first_key_value().map_or(0, |_| wall_clock_ms());
                        p.offset_for_timestamp(time - 5_000).await.unwrap();
                        reads += 1;
                    }
                    reads
                }));
            }
            for _ in 0..4 {
                let done = p.clean(&cleaner(), 0).await.unwrap();
                sleep(Duration::from_millis(1)).await;
                assert!(done.is_none_or(|done| done.bytes_before > done.bytes_written));
                let mut more = (*all).clone();
                append_some(&p, &mut more, 0, 30).await;
            }
            stop.set(true);
            for reader in readers {
                assert!(reader.await.unwrap() > 0);
            }
            assert_eq!(p.damages(), []);
            assert_eq!(p.failure().map(|f| f.to_string()), None);
            let found = read_entries(&p, 0, 20_000).await.unwrap();
            assert_eq!(values(&found), values(&all));
        });
    }
}

#[test]
fn retention_and_deleted_records_go_beside_compaction() {
    for seed in seeds(15) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life_from_files(compacted(66_000), async |p| {
            let mut all = Entries::new();
            append_some(&p, &mut all, 250, 30).await;
            let q = p.clone();
            let cleaning = spawn(async move {
                loop {
                    match q.clean(&cleaner(), 0).await {
                        Ok(_) => return,
                        Err(CleanError::Changed) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            for _ in 0..3 {
                sleep(Duration::from_micros(below(4_000))).await;
                let start = p.log_start_offset();
                let ahead = below((p.visible_end() - start) as u64 / 4) as i64;
                p.delete_records(start + ahead).await.unwrap();
            }
            cleaning.await.unwrap();
            let start = p.log_start_offset();
            all.retain(|offset, _| *offset >= start);
            let found = read_entries(&p, start, 20_000).await.unwrap();
            assert_eq!(values(&found), values(&all));
            assert!(!p.is_uncleanable());
            p.delete_records(-1).await.unwrap();
            assert!(p.clean(&cleaner(), 0).await.unwrap().is_none());
            append_some(&p, &mut all, 200, 3).await;
            clean(&p).await;
        });
    }
}

#[test]
fn a_producer_is_known_by_what_compaction_leaves_of_its_batches() {
    let mut machine = Machine::new(5);
    let last = machine.life_from_files(compacted(66_000), async |p| {
        let mut all = Entries::new();
        let mut last = Bytes::new();
        for n in 0..3 {
            let stamp = ProducerStamp {
                producer_id: 4,
                producer_epoch: 0,
                base_sequence: n * 2,
                transactional: false,
            };
            let entries = [(1, Some(vec![1])), (1, Some(vec![2]))];
            last = batch_of(&entries, Compression::None, stamp);
            let appended = p.append(last.clone()).unwrap();
            p.acknowledged(&appended.receipt).await.unwrap();
        }
        append_some(&p, &mut all, 200, 2).await;
        clean(&p).await;
        p.close().await.unwrap();
        last
    });
    for suffix in [".snapshot", "/checkpoint", "leader-epoch-checkpoint"] {
        for (file, _) in machine.files(suffix) {
            machine.put(&file, b"");
        }
    }
    machine.life_from_files(compacted(66_000), async move |p| {
        assert!(p.append(last).unwrap().duplicate, "the sequence goes on");
    });
}

#[test]
fn a_run_keeps_to_its_rate_and_gives_way() {
    let mut machine = Machine::new(7);
    machine.life_from_files(compacted(66_000), async |p| {
        append_some(&p, &mut Entries::new(), 300, 30).await;
        let turns = Rc::new(Cell::new(0));
        let count = turns.clone();
        let stop = Rc::new(Cell::new(false));
        let stopped = stop.clone();
        spawn(async move {
            while !stopped.get() {
                sleep(Duration::from_millis(10)).await;
                count.set(count.get() + 1);
            }
        });
        let begun = now();
        let slow = Cleaner::new(1 << 20, 50_000.0);
        let done = p.clean(&slow, 0).await.unwrap().unwrap();
        stop.set(true);
        let moved = (done.bytes_read + done.bytes_written) as f64;
        let took = (now() - begun).as_secs_f64();
        assert!(
            (took - moved / 50_000.0).abs() < 0.5,
            "{moved} bytes in {took} s"
        );
        assert!(turns.get() > (took * 50.0) as u64);
    });
}
