//! The consumer: fetched records, positions, and membership in a group.
//!
//! A shell around state machines: [`fetcher`], and [`membership`] or [`consumer_protocol`]. One task per broker fetches
//! ahead, one finds positions, one keeps the membership; the application polls. A partition is given
//! up only between two polls, after the application was told.

mod beats;
mod commits;
mod consumer_protocol;
mod error;
mod fetcher;
mod group;
mod group_tasks;
mod membership;
mod protocol;
mod rebalance;
mod records;
mod tasks;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
#[cfg(feature = "tokio")]
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::lock::Mutex;
use ringmill_wire::Uuid;
use ringmill_wire::fetch::IsolationLevel;

use crate::assignor::TopicPartition;
use crate::cluster::{Client, LookupError};
use crate::config::{ConfigError, ConsumerConfig, GroupProtocol};
use crate::group_offsets::CommittedOffsets;
use crate::offsets::OffsetSpec;
use crate::pool::Pool;
use crate::transport::{Instant, JoinHandle, Notify, now, random_u64, spawn, timeout, yield_now};

pub use error::{CommitError, PollError, SubscribeError};
pub use fetcher::FetchError;
pub use membership::GroupError;
pub(crate) use membership::MemberId;
pub use records::{Fetched, FetchedBatch, RecordsError};

use consumer_protocol::Wants;
use fetcher::{Fetcher, Start};
use protocol::AnyMembership;

/// Where to start in a partition that is assigned by hand.
///
/// # Examples
/// ```no_run
/// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// use ringmill_client::{OffsetSpec, StartAt, TopicPartition};
///
/// let hour_ago_ms = 1_767_222_000_000;
/// consumer
///     .assign([
///         (TopicPartition::new("flights", 0), StartAt::Committed),
///         (TopicPartition::new("flights", 1), StartAt::Offset(1000)),
///         (TopicPartition::new("flights", 2), StartAt::Find(OffsetSpec::Time(hour_ago_ms))),
///     ])
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// Where the group stopped; without a group or an offset, as `auto.offset.reset` says.
    Committed,
    /// At a place that the broker finds.
    Find(OffsetSpec),
    /// At an offset.
    Offset(i64),
}

/// Who a consumer is to its group at the moment (Java's `ConsumerGroupMetadata`).
///
/// # Examples
/// ```no_run
/// # async fn example(consumer: ringmill_client::Consumer) -> Result<(), Box<dyn std::error::Error>> {
/// let member = consumer.group_metadata().await.ok_or("there is no group")?;
/// println!("{} of {}, generation {}", member.member_id, member.group, member.generation);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetadata {
    /// The group.
    pub group: Arc<str>,
    /// The member's generation, by the consumer protocol its epoch; −1 if it is no member, as one that
    /// assigns by hand.
    pub generation: i32,
    /// As the coordinator calls it; empty if it is no member.
    pub member_id: Arc<str>,
    /// The name that it keeps over restarts, if any.
    pub instance_id: Option<Arc<str>>,
}

/// What a poll came back with.
#[derive(Debug)]
pub enum Event {
    /// Records of one partition.
    Records(Fetched),
    /// These partitions are now this consumer's.
    Assigned(BTreeSet<TopicPartition>),
    /// These partitions will be another's: commit what was processed of them before the next poll.
    /// Nothing more of them comes.
    Revoked(BTreeSet<TopicPartition>),
    /// These partitions are another's already, since this consumer was away too long.
    Lost(BTreeSet<TopicPartition>),
    /// The time is over.
    Idle,
}

/// See the module. One task polls. When it is dropped, it just stops; [`Consumer::close`] commits
/// and leaves the group first.
pub struct Consumer(Rc<Shared>);

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the consumer's tasks share.
struct Shared {
    client: Client,
    config: ConsumerConfig,
    fetcher: RefCell<Fetcher>,
    membership: RefCell<Option<AnyMembership>>,
    /// For fetches, which wait for records.
    fetching: Pool,
    /// For the group's requests, which wait for the other members.
    coordination: Pool,
    /// By broker: there may be something to fetch.
    bells: RefCell<BTreeMap<i32, Rc<Notify>>>,
    /// Partitions are to be located.
    unlocated: Notify,
    /// The membership has something to do.
    group_bell: Notify,
    /// The membership has something to tell its coordinator.
    beat_bell: Notify,
    /// The poll has something to look at.
    changed: Notify,
    /// Errors for the next poll.
    errors: RefCell<Vec<PollError>>,
    /// The application was told that it loses these, and its next poll confirms that.
    told: RefCell<Option<BTreeSet<TopicPartition>>>,
    tasks: RefCell<Vec<JoinHandle>>,
    next_commit: Cell<Instant>,
    /// Whose turn it is to commit.
    commits: Arc<Mutex<()>>,
    /// The last automatic commit.
    committing: RefCell<Option<JoinHandle>>,
}

impl Consumer {
    /// A consumer of the client's cluster, with nothing to read yet.
    pub fn new(client: &Client, config: ConsumerConfig) -> Result<Self, ConfigError> {
        config.check(client.config())?;
        let fetcher = Fetcher::new(&config, client.config());
        let member_id = Uuid::from_u64_pair(random_u64(), random_u64()).to_string();
        let membership = config
            .group_id
            .as_deref()
            .map(|group| AnyMembership::new(group, &member_id, &config, client.config()));
        let interval = config.auto_commit.unwrap_or_default();
        let shared = Rc::new(Shared {
            client: client.clone(),
            config,
            fetcher: RefCell::new(fetcher),
            membership: RefCell::new(membership),
            fetching: Pool::default(),
            coordination: Pool::default(),
            bells: RefCell::default(),
            unlocated: Notify::new(),
            group_bell: Notify::new(),
            beat_bell: Notify::new(),
            changed: Notify::new(),
            errors: RefCell::default(),
            told: RefCell::new(None),
            tasks: RefCell::default(),
            next_commit: Cell::new(now() + interval),
            commits: Arc::default(),
            committing: RefCell::default(),
        });
        let mut tasks = vec![
            spawn(tasks::watch_metadata(shared.clone())),
            spawn(tasks::locate(shared.clone())),
        ];
        if shared.membership.borrow().is_some() {
            tasks.push(spawn(group_tasks::keep_membership(shared.clone())));
            tasks.push(match shared.config.group_protocol {
                GroupProtocol::Classic => spawn(group_tasks::heartbeat(shared.clone())),
                GroupProtocol::Consumer => spawn(beats::keep_beating(shared.clone())),
            });
        }
        *shared.tasks.borrow_mut() = tasks;
        Ok(Self(shared))
    }

    /// Reads these topics as a member of the group, in place of whatever it read before. To read none
    /// any more is another thing, which takes its time: [`Self::unsubscribe`].
    pub fn subscribe<'a>(
        &self,
        topics: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), SubscribeError> {
        let topics: BTreeSet<Arc<str>> = topics.into_iter().map(Arc::from).collect();
        match topics.is_empty() && self.0.membership.borrow().is_some() {
            true => Err(SubscribeError::NoTopics),
            false => self.want(Wants {
                topics,
                pattern: None,
            }),
        }
    }

    /// Reads the topics whose names match an RE2 pattern as a member of the group, those too that are
    /// made later, in place of whatever it read before. The coordinator finds them (KIP-848).
    pub fn subscribe_pattern(&self, pattern: &str) -> Result<(), SubscribeError> {
        self.want(Wants {
            topics: BTreeSet::new(),
            pattern: Some(pattern.into()),
        })
    }

    fn want(&self, wants: Wants) -> Result<(), SubscribeError> {
        let taken = {
            let mut membership = self.0.membership.borrow_mut();
            let membership = membership.as_mut().ok_or(SubscribeError::NoGroup)?;
            membership.subscribe(now(), wants)
        };
        self.0.ring_group();
        match taken {
            true => Ok(()),
            false => Err(SubscribeError::Pattern),
        }
    }

    /// Reads these partitions in addition, without asking any group.
    pub fn assign(&self, partitions: impl IntoIterator<Item = (TopicPartition, StartAt)>) {
        for (partition, start) in partitions {
            let start = match start {
                StartAt::Committed => Start::Committed,
                StartAt::Find(spec) => Start::Find(spec),
                StartAt::Offset(offset) => Start::At(offset),
            };
            self.0.fetcher.borrow_mut().set(partition, start);
        }
        self.0.on_assignment();
    }

    /// Stops reading partitions that were assigned by hand.
    pub fn unassign(&self, partitions: &BTreeSet<TopicPartition>) {
        self.0.fetcher.borrow_mut().remove(partitions);
    }

    /// Moves the position in a partition that is assigned.
    pub fn seek(&self, partition: &TopicPartition, to: StartAt) {
        let known = self.0.fetcher.borrow().assignment().any(|p| p == partition);
        if known {
            self.assign([(partition.clone(), to)]);
        }
    }

    /// Stops the records of a partition until [`Consumer::resume`]; it stays assigned.
    pub fn pause(&self, partition: &TopicPartition) {
        self.0.fetcher.borrow_mut().set_paused(partition, true);
    }

    /// Goes on with a partition.
    pub fn resume(&self, partition: &TopicPartition) {
        self.0.fetcher.borrow_mut().set_paused(partition, false);
        self.0.ring_all();
    }

    /// The partitions it reads.
    pub fn assignment(&self) -> BTreeSet<TopicPartition> {
        self.0.fetcher.borrow().assignment().cloned().collect()
    }

    /// The offset of the next record from a partition, once it is known.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.0.fetcher.borrow().position(partition)
    }

    /// How many records were there, at the last fetch, from the position on; none before that.
    pub fn current_lag(&self, partition: &TopicPartition) -> Option<i64> {
        self.0.fetcher.borrow().lag(partition)
    }

    /// The partitions that the group has given it: none of those that were assigned by hand.
    #[cfg(feature = "tokio")]
    pub(crate) fn group_assignment(&self) -> BTreeSet<TopicPartition> {
        let membership = self.0.membership.borrow();
        let is_member = membership.as_ref().is_some_and(AnyMembership::is_member);
        match is_member {
            true => self.assignment(),
            false => BTreeSet::new(),
        }
    }

    /// The partitions that are paused.
    pub fn paused(&self) -> BTreeSet<TopicPartition> {
        self.0.fetcher.borrow().paused().cloned().collect()
    }

    /// The topics that it subscribes to by name.
    pub fn subscription(&self) -> BTreeSet<Arc<str>> {
        let membership = self.0.membership.borrow();
        membership
            .as_ref()
            .map(AnyMembership::topics)
            .unwrap_or_default()
    }

    /// Makes the group rebalance, by the classic protocol; by the other the coordinator knows best.
    pub fn enforce_rebalance(&self) {
        self.0.with_membership(|membership| {
            if let Some(member) = membership.classic() {
                member.enforce_rebalance();
            }
        });
    }

    /// Waits for the next event, for at most `limit`. To be called again before `max.poll.interval.ms`
    /// is over, since it also says that the application is alive. What earlier polls gave counts as
    /// processed.
    ///
    /// # Errors
    /// What one partition or the group suffers from; polling goes on with the others.
    pub async fn poll(&self, limit: Duration) -> Result<Event, PollError> {
        let deadline = now() + limit;
        // lets the fetches go on, however fast the application is
        yield_now().await;
        loop {
            let changed = self.0.changed.notified();
            if let Some(event) = self.next_event().await? {
                return Ok(event);
            }
            let left = deadline - now();
            if left.is_zero() || timeout(left, changed).await.is_err() {
                return Ok(Event::Idle);
            }
        }
    }

    async fn next_event(&self) -> Result<Option<Event>, PollError> {
        let shared = &self.0;
        if let Some(event) = shared.advance_group().await? {
            return Ok(Some(event));
        }
        if let Some(error) = shared.errors.borrow_mut().pop() {
            return Err(error);
        }
        shared.auto_commit_if_due();
        let mut fetcher = shared.fetcher.borrow_mut();
        if let Some(error) = fetcher.take_error() {
            return Err(error.into());
        }
        let was_full = fetcher.is_full();
        let taken = fetcher.take();
        drop(fetcher);
        if was_full && taken.is_some() {
            shared.ring_all();
        }
        Ok(taken.map(Event::Records))
    }

    /// Commits the positions of all partitions: everything that polls gave is processed.
    pub async fn commit(&self) -> Result<(), CommitError> {
        self.0.commit_positions(&BTreeMap::new()).await.map(drop)
    }

    /// Commits the positions, but for these partitions other ones; tells what was committed.
    #[cfg(feature = "tokio")]
    pub(crate) async fn commit_but(
        &self,
        held: &BTreeMap<TopicPartition, i64>,
    ) -> Result<CommittedOffsets, CommitError> {
        self.0.commit_positions(held).await
    }

    /// Waits until there may be something to see: records, positions, steps of the group.
    #[cfg(feature = "tokio")]
    pub(crate) fn changed(&self) -> impl Future<Output = ()> + '_ {
        self.0.changed.notified()
    }

    /// Leaves the group, commits first if that is automatic, and reads nothing any more.
    pub async fn unsubscribe(&self) -> Result<(), CommitError> {
        let committed = self.0.commit_if_automatic(&BTreeMap::new()).await;
        self.0.leave(true).await;
        self.0.with_membership(|membership| {
            membership.unsubscribe();
            // the application asked for it: nothing is left to tell
            membership.on_revoked();
        });
        *self.0.told.borrow_mut() = None;
        let all = self.assignment();
        self.0.fetcher.borrow_mut().remove(&all);
        committed
    }

    /// What it sees of transactions.
    pub fn isolation(&self) -> IsolationLevel {
        self.0.config.isolation
    }

    /// Who this consumer is to its group, for offsets within a producer's transaction; `None`
    /// without a group.
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        let membership = self.0.membership.borrow();
        let member = membership.as_ref()?;
        let id = member.id();
        Some(GroupMetadata {
            group: member.group().clone(),
            generation: id.generation,
            member_id: id.member_id,
            instance_id: id.instance_id,
        })
    }

    /// Commits offsets of the application's choice.
    pub async fn commit_offsets(&self, offsets: &CommittedOffsets) -> Result<(), CommitError> {
        self.0.commit(offsets).await
    }

    /// What the group has committed for partitions; those without an offset are left out.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<CommittedOffsets, LookupError> {
        match &self.0.config.group_id {
            Some(group) => self.0.committed(group, partitions).await,
            None => Ok(CommittedOffsets::new()),
        }
    }

    /// Commits, if that is automatic, leaves the group and stops.
    pub async fn close(self) -> Result<(), CommitError> {
        self.close_but(&BTreeMap::new()).await
    }

    /// The same, with other positions for these partitions.
    pub(crate) async fn close_but(
        &self,
        held: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), CommitError> {
        let committed = self.0.commit_if_automatic(held).await;
        self.0.leave(true).await;
        self.0.stop();
        committed
    }
}

impl Shared {
    /// Partitions have come, or moved.
    fn on_assignment(self: &Rc<Self>) {
        self.watch_topics();
        self.learn_leaders();
        self.unlocated.notify_one();
        self.ring_all();
    }

    /// Takes the leaders from the cluster's picture, and asks for a newer one if any is missing.
    fn learn_leaders(self: &Rc<Self>) {
        let missing = self.fetcher.borrow_mut().on_metadata(&self.client.image());
        if missing {
            self.client.request_refresh();
        }
    }

    /// Makes the client keep the topics up to date.
    fn watch_topics(&self) {
        for partition in self.fetcher.borrow().assignment() {
            self.client.watch(&partition.topic);
        }
    }

    /// Lets every broker's task look for something to fetch.
    fn ring_all(self: &Rc<Self>) {
        let sources = self.fetcher.borrow().sources(now());
        for node in sources {
            self.bell(node).notify_one();
        }
    }

    /// A broker's bell; its task begins with it.
    fn bell(self: &Rc<Self>, node: i32) -> Rc<Notify> {
        let mut bells = self.bells.borrow_mut();
        let bell = bells.entry(node).or_insert_with(|| {
            let bell = Rc::new(Notify::new());
            let task = spawn(tasks::fetch_from(self.clone(), node, bell.clone()));
            self.tasks.borrow_mut().push(task);
            bell
        });
        bell.clone()
    }

    fn fail(&self, error: PollError) {
        self.errors.borrow_mut().push(error);
        self.changed.notify_all();
    }

    fn stop(&self) {
        for task in self.tasks.take().into_iter().chain(self.committing.take()) {
            task.abort();
        }
    }
}
