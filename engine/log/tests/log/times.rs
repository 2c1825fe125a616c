//! Offsets by timestamp, against a scan of everything.

use bytes::Bytes;
use ringmill_log::{LogConfig, TimestampOffset, TimestampType};
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::record::{Records, decoded};

use crate::fixture::*;

/// (timestamp, offset) of every record.
fn records_of(log: &[u8]) -> Vec<(i64, i64)> {
    let mut records = Vec::new();
    for batch in Batches::new(log) {
        let (_, view) = batch.unwrap();
        let bytes = decoded(&view, 1 << 30).unwrap();
        for record in Records::new(view.header(), &bytes) {
            let record = record.unwrap();
            records.push((record.timestamp, record.offset));
        }
    }
    records
}

fn some_batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(1 << 20);
    let value = vec![3; below(3_000) as usize];
    for _ in 0..=below(8) {
        let record = NewRecord {
            timestamp: 1_000 + below(5_000) as i64,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    builder.seal(compression, ProducerStamp::NONE)
}

#[test]
fn a_timestamp_leads_to_the_first_record_that_is_not_older() {
    for seed in seeds(20) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let config = LogConfig {
            timestamp_type: machine
                .world
                .random()
                .pick(&[TimestampType::CreateTime, TimestampType::LogAppendTime]),
            ..small_segments(machine.world.random().pick(&[200_000, 1 << 30]))
        };
        let append_time = config.timestamp_type == TimestampType::LogAppendTime;
        machine.life_from_files(config.clone(), async |p| {
            for _ in 0..150 {
                let codec = Compression::ALL[below(5) as usize];
                let appended = p.append(some_batch(codec)).unwrap();
                p.acknowledged(&appended.receipt).await.unwrap();
                ringmill_ring::sleep(std::time::Duration::from_millis(below(3))).await;
            }
        });
        machine.life_from_files(config, async move |p| {
            if below(2) == 0 {
                p.delete_records(below(300) as i64).await.unwrap();
            }
            let start = p.log_start_offset();
            let mut records = records_of(&read_all(&p, start, 1 << 20).await.unwrap());
            records.retain(|(_, offset)| *offset >= start);
            let (first, last) = if append_time {
                (records[0].0 - 10, records[records.len() - 1].0 + 10)
            } else {
                (900, 6_500)
            };
            for _ in 0..60 {
                let timestamp = first + below((last - first) as u64) as i64;
                let expected = records.iter().find(|(t, _)| *t >= timestamp).copied();
                let found = p.offset_for_timestamp(timestamp).await.unwrap();
                assert_eq!(
                    found.map(|f| (f.timestamp, f.offset)),
                    expected,
                    "{timestamp}"
                );
            }
            let max = records.iter().map(|(t, _)| *t).max().unwrap();
            let expected = records.iter().find(|(t, _)| *t == max).copied();
            let found = p.offset_of_max_timestamp().await.unwrap();
            assert_eq!(found.map(|f| (f.timestamp, f.offset)), expected);
        });
    }
}

#[test]
fn an_empty_log_has_no_timestamps() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        assert_eq!(p.offset_for_timestamp(0).await.unwrap(), None);
        assert_eq!(p.offset_of_max_timestamp().await.unwrap(), None);
        let mut model = Model::default();
        append(&p, &mut model, batch(1, 10, 77)).await;
        let found = TimestampOffset {
            timestamp: 77,
            offset: 0,
            leader_epoch: 3,
        };
        assert_eq!(p.offset_for_timestamp(0).await.unwrap(), Some(found));
        assert_eq!(p.offset_for_timestamp(78).await.unwrap(), None);
        assert_eq!(p.offset_of_max_timestamp().await.unwrap(), Some(found));
    });
}
