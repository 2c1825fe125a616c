//! All transactional ids of one core: which exist, in which partition of `__transaction_state` each
//! is stored, which step of each is on its way to the disk, and who waits for it.
//!
//! A transactional id takes one step at a time. The state is what the flushed log says: a step is a
//! [`Write`], and counts when the shell says that it is durable ([`Coordinator::written`]). Requests
//! that would add partitions while a step is under way wait for it (`Parked`), so that the batches
//! of one transaction to many partitions share their writes.

use std::collections::BTreeMap;

#[cfg(test)]
use bytes::Bytes;
use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::records::{self, RecordError};
use super::state::Metadata;
use super::{
    ClientVersion, Effects, Markers, NO_EPOCH, Producer, Reply, Token, TopicPartition,
    TransactionError, Write,
};
use crate::clock::Now;
use crate::config::transactions::TransactionConfig;

/// The longest transactional id that is taken: a core keeps very many of them.
pub const MAX_ID_BYTES: usize = 4096;
/// Partitions of one transaction, at most: each is a part of every record of the transaction.
pub const MAX_PARTITIONS_PER_TRANSACTION: usize = 20_000;
/// Partitions of all open transactions of a core together, at most.
pub const MAX_PARTITIONS_PER_CORE: usize = 1_000_000;
/// Requests that wait for one transactional id's step, at most.
const MAX_PARKED: usize = 1_000;

/// A request that waits until the present step is done.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) token: Token,
    pub(super) producer: Producer,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) client: ClientVersion,
}

/// A step on its way to the disk.
#[derive(Debug)]
struct Pending {
    /// Its record's.
    number: u64,
    /// The state after it; none if the transactional id expires.
    next: Option<Metadata>,
    /// Whom to tell what when it is durable.
    waiters: Vec<(Token, Reply)>,
}

/// A transactional id.
#[derive(Debug)]
pub(super) struct Entry {
    /// The partition of `__transaction_state` that stores it.
    pub(super) home: i32,
    /// As the flushed log has it.
    pub(super) current: Metadata,
    pending: Option<Pending>,
    parked: Vec<Parked>,
}

impl Entry {
    fn new(home: i32, current: Metadata) -> Self {
        Self {
            home,
            current,
            pending: None,
            parked: Vec::new(),
        }
    }

    /// Whether another step has to come to its end first; from a decision to the last marker that
    /// is one.
    pub(super) fn is_busy(&self) -> bool {
        self.pending.is_some() || self.current.state.is_prepared()
    }

    /// Whether nothing of it was ever durable.
    pub(super) fn is_new(&self) -> bool {
        self.current.epoch == NO_EPOCH
    }
}

/// Where a partition of `__transaction_state` stands.
#[derive(Debug)]
enum Load {
    /// Being read; the last record of each transactional id so far.
    Loading(BTreeMap<String, Metadata>),
    Ready,
    /// It could not be read.
    Failed,
}

/// The transactions of one core. Owned by that core.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: TransactionConfig,
    /// How many transactional ids it may have.
    capacity: usize,
    pub(super) ids: IndexMap<String, Entry, FixedState>,
    /// Partitions of all transactions together.
    pub(super) partitions: usize,
    homes: BTreeMap<i32, Load>,
    /// A producer id that nobody has, for a step that needs one.
    pub(super) spare: Option<i64>,
    /// Transactions that were decided before the log was read.
    unfinished: Vec<String>,
    /// How many records were to be written.
    writes: u64,
}

impl Coordinator {
    /// A coordinator without transactions.
    pub fn new(config: TransactionConfig, capacity: usize) -> Self {
        Self {
            config,
            capacity,
            ids: IndexMap::default(),
            partitions: 0,
            homes: BTreeMap::new(),
            spare: None,
            unfinished: Vec::new(),
            writes: 0,
        }
    }

    /// How many transactional ids there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether it has a producer id for a step that needs one; the shell sees to it before it
    /// brings a request.
    pub fn has_spare_id(&self) -> bool {
        self.spare.is_some()
    }

    /// Gives it a producer id that nobody has.
    pub fn give_spare_id(&mut self, producer_id: i64) {
        self.spare = Some(producer_id);
    }

    pub(super) fn take_spare_id(&mut self) -> i64 {
        self.spare.take().expect("the shell has given one")
    }

    // ---- loading ----

    /// A partition of `__transaction_state` is about to be read.
    pub fn begin_load(&mut self, home: i32) {
        self.forget(home);
        self.homes.insert(home, Load::Loading(BTreeMap::new()));
    }

    /// What an earlier load has found, or has become of it, counts no more.
    fn forget(&mut self, home: i32) {
        let partitions = &mut self.partitions;
        self.ids.retain(|_, entry| {
            let stays = entry.home != home;
            if !stays {
                *partitions -= entry.current.partition_count();
            }
            stays
        });
    }

    /// One record of a partition that is being read; records come in the order of the log.
    ///
    /// An error names a record that cannot be understood; it changes nothing, and the caller goes
    /// on with the next.
    pub fn load(&mut self, home: i32, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let Some(id) = records::decode_key(key)? else {
            return Ok(());
        };
        let metadata = value.map(records::decode_value).transpose()?;
        if let Some(Load::Loading(found)) = self.homes.get_mut(&home) {
            match metadata {
                Some(metadata) => drop(found.insert(id, metadata)),
                None => drop(found.remove(&id)),
            }
        }
        Ok(())
    }

    /// The partition is read to its end: its transactions serve from now on.
    pub fn finish_load(&mut self, home: i32) {
        let Some(load) = self.homes.get_mut(&home) else {
            return;
        };
        let Load::Loading(found) = std::mem::replace(load, Load::Ready) else {
            return;
        };
        for (id, metadata) in found {
            if metadata.state.is_prepared() {
                self.unfinished.push(id.clone());
            }
            self.partitions += metadata.partition_count();
            self.ids.insert(id, Entry::new(home, metadata));
        }
    }

    /// The partition could not be read: its transactions are refused.
    pub fn fail(&mut self, home: i32) {
        self.forget(home);
        self.homes.insert(home, Load::Failed);
    }

    /// Another node leads the partition: its transactions are that one's.
    pub fn resign(&mut self, home: i32) {
        self.forget(home);
        self.homes.remove(&home);
    }

    /// The transactions that were decided when the log was read and whose markers are to be
    /// written, once.
    pub fn resume(&mut self) -> Vec<Markers> {
        let unfinished = std::mem::take(&mut self.unfinished);
        let ids = unfinished.iter();
        ids.filter_map(|id| Some(markers_of(id, self.ids.get(id)?)))
            .collect()
    }

    // ---- steps ----

    /// Begins a step: the record to store, and whom to answer then.
    ///
    /// # Panics
    /// If another step is under way.
    pub(super) fn begin_step(
        &mut self,
        id: &str,
        next: Option<Metadata>,
        waiters: Vec<(Token, Reply)>,
    ) -> Write {
        let entry = self.ids.get_mut(id).expect("the caller found it");
        assert!(entry.pending.is_none(), "one step at a time");
        self.writes += 1;
        let write = Write {
            number: self.writes,
            home: entry.home,
            id: id.to_owned(),
            key: records::encode_key(id),
            value: next.as_ref().map(records::encode_value),
        };
        entry.pending = Some(Pending {
            number: self.writes,
            next,
            waiters,
        });
        write
    }

    /// As [`Self::begin_step`], as all of an event's effects.
    pub(super) fn step(
        &mut self,
        id: &str,
        next: Metadata,
        waiters: Vec<(Token, Reply)>,
    ) -> Effects {
        Effects {
            writes: vec![self.begin_step(id, Some(next), waiters)],
            ..Effects::default()
        }
    }

    /// A [`Write`] is durable, or was taken back.
    ///
    /// `number` is the write's: of one from before its partition was read again, the log has told.
    pub fn written(&mut self, now: Now, (id, number): (&str, u64), is_durable: bool) -> Effects {
        let mut effects = Effects::default();
        let Some(entry) = self.ids.get_mut(id) else {
            return effects;
        };
        let pending = entry.pending.take_if(|pending| pending.number == number);
        let Some(Pending { next, waiters, .. }) = pending else {
            return effects;
        };
        if !is_durable {
            let error = TransactionError::CoordinatorNotAvailable;
            let refused = waiters.into_iter().map(|(token, _)| (token, Err(error)));
            effects.replies.extend(refused);
            if entry.is_new() {
                self.remove(id, &mut effects);
            } else {
                self.release(now, id, &mut effects);
            }
            return effects;
        }
        effects.replies.extend(waiters);
        match next {
            Some(next) => {
                self.partitions += next.partition_count();
                self.partitions -= entry.current.partition_count();
                entry.current = next;
                if entry.current.state.is_prepared() {
                    effects.markers.push(markers_of(id, entry));
                } else {
                    self.release(now, id, &mut effects);
                }
            }
            None => self.remove(id, &mut effects),
        }
        effects
    }

    /// All of a transaction's partitions have its markers, durably. The record that says so is to
    /// be written; if it cannot be, the shell comes again.
    pub fn marked(&mut self, now: Now, id: &str) -> Option<Write> {
        let entry = self.ids.get(id)?;
        if entry.pending.is_some() || !entry.current.state.is_prepared() {
            return None;
        }
        let next = entry.current.completed(now.wall_ms);
        Some(self.begin_step(id, Some(next), Vec::new()))
    }

    fn remove(&mut self, id: &str, effects: &mut Effects) {
        if let Some(entry) = self.ids.swap_remove(id) {
            self.partitions -= entry.current.partition_count();
            let error = TransactionError::InvalidProducerIdMapping;
            let parked = entry.parked.into_iter();
            let refused = parked.map(|parked| (parked.token, Err(error)));
            effects.replies.extend(refused);
        }
    }

    // ---- parking ----

    /// Lets a request wait for the end of the present step.
    pub(super) fn park(&mut self, id: &str, parked: Parked) -> Effects {
        let entry = self.ids.get_mut(id).expect("the caller found it");
        if entry.parked.len() >= MAX_PARKED {
            return Effects::refuse(parked.token, TransactionError::ConcurrentTransactions);
        }
        entry.parked.push(parked);
        Effects::default()
    }

    /// A request that may wait waits no longer; whether it did.
    pub fn unpark(&mut self, id: &str, token: Token) -> bool {
        let Some(entry) = self.ids.get_mut(id) else {
            return false;
        };
        let before = entry.parked.len();
        entry.parked.retain(|parked| parked.token != token);
        entry.parked.len() < before
    }

    /// The step is done: those who waited share the next one.
    fn release(&mut self, now: Now, id: &str, effects: &mut Effects) {
        let Some(entry) = self.ids.get_mut(id).filter(|entry| !entry.is_busy()) else {
            return;
        };
        let parked = std::mem::take(&mut entry.parked);
        let (mut added, mut waiters) = (Vec::new(), Vec::new());
        let mut client = ClientVersion::V0;
        for parked in parked {
            let entry = &self.ids[id];
            match self.may_add(entry, &parked.partitions, added.len(), parked.producer) {
                Ok(true) => {
                    waiters.push((parked.token, Ok(parked.producer)));
                    added.extend(parked.partitions);
                    client = client.max(parked.client);
                }
                Ok(false) => effects.replies.push((parked.token, Ok(parked.producer))),
                Err(error) => effects.replies.push((parked.token, Err(error))),
            }
        }
        if !waiters.is_empty() {
            let current = &self.ids[id].current;
            let next = current.with_partitions(added.iter(), client, now.wall_ms);
            effects
                .writes
                .push(self.begin_step(id, Some(next), waiters));
        }
    }

    // ---- shared by the events ----

    /// Whether a request about a transactional id of a partition can be taken.
    pub(super) fn admit(&self, id: &str, home: i32) -> Result<(), TransactionError> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(TransactionError::InvalidRequest);
        }
        self.admit_home(home)
    }

    /// Whether a partition of `__transaction_state` is here and read.
    pub(super) fn admit_home(&self, home: i32) -> Result<(), TransactionError> {
        match self.homes.get(&home) {
            Some(Load::Ready) => Ok(()),
            Some(Load::Loading(_)) => Err(TransactionError::LoadInProgress),
            Some(Load::Failed) => Err(TransactionError::CoordinatorNotAvailable),
            None => Err(TransactionError::NotCoordinator),
        }
    }

    /// Whether any partition of this core is still being read.
    pub(super) fn is_loading(&self) -> bool {
        let mut loads = self.homes.values();
        loads.any(|load| matches!(load, Load::Loading(_)))
    }

    /// Makes a transactional id that nobody has had.
    pub(super) fn insert(
        &mut self,
        id: &str,
        home: i32,
        metadata: Metadata,
    ) -> Result<(), TransactionError> {
        if self.ids.len() >= self.capacity {
            return Err(TransactionError::LimitReached);
        }
        self.ids.insert(id.to_owned(), Entry::new(home, metadata));
        Ok(())
    }

    /// All that the partition's log has to say, in as few records as compaction would leave. What was appended and not yet flushed counts as it was appended.
    #[cfg(test)]
    pub fn snapshot(&self, home: i32) -> Vec<(Bytes, Option<Bytes>)> {
        let of_home = self.ids.iter().filter(|(_, entry)| entry.home == home);
        let live = of_home.filter_map(|(id, entry)| {
            let metadata = match &entry.pending {
                Some(pending) => pending.next.as_ref()?,
                None => &entry.current,
            };
            let value = records::encode_value(metadata);
            Some((records::encode_key(id), Some(value)))
        });
        live.collect()
    }
}

fn markers_of(id: &str, entry: &Entry) -> Markers {
    let current = &entry.current;
    Markers {
        id: id.to_owned(),
        producer: current.producer(),
        committed: current.state == super::state::State::PrepareCommit,
        partitions: current.all_partitions().collect(),
    }
}
