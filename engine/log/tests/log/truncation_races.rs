//! What goes on while a log is cut, and what a process leaves that ends meanwhile.

use std::time::Duration;

use futures_util::future::join;
use ringmill_log::{ChangeError, CleanerCheckpoint, LogConfig, ReadError};
use ringmill_ring::{sleep, spawn, wall_clock_ms};
use ringmill_wire::batch::{Compression, ProducerStamp};

use crate::compaction::{batch_of, cleaner, compacted, some_entries};
use crate::fixture::*;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn retention_ends_no_segment_of_a_log_that_is_cut() {
    let mut refused = 0;
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let config = LogConfig {
            retention_ms: Some(HOUR_MS),
            ..LogConfig::default()
        };
        refused += machine.life(config.clone(), async |p| {
            let mut model = Model::default();
            // without timestamps, the age of the file counts, which has to be asked for
            for _ in 0..6 {
                append(&p, &mut model, batch(1, 100, -1)).await;
            }
            let now_ms = wall_clock_ms() + 100 * HOUR_MS;
            let retained = async {
                sleep(Duration::from_micros(below(150))).await;
                p.apply_retention(now_ms).await
            };
            let cut = async {
                sleep(Duration::from_micros(below(150))).await;
                p.truncate_to(3).await
            };
            let (retained, end) = join(retained, cut).await;
            assert_eq!(end.unwrap(), 3);
            assert!(
                matches!(retained, Ok(_) | Err(ChangeError::Truncated)),
                "{retained:?}"
            );
            let appended = p.append(batch(1, 10, 0)).unwrap();
            assert_eq!(appended.base_offset, 3);
            p.flushed(&appended.receipt).await.unwrap();
            assert_eq!((p.damages(), p.log_end_offset()), (vec![], 4));
            usize::from(retained.is_err())
        });
        machine.life(config, async |p| {
            assert_eq!((p.damages(), p.log_end_offset()), (vec![], 4));
        });
    }
    assert!(std::env::var("SEED").is_ok() || refused > 0);
}

#[test]
fn a_log_that_begins_anew_is_replicated_as_it_was_before() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(2, 100, 0)).await;
        // of which no checkpoint knows yet
        p.set_high_watermark(Some(1));
        assert_eq!(p.reset_to(50).await.unwrap(), 50);
        assert_eq!(p.high_watermark(), Some(50));
        let appended = p.append(batch(2, 10, 5)).unwrap();
        p.flushed(&appended.receipt).await.unwrap();
        assert_eq!((p.written_end(), p.visible_end()), (52, 50));
        sleep(Duration::from_secs(20)).await;
        p.set_high_watermark(None);
        assert_eq!(p.reset_to(60).await.unwrap(), 60);
        assert_eq!(p.high_watermark(), None);
    });
}

/// Reads at offsets that stay are answered, whenever the log is cut behind them.
#[test]
fn reads_before_a_cut_are_answered() {
    for seed in seeds(15) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let model = machine.life(small_segments(70_000), async |p| {
            let mut model = Model::default();
            for n in 0..20 {
                append(&p, &mut model, batch(1, 20_000, n)).await;
            }
            p.close().await.unwrap();
            model
        });
        // who reads has to wait for an index
        for (file, _) in machine.files(".index") {
            machine.put(&file, b"");
        }
        machine.life_from_files(small_segments(70_000), async move |p| {
            let kept = 1 + below(16) as i64;
            let mut reads = Vec::new();
            for n in 0..24 {
                let (p, model) = (p.clone(), model.clone());
                let offset = if n % 2 == 0 {
                    kept - 1
                } else {
                    below(kept as u64) as i64
                };
                reads.push(spawn(async move {
                    for _ in 0..4 {
                        sleep(Duration::from_micros(below(500))).await;
                        let slice = match n % 3 {
                            0 => p.read(offset, 1).await,
                            1 => p.read_for_replica(offset, 60_000).await,
                            _ => p.read_committed(offset, 60_000).await,
                        };
                        let bytes = bytes_of(&slice.unwrap()).await;
                        assert!(model.from(offset).starts_with(&bytes) && !bytes.is_empty());
                    }
                }));
            }
            for end in [kept + 3, kept + 1, kept] {
                sleep(Duration::from_micros(below(400))).await;
                assert_eq!(p.truncate_to(end).await.unwrap(), end);
            }
            for read in reads {
                read.await.unwrap();
            }
            assert_eq!(p.damages(), []);
            let beyond = p.read(kept + 1, 1).await;
            assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
        });
    }
}

const CLEANER: &str = "/data/t-0/cleaner-checkpoint";

/// A compacted log; returns its end.
fn cleaned(machine: &mut Machine) -> i64 {
    machine.life(compacted(10_000), async |p| {
        for _ in 0..60 {
            let bytes = batch_of(&some_entries(25), Compression::None, ProducerStamp::NONE);
            let appended = p.append(bytes).unwrap();
            p.flushed(&appended.receipt).await.unwrap();
        }
        p.clean(&cleaner(), 0).await.unwrap().unwrap();
        p.close().await.unwrap();
        assert!(p.cleaner_checkpoint().first_dirty > 50);
        p.log_end_offset()
    })
}

#[test]
fn no_log_is_cut_below_what_counts_as_compacted() {
    let mut halves = 0;
    for seed in seeds(60) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let node = machine.node;
        cleaned(&mut machine);
        let before = machine.files(".log");
        let target = 5 + machine.world.random().below(40) as i64;
        let config = compacted(10_000);
        let _outputs = machine.world.start(node, async move {
            let caches = ringmill_log::CoreCaches::new(ringmill_log::CacheLimits::default());
            let p = ringmill_log::Partition::open(DIR, config, &caches).await;
            p.unwrap().truncate_to(target).await.unwrap();
        });
        let time = machine.world.random().below(16_000);
        machine.world.run_for(Duration::from_micros(time));
        machine.world.kill(node);
        let known = CleanerCheckpoint::parse(&machine.read(CLEANER)).unwrap();
        let files = machine.files(".log");
        if files != before {
            assert!(known.first_dirty <= target, "{known:?} of {files:?}");
            halves += usize::from(known.cleaned_end > target);
        }
        machine.life(compacted(10_000), async move |p| {
            let (known, end) = (p.cleaner_checkpoint(), p.log_end_offset());
            assert!(known.first_dirty <= end && known.cleaned_end <= end + 1);
            assert_eq!(p.damages(), []);
        });
    }
    assert!(std::env::var("SEED").is_ok() || halves > 0);
}

#[test]
fn what_comes_behind_a_log_that_ends_too_early_is_not_compacted() {
    let mut machine = Machine::new(1);
    let end = cleaned(&mut machine);
    let beyond = CleanerCheckpoint {
        first_dirty: end + 3,
        cleaned_end: end + 900,
    };
    machine.put(CLEANER, &beyond.encode());
    let limited = machine.life(compacted(10_000), async move |p| {
        let limited = p.cleaner_checkpoint();
        assert_eq!(limited.first_dirty, end);
        assert!(limited.cleaned_end <= end + 1);
        for _ in 0..20 {
            let bytes = batch_of(&some_entries(25), Compression::None, ProducerStamp::NONE);
            let appended = p.append(bytes).unwrap();
            p.flushed(&appended.receipt).await.unwrap();
        }
        limited
    });
    machine.life(compacted(10_000), async move |p| {
        assert_eq!(p.cleaner_checkpoint(), limited);
    });
}
