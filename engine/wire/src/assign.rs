//! What is written into a finished batch: by a broker its place in the log, by a producer who it is.
//!
//! Base offset and leader epoch lie outside the CRC and cost nothing; an append time or a producer
//! costs a CRC over the batch. Where the bytes are shared and cannot be changed, a changed copy of
//! the header goes in front of the records ([`assigned_header`]). Reached through [`crate::batch`].

use crate::batch::{
    APPEND_TIME_BIT, ATTRIBUTES, BASE_OFFSET, BASE_SEQUENCE, BatchView, CONTROL_BIT, CRC,
    HEADER_LEN, LEADER_EPOCH, MAX_TIMESTAMP, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE,
    PRODUCER_EPOCH, PRODUCER_ID, TRANSACTIONAL_BIT,
};

/// Sets the base offset of the batch at the front of `batch`. Outside the CRC.
///
/// # Panics
/// If `batch` is shorter than a header, as all the setters here.
pub fn set_base_offset(batch: &mut [u8], base_offset: i64) {
    assert!(batch.len() >= HEADER_LEN, "a batch has a header");
    batch[BASE_OFFSET].copy_from_slice(&base_offset.to_be_bytes());
}

/// Sets the leader epoch of the batch at the front of `batch`. Outside the CRC.
pub fn set_leader_epoch(batch: &mut [u8], epoch: i32) {
    assert!(batch.len() >= HEADER_LEN, "a batch has a header");
    batch[LEADER_EPOCH].copy_from_slice(&epoch.to_be_bytes());
}

/// What a broker assigns to a batch when it appends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Epoch of the appending leader.
    pub leader_epoch: i32,
    /// Milliseconds of the broker's clock, for `message.timestamp.type=LogAppendTime` only.
    pub append_time: Option<i64>,
}

/// The header of `view` with `assignment` set: for a vectored write of this header and
/// [`BatchView::records_bytes`], where the bytes are shared and cannot be changed in place. An append
/// time costs a CRC over the whole batch, the rest nothing.
pub fn assigned_header(view: &BatchView<'_>, assignment: Assignment) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header.copy_from_slice(&view.bytes()[..HEADER_LEN]);
    set_base_offset(&mut header, assignment.base_offset);
    set_leader_epoch(&mut header, assignment.leader_epoch);
    if let Some(timestamp) = assignment.append_time {
        set_append_fields(&mut header, timestamp);
        let crc = crc32c::crc32c(&header[ATTRIBUTES.start..]);
        let crc = crc32c::crc32c_append(crc, view.records_bytes());
        header[CRC].copy_from_slice(&crc.to_be_bytes());
    }
    header
}

/// Marks the one batch that `batch` holds as stamped by the broker's clock at `timestamp`
/// milliseconds (`message.timestamp.type=LogAppendTime`), and computes its CRC anew.
pub fn set_append_time(batch: &mut [u8], timestamp: i64) {
    assert!(batch.len() >= HEADER_LEN, "a batch has a header");
    set_append_fields(batch, timestamp);
    seal_crc(batch);
}

fn set_append_fields(batch: &mut [u8], timestamp: i64) {
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES.start], batch[ATTRIBUTES.start + 1]]);
    batch[ATTRIBUTES].copy_from_slice(&(attributes | APPEND_TIME_BIT).to_be_bytes());
    batch[MAX_TIMESTAMP].copy_from_slice(&timestamp.to_be_bytes());
}

/// Who wrote a batch, for idempotence (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// As given by InitProducerId.
    pub producer_id: i64,
    /// As given by InitProducerId.
    pub producer_epoch: i16,
    /// Sequence number of the batch's first record.
    pub base_sequence: i32,
    /// Whether the batch is part of a transaction.
    pub transactional: bool,
}

impl ProducerStamp {
    /// A producer that is not idempotent.
    pub const NONE: Self = Self {
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        base_sequence: NO_SEQUENCE,
        transactional: false,
    };
}

/// Stamps the one batch that `batch` holds with its producer, and computes its CRC anew.
pub fn set_producer(batch: &mut [u8], stamp: ProducerStamp) {
    assert!(batch.len() >= HEADER_LEN, "a batch has a header");
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES.start], batch[ATTRIBUTES.start + 1]]);
    let flag = if stamp.transactional {
        TRANSACTIONAL_BIT
    } else {
        0
    };
    let attributes = (attributes & !TRANSACTIONAL_BIT) | flag;
    batch[ATTRIBUTES].copy_from_slice(&attributes.to_be_bytes());
    batch[PRODUCER_ID].copy_from_slice(&stamp.producer_id.to_be_bytes());
    batch[PRODUCER_EPOCH].copy_from_slice(&stamp.producer_epoch.to_be_bytes());
    batch[BASE_SEQUENCE].copy_from_slice(&stamp.base_sequence.to_be_bytes());
    seal_crc(batch);
}

/// Makes a control batch of the one batch that `batch` holds, and computes its CRC anew.
pub(crate) fn set_control(batch: &mut [u8]) {
    let attributes = i16::from_be_bytes([batch[ATTRIBUTES.start], batch[ATTRIBUTES.start + 1]]);
    batch[ATTRIBUTES].copy_from_slice(&(attributes | CONTROL_BIT).to_be_bytes());
    seal_crc(batch);
}

/// Computes and sets the CRC of the one batch that `batch` holds, all of it.
pub(crate) fn seal_crc(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES.start..]);
    batch[CRC].copy_from_slice(&crc.to_be_bytes());
}
