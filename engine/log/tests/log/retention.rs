//! What leaves the log at its beginning, and when segments end.

use std::time::Duration;

use ringmill_log::{CacheLimits, ChangeError, CoreCaches, LogConfig, Partition, ReadError};
use ringmill_ring::sim::Chance;
use ringmill_ring::sleep;

use crate::fixture::*;

/// Each batch a segment of its own, with timestamps an hour apart.
fn hourly() -> LogConfig {
    LogConfig {
        segment_ms: 1000,
        file_delete_delay: Duration::from_secs(1),
        retention_ms: None,
        ..LogConfig::default()
    }
}

const HOUR_MS: i64 = 3_600_000;

#[test]
fn segments_of_many_partitions_do_not_roll_together_with_jitter() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..10 {
        let mut machine = Machine::new(seed);
        let config = LogConfig {
            segment_jitter_ms: 600,
            ..hourly()
        };
        machine.life(config, async |p| {
            let mut model = Model::default();
            for n in 0..100 {
                append(&p, &mut model, batch(1, 10, n * 100)).await;
            }
            // a thousand milliseconds at most, four hundred at least
            assert!((10..=20).contains(&p.segments()), "{}", p.segments());
        });
        let mut bases = machine.files(".log").into_iter().map(|(file, _)| {
            let name = file.rsplit('/').next().unwrap();
            name.trim_end_matches(".log").parse::<i64>().unwrap()
        });
        lengths.insert(bases.nth(1).unwrap());
    }
    assert!(lengths.len() > 2, "first segments of {lengths:?} batches");
}

#[test]
fn segments_roll_by_age_and_size() {
    let mut machine = Machine::new(1);
    machine.life(hourly(), async |p| {
        let mut model = Model::default();
        for n in 0..5 {
            append(&p, &mut model, batch(2, 10, n * HOUR_MS)).await;
        }
        assert_eq!(p.segments(), 5);
        p.update_config(small_segments(100_000));
        for n in 0..9 {
            append(&p, &mut model, batch(1, 40_000, n)).await;
        }
        assert_eq!(
            p.segments(),
            9,
            "two batches fit into each segment, once into the last one"
        );
        assert_eq!(read_all(&p, 0, 1 << 20).await.unwrap(), model.from(0));
    });
    let lens: Vec<u64> = machine.files(".log").iter().map(|(_, len)| *len).collect();
    assert!(lens.iter().all(|len| *len <= 100_000), "{lens:?}");
}

#[test]
fn records_too_large_for_the_index_stride_end_the_segment() {
    let mut machine = Machine::new(2);
    let model = machine.life_from_files(LogConfig::default(), async |p| {
        let mut model = Model::default();
        for n in 0..200 {
            append(&p, &mut model, batch(1, 10, n)).await;
        }
        for n in 0..6 {
            append(&p, &mut model, batch(1, 700_000, n)).await;
        }
        assert_eq!(p.segments(), 2);
        assert_eq!(read_all(&p, 0, 1).await.unwrap(), model.from(0));
        p.close().await.unwrap();
        model
    });
    machine.life_from_files(LogConfig::default(), async move |p| {
        assert_eq!(read_all(&p, 0, 1).await.unwrap(), model.from(0));
    });
}

#[test]
fn old_segments_go_by_time_and_their_files_later() {
    let mut machine = Machine::new(3);
    machine.life(hourly(), async |p| {
        let mut model = Model::default();
        for n in 0..6 {
            append(&p, &mut model, batch(2, 10, n * HOUR_MS)).await;
        }
        assert_eq!(
            p.apply_retention(100 * HOUR_MS).await.unwrap(),
            0,
            "kept for ever"
        );
        let limited = LogConfig {
            retention_ms: Some(10 * HOUR_MS),
            ..hourly()
        };
        p.update_config(limited);
        let start = p.apply_retention(12 * HOUR_MS + 5).await.unwrap();
        assert_eq!(
            (start, p.segments()),
            (6, 3),
            "those of hours 0 to 2 are too old"
        );
        assert_eq!(p.log_start_offset(), 6);
        let error = p.read(5, 10).await.unwrap_err();
        assert!(matches!(error, ReadError::OutOfRange { .. }));
        assert_eq!(read_all(&p, 6, 10).await.unwrap(), model.from(6));
        let start = p.apply_retention(100 * HOUR_MS).await.unwrap();
        assert_eq!(
            (start, p.segments()),
            (12, 1),
            "the active segment goes as well"
        );
        assert_eq!(p.log_end_offset(), 12, "offsets are never given out again");
        append(&p, &mut model, batch(1, 10, 100 * HOUR_MS)).await;
        assert_eq!(read_all(&p, 12, 10).await.unwrap(), model.from(12));
    });
    assert!(
        machine.files(".deleted").len() >= 5,
        "their files stay for a while"
    );
    machine.life(hourly(), async |p| {
        assert_eq!((p.log_start_offset(), p.log_end_offset()), (12, 13));
        sleep(Duration::from_secs(2)).await;
    });
    assert_eq!(
        machine.files(".deleted"),
        [],
        "and are gone with the next start at the latest"
    );
    assert_eq!(machine.files(".log").len(), 1);
}

#[test]
fn a_log_keeps_at_least_retention_bytes() {
    let mut machine = Machine::new(4);
    let config = LogConfig {
        retention_bytes: Some(100_000),
        ..small_segments(66_000)
    };
    machine.life(config, async |p| {
        let mut model = Model::default();
        for n in 0..20 {
            append(&p, &mut model, batch(1, 30_000, n)).await;
        }
        let before = p.size();
        p.apply_retention(0).await.unwrap();
        assert!(p.size() < before);
        assert!((100_000..170_000).contains(&p.size()), "{}", p.size());
        let start = p.log_start_offset();
        assert_eq!(read_all(&p, start, 10).await.unwrap(), model.from(start));
        sleep(Duration::from_secs(61)).await;
    });
    assert_eq!(machine.files(".deleted"), []);
}

#[test]
fn deleted_records_stay_deleted_after_a_power_cut() {
    let mut machine = Machine::new(5);
    machine.life(small_segments(70_000), async |p| {
        let mut model = Model::default();
        for n in 0..10 {
            append(&p, &mut model, batch(3, 10_000, n)).await;
        }
        for offset in [-2, 31, i64::MAX] {
            let error = p.delete_records(offset).await.unwrap_err();
            assert!(matches!(error, ChangeError::OutOfRange { .. }), "{error}");
        }
        assert_eq!(
            p.delete_records(13).await.unwrap(),
            13,
            "in the middle of a batch"
        );
        assert_eq!(p.delete_records(4).await.unwrap(), 13, "never back");
        let slice = p.read(13, 1).await.unwrap();
        assert_eq!(slice.base_offset, 12);
    });
    machine.world.power_off(machine.node);
    machine.life(small_segments(70_000), async |p| {
        assert_eq!(p.log_start_offset(), 13);
        assert_eq!(p.damages(), []);
        assert_eq!(p.delete_records(-1).await.unwrap(), 30);
        assert_eq!(p.log_start_offset(), 30);
    });
    machine.life(small_segments(70_000), async |p| {
        assert_eq!((p.log_start_offset(), p.log_end_offset()), (30, 30));
    });
}

#[test]
fn a_reader_finishes_what_it_has_begun_on_a_deleted_segment() {
    let mut machine = Machine::new(6);
    machine.life_from_files(small_segments(200_000), async |p| {
        let mut model = Model::default();
        for n in 0..8 {
            append(&p, &mut model, batch(1, 90_000, n)).await;
        }
        let slice = p.read(0, 1 << 20).await.unwrap();
        p.delete_records(-1).await.unwrap();
        sleep(Duration::from_secs(120)).await;
        assert_eq!(&bytes_of(&slice).await[..], &model.from(0)[..slice.len]);
    });
}

#[test]
fn segments_that_a_full_disk_keeps_go_when_there_is_room() {
    // no name changes at all; some do; the first does not
    let chances = [Chance::Always, Chance::one_in(2), Chance::Nth(1)];
    for (seed, chance) in (0..20).flat_map(|seed| chances.map(|chance| (seed, chance))) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let node = machine.node;
        let at_work = machine.world.start(node, async move {
            let caches = CoreCaches::new(CacheLimits::default());
            let p = Partition::open(DIR, small_segments(70_000), &caches);
            let p = p.await.unwrap();
            let mut model = Model::default();
            p.set_leader_epoch(3);
            for n in 0..10 {
                append(&p, &mut model, batch(3, 10_000, n)).await;
            }
            let slice = p.read(0, 1 << 20).await.unwrap();
            sleep(Duration::from_secs(10)).await;
            // the log's start has moved, and that is what was asked for
            assert_eq!(p.delete_records(13).await.unwrap(), 13, "{chance:?}");
            assert_eq!(p.segments(), 3);
            assert_eq!(p.delete_records(14).await.unwrap(), 14, "{chance:?}");
            let part = bytes_of(&slice).await;
            assert_eq!(&part[..], &model.from(0)[..slice.len], "read to its end");
            sleep(Duration::from_secs(100)).await;
            p.apply_retention(0).await.unwrap();
            sleep(Duration::from_secs(100)).await;
            assert_eq!(p.failure().map(|f| f.to_string()), None);
            assert_eq!(read_all(&p, 14, 1).await.unwrap(), model.from(14));
        });
        machine.world.run_for(Duration::from_secs(5));
        machine.world.disk(node).faults().name_no_space = chance;
        machine.world.run_for(Duration::from_secs(60));
        machine.world.disk(node).faults().name_no_space = Chance::Never;
        machine.world.run_for(Duration::from_secs(200));
        assert_eq!(at_work.take().len(), 1);
        assert_eq!(machine.files(".deleted"), [], "{chance:?}");
        for kind in [".log", ".index"] {
            assert_eq!(machine.files(kind).len(), 3, "{kind} {chance:?}");
        }
    }
}
