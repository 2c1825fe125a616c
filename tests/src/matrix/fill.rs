//! What the topic holds before anything happens, where copies that move are to take their time.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;

use super::PATIENCE;
use super::cluster::Cluster;
use super::load::{Became, Told};
use super::teller::wait_until;
use crate::history;
use crate::plain::PlainError;

/// The numbers of these records begin beyond those of any load.
const FIRST: u64 = 1 << 40;
/// How large one is.
const RECORD: usize = 32 << 10;
/// How many are sent at once.
const AT_ONCE: u64 = 16;
/// What a partition is to hold.
const FILLED_BYTES: usize = 48 << 20;
/// When they were written, in milliseconds since 1970.
const TIMESTAMP: i64 = 1_700_000_000_000;
/// An acknowledgement of all in sync.
const ALL: i16 = -1;

/// Fills each partition with `bytes`; tells of each record as a client does.
pub(super) fn fill(cluster: &Cluster, topic: &str, partitions: i32) -> io::Result<Vec<Told>> {
    let mut told = Vec::new();
    let mut id = FIRST;
    let mut builder = BatchBuilder::new(1 << 20);
    for partition in 0..partitions {
        let mut filled = 0;
        wait_until(PATIENCE, || {
            while filled < FILLED_BYTES {
                // One after the other in a batch, each by an author of its own, as a client's are.
                for nth in 0..AT_ONCE {
                    history::fill(&mut builder, id + nth, &[RECORD], TIMESTAMP);
                }
                let batch = builder.seal(Compression::None, ProducerStamp::NONE);
                let answer = produce(cluster, topic, partition, batch);
                let became = |nth: u64| match answer {
                    Ok(base) => Became::Acknowledged(base + nth as i64),
                    // It may be there nevertheless.
                    Err(_) => Became::Sent,
                };
                told.extend((0..AT_ONCE).map(|nth| Told {
                    at: Duration::ZERO,
                    partition,
                    id: id + nth,
                    became: became(nth),
                }));
                id += AT_ONCE;
                answer.map_err(|error| format!("partition {partition}: {error}"))?;
                filled += AT_ONCE as usize * RECORD;
            }
            Ok(())
        })?;
    }
    Ok(told)
}

/// Sends a batch to whoever leads; gives its first offset.
fn produce(
    cluster: &Cluster,
    topic: &str,
    partition: i32,
    batch: Bytes,
) -> Result<i64, PlainError> {
    let nobody = || PlainError::Unexpected("nobody is known to lead".to_owned());
    let leader = cluster.leader(topic, partition).ok_or_else(nobody)?;
    let answer = cluster
        .client(leader)?
        .produce(topic, partition, ALL, batch)?;
    match answer.ok_or_else(nobody)? {
        answer if answer.error_code == 0 => Ok(answer.base_offset),
        answer => Err(PlainError::Refused(answer.error_code)),
    }
}
