//! Between the coordinator's records and the batches of `__consumer_offsets`.

use bytes::Bytes;
use ringmill_log::FetchData;
use ringmill_wire::batch::{Batches, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::record::{Records, decoded};

use crate::partition::Hosted;
use crate::shard::Shard;

/// Records go into batches of about this size; a single larger record gets a batch of its own.
const BATCH_BYTES: usize = 512 << 10;
/// What a batch of one record has beside its key and value, at most.
const RECORD_OVERHEAD: usize = 128;
/// How much of the log is read at a time.
const READ_BYTES: usize = 1 << 20;
/// Our own records are never compressed; Kafka's may be, in a log that was copied.
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The batches of records, in their order.
pub(super) fn batches(records: &[(Bytes, Option<Bytes>)], now_ms: i64) -> Vec<Bytes> {
    let mut batches = Vec::new();
    let mut builder = BatchBuilder::new(BATCH_BYTES);
    let seal = |builder: &mut BatchBuilder, batches: &mut Vec<Bytes>| {
        if !builder.is_empty() {
            batches.push(builder.seal(Compression::None, ProducerStamp::NONE));
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

/// Reads a partition into the coordinator; the error is a sentence.
pub(super) async fn load(shard: &Shard, home: i32, hosted: &Hosted) -> Result<(), String> {
    let log = &hosted.log;
    let mut offset = log.log_start_offset();
    while offset < log.visible_end() {
        let slice = log.read(offset, READ_BYTES).await;
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
        let next = load_batches(shard, home, offset, &bytes)?;
        if next <= offset {
            return Err(format!("nothing can be read at offset {offset}"));
        }
        offset = next;
    }
    Ok(())
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

/// Loads the whole batches among `bytes`, from `offset` on. Returns the offset after them.
fn load_batches(shard: &Shard, home: i32, offset: i64, bytes: &[u8]) -> Result<i64, String> {
    let mut next = offset;
    for view in Batches::new(bytes) {
        // The end of a read may cut the last batch off.
        let Ok((_, view)) = view else { break };
        view.check_crc().map_err(|error| error.to_string())?;
        let header = *view.header();
        next = header.next_offset();
        if header.is_control() {
            continue;
        }
        let records = decoded(&view, DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
        for record in Records::new(&header, &records) {
            let record = record.map_err(|error| error.to_string())?;
            if record.offset < offset {
                continue;
            }
            let Some(key) = record.key else { continue };
            let value = record.value.map(Bytes::copy_from_slice);
            let key = Bytes::copy_from_slice(key);
            let mut coordinator = shard.groups.coordinator.borrow_mut();
            if let Err(error) = coordinator.load(shard.now(), home, key, value) {
                let offset = record.offset;
                tracing::warn!(partition = home, offset, %error, "skipped a group's record");
            }
        }
    }
    Ok(next)
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
        let batches = batches(&records, 1);
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
        assert!(super::batches(&[], 1).is_empty());
    }
}
