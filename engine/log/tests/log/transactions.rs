//! Transactions in one partition: what is stable, what was aborted, and that neither a kill nor a
//! power cut changes the answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringmill_log::{
    AbortedTxn, AppendError, EndTxnMarker, LogConfig, Partition, ProducerError, ReadError,
};
use ringmill_ring::sim::{Chance, DiskFaults};
use ringmill_wire::batch::{Batches, ProducerStamp};
use ringmill_wire::marker::EndTxnMarker as Marker;

use crate::fixture::*;

pub(crate) fn data(producer_id: i64, epoch: i16, sequence: i32, len: usize) -> Bytes {
    let stamp = ProducerStamp {
        producer_id,
        producer_epoch: epoch,
        base_sequence: sequence,
        transactional: true,
    };
    stamped(1, len, 5, stamp)
}

pub(crate) fn marker(producer_id: i64, epoch: i16, committed: bool) -> EndTxnMarker {
    EndTxnMarker {
        producer_id,
        producer_epoch: epoch,
        coordinator_epoch: 0,
        committed,
    }
}

/// Appends as a coordinator's client does, and waits. Returns the offset.
pub(crate) async fn put(
    p: &Partition,
    batch: Bytes,
    id: i64,
    epoch: i16,
) -> Result<i64, AppendError> {
    let guard = p.begin_verification(id, epoch);
    let appended = p.append_verified(batch, &guard)?;
    p.flushed(&appended.receipt).await?;
    Ok(appended.base_offset)
}

pub(crate) async fn end(p: &Partition, marker: EndTxnMarker) -> Result<i64, AppendError> {
    let appended = p.append_marker(marker)?;
    p.flushed(&appended.receipt).await?;
    Ok(appended.base_offset)
}

#[test]
fn committed_readers_stop_at_the_oldest_open_transaction() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        assert_eq!(put(&p, data(1, 0, 0, 10), 1, 0).await.unwrap(), 0);
        let plain = p.append(batch(1, 10, 5)).unwrap();
        p.flushed(&plain.receipt).await.unwrap();
        assert_eq!(put(&p, data(2, 0, 0, 10), 2, 0).await.unwrap(), 2);
        assert_eq!((p.visible_end(), p.last_stable_offset()), (3, 0));
        assert_eq!(p.read_committed(0, 1 << 20).await.unwrap().len, 0);
        end(&p, marker(1, 0, true)).await.unwrap();
        assert_eq!(p.last_stable_offset(), 2);
        let slice = p.read_committed(0, 1 << 20).await.unwrap();
        assert_eq!((slice.base_offset, slice.next_offset), (0, 2));
        assert_eq!(p.aborted(0, 2).await.unwrap(), []);
        end(&p, marker(2, 0, false)).await.unwrap();
        assert_eq!(p.last_stable_offset(), 5);
        let aborted = AbortedTxn {
            producer_id: 2,
            first_offset: 2,
            last_offset: 4,
            last_stable_offset: 5,
        };
        assert_eq!(p.aborted(0, 5).await.unwrap(), [aborted]);
        assert_eq!(p.aborted(0, 2).await.unwrap(), []);
        assert_eq!(p.aborted(4, 5).await.unwrap(), [aborted]);
        let ended = p.producers(9);
        assert!(ended.iter().all(|one| one.txn_start_offset.is_none()));
    });
}

#[test]
fn a_transaction_begins_with_a_guard_that_no_marker_has_voided() {
    let mut machine = Machine::new(1);
    machine.life(LogConfig::default(), async |p| {
        let refused = |result: Result<_, AppendError>| {
            let error = AppendError::Producer(ProducerError::InvalidTxnState {
                producer_id: 1,
                producer_epoch: 0,
            });
            let found: Result<ringmill_log::Appended, _> = result;
            assert_eq!(found.unwrap_err().to_string(), error.to_string());
        };
        refused(p.append(data(1, 0, 0, 10)));
        let guard = p.begin_verification(1, 0);
        // the transaction ends while its first batch is on its way
        end(&p, marker(1, 0, false)).await.unwrap();
        refused(p.append_verified(data(1, 0, 0, 10), &guard));
        let guard = p.begin_verification(1, 0);
        p.append_verified(data(1, 0, 0, 10), &guard).unwrap();
        assert!(p.has_open_transaction(1, 0));
        p.append(data(1, 0, 1, 10)).unwrap();
        // outside of its own transaction
        let stamp = ProducerStamp {
            producer_id: 1,
            producer_epoch: 0,
            base_sequence: 2,
            transactional: false,
        };
        refused(p.append(stamped(1, 10, 5, stamp)));
        // the second version of transactions brings a new epoch with each end
        end(&p, marker(1, 1, true)).await.unwrap();
        assert!(matches!(
            p.append(data(1, 0, 2, 10)),
            Err(AppendError::Producer(
                ProducerError::InvalidProducerEpoch { .. }
            ))
        ));
        assert_eq!(put(&p, data(1, 1, 0, 10), 1, 1).await.unwrap(), 4);
        let newer = EndTxnMarker {
            coordinator_epoch: 7,
            ..marker(1, 1, true)
        };
        end(&p, newer).await.unwrap();
        assert!(matches!(
            p.append_marker(marker(1, 1, true)),
            Err(AppendError::Producer(
                ProducerError::CoordinatorFenced { .. }
            ))
        ));
    });
}

/// What the log must say, built from its bytes alone.
#[derive(Default)]
struct Truth {
    /// First offset of each producer's open transaction.
    open: BTreeMap<i64, i64>,
    aborted: Vec<(i64, i64, i64)>,
    end: i64,
}

impl Truth {
    fn of(content: &[u8]) -> Self {
        let mut truth = Truth::default();
        for batch in Batches::new(content) {
            let (_, view) = batch.expect("whole");
            let header = view.header();
            truth.end = header.next_offset();
            let id = header.producer_id;
            match Marker::parse(header, view.records_bytes()) {
                Some(marker) => {
                    let first = truth.open.remove(&id);
                    if let (Some(first), false) = (first, marker.committed) {
                        truth.aborted.push((id, first, header.base_offset));
                    }
                }
                None if header.is_transactional() => {
                    truth.open.entry(id).or_insert(header.base_offset);
                }
                None => {}
            }
        }
        truth
    }

    fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    async fn check(&self, p: &Partition) {
        assert_eq!(p.last_stable_offset(), self.last_stable());
        let open: BTreeMap<i64, i64> = p
            .producers(1000)
            .into_iter()
            .filter_map(|one| Some((one.id, one.txn_start_offset?)))
            .collect();
        assert_eq!(open, self.open);
        for _ in 0..6 {
            let from = below(self.end as u64 + 1) as i64;
            let until = from + below((self.last_stable() - from).max(0) as u64 + 1) as i64;
            let found = p.aborted(from, until).await.unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset))
                .collect();
            let here = |txn: &&(i64, i64, i64)| txn.1 < until && txn.2 >= from;
            let expected: Vec<_> = self.aborted.iter().filter(here).copied().collect();
            assert_eq!(found, expected, "in {from}..{until}");
        }
    }
}

/// Random transactions of a few producers; returns how many were aborted.
async fn transact(p: &Partition, epochs: &mut [i16; 5]) -> usize {
    let mut aborts = 0;
    let known = p.producers(100);
    let mut sequences: BTreeMap<i64, i32> = known
        .iter()
        .map(|one| (one.id, one.last_sequence + 1))
        .collect();
    for _ in 0..below(60) {
        let id = below(5) as i64;
        let epoch = epochs[id as usize];
        if below(3) == 0 {
            let (bumped, committed) = (below(2) as i16, below(2) == 0);
            if p.append_marker(marker(id, epoch + bumped, committed))
                .is_err()
            {
                continue;
            }
            epochs[id as usize] += bumped;
            if bumped == 1 {
                sequences.insert(id, 0);
            }
            aborts += usize::from(!committed);
        } else {
            let sequence = sequences.entry(id).or_default();
            let batch = data(id, epoch, *sequence, below(4_000) as usize);
            let guard = p.begin_verification(id, epoch);
            if let Ok(appended) = p.append_verified(batch, &guard) {
                *sequence += 1;
                if below(4) == 0 {
                    let _ = p.flushed(&appended.receipt).await;
                }
            }
        }
    }
    aborts
}

#[test]
fn a_crash_at_any_time_leaves_the_transactions_of_what_is_in_the_log() {
    let mut aborts = 0;
    for seed in seeds(40) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let faults = DiskFaults::swarm(machine.world.random());
        *machine.world.disk(machine.node).faults() = faults;
        let mut epochs = [0; 5];
        for _ in 0..6 {
            let segment = machine.world.random().pick(&[20_000, 66_000, 1 << 30]);
            let close = machine.world.random().below(3) == 0;
            let found = machine.life(small_segments(segment), async move |p| {
                let content = read_all(&p, 0, 100_000).await.unwrap();
                Truth::of(&content).check(&p).await;
                for one in p.producers(100) {
                    epochs[one.id as usize] = one.epoch;
                }
                let aborts = transact(&p, &mut epochs).await;
                if below(2) == 0 {
                    ringmill_ring::sleep(std::time::Duration::from_secs(below(70))).await;
                }
                if close {
                    p.close().await.unwrap();
                }
                (aborts, epochs)
            });
            aborts += found.0;
            epochs = found.1;
            match machine.world.random().coin() {
                true => machine.world.kill(machine.node),
                false => machine.world.power_off(machine.node),
            }
        }
    }
    assert!(aborts > 500, "{aborts}");
}

#[test]
fn a_lost_index_of_aborted_transactions_is_told() {
    let mut machine = Machine::new(3);
    machine.life(small_segments(70_000), async |p| {
        for n in 0..30 {
            put(&p, data(1, n, 0, 4_000), 1, n).await.unwrap();
            end(&p, marker(1, n + 1, false)).await.unwrap();
        }
        assert_eq!(p.aborted(0, p.visible_end()).await.unwrap().len(), 30);
        p.close().await.unwrap();
    });
    let (first, _) = machine.files(".txnindex")[0].clone();
    machine.put(&first, b"");
    machine.life(small_segments(70_000), async |p| {
        let error = p.aborted(0, p.visible_end()).await.unwrap_err();
        assert!(matches!(error, ReadError::Damaged(_)), "{error}");
        let last = p.visible_end();
        assert_eq!(p.aborted(last - 2, last).await.unwrap().len(), 1);
    });
}

/// A flush of their index fails, and the partition with it: its end must not pass for a clean one.
#[test]
fn aborted_transactions_that_a_failed_flush_lost_are_known_after_a_power_cut() {
    let mut failures = 0;
    for (seed, nth) in (0..8).flat_map(|seed| (3..20).map(move |nth| (seed, nth))) {
        let mut machine = Machine::new(seed);
        let config = LogConfig::default;
        machine.life(config(), async |p| p.close().await.unwrap());
        let disk = machine.world.disk(machine.node);
        disk.faults().evict_after_failed_sync = Chance::Never;
        disk.faults().sync_error = Chance::Nth(nth);
        let failed = machine.life(config(), async |p| {
            for n in 0..3 {
                // its own flush may be the one that fails
                let _ = put(&p, data(1, n, 0, 10), 1, n).await;
                let _ = end(&p, marker(1, n + 1, false)).await;
            }
            // the checkpoint is due
            ringmill_ring::sleep(std::time::Duration::from_secs(10)).await;
            let failed = p.failure().is_some();
            let closed = p.close().await;
            assert!(closed.is_err() || !failed, "no clean end after a failure");
            failed
        });
        failures += u64::from(failed);
        machine.world.power_off(machine.node);
        machine.life(config(), async |p| {
            let content = read_all(&p, 0, 100_000).await.unwrap();
            Truth::of(&content).check(&p).await;
        });
    }
    assert!(failures > 20, "{failures}");
}

/// An entry whose marker a crash took back is cut off, and stays so: it would be another's later.
#[test]
fn a_marker_that_was_taken_back_aborts_nothing_after_the_next_power_cut() {
    for seed in 0..40 {
        let mut machine = Machine::new(seed);
        let config = LogConfig::default;
        machine.life(config(), async |p| {
            put(&p, data(1, 0, 0, 10), 1, 0).await.unwrap();
            end(&p, marker(1, 1, false)).await.unwrap();
            p.close().await.unwrap();
        });
        let (path, _) = machine.files(".txnindex")[0].clone();
        let mut entries = machine.read(&path);
        entries.extend_from_slice(&0i16.to_be_bytes());
        entries.extend([2i64, 3, 4, 5].into_iter().flat_map(i64::to_be_bytes));
        machine.put(&path, &entries);
        machine.life(config(), async |p| {
            for sequence in 0..4 {
                put(&p, data(2, 0, sequence, 10), 2, 0).await.unwrap();
            }
            end(&p, marker(2, 0, true)).await.unwrap();
            // the checkpoint is written
            ringmill_ring::sleep(std::time::Duration::from_secs(10)).await;
        });
        machine.world.power_off(machine.node);
        machine.life(config(), async move |p| {
            let aborted = p.aborted(0, p.visible_end()).await.unwrap();
            assert_eq!((aborted.len(), p.visible_end()), (1, 7), "seed {seed}");
        });
    }
}
