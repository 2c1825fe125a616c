//! What the cleaner knows of transactions while it goes over a log from its beginning (Kafka's
//! `CleanedTransactionMetadata`): the records of aborted ones go, and a transaction's marker goes
//! when nothing of the transaction is left. Pure; bounded by the transactions that overlap.

use std::collections::{BTreeMap, BTreeSet};

use ringmill_wire::batch::BatchHeader;
use ringmill_wire::marker::EndTxnMarker;

use crate::aborted::AbortedTxn;

/// What a control batch is to the cleaner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The end of its producer's transaction.
    Marker(EndTxnMarker),
    /// Its record was taken out before: the transaction is gone.
    Emptied,
    /// Something that later versions know of.
    Other,
}

impl Control {
    /// By the batch's header and the bytes of its records.
    pub fn parse(header: &BatchHeader, records: &[u8]) -> Self {
        match EndTxnMarker::parse(header, records) {
            Some(marker) => Control::Marker(marker),
            None if header.records_count == 0 => Control::Emptied,
            None => Control::Other,
        }
    }
}

/// The transactions of the log up to the batch that was looked at last.
#[derive(Debug)]
pub struct CleanedTxns<'a> {
    /// Those that are still to begin, by their first offsets.
    aborted: std::iter::Peekable<std::slice::Iter<'a, AbortedTxn>>,
    /// Those that are going on, by their producers, and whether a batch of each was met.
    open: BTreeMap<i64, bool>,
    /// Producers of which batches were met that were not aborted, until their marker.
    met: BTreeSet<i64>,
}

impl<'a> CleanedTxns<'a> {
    /// Before the log's first batch; `aborted` is sorted by first offsets.
    pub fn new(aborted: &'a [AbortedTxn]) -> Self {
        CleanedTxns {
            aborted: aborted.iter().peekable(),
            open: BTreeMap::new(),
            met: BTreeSet::new(),
        }
    }

    fn reach(&mut self, last_offset: i64) {
        let begun = |aborted: &&AbortedTxn| aborted.first_offset <= last_offset;
        while let Some(aborted) = self.aborted.next_if(begun) {
            self.open.insert(aborted.producer_id, false);
        }
    }

    /// A batch of records. Returns whether it is part of an aborted transaction.
    pub fn on_batch(&mut self, header: &BatchHeader) -> bool {
        self.reach(header.last_offset());
        if !header.is_transactional() {
            return false;
        }
        match self.open.get_mut(&header.producer_id) {
            Some(is_met) => {
                *is_met = true;
                true
            }
            None => {
                self.met.insert(header.producer_id);
                false
            }
        }
    }

    /// A control batch. Returns whether nothing of its transaction was met, so that the marker may
    /// go when its time is over.
    pub fn on_control(&mut self, header: &BatchHeader, control: Control) -> bool {
        self.reach(header.last_offset());
        match control {
            Control::Emptied => {
                self.open.remove(&header.producer_id);
                true
            }
            Control::Marker(marker) if marker.committed => !self.met.remove(&header.producer_id),
            Control::Marker(_) => self.open.remove(&header.producer_id) != Some(true),
            Control::Other => false,
        }
    }
}
