//! The shell of a core's groups: parks requests, stores what the coordinator writes, wakes it in
//! time. It decides nothing.
//!
//! Writes to one partition of `__consumer_offsets` are settled in the order in which they were
//! appended, by one task for each partition, so that the coordinator applies them in the order of
//! the log and nobody reads what is not durable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::FixedState;
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use ringmill_ring::{Instant, Notify, planted, sleep_until, spawn};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;

use super::admin::{Commit, Description, Fetched, Listing};
use super::beats::ConsumerDescription;
use super::consumer::{Beat, BeatError, Beaten};
use super::coordinator::{Capacity, Coordinator};
use super::offsets_log::{self, Replayed};
use super::transactional_service::TransactionalCommit;
use super::write::{Outcome, Write};
use super::{
    Claim, GroupError, Join, JoinRefused, Joined, Leaver, Reply, Results, Sync, Synced, Token,
};
use crate::cluster::image::{Image, OFFSETS_TOPIC};
use crate::config::BrokerConfig;
use crate::limits;
use crate::partition::{Hosted, Ordered};
use crate::router::{PartitionId, Result};
use crate::shard::Shard;
use crate::transactions::verification::Verified;

/// How many committed offsets all groups of the broker have together, at most.
const MAX_OFFSETS: u64 = 1_000_000;
/// Bytes that all members of all groups have as metadata and assignments, at most.
const MAX_METADATA_BYTES: u64 = 512 << 20;

/// A request about groups of this core; `home` is the group's partition of `__consumer_offsets`.
#[derive(Debug)]
pub(crate) struct GroupCall {
    pub(crate) group: String,
    pub(crate) home: i32,
    pub(crate) ask: GroupAsk,
}

/// Which of a group's offsets are asked for, and by whom.
#[derive(Debug)]
pub(crate) struct FetchOffsets {
    /// All of them, or those of some partitions.
    pub(crate) wanted: Option<Vec<(StrBytes, Vec<i32>)>>,
    /// A member of the consumer protocol, of which epoch.
    pub(crate) member: Option<String>,
    pub(crate) epoch: i32,
    /// Whether it matters that a transaction may change them (KIP-447).
    pub(crate) require_stable: bool,
}

/// What is asked of a group.
#[derive(Debug)]
pub(crate) enum GroupAsk {
    Join(Join),
    Sync(Sync),
    Heartbeat(Claim),
    Leave(Vec<Leaver>),
    /// A commit, and whether its version knows member epochs.
    Commit(Claim, bool, Vec<Commit>),
    /// A commit as part of a producer's transaction.
    CommitInTransaction(TransactionalCommit),
    /// A heartbeat of the consumer protocol.
    Beat(Box<Beat>),
    /// Offsets.
    Fetch(FetchOffsets),
    Describe,
    /// A group of the consumer protocol.
    DescribeConsumers,
    Delete,
    DeleteOffsets(Vec<(String, i32)>),
    /// All groups of the core; the call's group does not count.
    List,
}

/// What a group answers, by what was asked.
#[derive(Debug)]
pub(crate) enum GroupAnswer {
    Join(std::result::Result<Joined, JoinRefused>),
    Sync(std::result::Result<Synced, GroupError>),
    /// To a heartbeat and a deletion.
    Done(Result<()>),
    /// To Leave, Commit and DeleteOffsets: one result for each part.
    Parts(Result<Vec<Result<()>>>),
    Fetch(Result<Vec<Fetched>>),
    Describe(Result<Option<Description>>),
    DescribeConsumers(Result<Option<ConsumerDescription>>),
    Beat(std::result::Result<Beaten, BeatError>),
    List(Vec<Listing>),
}

/// A write that was appended and awaits its flush.
struct Settling {
    /// The partition's, when they were appended.
    life: u64,
    appends: Vec<Ordered>,
    hosted: Rc<Hosted>,
    /// On the disk, whatever durability the topic has.
    must_be_flushed: bool,
    done: oneshot::Sender<Result<()>>,
}

/// Whoever waits for a group's answer, and the group's partition.
struct Parked {
    home: i32,
    sender: oneshot::Sender<Answered>,
}

/// A group's answer, or why there is none.
type Answered = std::result::Result<Reply, GroupError>;

/// The groups of one core.
pub(crate) struct Groups {
    pub(super) coordinator: RefCell<Coordinator>,
    parked: RefCell<HashMap<Token, Parked, FixedState>>,
    next_token: Cell<u64>,
    /// Rings when the coordinator may want to be woken earlier.
    earlier: Notify,
    settlers: RefCell<BTreeMap<i32, mpsc::UnboundedSender<Settling>>>,
}

impl Groups {
    /// A partition is led by another node now: so are its groups, and whoever waits here is to go
    /// there.
    pub(crate) fn leave(&self, home: i32) {
        self.coordinator.borrow_mut().resign(home);
        let mut parked = self.parked.borrow_mut();
        for (_, parked) in parked.extract_if(|_, parked| parked.home == home) {
            // The client may be gone.
            let _ = parked.sender.send(Err(GroupError::NotCoordinator));
        }
    }

    pub(crate) fn new(config: &BrokerConfig, cores: usize) -> Self {
        let capacity = Capacity {
            groups: limits::share(config.max_groups as u64, cores) as usize,
            offsets: limits::share(MAX_OFFSETS, cores) as usize,
            metadata_bytes: limits::share(MAX_METADATA_BYTES, cores) as usize,
        };
        Self {
            coordinator: RefCell::new(Coordinator::new(config.live.groups.clone(), capacity)),
            parked: RefCell::default(),
            next_token: Cell::new(0),
            earlier: Notify::new(),
            settlers: RefCell::default(),
        }
    }

    /// Takes changed metadata, and the limits in it.
    pub(crate) fn set_image(&self, image: &Arc<Image>) {
        let mut coordinator = self.coordinator.borrow_mut();
        coordinator.set_config(image.live.groups.clone());
        coordinator.set_image(Arc::clone(image));
    }

    /// Refuses everybody who waits: the broker stops.
    pub(crate) fn let_go(&self) {
        self.parked.borrow_mut().clear();
    }

    fn park(&self, home: i32) -> (Token, oneshot::Receiver<Answered>) {
        let token = Token(self.next_token.get());
        self.next_token.set(token.0 + 1);
        let (sender, receiver) = oneshot::channel();
        let parked = Parked { home, sender };
        self.parked.borrow_mut().insert(token, parked);
        (token, receiver)
    }

    fn reply(&self, replies: Vec<Reply>) {
        for reply in replies {
            let parked = self.parked.borrow_mut().remove(&reply.token());
            if let Some(parked) = parked {
                // The client may be gone; the group finds out by its silence.
                let _ = parked.sender.send(Ok(reply));
            }
        }
    }
}

fn to_codes(results: Results) -> Vec<Result<()>> {
    let results = results.into_iter();
    results
        .map(|result| result.map_err(ErrorCode::from))
        .collect()
}

/// Why a write was not stored, as far as clients learn. Most may pass: the disk may have room again,
/// or the partition another home. What the log says of a producer is final.
fn told(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::InvalidProducerEpoch
        | ErrorCode::InvalidTxnState
        | ErrorCode::TransactionCoordinatorFenced
        | ErrorCode::ConcurrentTransactions => error,
        ErrorCode::NotLeaderOrFollower => ErrorCode::NotCoordinator,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}

pub(super) type Answering = LocalBoxFuture<'static, GroupAnswer>;

fn ready(answer: GroupAnswer) -> Answering {
    Box::pin(std::future::ready(answer))
}

/// Waits for an answer; whoever is let go while it waits finds no coordinator.
async fn answered(parked: oneshot::Receiver<Answered>) -> Answered {
    let not_available = Err(GroupError::CoordinatorNotAvailable);
    parked.await.unwrap_or(not_available)
}

async fn join_answer(parked: oneshot::Receiver<Answered>) -> GroupAnswer {
    GroupAnswer::Join(match answered(parked).await {
        Ok(Reply::Join(_, result)) => result,
        Ok(_) => unreachable!("a join has a join's answer"),
        Err(error) => Err(JoinRefused {
            error,
            member_id: String::new(),
        }),
    })
}

async fn sync_answer(parked: oneshot::Receiver<Answered>) -> GroupAnswer {
    GroupAnswer::Sync(match answered(parked).await {
        Ok(Reply::Sync(_, result)) => result,
        Ok(_) => unreachable!("a sync has a sync's answer"),
        Err(error) => Err(error),
    })
}

/// Of a heartbeat whose records are on their way.
async fn beat_answer(parked: oneshot::Receiver<Answered>) -> GroupAnswer {
    GroupAnswer::Beat(match answered(parked).await {
        Ok(Reply::Beat(_, result)) => result,
        Ok(_) => unreachable!("a heartbeat has a heartbeat's answer"),
        Err(error) => Err(error.into()),
    })
}

impl Shard {
    /// Begins a request about groups of this core: its effect on the group, and its place in the
    /// log, are decided before this returns.
    pub(crate) fn begin_group(self: &Rc<Self>, call: GroupCall) -> Answering {
        let GroupCall { group, home, ask } = call;
        let now = self.now();
        let groups = &self.groups;
        let mut coordinator = groups.coordinator.borrow_mut();
        match ask {
            GroupAsk::Join(join) => {
                let (token, parked) = groups.park(home);
                let outcome = coordinator.join(now, &group, home, token, join);
                drop(coordinator);
                self.perform(outcome);
                Box::pin(join_answer(parked))
            }
            GroupAsk::Sync(sync) => {
                let (token, parked) = groups.park(home);
                let outcome = coordinator.sync(now, &group, home, token, sync);
                drop(coordinator);
                self.perform(outcome);
                Box::pin(sync_answer(parked))
            }
            GroupAsk::Heartbeat(claim) => {
                let result = coordinator.heartbeat(now, &group, home, &claim);
                ready(GroupAnswer::Done(result.map_err(ErrorCode::from)))
            }
            GroupAsk::Leave(leavers) => {
                let left = coordinator.leave(now, &group, home, &leavers);
                drop(coordinator);
                ready(GroupAnswer::Parts(match left {
                    Ok((results, outcome)) => {
                        self.perform(outcome);
                        Ok(to_codes(results))
                    }
                    Err(error) => Err(error.into()),
                }))
            }
            GroupAsk::Beat(beat) => {
                let (token, parked) = groups.park(home);
                let outcome = coordinator.beat(now, &group, home, token, *beat);
                drop(coordinator);
                self.perform(outcome);
                Box::pin(beat_answer(parked))
            }
            GroupAsk::Commit(claim, knows_epochs, commits) => {
                let committed =
                    coordinator.commit(now, &group, home, &claim, knows_epochs, commits);
                drop(coordinator);
                self.finish_parts(committed, None)
            }
            GroupAsk::CommitInTransaction(commit) => {
                drop(coordinator);
                self.commit_in_transaction(group, home, commit)
            }
            other => {
                drop(coordinator);
                self.administer_group(&group, home, other)
            }
        }
    }

    /// The requests that come from no member.
    fn administer_group(self: &Rc<Self>, group: &str, home: i32, ask: GroupAsk) -> Answering {
        let mut coordinator = self.groups.coordinator.borrow_mut();
        match ask {
            GroupAsk::DeleteOffsets(wanted) => {
                let deleted = coordinator.delete_offsets(group, home, &wanted);
                drop(coordinator);
                self.finish_parts(deleted, None)
            }
            GroupAsk::Delete => {
                let deleted = coordinator.delete(group, home);
                drop(coordinator);
                self.finish_deletion(deleted)
            }
            GroupAsk::Fetch(asked) => {
                let reader = (asked.member.as_deref(), asked.epoch);
                let wanted = asked.wanted.as_deref();
                let fetched = match asked.require_stable {
                    true => coordinator.fetch_stable(group, home, reader, wanted),
                    false => coordinator.fetch(group, home, reader, wanted),
                };
                ready(GroupAnswer::Fetch(fetched.map_err(ErrorCode::from)))
            }
            GroupAsk::Describe => {
                let described = coordinator.describe(group, home);
                ready(GroupAnswer::Describe(described.map_err(ErrorCode::from)))
            }
            GroupAsk::DescribeConsumers => {
                let found = coordinator.describe_consumers(group, home);
                ready(GroupAnswer::DescribeConsumers(
                    found.map_err(ErrorCode::from),
                ))
            }
            GroupAsk::List => ready(GroupAnswer::List(coordinator.list().collect())),
            _ => unreachable!("begin_group has taken the members' requests"),
        }
    }

    fn finish_deletion(
        self: &Rc<Self>,
        deleted: std::result::Result<Write, GroupError>,
    ) -> Answering {
        match deleted {
            Ok(write) => {
                let stored = self.store_group(write, None);
                Box::pin(async move { GroupAnswer::Done(stored.await) })
            }
            Err(error) => ready(GroupAnswer::Done(Err(error.into()))),
        }
    }

    /// Stores what a request of several parts admits, and answers when it is durable.
    pub(super) fn finish_parts(
        self: &Rc<Self>,
        decided: std::result::Result<(Results, Option<Write>), GroupError>,
        guard: Verified,
    ) -> Answering {
        let (results, write) = match decided {
            Ok(decided) => decided,
            Err(error) => return ready(GroupAnswer::Parts(Err(error.into()))),
        };
        let results = to_codes(results);
        let Some(write) = write else {
            return ready(GroupAnswer::Parts(Ok(results)));
        };
        let stored = self.store_group(write, guard);
        Box::pin(async move {
            let parts = match stored.await {
                Ok(()) => results,
                Err(error) => results
                    .into_iter()
                    .map(|part| part.and(Err(error)))
                    .collect(),
            };
            GroupAnswer::Parts(Ok(parts))
        })
    }

    /// Does what the coordinator asks for.
    fn perform(self: &Rc<Self>, outcome: Outcome) {
        self.groups.reply(outcome.replies);
        self.groups.earlier.notify_one();
        let Some(mut write) = outcome.write else {
            return;
        };
        let (group, mut after) = (write.group.clone(), std::mem::take(&mut write.after));
        let (is_beat, generation, keys) = (write.is_beat, write.generation, write.keys());
        let stored = self.store_group(write, None);
        let shard = Rc::clone(self);
        spawn(async move {
            let is_stored = stored.await.is_ok();
            let now = shard.now();
            let outcome = {
                let mut coordinator = shard.groups.coordinator.borrow_mut();
                match is_stored {
                    true => coordinator.stored(now, &group, is_beat, generation),
                    false => coordinator.store_failed(
                        now,
                        &group,
                        (is_beat, keys),
                        std::mem::take(&mut after),
                    ),
                }
            };
            shard.groups.reply(after);
            shard.perform(outcome);
        });
    }

    /// Appends a write; the future tells when it is durable, or that it will not be. A write of a
    /// transaction comes with the guard of its verification.
    fn store_group(
        self: &Rc<Self>,
        mut write: Write,
        guard: Verified,
    ) -> LocalBoxFuture<'static, Result<()>> {
        let home = write.partition;
        let changes = write.take_changes();
        let hosted = match self.offsets_partition(home) {
            Ok(hosted) => hosted,
            Err(error) => {
                self.groups.coordinator.borrow_mut().not_appended(changes);
                return Box::pin(std::future::ready(Err(error)));
            }
        };
        let batches = offsets_log::batches(&write.records, write.producer, self.now().wall_ms);
        let append = |batch| match write.producer {
            Some(producer) => hosted.append_guarded(batch, producer, guard),
            None => hosted.append(batch),
        };
        let appends = batches.into_iter().map(append).collect();
        let life = self.groups.coordinator.borrow_mut().appended(home, changes);
        self.settle((home, life), hosted, appends, false)
    }

    /// Hands appends to the partition's settler, which takes them in the order of the log.
    pub(super) fn settle(
        self: &Rc<Self>,
        (home, life): (i32, u64),
        hosted: Rc<Hosted>,
        appends: Vec<Ordered>,
        must_be_flushed: bool,
    ) -> LocalBoxFuture<'static, Result<()>> {
        let (done, settled) = oneshot::channel();
        let settling = Settling {
            life,
            appends,
            hosted,
            must_be_flushed,
            done,
        };
        let sent = self.settler(home).unbounded_send(settling);
        debug_assert!(sent.is_ok(), "a settler lives as long as its core");
        Box::pin(async move {
            let result = settled.await;
            result.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable))
        })
    }

    pub(super) fn offsets_partition(&self, home: i32) -> Result<Rc<Hosted>> {
        let image = self.image();
        let topic = image
            .topic(OFFSETS_TOPIC)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        self.hosted(PartitionId {
            topic: topic.id,
            index: home,
        })
    }

    /// The task that settles a partition's writes, one after the other. Bounded by the requests
    /// in work, each of which makes one write.
    fn settler(self: &Rc<Self>, home: i32) -> mpsc::UnboundedSender<Settling> {
        let mut settlers = self.groups.settlers.borrow_mut();
        let new = || {
            let (sender, mut queue) = mpsc::unbounded::<Settling>();
            let shard = Rc::downgrade(self);
            spawn(async move {
                while let Some(settling) = queue.next().await {
                    let mut result = Ok(());
                    for mut append in settling.appends {
                        let stored = match settling.must_be_flushed {
                            true => settling.hosted.flushed(&mut append).await,
                            false => settling.hosted.acknowledged(&mut append, true).await,
                        };
                        result = result.and(stored.map(drop).map_err(told));
                    }
                    let Some(shard) = shard.upgrade() else {
                        return;
                    };
                    let mut coordinator = shard.groups.coordinator.borrow_mut();
                    let place = (home, settling.life);
                    coordinator.settled(shard.now(), place, result.is_ok());
                    drop(coordinator);
                    // Whoever asked may be gone.
                    let _ = settling.done.send(result);
                }
            });
            sender
        };
        settlers.entry(home).or_insert_with(new).clone()
    }

    /// Reads the groups of a partition of `__consumer_offsets` from its log.
    pub(crate) async fn load_groups(self: &Rc<Self>, home: i32, hosted: Option<Rc<Hosted>>) {
        let groups = &self.groups;
        // The same node may have led it until now, in an epoch before.
        groups.leave(home);
        groups.coordinator.borrow_mut().begin_load(home);
        let loaded = match hosted {
            Some(hosted) => {
                let mut on = |replayed: Replayed<'_>| self.replay_group(home, replayed);
                offsets_log::replay(&hosted, &mut on).await
            }
            None => Err("it is not open".to_owned()),
        };
        match loaded {
            Ok(true) => {
                let mut coordinator = groups.coordinator.borrow_mut();
                coordinator.finish_load(self.now(), home);
            }
            // Another load has begun, or the partition's groups are another node's.
            Ok(false) => {}
            Err(reason) => {
                tracing::error!(partition = home, reason, "groups are not available");
                groups.coordinator.borrow_mut().fail(home);
            }
        }
        groups.earlier.notify_one();
    }

    fn replay_group(&self, home: i32, replayed: Replayed<'_>) {
        let mut coordinator = self.groups.coordinator.borrow_mut();
        match replayed {
            Replayed::Record {
                offset,
                producer,
                key,
                value,
            } => {
                if planted("groups-loaded-in-part") && offset % 2 == 1 {
                    return;
                }
                let key = bytes::Bytes::copy_from_slice(key);
                let value = value.map(bytes::Bytes::copy_from_slice);
                let loaded = coordinator.load(self.now(), home, producer, key, value);
                if let Err(error) = loaded {
                    tracing::warn!(partition = home, offset, %error, "skipped a group's record");
                }
            }
            Replayed::Marker {
                producer_id,
                committed,
            } => coordinator.load_end(self.now(), home, producer_id, committed),
        }
    }

    /// Topics were deleted.
    pub(crate) async fn forget_topics(self: &Rc<Self>, topics: &BTreeSet<String>) {
        let writes = self.groups.coordinator.borrow().forget_topics(topics);
        self.store_all(writes, "offsets of a deleted topic stay")
            .await;
    }

    /// Appends all of the writes before it waits for any: they share their flushes.
    async fn store_all(self: &Rc<Self>, writes: Vec<Write>, failed: &'static str) {
        let stored = writes
            .into_iter()
            .map(|write| self.store_group(write, None));
        for stored in stored.collect::<Vec<_>>() {
            if let Err(error) = stored.await {
                tracing::warn!(?error, "{failed}");
            }
        }
    }

    /// Offsets of topics that were deleted while the broker could not say so to their groups.
    pub(crate) async fn forget_missing_topics(self: &Rc<Self>) {
        let image = self.image();
        let missing = {
            let coordinator = self.groups.coordinator.borrow();
            coordinator.topics_without(|topic| image.topic(topic).is_some())
        };
        if !missing.is_empty() {
            self.forget_topics(&missing).await;
        }
    }

    // ---- in the background ----

    /// Wakes the coordinator at its deadlines, for ever.
    pub(crate) async fn wake_groups(self: Rc<Self>) {
        loop {
            let deadline = self.groups.coordinator.borrow().deadline();
            let mut earlier = std::pin::pin!(self.groups.earlier.notified());
            if let Some(at) = deadline {
                let at = Instant::from_nanos(at.saturating_mul(1_000_000));
                let slept = std::pin::pin!(sleep_until(at));
                if let Either::Right(_) = select(slept, earlier.as_mut()).await {
                    continue;
                }
            } else {
                earlier.await;
                continue;
            }
            let outcomes = self.groups.coordinator.borrow_mut().on_timer(self.now());
            for outcome in outcomes {
                self.perform(outcome);
            }
        }
    }

    /// Lets offsets and groups go whose time is over.
    pub(crate) async fn expire_groups(self: &Rc<Self>) {
        let writes = self.groups.coordinator.borrow_mut().expire(self.now());
        self.store_all(writes, "expired offsets stay for now").await;
    }
}
