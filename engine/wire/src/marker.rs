//! Transaction markers: control batches of one record that say how a producer's transaction in a
//! partition has ended (KIP-98; `EndTxnMarker` and `ControlRecordType` in Kafka).
//!
//! ```text
//! key:   version i16 = 0 | type i16: 0 abort, 1 commit
//! value: version i16 = 0 | coordinator epoch i32
//! ```

use bytes::{Bytes, BytesMut};

use crate::assign::set_control;
use crate::batch::{BatchHeader, Compression, NO_SEQUENCE, ProducerStamp};
use crate::builder::{BatchBuilder, NewRecord};
use crate::record::Records;

/// Bytes of a marker's batch, at most; those that Kafka writes take 78.
pub const MARKER_BYTES_MAX: usize = 256;

/// The end of a transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Whose transaction it is.
    pub producer_id: i64,
    /// The epoch that ends it: with transaction version 2 (KIP-890) the one after the epoch that
    /// wrote.
    pub producer_epoch: i16,
    /// Of the transaction coordinator, so that an old one is found out.
    pub coordinator_epoch: i32,
    /// Committed, or else aborted.
    pub committed: bool,
}

impl EndTxnMarker {
    /// The marker's batch, with base offset 0. `timestamp` in milliseconds since the Unix epoch.
    pub fn seal(&self, timestamp: i64) -> Bytes {
        let [high, low] = i16::from(self.committed).to_be_bytes();
        let key = [0, 0, high, low];
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut builder = BatchBuilder::new(MARKER_BYTES_MAX);
        let record = NewRecord {
            timestamp,
            key: Some(&key),
            value: Some(&value),
            headers: &[],
        };
        builder.append(&record).expect("a marker is short");
        let stamp = ProducerStamp {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: NO_SEQUENCE,
            transactional: true,
        };
        let mut batch = BytesMut::from(&builder.seal(Compression::None, stamp)[..]);
        set_control(&mut batch);
        batch.freeze()
    }

    /// Reads the marker out of a batch, by its header and the bytes of its records. `None` for
    /// all that is no marker: data, and control records of other kinds.
    pub fn parse(header: &BatchHeader, records: &[u8]) -> Option<Self> {
        let marks = header.is_control() && header.has_producer_id();
        if !marks || header.compression() != Ok(Compression::None) {
            return None;
        }
        let record = Records::new(header, records).next()?.ok()?;
        let (key, value) = (record.key?, record.value?);
        let committed = match key.get(2..4)? {
            [0, 0] => false,
            [0, 1] => true,
            _ => return None,
        };
        let epoch = value.get(2..6)?.try_into().ok()?;
        Some(EndTxnMarker {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            coordinator_epoch: i32::from_be_bytes(epoch),
            committed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchView;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_marker_reads_back(
            producer_id in 0i64.., producer_epoch in 0i16.., coordinator_epoch: i32,
            committed: bool, timestamp in 0i64..1 << 45,
        ) {
            let marker = EndTxnMarker { producer_id, producer_epoch, coordinator_epoch, committed };
            let batch = marker.seal(timestamp);
            prop_assert_eq!(batch.len(), 78);
            let view = BatchView::parse(&batch).unwrap();
            prop_assert_eq!(view.check_crc(), Ok(()));
            prop_assert!(view.header().is_control() && view.header().is_transactional());
            prop_assert_eq!(EndTxnMarker::parse(view.header(), view.records_bytes()), Some(marker));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let marker = EndTxnMarker { producer_id: 1, producer_epoch: 0, coordinator_epoch: 0, committed: true };
            let batch = marker.seal(0);
            let view = BatchView::parse(&batch).unwrap();
            let _ = EndTxnMarker::parse(view.header(), &bytes);
        }
    }

    #[test]
    fn data_and_other_control_records_are_no_markers() {
        let marker = EndTxnMarker {
            producer_id: 1,
            producer_epoch: 0,
            coordinator_epoch: 0,
            committed: true,
        };
        let batch = marker.seal(0);
        let view = BatchView::parse(&batch).unwrap();
        let data = BatchHeader {
            attributes: 1 << 4,
            ..*view.header()
        };
        assert_eq!(EndTxnMarker::parse(&data, view.records_bytes()), None);
        // a leader change of a Raft log
        let mut records = view.records_bytes().to_vec();
        records[8] = 2;
        assert_eq!(EndTxnMarker::parse(view.header(), &records), None);
    }
}
