//! Logs that are cut at their end, or begin anew: what stays, what goes, and who is told.

use std::path::Path;
use std::rc::Rc;

use ringmill_log::{
    AppendError, ChangeError, EpochEntry, LogConfig, Partition, ReadError, Severity, verify,
};
use ringmill_ring::sleep;
use ringmill_wire::batch::BatchHeader;
use std::time::Duration;

use crate::compaction::{batch_of, cleaner, compacted, some_entries};
use crate::fixture::*;
use crate::transactions::{data, end, marker, put};
use ringmill_wire::batch::{Compression, ProducerStamp};

/// A model that is cut as the log should be. Returns its end.
fn cut(model: &mut Model, offset: i64) -> i64 {
    model.batches.retain(|(offsets, _)| offsets.end <= offset);
    model.end()
}

async fn sound(p: &Partition, model: &Model) {
    assert_eq!(p.damages(), []);
    assert_eq!(
        (p.log_end_offset(), p.visible_end()),
        (model.end(), model.end())
    );
    assert_eq!(read_all(p, 0, 3_000).await.unwrap(), model.from(0));
}

async fn verified() {
    let mut found = Vec::new();
    verify(Path::new(DIR), |finding| found.push(finding))
        .await
        .unwrap();
    assert!(
        found.iter().all(|f| f.severity == Severity::Note),
        "{found:?}"
    );
}

#[test]
fn a_log_is_cut_before_the_batch_that_holds_the_offset() {
    for seed in seeds(40) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let segment = machine.world.random().pick(&[6_000, 20_000, 1 << 30]);
        let tail = machine.world.random().coin();
        let work = async move |p: Partition| {
            let mut model = Model::default();
            for round in 0..6 {
                for n in 0..20 {
                    let len = below(900) as usize;
                    append(
                        &p,
                        &mut model,
                        batch(1 + below(5) as usize, len, 100 * round + n),
                    )
                    .await;
                }
                let offset = below(model.end() as u64 + 3) as i64;
                let end = cut(&mut model, offset);
                assert_eq!(p.truncate_to(offset).await.unwrap(), end);
                sound(&p, &model).await;
                let max = p.offset_of_max_timestamp().await.unwrap();
                let times = model
                    .batches
                    .iter()
                    .map(|(_, bytes)| BatchHeader::parse(bytes).unwrap().max_timestamp);
                assert_eq!(max.map(|max| max.timestamp), times.max());
                assert_eq!(p.end_of_epoch(3), (end > 0).then_some((3, end)));
            }
            append(&p, &mut model, batch(2, 10, 5)).await;
            p.close().await.unwrap();
            verified().await;
            model
        };
        let model = match tail {
            true => machine.life(small_segments(segment), work),
            false => machine.life_from_files(small_segments(segment), work),
        };
        machine.life(small_segments(segment), async move |p| {
            assert_eq!(p.recovery().swept_bytes, 0);
            sound(&p, &model).await;
        });
    }
}

#[test]
fn receipts_of_before_are_void_and_handles_are_not() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(2, 10, 5)).await;
        let kept = p.append(batch(2, 10, 6)).unwrap();
        let lost = p.append(batch(2, 10, 7)).unwrap();
        let handle = p.clone();
        assert_eq!(p.truncate_to(4).await.unwrap(), 4);
        for receipt in [&kept.receipt, &lost.receipt] {
            let waited = handle.flushed(receipt).await;
            assert!(matches!(waited, Err(AppendError::Truncated)), "{waited:?}");
        }
        assert_eq!(handle.log_end_offset(), 4);
        let again = handle.append(batch(1, 10, 8)).unwrap();
        assert_eq!(again.base_offset, 4);
        p.acknowledged(&again.receipt).await.unwrap();
        let beyond = p.read(6, 1).await;
        assert!(matches!(beyond, Err(ReadError::OutOfRange { .. })));
        assert_eq!(p.truncate_to(5).await.unwrap(), 5, "nothing to cut");
        p.acknowledged(&again.receipt).await.unwrap();
        let refused = p.truncate_to(-1).await;
        assert!(matches!(refused, Err(ChangeError::OutOfRange { .. })));
    });
}

#[test]
fn appends_are_refused_while_the_log_is_cut() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        for n in 0..10 {
            p.append(batch(1, 500, n)).unwrap();
        }
        let cutting = p.clone();
        let done = Rc::new(std::cell::Cell::new(false));
        let told = done.clone();
        ringmill_ring::spawn(async move {
            assert_eq!(cutting.truncate_to(3).await.unwrap(), 3);
            told.set(true);
        });
        let mut refused = 0;
        while !done.get() {
            match p.append(batch(1, 10, 5)) {
                Err(AppendError::Truncated) => refused += 1,
                taken => {
                    taken.unwrap();
                }
            }
            if refused == 1 {
                let busy = p.delete_records(0).await;
                assert!(matches!(busy, Err(ChangeError::Truncated)), "{busy:?}");
            }
            sleep(Duration::from_micros(20)).await;
        }
        assert!(refused > 0);
        p.close().await.unwrap();
    });
}

#[test]
fn producers_transactions_and_epochs_are_as_they_were_there() {
    for segment in [1_500, 1 << 30] {
        let mut machine = Machine::new(1);
        machine.life(small_segments(segment), async |p| {
            let mut known = Vec::new();
            for n in 0..12 {
                p.begin_leadership(n);
                put(&p, data(1, 0, n, 100), 1, 0).await.unwrap();
                put(&p, data(2, 0, n, 100), 2, 0).await.unwrap();
                end(&p, marker(1, 0, n % 2 == 0)).await.unwrap();
                if n % 3 == 0 {
                    end(&p, marker(2, 0, false)).await.unwrap();
                }
                let offset = p.log_end_offset();
                let stable = p.last_stable_offset();
                let aborted = p.aborted(0, stable).await.unwrap();
                known.push((offset, p.producers(9), stable, aborted, p.leader_epochs()));
                sleep(Duration::from_secs(20)).await;
            }
            for (offset, producers, stable, aborted, epochs) in known.into_iter().rev() {
                assert_eq!(p.truncate_to(offset).await.unwrap(), offset);
                assert_eq!(p.producers(9), producers, "at {offset}");
                assert_eq!(p.last_stable_offset(), stable);
                assert_eq!(p.aborted(0, stable).await.unwrap(), aborted);
                assert_eq!(p.leader_epochs(), epochs);
            }
            p.close().await.unwrap();
            verified().await;
        });
    }
}

#[test]
fn the_high_watermark_and_the_logs_start_are_not_beyond_its_end() {
    let mut machine = Machine::new(1);
    machine.life(small_segments(1_000), async |p| {
        let mut model = Model::default();
        p.set_high_watermark(Some(0));
        for n in 0..20 {
            append(&p, &mut model, batch(2, 100, n)).await;
        }
        p.set_high_watermark(Some(30));
        assert_eq!(p.truncate_to(34).await.unwrap(), 34);
        assert_eq!(p.high_watermark(), Some(30));
        assert_eq!(p.truncate_to(21).await.unwrap(), 20);
        assert_eq!((p.high_watermark(), p.visible_end()), (Some(20), 20));
        assert_eq!(p.delete_records(19).await.unwrap(), 19);
        assert_eq!(p.truncate_to(18).await.unwrap(), 18);
        assert_eq!((p.log_start_offset(), p.high_watermark()), (18, Some(18)));
        // the segments before it are gone
        assert_eq!(p.truncate_to(3).await.unwrap(), 3);
        assert_eq!((p.log_start_offset(), p.log_end_offset()), (3, 3));
        assert_eq!(p.set_log_start_offset(3).await.unwrap(), 3);
        p.close().await.unwrap();
        verified().await;
    });
}

#[test]
fn a_log_begins_anew() {
    let mut machine = Machine::new(1);
    machine.life(small_segments(1_000), async |p| {
        let mut model = Model::default();
        p.set_high_watermark(Some(0));
        for n in 0..9 {
            append(&p, &mut model, batch(2, 100, n)).await;
        }
        for offset in [5_000, 12, 0] {
            assert_eq!(p.reset_to(offset).await.unwrap(), offset);
            assert_eq!((p.log_start_offset(), p.log_end_offset()), (offset, offset));
            assert_eq!(
                (p.high_watermark(), p.size(), p.segments()),
                (Some(offset), 0, 1)
            );
            assert_eq!((p.leader_epochs(), p.producers(9)), (vec![], vec![]));
            let bytes = stored(&batch(3, 10, 5), offset, 9);
            let appended = p.append_replica(bytes.clone().into()).unwrap();
            p.flushed(&appended.receipt).await.unwrap();
            p.set_high_watermark(Some(offset + 3));
            assert_eq!(read_all(&p, offset, 1_000).await.unwrap(), bytes);
            let epoch = EpochEntry {
                epoch: 9,
                start_offset: offset,
            };
            assert_eq!(p.leader_epochs(), [epoch]);
            assert_eq!(
                p.set_log_start_offset(offset + 2).await.unwrap(),
                offset + 2
            );
            assert_eq!(
                p.set_log_start_offset(offset + 1).await.unwrap(),
                offset + 2
            );
            let beyond = p.set_log_start_offset(offset + 4).await;
            assert!(matches!(beyond, Err(ChangeError::OutOfRange { .. })));
        }
        p.close().await.unwrap();
        verified().await;
    });
    machine.life(small_segments(1_000), async |p| {
        assert_eq!((p.log_start_offset(), p.log_end_offset()), (2, 3));
    });
}

#[test]
fn a_compacted_log_is_cut_at_a_batch_that_is_there() {
    for seed in seeds(10) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life_from_files(compacted(66_000), async |p| {
            for _ in 0..200 {
                let bytes = batch_of(&some_entries(25), Compression::None, ProducerStamp::NONE);
                let appended = p.append(bytes).unwrap();
                p.flushed(&appended.receipt).await.unwrap();
            }
            p.clean(&cleaner(), 0).await.unwrap().unwrap();
            while p.log_end_offset() > 0 {
                let before = read_all_gaps(&p).await;
                let offset = below(p.log_end_offset() as u64) as i64;
                let end = p.truncate_to(offset).await.unwrap();
                assert!(end <= offset && p.log_end_offset() == end);
                let after = read_all_gaps(&p).await;
                assert!(before.starts_with(&after));
                if let Some(cut) = before.get(after.len()..).filter(|cut| !cut.is_empty()) {
                    assert!(BatchHeader::parse(cut).unwrap().last_offset() >= offset);
                }
                let appended = p.append(batch(1, 10, 5)).unwrap();
                assert_eq!(appended.base_offset, end);
                p.flushed(&appended.receipt).await.unwrap();
                assert_eq!(p.truncate_to(end).await.unwrap(), end);
                assert_eq!(p.damages(), []);
            }
            p.close().await.unwrap();
            verified().await;
        });
    }
}

async fn read_all_gaps(p: &Partition) -> Vec<u8> {
    let (mut out, mut offset) = (Vec::new(), 0);
    while offset < p.written_end() {
        let slice = p.read_for_replica(offset, 50_000).await.unwrap();
        out.extend_from_slice(&bytes_of(&slice).await);
        offset = slice.next_offset;
    }
    out
}
