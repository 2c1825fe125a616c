//! Transactions in compacted logs: aborted records go and overtake nothing, markers go after them,
//! what is undecided stays.

use std::collections::BTreeMap;

use ringmill_log::{EndTxnMarker, Partition, Severity};
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};

use crate::compaction::{
    Entries, append_some, batch_of, cleaner, compacted, entries_in, findings, values,
};
use crate::fixture::*;

/// A transaction's write of one record.
async fn put_in_txn(p: &Partition, key: u16, id: i64, sequence: i32) -> i64 {
    put_as(p, (key, id as u8), (id, 0), sequence).await
}

async fn put_as(
    p: &Partition,
    (key, value): (u16, u8),
    (id, epoch): (i64, i16),
    sequence: i32,
) -> i64 {
    let stamp = ProducerStamp {
        producer_id: id,
        producer_epoch: epoch,
        base_sequence: sequence,
        transactional: true,
    };
    let entry = (key, Some(vec![value; 3_000]));
    let batch = batch_of(&[entry], Compression::Gzip, stamp);
    let guard = p.begin_verification(id, epoch);
    let appended = p.append_verified(batch, &guard).unwrap();
    p.acknowledged(&appended.receipt).await.unwrap();
    appended.base_offset
}

async fn end_txn(p: &Partition, id: i64, committed: bool) {
    end_as(p, (id, 0), committed).await;
}

async fn end_as(p: &Partition, (producer_id, producer_epoch): (i64, i16), committed: bool) {
    let marker = EndTxnMarker {
        producer_id,
        producer_epoch,
        coordinator_epoch: 0,
        committed,
    };
    let appended = p.append_marker(marker).unwrap();
    p.acknowledged(&appended.receipt).await.unwrap();
}

/// What a reader of committed records gets, and how many markers the log has.
async fn committed(p: &Partition) -> (BTreeMap<u16, Vec<u8>>, usize) {
    let (mut found, mut markers) = (Entries::new(), 0);
    let mut offset = p.log_start_offset();
    while offset < p.last_stable_offset() {
        let slice = p.read_committed(offset, 50_000).await.unwrap();
        let bytes = bytes_of(&slice).await;
        if bytes.is_empty() {
            break;
        }
        let aborted = p.aborted(offset, slice.next_offset).await.unwrap();
        for batch in Batches::new(&bytes) {
            let (_, view) = batch.unwrap();
            let (header, at) = (view.header(), view.header().base_offset);
            markers += usize::from(header.is_control() && header.records_count > 0);
            let is_aborted = header.is_transactional()
                && aborted.iter().any(|txn| {
                    let range = txn.first_offset..txn.last_offset;
                    txn.producer_id == header.producer_id && range.contains(&at)
                });
            if !is_aborted {
                entries_in(view.bytes(), 0, &mut found);
            }
        }
        offset = slice.next_offset;
    }
    (values(&found), markers)
}

#[test]
fn aborted_records_go_and_markers_after_them() {
    for seed in seeds(6) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        let expected = machine.life(compacted(66_000), async |p| {
            append_some(&p, &mut Entries::new(), 20, 30).await;
            let mut expected = BTreeMap::new();
            for n in 0..40 {
                let (id, key) = (100 + n % 5, n as u16 % 11);
                let commit = below(2) == 0;
                put_in_txn(&p, 1_000 + key, id, 2 * (n / 5) as i32).await;
                put_in_txn(&p, 2_000 + key, id, 2 * (n / 5) as i32 + 1).await;
                end_txn(&p, id, commit).await;
                if commit {
                    let value = vec![id as u8; 3_000];
                    expected.insert(1_000 + key, value.clone());
                    expected.insert(2_000 + key, value);
                }
            }
            append_some(&p, &mut Entries::new(), 150, 3).await;
            expected
        });
        let check = async |p: &Partition, expected: &BTreeMap<u16, Vec<u8>>| {
            let (mut values, markers) = committed(p).await;
            values.retain(|key, _| *key >= 1_000);
            assert_eq!(&values, expected);
            markers
        };
        for now_ms in [0, 10_000, 20_000] {
            let expected = expected.clone();
            let left = machine.life(compacted(66_000), async move |p| {
                let before = check(&p, &expected).await;
                p.clean(&cleaner(), now_ms).await.unwrap().unwrap();
                let after = check(&p, &expected).await;
                append_some(&p, &mut Entries::new(), 150, 3).await;
                if below(2) == 0 {
                    p.close().await.unwrap();
                }
                (before, after)
            });
            match now_ms {
                0 => assert_eq!(left, (40, 40), "all are kept at first"),
                20_000 => assert!(left.1 < left.0, "{left:?}: their time is over"),
                _ => {}
            }
        }
        let found = machine.world.block_on(machine.node, findings());
        let damaged = found.iter().any(|found| found.severity == Severity::Damage);
        assert!(!damaged, "{found:?}");
        machine.life(compacted(66_000), async |p| {
            let stable = p.last_stable_offset();
            let begun = put_in_txn(&p, 1, 7, 0).await;
            assert!(stable <= begun);
            append_some(&p, &mut Entries::new(), 200, 3).await;
            p.clean(&cleaner(), 0).await.unwrap();
            let reached = p.cleaner_checkpoint().cleaned_end;
            assert!(reached <= begun, "{reached}: undecided records stay");
        });
    }
}

/// With an epoch for each transaction (KIP-890), producers that rest for a while, and aborts of long
/// ago.
#[test]
fn committed_values_stay_the_latest_however_often_the_log_is_compacted() {
    for seed in seeds(6) {
        let _seed = Seed(seed);
        let mut machine = Machine::new(seed);
        machine.life(compacted(66_000), async |p| {
            let (mut expected, mut epochs, mut value) = (BTreeMap::new(), [0_i16; 4], 0_u8);
            for cycle in 0..10 {
                for _ in 0..below(14) {
                    // the last one only rarely
                    let n = below(13) as usize / 4;
                    let (producer, committed) = ((100 + n as i64, epochs[n]), below(2) == 0);
                    for sequence in 0..=below(3) as i32 {
                        let key = 1_000 + below(5) as u16;
                        value = value.wrapping_add(1);
                        put_as(&p, (key, value), producer, sequence).await;
                        if committed {
                            expected.insert(key, vec![value; 3_000]);
                        }
                    }
                    epochs[n] += 1;
                    end_as(&p, (producer.0, epochs[n]), committed).await;
                }
                append_some(&p, &mut Entries::new(), 150, 3).await;
                p.clean(&cleaner(), cycle * 10_000).await.unwrap();
                let (mut values, _) = committed(&p).await;
                values.retain(|key, _| *key >= 1_000);
                assert_eq!(values, expected, "in cycle {cycle}");
            }
        });
    }
}
