//! From fetched bytes to what stands at each offset.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringmill_wire::batch::Batches;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{AbortedTransaction, FetchedPartition};
use ringmill_wire::marker::EndTxnMarker;
use ringmill_wire::record::{Record, Records, decoded};

use super::super::client::RingClient;
use crate::checkers::{Found, Keyed, PartitionLog, What};
use crate::history::{self, Author};
use crate::plain::PlainError;

/// Records of a batch, decompressed, take at most so many bytes.
const DECODED_MAX: usize = 1 << 20;

/// What one fetch brought from `from` on, and the offset after it. `visible` says what a reader of
/// committed records makes of it with the help of the answer's aborted transactions.
pub(in crate::simulation) fn read(
    from: i64,
    fetched: &FetchedPartition<Bytes>,
) -> Result<(Vec<Found>, i64), String> {
    let mut aborted: Vec<AbortedTransaction> = fetched.aborted.clone().unwrap_or_default();
    aborted.sort_by_key(|aborted| aborted.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let mut active: BTreeSet<i64> = BTreeSet::new();
    let (mut found, mut next) = (Vec::new(), from);
    for batch in Batches::new(&fetched.records) {
        // an answer may end within a batch
        let Ok((_, view)) = batch else { break };
        view.check_crc().map_err(|e| format!("at {next}: {e}"))?;
        let header = view.header();
        while let Some(begun) = aborted.next_if(|a| a.first_offset <= header.last_offset()) {
            active.insert(begun.producer_id);
        }
        if header.is_control() {
            let marker = EndTxnMarker::parse(header, view.records_bytes())
                .ok_or_else(|| format!("at {next}: a control batch that is no marker"))?;
            active.remove(&marker.producer_id);
            let what = What::Marker {
                producer: marker.producer_id,
                committed: marker.committed,
            };
            found.push(Found {
                offset: header.base_offset,
                what,
                visible: false,
            });
        } else {
            let hidden = header.is_transactional() && active.contains(&header.producer_id);
            let transactional = header.is_transactional().then_some(header.producer_id);
            let bytes = decoded(&view, DECODED_MAX).map_err(|e| e.to_string())?;
            for record in Records::new(header, &bytes) {
                let record = record.map_err(|e| format!("at {next}: {e}"))?;
                found.push(Found {
                    offset: record.offset,
                    what: what(&record, transactional),
                    visible: !hidden,
                });
            }
        }
        next = header.next_offset();
    }
    found.retain(|found| found.offset >= from);
    Ok((found, next.max(from)))
}

fn what(record: &Record<'_>, transactional: Option<i64>) -> What {
    let Some(key) = record.key else {
        return What::Record {
            author: record.value.and_then(history::author),
            keyed: None,
            transactional,
        };
    };
    let header = record.headers.iter().next().and_then(|header| header.value);
    let author = header.and_then(history::author);
    // a tombstone has no value to tell its author
    let intact = |author: &Author| {
        record
            .value
            .is_none_or(|value| history::author(value) == Some(*author))
    };
    let key = key.try_into().map(u32::from_be_bytes);
    What::Record {
        author: author.filter(intact),
        keyed: key.ok().map(|key| Keyed {
            key,
            tombstone: record.value.is_none(),
        }),
        transactional,
    }
}

/// A whole partition, as a reader of everything sees it; what is visible to readers of committed
/// records follows from the markers alone.
pub(in crate::simulation) async fn read_all(
    client: &mut RingClient,
    topic: &str,
    partition: i32,
) -> Result<PartitionLog, PlainError> {
    let unexpected = |what: String| Err(PlainError::Unexpected(what));
    let mut log = PartitionLog {
        start: client.offset_for(topic, partition, -2).await?,
        end: client.offset_for(topic, partition, -1).await?,
        ..PartitionLog::default()
    };
    let mut next = log.start;
    while next < log.end || next == log.start {
        let fetched = client.fetch(topic, partition, next, 256 << 10).await?;
        if fetched.error_code == ErrorCode::OffsetOutOfRange.code() && next == log.start {
            // retention takes the log's front while it is read
            log.start = client.offset_for(topic, partition, -2).await?;
            next = log.start;
            continue;
        }
        if fetched.error_code != 0 {
            return Err(PlainError::Refused(fetched.error_code));
        }
        log.stable = fetched.last_stable_offset;
        log.bytes += fetched.records.len() as u64;
        let (found, after) = read(next, &fetched).map_err(PlainError::Unexpected)?;
        log.found.extend(found);
        if after == next {
            if next < log.end && !is_gap(&log, next) {
                return unexpected(format!("nothing at {next}, though the end is {}", log.end));
            }
            break;
        }
        next = after;
    }
    judge(&mut log);
    Ok(log)
}

/// A compacted log may end in offsets that are gone.
fn is_gap(log: &PartitionLog, next: i64) -> bool {
    log.found.last().is_some_and(|found| found.offset < next)
}

/// Each record of a transaction shares the fate of the first marker of its producer behind it.
pub(in crate::simulation) fn judge(log: &mut PartitionLog) {
    let mut fate: BTreeMap<i64, bool> = BTreeMap::new();
    for found in log.found.iter_mut().rev() {
        match found.what {
            What::Marker {
                producer,
                committed,
            } => {
                fate.insert(producer, committed);
                found.visible = false;
            }
            What::Record {
                transactional: Some(producer),
                ..
            } => found.visible = fate.get(&producer).copied().unwrap_or(false),
            What::Record { .. } => found.visible = true,
        }
    }
}
