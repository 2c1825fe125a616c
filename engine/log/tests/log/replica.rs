//! A partition as one of several replicas: what the high watermark hides, what replicas read.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ringmill_log::{AppendError, ChangeError, EpochEntry, LogConfig, Partition};
use ringmill_ring::{sleep, spawn};

use crate::fixture::*;
use crate::transactions::{data, end, marker, put};

async fn filled(p: &Partition) -> Model {
    let mut model = Model::default();
    p.set_high_watermark(Some(0));
    for n in 0..10 {
        append(p, &mut model, batch(2, 100, 1_000 * n)).await;
    }
    model
}

fn read_by_replica(p: &Partition, from: i64) -> impl Future<Output = Vec<u8>> {
    let p = p.clone();
    async move {
        let (mut out, mut offset) = (Vec::new(), from);
        while offset < p.written_end() {
            let slice = p.read_for_replica(offset, 1_000).await.unwrap();
            out.extend_from_slice(&bytes_of(&slice).await);
            offset = slice.next_offset;
        }
        out
    }
}

#[test]
fn consumers_see_nothing_beyond_the_high_watermark() {
    for from_files in [false, true] {
        let mut machine = Machine::new(1);
        let check = async move |p: Partition| {
            let model = filled(&p).await;
            assert_eq!((p.visible_end(), p.written_end()), (0, 20));
            assert_eq!(p.set_high_watermark(Some(6)), Some(6));
            assert_eq!(p.set_high_watermark(Some(4)), Some(6), "never back");
            assert_eq!((p.visible_end(), p.last_stable_offset()), (6, 6));
            let seen = read_all(&p, 0, 1 << 20).await.unwrap();
            assert_eq!(seen[..], model.from(0)[..seen.len()]);
            assert_eq!(whole_batches(&seen).1, 6);
            assert_eq!(p.read(6, 1 << 20).await.unwrap().len, 0);
            assert_eq!(p.read(9, 1 << 20).await.unwrap().len, 0);
            assert_eq!(p.read_committed(6, 1 << 20).await.unwrap().len, 0);
            let found = p.offset_for_timestamp(2_001).await.unwrap();
            assert_eq!(found.map(|found| found.offset), Some(5));
            assert_eq!(p.offset_for_timestamp(2_002).await.unwrap(), None);
            let max = p.offset_of_max_timestamp().await.unwrap().unwrap();
            assert_eq!((max.timestamp, max.offset), (2_001, 5));
            let refused = p.delete_records(8).await;
            assert!(matches!(refused, Err(ChangeError::OutOfRange { .. })));
            assert_eq!(p.delete_records(-1).await.unwrap(), 6);
            assert_eq!(read_by_replica(&p, 6).await, model.from(6));
            assert_eq!(p.set_high_watermark(Some(1_000)), Some(20), "the log's end");
            assert_eq!(read_all(&p, 6, 1 << 20).await.unwrap(), model.from(6));
            let max = p.offset_of_max_timestamp().await.unwrap().unwrap();
            assert_eq!(max.timestamp, 9_001);
            p.set_high_watermark(None);
            assert_eq!(p.high_watermark(), None);
        };
        match from_files {
            true => machine.life_from_files(small_segments(600), check),
            false => machine.life(small_segments(600), check),
        }
    }
}

#[test]
fn an_append_is_committed_once_the_high_watermark_has_passed_it() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        p.set_high_watermark(Some(0));
        let appended = p.append(batch(1, 10, 5)).unwrap();
        let committed = Rc::new(Cell::new(false));
        let (told, waiting) = (committed.clone(), p.clone());
        spawn(async move {
            waiting.committed(&appended.receipt).await.unwrap();
            told.set(true);
        });
        assert_eq!(p.written_beyond(0).await.unwrap(), 1);
        sleep(Duration::from_secs(1)).await;
        assert_eq!((p.flushed_end(), committed.get()), (1, false));
        p.set_high_watermark(Some(1));
        assert_eq!(p.visible_beyond(0).await.unwrap(), 1);
        sleep(Duration::from_millis(1)).await;
        assert!(committed.get());
        let lost = p.append(batch(1, 10, 5)).unwrap();
        let (closed, waiting) = (Rc::new(Cell::new(false)), p.clone());
        let told = closed.clone();
        spawn(async move {
            let waited = waiting.committed(&lost.receipt).await;
            told.set(matches!(waited, Err(AppendError::Closed)));
        });
        p.close().await.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert!(closed.get(), "nobody waits for a closed log");
    });
}

#[test]
fn the_high_watermark_is_known_after_a_restart() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        filled(&p).await;
        p.set_high_watermark(Some(6));
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async |p| {
        assert_eq!((p.high_watermark(), p.visible_end()), (Some(6), 6));
        p.set_high_watermark(Some(8));
        sleep(Duration::from_secs(6)).await;
        p.set_high_watermark(Some(10));
    });
    machine.world.power_off(machine.node);
    machine.life(LogConfig::default(), async |p| {
        let hint = p.high_watermark().unwrap();
        assert!((8..=10).contains(&hint), "a checkpoint was due: {hint}");
        p.set_high_watermark(None);
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async |p| {
        assert_eq!((p.high_watermark(), p.visible_end()), (None, 20));
    });
}

/// The producers' snapshot does not tell of transactions that it has seen the end of.
#[test]
fn a_transaction_stays_undecided_over_a_restart_until_its_marker_is_replicated() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        p.set_high_watermark(Some(0));
        put(&p, data(1, 0, 0, 10), 1, 0).await.unwrap();
        put(&p, data(1, 0, 1, 10), 1, 0).await.unwrap();
        end(&p, marker(1, 0, true)).await.unwrap();
        p.set_high_watermark(Some(1));
        assert_eq!((p.visible_end(), p.last_stable_offset()), (1, 0));
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async |p| {
        assert_eq!((p.visible_end(), p.last_stable_offset()), (1, 0));
        p.set_high_watermark(Some(2));
        assert_eq!((p.visible_end(), p.last_stable_offset()), (2, 0));
        p.set_high_watermark(Some(3));
        assert_eq!((p.visible_end(), p.last_stable_offset()), (3, 3));
    });
}

#[test]
fn leadership_begins_an_epoch_before_its_first_record() {
    let mut machine = Machine::new(1);
    let entry = |epoch, start_offset| EpochEntry {
        epoch,
        start_offset,
    };
    machine.life(LogConfig::default(), async move |p| {
        let mut model = Model::default();
        append(&p, &mut model, batch(2, 10, 5)).await;
        p.begin_leadership(7);
        assert_eq!(p.leader_epochs(), [entry(3, 0), entry(7, 2)]);
        assert_eq!(p.end_of_epoch(3), Some((3, 2)));
        assert_eq!(p.end_of_epoch(5), Some((3, 2)));
        assert_eq!(p.end_of_epoch(7), Some((7, 2)));
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async move |p| {
        assert_eq!(
            p.latest_epoch(),
            Some(entry(3, 0)),
            "nothing was written in it"
        );
        p.begin_leadership(8);
        p.begin_leadership(8);
        let appended = p.append(batch(1, 10, 5)).unwrap();
        p.acknowledged(&appended.receipt).await.unwrap();
        assert_eq!(p.leader_epochs(), [entry(3, 0), entry(8, 2)]);
        p.close().await.unwrap();
    });
    machine.life(LogConfig::default(), async move |p| {
        assert_eq!(p.leader_epochs(), [entry(3, 0), entry(8, 2)]);
    });
}
