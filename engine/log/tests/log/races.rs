//! What goes on at the same time: reads, retention, rolls, rebuilt indexes, the end of a partition.

use std::time::Duration;

use futures_util::future::join;
use ringmill_log::{CacheLimits, CoreCaches, LogConfig, Partition, ReadError};
use ringmill_ring::{sleep, spawn};

use crate::fixture::*;

/// A log of many small segments, closed.
fn prepared(machine: &mut Machine, batches: usize) -> Model {
    machine.life(small_segments(70_000), async move |p| {
        let mut model = Model::default();
        for n in 0..batches {
            append(&p, &mut model, batch(1, 20_000, n as i64)).await;
        }
        p.close().await.unwrap();
        model
    })
}

#[test]
fn reads_that_meet_retention_are_answered_and_harm_nothing() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let model = prepared(&mut machine, 40);
        machine.life_from_files(small_segments(70_000), async move |p| {
            let mut reads = Vec::new();
            for n in 0..30 {
                let (p, model) = (p.clone(), model.clone());
                reads.push(spawn(async move {
                    sleep(Duration::from_micros(below(600))).await;
                    match p.read(n, 1).await {
                        Ok(slice) => {
                            assert_eq!(bytes_of(&slice).await[..], model.batches[n as usize].1[..])
                        }
                        Err(ReadError::OutOfRange { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                    let found = p.offset_for_timestamp(n).await.unwrap().unwrap();
                    assert!(found.offset >= n);
                }));
            }
            for start in [9, 18, 30] {
                sleep(Duration::from_micros(below(200))).await;
                p.delete_records(start).await.unwrap();
            }
            for read in reads {
                read.await.unwrap();
            }
            assert_eq!(p.failure().map(|f| f.to_string()), None);
            assert_eq!(p.damages(), []);
            let mut model = model;
            append(&p, &mut model, batch(1, 10, 0)).await;
        });
    }
}

#[test]
fn segments_whose_index_is_to_be_built_may_go() {
    let mut machine = Machine::new(1);
    prepared(&mut machine, 40);
    for (file, _) in machine.files(".index") {
        machine.put(&file, b"");
    }
    machine.life_from_files(small_segments(70_000), async move |p| {
        p.delete_records(30).await.unwrap();
        sleep(Duration::from_secs(100)).await;
        assert_eq!(p.failure().map(|f| f.to_string()), None);
        append(&p, &mut Model::default(), batch(1, 10, 0)).await;
        p.close().await.unwrap();
    });
    let first = machine.files(".log")[0].0.clone();
    for suffix in [".index", ".timeindex"] {
        let files = machine.files(suffix);
        assert!(
            files
                .iter()
                .all(|(file, _)| file[..] >= first[..first.len() - 4]),
            "no index without its log: {files:?}"
        );
    }
}
const HOUR_MS: i64 = 3_600_000;

#[test]
fn retention_leaves_a_record_that_comes_in_the_same_moment() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let config = LogConfig {
            retention_ms: Some(HOUR_MS),
            ..LogConfig::default()
        };
        machine.life(config, async |p| {
            let mut model = Model::default();
            for n in 0..3 {
                append(&p, &mut model, batch(1, 100, n)).await;
            }
            let now_ms = 100 * HOUR_MS;
            let young = async {
                sleep(Duration::from_micros(below(300))).await;
                append(&p, &mut model, batch(1, 100, now_ms)).await
            };
            let old = async {
                sleep(Duration::from_micros(below(300))).await;
                p.apply_retention(now_ms).await.unwrap()
            };
            let (offset, start) = join(young, old).await;
            assert!(
                start <= offset,
                "the record at {offset} is young, the log starts at {start}"
            );
            let slice = p.read(offset, 1).await.unwrap();
            assert_eq!(slice.base_offset, offset);
        });
    }
}

#[test]
fn retention_and_deleted_records_do_not_add_up() {
    for seed in seeds(30) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        // without timestamps, the age of the file counts
        machine.life(small_segments(70_000), async |p| {
            let mut model = Model::default();
            for _ in 0..12 {
                append(&p, &mut model, batch(1, 30_000, -1)).await;
            }
            let old_ms = ringmill_ring::wall_clock_ms() + 1;
            sleep(Duration::from_secs(7_200)).await;
            for _ in 0..12 {
                append(&p, &mut model, batch(1, 30_000, -1)).await;
            }
            p.update_config(LogConfig {
                retention_ms: Some(HOUR_MS),
                ..small_segments(70_000)
            });
            let delete = async {
                sleep(Duration::from_micros(below(600))).await;
                p.delete_records(8).await.unwrap();
            };
            let (start, ()) = join(p.apply_retention(old_ms + HOUR_MS), delete).await;
            assert!(start.unwrap() <= 12, "offset 12 and the rest are young");
            assert!(p.log_start_offset() <= 12);
        });
    }
}

#[test]
fn a_new_partition_in_the_folder_of_a_removed_one_is_left_alone() {
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let config = small_segments(70_000);
        machine.life(config.clone(), async move |old| {
            let mut tasks = Vec::new();
            for n in 0..8 {
                // some of them wait for a roll
                let appended = old.append(batch(1, 30_000, n)).unwrap();
                let p = old.clone();
                tasks.push(spawn(async move {
                    let _ = p.acknowledged(&appended.receipt).await;
                }));
            }
            sleep(Duration::from_micros(below(6_000))).await;
            let p = old.clone();
            tasks.push(spawn(async move {
                let end = p.visible_end();
                let _ = p.delete_records(below(end as u64 + 1) as i64).await;
            }));
            sleep(Duration::from_micros(below(400))).await;
            old.remove().await.unwrap();
            let caches = CoreCaches::new(CacheLimits::default());
            let new = Partition::open(DIR, config, &caches).await.unwrap();
            new.set_leader_epoch(3);
            assert_eq!(new.log_end_offset(), 0);
            append(&new, &mut Model::default(), batch(1, 10, 0)).await;
            for task in tasks {
                task.await.unwrap();
            }
            sleep(Duration::from_secs(100)).await;
            new.close().await.unwrap();
        });
        let names: Vec<_> = machine
            .files("")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let own = |name: &String| {
            ["/", "checkpoint"].iter().any(|end| name.ends_with(end))
                || name.contains("/00000000000000000000.")
        };
        let strays: Vec<_> = names.iter().filter(|name| !own(name)).collect();
        assert!(
            strays.iter().all(|name| name.contains("epoch")),
            "{strays:?}"
        );
        machine.life(LogConfig::default(), async |p| {
            assert_eq!((p.damages(), p.log_end_offset()), (vec![], 1));
            assert_eq!(p.read(0, 1).await.unwrap().base_offset, 0);
        });
    }
}

#[test]
fn whoever_opens_an_index_while_it_is_replaced_sees_the_new_one() {
    for seed in seeds(20) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let model = prepared(&mut machine, 30);
        for (file, len) in machine.files(".index") {
            // the seal is right, the cells lead astray
            let mut content = machine.read(&file);
            content[64..].fill(1);
            assert!(len > 64);
            machine.put(&file, &content);
        }
        machine.life_from_files(small_segments(70_000), async move |p| {
            let mut reads = Vec::new();
            for n in 0..27 {
                let (p, model) = (p.clone(), model.clone());
                reads.push(spawn(async move {
                    for _ in 0..4 {
                        sleep(Duration::from_micros(below(1_500))).await;
                        let slice = p.read(n, 1).await.unwrap();
                        assert_eq!(bytes_of(&slice).await[..], model.batches[n as usize].1[..]);
                    }
                }));
            }
            for read in reads {
                read.await.unwrap();
            }
            assert_eq!(p.damages(), []);
        });
    }
}
