//! Between the coordinators' records and the batches of the broker's own topics, of
//! `__consumer_offsets` above all.

use bytes::Bytes;
use ringmill_log::FetchData;
use ringmill_wire::batch::{Batches, Compression, NO_SEQUENCE, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::record::{Records, decoded};

use crate::partition::Hosted;
use crate::transactions::Producer;

/// Records go into batches of about this size; a single larger record gets a batch of its own.
const BATCH_BYTES: usize = 512 << 10;
/// What a batch of one record has beside its key and value, at most.
const RECORD_OVERHEAD: usize = 128;
/// How much of the log is read at a time.
const READ_BYTES: usize = 1 << 20;
/// Our own records are never compressed; Kafka's may be, in a log that was copied.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The batches of records, in their order; of a transaction if they are a producer's.
pub(crate) fn batches(
    records: &[(Bytes, Option<Bytes>)],
    producer: Option<Producer>,
    now_ms: i64,
) -> Vec<Bytes> {
    // As Kafka: these batches are in no sequence, for the coordinator does not lose them.
    let stamp = producer.map_or(ProducerStamp::NONE, |producer| ProducerStamp {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: NO_SEQUENCE,
        transactional: true,
    });
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(BATCH_BYTES);
    let seal = |builder: &mut BatchBuilder, batches: &mut Vec<Bytes>| {
        if !builder.is_empty() {
            batches.push(builder.seal(Compression::None, stamp));
        }
    };
    for (key, value) in records {
        let record = NewRecord {
            timestamp: now_ms,
            key: Some(key),
            value: value.as_deref(),
            headers: &[],
        };
        if builder.append(&record).is_ok() {
            continue;
        }
        seal(&mut builder, &mut batches);
        if builder.append(&record).is_err() {
            let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
            let mut large = BatchBuilder::new(bytes + RECORD_OVERHEAD);
            let appended = large.append(&record);
            appended.expect("a batch that was made for the record");
            seal(&mut large, &mut batches);
        }
    }
    seal(&mut builder, &mut batches);
    batches
}

/// What a log of the broker's own has to say, in the order of the log.
pub(crate) enum Replayed<'a> {
    /// A record, and the producer in whose transaction it was written, if any.
    Record {
        offset: i64,
        producer: Option<Producer>,
        key: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// The end of a producer's transaction.
    Marker { producer_id: i64, committed: bool },
}

/// Reads a partition from its start to its end, all that its new leader has: nothing of that is taken
/// back. Tells whether it has come to the end: if the leadership moves on, it does not. The error is
/// a sentence.
pub(crate) async fn replay(
    hosted: &Hosted,
    on: &mut dyn FnMut(Replayed<'_>),
) -> Result<bool, String> {
    let (log, epoch) = (&hosted.log, hosted.replica.epoch());
    let (mut offset, end) = (log.log_start_offset(), log.log_end_offset());
    while offset < end {
        // What is appended counts when it is written.
        let written = log.written_beyond(offset).await;
        written.map_err(|error| error.to_string())?;
        let slice = log.read_for_replica(offset, READ_BYTES).await;
        if !hosted.replica.leads() || hosted.replica.epoch() != epoch {
            return Ok(false);
        }
        let slice = slice.map_err(|error| error.to_string())?;
        let bytes = match slice.data {
            // what was there was compacted away
            FetchData::Empty => break,
            FetchData::Memory(pieces) => join(pieces),
            FetchData::File { file, position } => {
                let read = file.read_exact_at(position, slice.len).await;
                read.map_err(|error| error.to_string())?
            }
        };
        let next = replay_batches(offset, &bytes, on)?;
        if next <= offset {
            return Err(format!("nothing can be read at offset {offset}"));
        }
        offset = next;
    }
    Ok(true)
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

/// Reads the whole batches among `bytes`, from `offset` on. Returns the offset after them.
fn replay_batches(
    offset: i64,
    bytes: &[u8],
    on: &mut dyn FnMut(Replayed<'_>),
) -> Result<i64, String> {
    let mut next = offset;
    for view in Batches::new(bytes) {
        // The end of a read may cut the last batch off.
        let Ok((_, view)) = view else { break };
        view.check_crc().map_err(|error| error.to_string())?;
        let header = *view.header();
        next = header.next_offset();
        let records = decoded(&view, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        for record in Records::new(&header, &records) {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key.filter(|_| record.offset >= offset) else {
                continue;
            };
            if header.is_control() {
                if let Some(committed) = decision(key) {
                    let producer_id = header.producer_id;
                    on(Replayed::Marker {
                        producer_id,
                        committed,
                    });
                }
                continue;
            }
            on(Replayed::Record {
                offset: record.offset,
                producer: header.is_transactional().then_some(Producer {
                    id: header.producer_id,
                    epoch: header.producer_epoch,
                }),
                key,
                value: record.value,
            });
        }
    }
    Ok(next)
}

/// What a control record's key says of a transaction: version, then 0 for abort or 1 for commit;
/// none for a record of another kind.
fn decision(key: &[u8]) -> Option<bool> {
    match key {
        [_, _, 0, 0, ..] => Some(false),
        [_, _, 0, 1, ..] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_size_fit_into_batches_in_their_order() {
        let value = |len: usize| Some(Bytes::from(vec![7; len]));
        let records: Vec<(Bytes, Option<Bytes>)> = [10, 300_000, 300_000, 2_000_000, 5]
            .into_iter()
            .enumerate()
            .map(|(n, len)| (Bytes::from(n.to_string()), value(len)))
            .chain([(Bytes::from_static(b"tombstone"), None)])
            .collect();
        let batches = batches(&records, None, 1);
        assert_eq!(batches.len(), 4);
        let mut found = Vec::new();
        for batch in &batches {
            for view in Batches::new(batch) {
                let (_, view) = view.unwrap();
                view.check_crc().unwrap();
                for record in Records::new(view.header(), view.records_bytes()) {
                    let record = record.unwrap();
                    let key = Bytes::copy_from_slice(record.key.unwrap());
                    found.push((key, record.value.map(Bytes::copy_from_slice)));
                }
            }
        }
        assert_eq!(found, records);
        assert!(super::batches(&[], None, 1).is_empty());
    }
}
