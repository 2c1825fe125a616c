//! A partition as its core serves it: the log, and the batches that wait for the log to have room.
//!
//! Owned by the core that the router names. Reading and appending follow the log's contract: an
//! append's order is fixed at once, and nothing is said of it before its receipt is answered for.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use ringmill_log::{
    AppendError, Appended, EndTxnMarker, FetchData, FetchSlice, Partition, ReadError,
    VerificationGuard,
};
use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::follower::{Answer, Fetch};
use ringmill_replication::partition::leader::parting;
use ringmill_ring::{planted, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::{AbortedTransaction, EpochEnd, IsolationLevel};

use crate::delayed::Progress;
use crate::error::ToCode;
use crate::replica::Replica;
use crate::router::{PartitionId, Result};
use crate::transactions::Producer;
use crate::transactions::verification::{Terms, Unverified};

/// A partition that is open on this core.
pub(crate) struct Hosted {
    pub(crate) id: PartitionId,
    /// Its topic's name, known before the metadata that names it counts here.
    pub(crate) topic: StrBytes,
    pub(crate) log: Partition,
    pub(crate) replica: Replica,
    /// What found the log's queue full, in its order; bounded by what connections may have in work,
    /// which a request is until its batches are written, and by the transactions that end.
    backlog: RefCell<VecDeque<(Entry, oneshot::Sender<Told>)>>,
    /// Batches of transactions that wait to be verified, by producer; bounded as the backlog.
    pub(crate) unverified: RefCell<BTreeMap<i64, VecDeque<Unverified>>>,
    is_closed: Cell<bool>,
    /// Tells a waiting fetch how much there is.
    progress: RefCell<Progress>,
}

/// What the log has said of an append.
pub(crate) type Told = Result<Appended>;

/// What may be appended.
#[derive(Clone)]
enum Entry {
    Batch(Bytes),
    /// The first batch of a producer's transaction, which was verified; or one behind it.
    Verified(Bytes, Producer, VerificationGuard),
    Marker(EndTxnMarker),
}

impl Entry {
    /// About its bytes in the log.
    fn len(&self) -> usize {
        match self {
            Self::Batch(batch) | Self::Verified(batch, ..) => batch.len(),
            Self::Marker(_) => MARKER_BYTES,
        }
    }
}

/// A batch with one record of a key and a value that are a few bytes each.
const MARKER_BYTES: usize = 78;

/// A batch that was checked, for one partition.
pub(crate) struct AppendWant {
    pub(crate) partition: PartitionId,
    pub(crate) batch: Bytes,
    /// Whether all in-sync replicas are to have it before it is acknowledged (`acks=all`).
    pub(crate) by_all: bool,
    /// In whose name it comes, if it is part of a transaction.
    pub(crate) terms: Option<Terms>,
}

/// What became of an append, as far as a client learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AppendedAt {
    pub(crate) base_offset: i64,
    pub(crate) append_time: Option<i64>,
    pub(crate) log_start: i64,
}

/// An append whose order is fixed.
pub(crate) enum Ordered {
    /// The log has it, or has refused it.
    Told(Told),
    /// It waits for its turn.
    Queued(oneshot::Receiver<Told>),
}

impl AppendedAt {
    fn of(appended: &Appended) -> Self {
        Self {
            base_offset: appended.base_offset,
            append_time: appended.append_time,
            log_start: appended.log_start_offset,
        }
    }
}

impl Ordered {
    /// What the log says of it.
    async fn told(&mut self) -> Result<&Appended> {
        if let Self::Queued(receiver) = self {
            let closed = Err(AppendError::Closed.to_code());
            *self = Self::Told(receiver.await.unwrap_or(closed));
        }
        match self {
            Self::Told(told) => told.as_ref().map_err(|code| *code),
            Self::Queued(_) => unreachable!("just told"),
        }
    }
}

/// A part of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadWant {
    pub(crate) partition: PartitionId,
    pub(crate) offset: i64,
    pub(crate) max_bytes: usize,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
    pub(crate) isolation: IsolationLevel,
    /// Who asks, if it is another replica.
    pub(crate) follower: Option<FollowerWant>,
    /// A consumer that also reads from followers (KIP-392).
    pub(crate) roams: bool,
    /// Where it is, if it is to be sent to a replica near it.
    pub(crate) rack: Option<StrBytes>,
}

/// Another replica that fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FollowerWant {
    pub(crate) node: NodeId,
    /// In which of its lives.
    pub(crate) node_epoch: i64,
    /// Everything before it is safe there.
    pub(crate) safe_end: i64,
}

/// What a part of a fetch found. `D` is where the records are.
#[derive(Debug, Clone)]
pub(crate) struct Found<D> {
    pub(crate) error: ErrorCode,
    /// The end of what is visible, -1 if unknown.
    pub(crate) high_watermark: i64,
    /// The last stable offset, -1 if unknown.
    pub(crate) last_stable: i64,
    /// The log's first offset, -1 if unknown.
    pub(crate) log_start: i64,
    /// To be skipped by readers of committed records.
    pub(crate) aborted: Vec<AbortedTransaction>,
    pub(crate) diverging: Option<EpochEnd>,
    /// Bytes of records.
    pub(crate) len: usize,
    /// It is held back, and not waited for.
    pub(crate) is_throttled: bool,
    /// The consumer is to read from this node instead.
    pub(crate) preferred: Option<NodeId>,
    pub(crate) data: D,
}

/// Found by the core that asks, maybe in a file.
pub(crate) type LocalFound = Found<FetchData>;
/// Found by another core: in memory, for a file is its core's own.
pub(crate) type ReadFound = Found<Vec<Bytes>>;

impl<D> Found<D> {
    fn refused(error: ErrorCode, data: D) -> Self {
        Self {
            error,
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: Vec::new(),
            diverging: None,
            len: 0,
            is_throttled: false,
            preferred: None,
            data,
        }
    }
}

impl LocalFound {
    pub(crate) fn failed(error: ErrorCode) -> Self {
        Self::refused(error, FetchData::Empty)
    }
}

impl ReadFound {
    pub(crate) fn failed(error: ErrorCode) -> Self {
        Self::refused(error, Vec::new())
    }

    /// As the asking core sees it.
    pub(crate) fn into_local(self) -> LocalFound {
        LocalFound {
            error: self.error,
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            log_start: self.log_start,
            aborted: self.aborted,
            diverging: self.diverging,
            len: self.len,
            is_throttled: self.is_throttled,
            preferred: self.preferred,
            data: match self.data {
                pieces if pieces.is_empty() => FetchData::Empty,
                pieces => FetchData::Memory(pieces),
            },
        }
    }
}

/// Which offset is asked for (ListOffsets).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffsetQuery {
    /// The end of what the asker may see.
    Latest,
    /// The log's first offset.
    Earliest,
    /// The first record with the largest timestamp (KIP-734).
    MaxTimestamp,
    /// The end of what is tiered, which nothing is (KIP-1005).
    LatestTiered,
    /// The first record that is not older.
    AtOrAfter(i64),
}

/// What a waiting fetch has seen of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) high_watermark: i64,
    /// If that is what it waits for.
    pub(crate) last_stable: Option<i64>,
    /// Of a follower: it waits for what is written from here on.
    pub(crate) written: Option<i64>,
}

/// An offset, its record's timestamp and leader epoch; -1 where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetFound {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) leader_epoch: i32,
}

/// A leader epoch whose end is asked for (KIP-101), and the one the client believes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EpochQuery {
    pub(crate) current: i32,
    pub(crate) epoch: i32,
}

impl Hosted {
    pub(crate) fn new(id: PartitionId, topic: StrBytes, log: Partition) -> Rc<Self> {
        Rc::new(Self {
            id,
            topic,
            log,
            replica: Replica::new(),
            backlog: RefCell::default(),
            unverified: RefCell::default(),
            is_closed: Cell::new(false),
            progress: RefCell::default(),
        })
    }

    /// Its topic is deleted: whoever waits for it looks again when the log rings.
    pub(crate) fn close(&self) {
        self.is_closed.set(true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Appends a batch that was checked; its place in the order is fixed when this returns.
    pub(crate) fn append(self: &Rc<Self>, batch: Bytes) -> Ordered {
        self.order(Entry::Batch(batch))
    }

    /// Appends a batch of a transaction that was verified: with a guard if it may be the first.
    pub(crate) fn append_guarded(
        self: &Rc<Self>,
        batch: Bytes,
        producer: Producer,
        guard: Option<VerificationGuard>,
    ) -> Ordered {
        match guard {
            Some(guard) => self.order(Entry::Verified(batch, producer, guard)),
            None => self.append(batch),
        }
    }

    /// As [`Self::append_guarded`]; the result goes to somebody who waits for it already.
    pub(crate) fn append_verified(
        self: &Rc<Self>,
        batch: Bytes,
        producer: Producer,
        guard: Option<VerificationGuard>,
        told: oneshot::Sender<Told>,
    ) {
        let entry = match guard {
            Some(guard) => Entry::Verified(batch, producer, guard),
            None => Entry::Batch(batch),
        };
        match self.try_append(&entry) {
            // Whoever appended may be gone; the record stays.
            Some(result) => drop(told.send(result)),
            None => self.backlog.borrow_mut().push_back((entry, told)),
        }
    }

    /// Appends the end of a transaction; its place in the order is fixed when this returns.
    pub(crate) fn append_marker(self: &Rc<Self>, marker: EndTxnMarker) -> Ordered {
        self.order(Entry::Marker(marker))
    }

    fn order(self: &Rc<Self>, entry: Entry) -> Ordered {
        if let Some(told) = self.try_append(&entry) {
            return Ordered::Told(told);
        }
        let (sender, receiver) = oneshot::channel();
        self.backlog.borrow_mut().push_back((entry, sender));
        Ordered::Queued(receiver)
    }

    /// Appends unless others wait for room, or it has to: then it belongs into the backlog, which
    /// is being worked on.
    fn try_append(self: &Rc<Self>, entry: &Entry) -> Option<Told> {
        if !self.backlog.borrow().is_empty() {
            return None;
        }
        let told = self.append_now(entry);
        if told.is_none() {
            let hosted = Rc::clone(self);
            spawn(async move { hosted.drain_backlog().await });
        }
        told
    }

    /// None if the log's queue is full.
    fn append_now(&self, entry: &Entry) -> Option<Told> {
        if let Err(error) = self.check_leads() {
            return Some(Err(error));
        }
        let log = &self.log;
        let told = match entry {
            Entry::Batch(batch) => log.append(batch.clone()),
            Entry::Verified(batch, producer, guard) => {
                match log.has_open_transaction(producer.id, producer.epoch) {
                    true => log.append(batch.clone()),
                    false => log.append_verified(batch.clone(), guard),
                }
            }
            Entry::Marker(marker) => log.append_marker(*marker),
        };
        match told {
            Err(AppendError::Full) => None,
            Err(error) => Some(Err(error.to_code())),
            Ok(appended) => {
                self.count(&appended, entry.len() as u64);
                Some(Ok(appended))
            }
        }
    }

    fn count(&self, appended: &Appended, bytes: u64) {
        if !appended.duplicate {
            let mut progress = self.progress.borrow_mut();
            progress.on_visible(self.log.visible_end());
            progress.on_appended(appended.last_offset + 1, bytes);
        }
    }

    /// Bytes that have become visible since the partition was opened.
    pub(crate) fn visible_bytes(&self) -> u64 {
        self.progress
            .borrow_mut()
            .on_visible(self.log.visible_end())
    }

    async fn drain_backlog(self: Rc<Self>) {
        loop {
            self.log.room().await;
            let first = self
                .backlog
                .borrow()
                .front()
                .map(|(entry, _)| entry.clone());
            let Some(entry) = first else {
                return;
            };
            let Some(told) = self.append_now(&entry) else {
                continue;
            };
            let first = self.backlog.borrow_mut().pop_front();
            if let Some((_, sender)) = first {
                // Whoever appended may be gone; the record stays.
                let _ = sender.send(told);
            }
        }
    }

    /// Waits until the append is acknowledged by all in-sync replicas, or by this node alone, as
    /// the topic's durability demands. Given up, it may be waited for again.
    pub(crate) async fn acknowledged(
        &self,
        ordered: &mut Ordered,
        by_all: bool,
    ) -> Result<AppendedAt> {
        let appended = ordered.told().await?;
        let receipt = &appended.receipt;
        match by_all && !planted("ack-before-isr") {
            true => self.while_leading(self.log.committed(receipt)).await?,
            false => self.while_leading(self.log.acknowledged(receipt)).await?,
        }
        Ok(AppendedAt::of(appended))
    }

    /// As [`Self::acknowledged`] by all, and until it is on the disk here, whatever the topic's
    /// durability is.
    pub(crate) async fn flushed(&self, ordered: &mut Ordered) -> Result<AppendedAt> {
        let appended = ordered.told().await?;
        self.while_leading(self.log.flushed(&appended.receipt))
            .await?;
        self.while_leading(self.log.committed(&appended.receipt))
            .await?;
        Ok(AppendedAt::of(appended))
    }

    /// Whoever does not lead any more acknowledges nothing: another has decided what the log holds.
    async fn while_leading(
        &self,
        work: impl Future<Output = std::result::Result<(), AppendError>>,
    ) -> Result<()> {
        let mut work = pin!(work);
        loop {
            let changed = self.replica.changed.notified();
            if planted("ack-after-deposed") && self.check_leads().is_err() {
                return Ok(());
            }
            self.check_takes()?;
            match select(work.as_mut(), pin!(changed)).await {
                Either::Left((done, _)) => {
                    self.check_leads()?;
                    return done.map_err(|error| error.to_code());
                }
                Either::Right(_) => {}
            }
        }
    }

    /// The leader serves all, a follower only consumers that know of it, and only what its leader has
    /// told it to be safe.
    fn check_serves(&self, want: &ReadWant) -> Result<()> {
        let is_roaming = want.follower.is_none() && want.roams;
        match is_roaming && self.replica.is_told_safe(self.log.visible_end()) {
            true => Ok(()),
            false => self.check_leads(),
        }
    }

    /// Reads what is visible from an offset on.
    pub(crate) async fn read(&self, want: &ReadWant) -> LocalFound {
        let checked = self.replica.check_epoch(want.current_leader_epoch);
        if let Err(error) = checked.and_then(|()| self.check_serves(want)) {
            return LocalFound::failed(error);
        }
        if let Some(follower) = want.follower {
            return self.read_for_follower(want, follower).await;
        }
        let diverging = match self.divergence(want) {
            Ok(diverging) => diverging,
            Err(error) => return LocalFound::failed(error),
        };
        let mut found = LocalFound {
            error: ErrorCode::None,
            high_watermark: self.log.visible_end(),
            last_stable: self.log.last_stable_offset(),
            log_start: self.log.log_start_offset(),
            aborted: Vec::new(),
            diverging,
            len: 0,
            is_throttled: false,
            preferred: None,
            data: FetchData::Empty,
        };
        if found.diverging.is_some() {
            return found;
        }
        if want.max_bytes == 0 {
            let there = found.log_start..=self.log.log_end_offset();
            return match there.contains(&want.offset) {
                true => found,
                false => LocalFound::failed(ErrorCode::OffsetOutOfRange),
            };
        }
        match self.read_slice(want).await {
            Ok((slice, aborted)) => {
                (found.len, found.data, found.aborted) = (slice.len, slice.data, aborted);
            }
            // As Kafka: no ends are told with an error.
            Err(error) => return LocalFound::failed(error.to_code()),
        }
        if found.len == 0 && self.replica.is_cut_off() {
            // Most likely there is more by now, from whoever leads instead.
            return LocalFound::failed(ErrorCode::NotLeaderOrFollower);
        }
        // What was read is visible, though more may be since.
        found.high_watermark = self.log.visible_end();
        found.last_stable = self.log.last_stable_offset();
        found
    }

    /// Reads for another replica: all that is written, visible or not, and where the logs part.
    async fn read_for_follower(&self, want: &ReadWant, follower: FollowerWant) -> LocalFound {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        let mut found = LocalFound {
            error: ErrorCode::None,
            high_watermark: self.log.visible_end(),
            last_stable: self.log.last_stable_offset(),
            log_start: start,
            aborted: Vec::new(),
            diverging: None,
            len: 0,
            is_throttled: false,
            preferred: None,
            data: FetchData::Empty,
        };
        match self.parting(want, follower) {
            Some(Answer::Diverging { epoch, end_offset }) => {
                found.diverging = Some(EpochEnd { epoch, end_offset });
                return found;
            }
            Some(_) => {
                // The ends are told all the same: the follower begins anew by them.
                found.error = ErrorCode::OffsetOutOfRange;
                found.high_watermark = end;
                return found;
            }
            None => {}
        }
        if want.max_bytes == 0 {
            return found;
        }
        let epoch = self.replica.epoch();
        let read = self.log.read_for_replica(want.offset, want.max_bytes).await;
        if !self.replica.leads() || self.replica.epoch() != epoch {
            // Another has decided meanwhile what the log holds.
            return LocalFound::failed(ErrorCode::NotLeaderOrFollower);
        }
        match read {
            Ok(slice) => {
                (found.len, found.data) = (slice.len, slice.data);
                found.high_watermark = self.log.visible_end();
                found
            }
            Err(error) => LocalFound::failed(error.to_code()),
        }
    }

    /// Why a follower can get no records from here.
    pub(crate) fn parting(&self, want: &ReadWant, follower: FollowerWant) -> Option<Answer> {
        let fetch = Fetch {
            leader: -1,
            leader_epoch: self.replica.epoch(),
            offset: want.offset,
            last_epoch: want.last_fetched_epoch,
            durable_end: follower.safe_end,
        };
        let ends = (self.log.log_start_offset(), self.log.log_end_offset());
        parting(&fetch, ends, self.log.end_of_epoch(want.last_fetched_epoch))
    }

    async fn read_slice(
        &self,
        want: &ReadWant,
    ) -> std::result::Result<(FetchSlice, Vec<AbortedTransaction>), ReadError> {
        let (offset, max_bytes) = (want.offset, want.max_bytes);
        if want.isolation == IsolationLevel::ReadUncommitted {
            return Ok((self.log.read(offset, max_bytes).await?, Vec::new()));
        }
        let slice = self.log.read_committed(offset, max_bytes).await?;
        if slice.len == 0 {
            return Ok((slice, Vec::new()));
        }
        let aborted = self.log.aborted(offset, slice.next_offset).await?;
        let told = aborted.into_iter().map(|txn| AbortedTransaction {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
        });
        Ok((slice, told.collect()))
    }

    /// Where the log parted from what the consumer has seen (KIP-595). It is out of range if it has
    /// seen an epoch of which nothing is known, or asks for what is deleted.
    fn divergence(&self, want: &ReadWant) -> Result<Option<EpochEnd>> {
        if want.last_fetched_epoch < 0 {
            return Ok(None);
        }
        let known = self.known_end_of(want.last_fetched_epoch);
        let (epoch, end_offset) = known.ok_or(ErrorCode::OffsetOutOfRange)?;
        if want.offset < self.log.log_start_offset() {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let parted = epoch < want.last_fetched_epoch || end_offset < want.offset;
        Ok(parted.then_some(EpochEnd { epoch, end_offset }))
    }

    /// As [`Self::read`], into memory.
    pub(crate) async fn in_memory(&self, found: LocalFound) -> ReadFound {
        let mut result = ReadFound {
            error: found.error,
            high_watermark: found.high_watermark,
            last_stable: found.last_stable,
            log_start: found.log_start,
            aborted: found.aborted,
            diverging: found.diverging,
            len: found.len,
            is_throttled: found.is_throttled,
            preferred: found.preferred,
            data: Vec::new(),
        };
        match found.data {
            FetchData::Empty => {}
            FetchData::Memory(pieces) => result.data = pieces,
            FetchData::File { file, position } => {
                match file.read_exact_at(position, found.len).await {
                    Ok(bytes) => result.data.push(bytes),
                    Err(error) => {
                        tracing::error!(folder = %self.log.dir().display(), %error, "cannot read");
                        return ReadFound::failed(ErrorCode::KafkaStorageError);
                    }
                }
            }
        }
        result
    }

    pub(crate) async fn find_offset(
        &self,
        query: OffsetQuery,
        current_epoch: i32,
        isolation: IsolationLevel,
    ) -> Result<OffsetFound> {
        self.replica.check_epoch(current_epoch)?;
        self.check_leads()?;
        // Of what was visible before it led, a new leader may not know yet that it is (KIP-207).
        let plain = |offset| OffsetFound {
            offset,
            timestamp: -1,
            leader_epoch: self.log.epoch_of(offset).unwrap_or(self.replica.epoch()),
        };
        let found = match query {
            OffsetQuery::Latest => {
                self.replica.check_high_watermark()?;
                return Ok(plain(match isolation {
                    IsolationLevel::ReadUncommitted => self.log.visible_end(),
                    IsolationLevel::ReadCommitted => self.log.last_stable_offset(),
                }));
            }
            OffsetQuery::Earliest => return Ok(plain(self.log.log_start_offset())),
            OffsetQuery::LatestTiered => return Ok(NO_OFFSET),
            OffsetQuery::MaxTimestamp => self.log.offset_of_max_timestamp().await,
            OffsetQuery::AtOrAfter(timestamp) => self.log.offset_for_timestamp(timestamp).await,
        };
        let found = found.map_err(|error| error.to_code())?;
        let decided = self.log.last_stable_offset();
        let hidden = |offset| isolation == IsolationLevel::ReadCommitted && offset >= decided;
        let found = found.filter(|found| !hidden(found.offset));
        if found.is_none() {
            self.replica.check_high_watermark()?;
        }
        Ok(found.map_or(NO_OFFSET, |found| OffsetFound {
            timestamp: found.timestamp,
            ..plain(found.offset)
        }))
    }

    pub(crate) fn end_of_epoch(&self, query: EpochQuery) -> Result<(i32, i64)> {
        self.replica.check_epoch(query.current)?;
        self.check_leads()?;
        Ok(self.known_end_of(query.epoch).unwrap_or((-1, -1)))
    }

    /// The end of an epoch, with the epoch that it is the end of; none if nothing is known of it.
    fn known_end_of(&self, epoch: i32) -> Option<(i32, i64)> {
        let (end, current) = (self.log.end_of_epoch(epoch), self.replica.epoch());
        match epoch {
            // The leader's own epoch has begun, even if nothing was written in it yet.
            _ if epoch == current => end.or(Some((current, self.log.log_end_offset()))),
            // No epoch that is yet to come has an end.
            _ if epoch > current => None,
            _ => end,
        }
    }

    pub(crate) async fn delete_records(&self, before: i64) -> Result<i64> {
        self.check_leads()?;
        let deleted = self.log.delete_records(before).await;
        deleted.map_err(|error| error.to_code())
    }
}

/// There is no such record.
const NO_OFFSET: OffsetFound = OffsetFound {
    offset: -1,
    timestamp: -1,
    leader_epoch: -1,
};
