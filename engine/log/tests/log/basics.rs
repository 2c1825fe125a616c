//! What holds when nothing goes wrong.

use std::time::Duration;

use bytes::Bytes;
use ringmill_log::{
    AppendError, CacheLimits, CoreCaches, Durability, FetchData, LogConfig, Partition, ReadError,
    TimestampType,
};
use ringmill_ring::{now, sleep_until, spawn};
use ringmill_wire::batch::{BatchHeader, BatchView};

use crate::fixture::*;

#[test]
fn what_was_appended_is_read_back_byte_for_byte() {
    let mut machine = Machine::new(1);
    let model = machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        for n in 0..200 {
            append(&p, &mut model, batch(1 + n % 7, n * 50, 1_000 + n as i64)).await;
        }
        assert_eq!(p.visible_end(), model.end());
        assert_eq!(
            read_all(&p, 0, 4096).await.unwrap(),
            model.from(0),
            "from the tail"
        );
        p.close().await.unwrap();
        model
    });
    let logs = machine.files(".log");
    assert_eq!(logs.len(), 1);
    assert_eq!(
        machine.read(&logs[0].0),
        model.from(0),
        "the file holds batches and nothing else"
    );
    machine.life(LogConfig::default(), async move |p| {
        assert_eq!(
            p.recovery().swept_bytes,
            0,
            "a clean stop leaves nothing to check"
        );
        assert_eq!(p.log_end_offset(), model.end());
        for max_bytes in [1, 5_000, 70_000, 1 << 20] {
            assert_eq!(
                read_all(&p, 0, max_bytes).await.unwrap(),
                model.from(0),
                "from the file"
            );
        }
        for offset in 0..model.end() {
            let slice = p.read(offset, 1).await.unwrap();
            let bytes = bytes_of(&slice).await;
            let (range, whole) = model
                .batches
                .iter()
                .find(|(r, _)| r.contains(&offset))
                .unwrap();
            assert_eq!(slice.base_offset, range.start);
            assert_eq!(
                &bytes[..],
                &whole[..],
                "one whole batch, however small the limit"
            );
        }
    });
}

#[test]
fn a_clean_start_and_stop_writes_nothing() {
    let mut machine = Machine::new(2);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        let mut producer = Producer::new(7);
        for n in 0..50 {
            append(&p, &mut model, producer.batch(3, 100, n)).await;
        }
        p.close().await.unwrap();
    });
    let before = machine.world.disk(machine.node).list();
    let checkpoint = machine.read(&format!("{DIR}/checkpoint"));
    for _ in 0..3 {
        machine.life(LogConfig::default(), async |p| {
            assert_eq!(p.recovery().swept_bytes, 0);
            p.close().await.unwrap();
        });
    }
    assert_eq!(machine.world.disk(machine.node).list(), before);
    assert_eq!(machine.read(&format!("{DIR}/checkpoint")), checkpoint);
}

#[test]
fn random_logs_answer_as_a_naive_one() {
    for seed in seeds(12) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.world.swarm();
        let random = machine.world.random();
        let config = LogConfig {
            segment_bytes: random.pick(&[20_000, 200_000, 1 << 30]),
            durability: random.pick(&[
                Durability::Flushed,
                Durability::Replicated,
                Durability::Relaxed,
            ]),
            ..LogConfig::default()
        };
        if random.coin() {
            machine.life_from_files(config, random_work);
        } else {
            machine.life(config, random_work);
        }
    }
}

/// Appends of all sizes, many at once, and reads in between.
async fn random_work(p: Partition) {
    let mut model = Model::default();
    for _ in 0..30 {
        let mut appended = Vec::new();
        for _ in 0..below(12) {
            let size = if below(8) == 0 { 30_000 } else { 300 };
            let batch = batch(
                1 + below(20) as usize,
                below(size) as usize,
                below(1000) as i64,
            );
            if let Ok(done) = p.append(batch.clone()) {
                model.push(&batch, done.base_offset, 3);
                appended.push(done);
            }
        }
        for done in &appended {
            p.acknowledged(&done.receipt).await.unwrap();
            assert!(
                p.visible_end() > done.last_offset,
                "acknowledged means visible"
            );
        }
        assert_eq!(p.log_end_offset(), model.end());
        for _ in 0..below(4) {
            let from = below(model.end() as u64 + 1) as i64;
            let max_bytes = [1, 1000, 20_000, 1 << 20][below(4) as usize];
            assert_eq!(
                read_all(&p, from, max_bytes).await.unwrap(),
                model.from(from)
            );
        }
    }
    let size: usize = model.batches.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(p.size(), size as u64);
}

#[test]
fn offsets_beyond_the_log_are_refused() {
    let mut machine = Machine::new(3);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(3, 10, 0)).await;
        assert!(matches!(
            p.read(3, 100).await.unwrap().data,
            FetchData::Empty
        ));
        for offset in [4, i64::MAX, -1, i64::MIN] {
            let error = p.read(offset, 100).await.unwrap_err();
            assert!(matches!(error, ReadError::OutOfRange { .. }), "{error}");
        }
    });
}

#[test]
fn nothing_is_visible_before_it_is_flushed() {
    let mut machine = Machine::new(4);
    machine.life(LogConfig::default(), async |p| {
        let appended = p.append(batch(1, 10, 0)).unwrap();
        assert_eq!((p.log_end_offset(), p.visible_end()), (1, 0));
        assert!(matches!(
            p.read(0, 100).await.unwrap().data,
            FetchData::Empty
        ));
        let waiting = spawn({
            let p = p.clone();
            async move { p.visible_beyond(0).await.unwrap() }
        });
        p.flushed(&appended.receipt).await.unwrap();
        assert_eq!(p.flushed_end(), 1);
        assert_eq!(waiting.await.unwrap(), 1);
    });
}

#[test]
fn a_relaxed_log_shows_what_is_written_and_flushes_when_asked() {
    let mut machine = Machine::new(5);
    let config = LogConfig {
        durability: Durability::Relaxed,
        ..LogConfig::default()
    };
    machine.life(config, async |p| {
        let first = p.append(batch(2, 10, 0)).unwrap();
        p.acknowledged(&first.receipt).await.unwrap();
        assert_eq!((p.visible_end(), p.flushed_end()), (2, 0));
        p.flushed(&first.receipt).await.unwrap();
        assert_eq!(p.flushed_end(), 2);
        p.update_config(LogConfig::default());
        let second = p.append(batch(1, 10, 0)).unwrap();
        p.acknowledged(&second.receipt).await.unwrap();
        assert_eq!(p.flushed_end(), 3, "flushed from now on");
    });
}

#[test]
fn flush_ms_and_flush_messages_are_kept() {
    let mut machine = Machine::new(6);
    let config = LogConfig {
        durability: Durability::Relaxed,
        flush_messages: Some(10),
        flush_interval: Some(std::time::Duration::from_millis(500)),
        ..LogConfig::default()
    };
    machine.life(config, async |p| {
        let begun = now();
        let one = p.append(batch(9, 10, 0)).unwrap();
        p.written(&one.receipt).await.unwrap();
        while p.flushed_end() < 9 {
            ringmill_ring::sleep(std::time::Duration::from_millis(10)).await;
        }
        let took = now() - begun;
        assert!(took.as_millis() >= 500, "flush.ms came after {took:?}");
        let begun = now();
        let many = p.append(batch(10, 10, 0)).unwrap();
        p.written(&many.receipt).await.unwrap();
        while p.flushed_end() < 19 {
            ringmill_ring::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(
            now() - begun < std::time::Duration::from_millis(100),
            "flush.messages"
        );
    });
}

#[test]
fn batches_that_no_topic_may_hold_are_refused() {
    let mut machine = Machine::new(7);
    let config = LogConfig {
        max_message_bytes: 1000,
        ..LogConfig::default()
    };
    machine.life(config, async |p| {
        let whole = batch(1, 100, 0);
        let mut twice = whole.to_vec();
        twice.extend_from_slice(&whole);
        let mut lies = whole.to_vec();
        lies[57..61].copy_from_slice(&7i32.to_be_bytes());
        for bad in [
            batch(1, 1000, 0),
            whole.slice(..70),
            Bytes::new(),
            twice.into(),
            lies.into(),
        ] {
            let error = p.append(bad).unwrap_err();
            assert!(matches!(error, AppendError::Batch(_)), "{error}");
        }
        assert_eq!(p.log_end_offset(), 0);
    });
}

#[test]
fn log_append_time_stamps_batches_and_keeps_their_crc() {
    let mut machine = Machine::new(8);
    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..LogConfig::default()
    };
    machine.life(config, async |p| {
        for value_len in [10, 20_000] {
            let batch = batch(2, value_len, 5);
            let appended = p.append(batch).unwrap();
            p.acknowledged(&appended.receipt).await.unwrap();
            let bytes = bytes_of(&p.read(appended.base_offset, 1).await.unwrap()).await;
            let view = BatchView::parse(&bytes).unwrap();
            view.check_crc().unwrap();
            assert_eq!(view.header().timestamp_type(), TimestampType::LogAppendTime);
            assert_eq!(Some(view.header().max_timestamp), appended.append_time);
        }
    });
}

#[test]
fn a_batch_sent_again_is_not_appended_again_over_restarts() {
    let mut machine = Machine::new(9);
    let sent = machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        let mut producer = Producer::new(42);
        let mut sent = Vec::new();
        for n in 0..8 {
            let batch = producer.batch(2, 10, n);
            sent.push((batch.clone(), append(&p, &mut model, batch).await));
        }
        p.close().await.unwrap();
        sent
    });
    for clean in [true, false, true] {
        let again = sent.clone();
        machine.life(LogConfig::default(), async move |p| {
            for (batch, base_offset) in &again[3..] {
                let appended = p.append(batch.clone()).unwrap();
                assert!(appended.duplicate);
                assert_eq!(appended.base_offset, *base_offset);
                p.acknowledged(&appended.receipt).await.unwrap();
            }
            let gone = p.append(again[0].0.clone()).unwrap_err();
            assert!(matches!(gone, AppendError::Producer(_)), "{gone}");
            assert_eq!(p.log_end_offset(), 16);
            if clean {
                p.close().await.unwrap();
            }
        });
    }
}

#[test]
fn a_duplicate_waits_for_the_flush_of_the_original() {
    let mut machine = Machine::new(10);
    machine.life(LogConfig::default(), async |p| {
        let batch = Producer::new(1).batch(1, 10, 0);
        let first = p.append(batch.clone()).unwrap();
        let again = p.append(batch).unwrap();
        assert!(again.duplicate && !first.duplicate);
        p.acknowledged(&again.receipt).await.unwrap();
        assert_eq!(p.flushed_end(), 1);
    });
}

#[test]
fn a_closed_log_takes_and_gives_nothing() {
    let mut machine = Machine::new(11);
    machine.life(LogConfig::default(), async |p| {
        let late = p.append(batch(1, 10, 0)).unwrap();
        let waiting = spawn({
            let p = p.clone();
            async move { p.visible_beyond(5).await }
        });
        p.close().await.unwrap();
        p.acknowledged(&late.receipt)
            .await
            .expect("what was appended before is flushed");
        assert!(matches!(
            p.append(batch(1, 10, 0)),
            Err(AppendError::Closed)
        ));
        assert!(matches!(p.read(0, 10).await, Err(ReadError::Closed)));
        assert!(matches!(waiting.await.unwrap(), Err(ReadError::Closed)));
        p.close().await.expect("closing twice is nothing");
    });
}

#[test]
fn appends_wait_for_room_when_the_disk_is_slow() {
    let mut machine = Machine::new(12);
    machine.world.disk(machine.node).faults().write_latency =
        ringmill_ring::sim::Latency::micros(50_000, 100_000);
    machine.life(LogConfig::default(), async |p| {
        let (mut full, mut model) = (0, Model::default());
        for n in 0..60 {
            let batch = batch(1, 1_000_000, n);
            loop {
                match p.append(batch.clone()) {
                    Ok(appended) => {
                        model.push(&batch, appended.base_offset, 3);
                        break;
                    }
                    Err(AppendError::Full) => {
                        full += 1;
                        p.room().await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert!(full > 0, "60 MB do not fit into the queue");
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async |p| {
        assert_eq!(p.log_end_offset(), 60)
    });
}

#[test]
fn a_removed_partition_leaves_nothing_behind() {
    let mut machine = Machine::new(13);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(1, 10, 0)).await;
        p.remove().await.unwrap();
        ringmill_ring::sleep(std::time::Duration::from_secs(1)).await;
    });
    let left = machine.world.disk(machine.node).list();
    assert!(
        left.iter().all(|(path, _)| !path.contains("t-0")),
        "{left:?}"
    );
    machine.life(LogConfig::default(), async |p| {
        assert_eq!(p.log_end_offset(), 0)
    });
}

#[test]
fn descriptors_do_not_grow_with_the_log() {
    let mut machine = Machine::new(14);
    machine.life_from_files(small_segments(65_536), async |p| {
        let mut model = Model::default();
        for n in 0..100 {
            append(&p, &mut model, batch(1, 30_000, n)).await;
        }
        assert!(p.segments() > 40);
        assert_eq!(read_all(&p, 0, 1000).await.unwrap(), model.from(0));
        p.close().await.unwrap();
    });
    assert_eq!(
        machine.world.descriptors(machine.node),
        0,
        "none is left open"
    );
    machine.world.limit_descriptors(machine.node, 20);
    machine.life_from_files(small_segments(65_536), async |p| {
        for offset in (0..100).rev() {
            assert!(p.read(offset, 1).await.unwrap().len > 30_000);
        }
    });
}

#[test]
fn a_kafka_header_stands_at_every_batch() {
    let mut machine = Machine::new(15);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        for _ in 0..3 {
            append(&p, &mut model, batch(2, 10, 0)).await;
        }
    });
    let log = machine.read(&path(0, "log"));
    let header = BatchHeader::parse(&log).unwrap();
    assert_eq!((header.base_offset, header.partition_leader_epoch), (0, 3));
    assert_eq!(
        machine.read(&format!("{DIR}/leader-epoch-checkpoint")),
        b"0\n0\n"
    );
}

/// What is acknowledged must be found whole by the next recovery, and so must what is behind it.
#[test]
fn a_batch_that_cannot_hold_its_records_is_refused() {
    let mut lying = batch(1, 5, 0).to_vec();
    lying[23..27].copy_from_slice(&999_i32.to_be_bytes());
    lying[57..61].copy_from_slice(&1000_i32.to_be_bytes());
    let crc = crc32c::crc32c(&lying[21..]);
    lying[17..21].copy_from_slice(&crc.to_be_bytes());
    Machine::new(1).life(LogConfig::default(), async move |p| {
        let refused = p.append(lying.into());
        assert!(matches!(refused, Err(AppendError::Batch(_))), "{refused:?}");
        assert_eq!(p.log_end_offset(), 0);
    });
}

#[test]
fn idle_partitions_keep_no_files() {
    const TURN: Duration = Duration::from_secs(20);
    let mut machine = Machine::new(1);
    let node = machine.node;
    let outputs = machine.world.start(node, async {
        let caches = CoreCaches::new(CacheLimits {
            tail_bytes: 0,
            open_files: 8,
        });
        let mut all = Vec::new();
        for n in 0..50 {
            let dir = format!("/data/t-{n}");
            let p = Partition::open(&dir, small_segments(66_000), &caches).await;
            all.push((p.unwrap(), Model::default()));
        }
        let begun = now();
        for turn in 1..4 {
            sleep_until(begun + TURN * turn).await;
            for (p, model) in &mut all {
                p.set_leader_epoch(3);
                append(p, model, batch(1, 30_000, 5)).await;
                let content = read_all(p, 0, 10_000).await.unwrap();
                assert_eq!(content, model.from(0));
            }
        }
    });
    for turn in 0..12 {
        machine.world.run_for(TURN / 2);
        let opened = machine.world.descriptors(node);
        assert!(opened <= 8, "{opened} files are open in turn {turn}");
    }
    assert_eq!(outputs.take().len(), 1);
}
