//! All groups of one core: which exist, in which partition of `__consumer_offsets` each is stored,
//! when one of them wants to be woken, and which appended records are not yet durable.
//!
//! State that must be durable is what replaying the flushed log gives: a commit becomes a
//! [`Write`], the shell appends its records ([`Coordinator::appended`]), and only when the log has
//! flushed them ([`Coordinator::settled`]) are its changes applied, in the order of the log.
//! Loading after a restart applies the same changes from the log itself. A group's members are ahead of their stored record; they are read from it at a restart alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::FixedState;
use indexmap::IndexMap;

use super::classic::ClassicGroup;
use super::consumer::Entries;
use super::kind::Kind;
use super::offsets::Offsets;
use super::pending::OpenTransactions;
use super::stored::{Load, Partition};
use super::write::{Outcome, Write};
use super::{Claim, Effects, GroupError, Join, Leaver, Reply, Results, Sync, Token};
use crate::clock::Now;
use crate::cluster::image::Image;
use crate::config::BrokerConfig;
use crate::config::broker::GroupConfig;

/// The longest group id, topic or instance name that is stored; the records' strings have 16-bit
/// lengths.
pub const MAX_NAME_BYTES: usize = i16::MAX as usize;

/// How much a core's coordinator may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Groups.
    pub groups: usize,
    /// Committed offsets of all groups together.
    pub offsets: usize,
    /// Bytes of all members' metadata and assignments together.
    pub metadata_bytes: usize,
}

/// A group and its offsets.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) offsets: Offsets,
    /// The partition of `__consumer_offsets` that stores it.
    pub(super) partition: i32,
    /// Its record is in the log, so that its end needs a tombstone.
    pub(super) stored: bool,
    /// Its tombstones are on their way to the disk: it takes part in nothing until then.
    pub(super) is_ending: bool,
    /// What it adds to the coordinator's `metadata`.
    pub(super) metadata: usize,
    /// Its place in the timers.
    pub(super) timer: Option<u64>,
    /// Its place among the promises.
    pub(super) promise: Option<u64>,
    /// Keys that the log may have and the group has not, or not as they are there: what a failed
    /// write or the group's other protocol left. They are written with the next event.
    pub(super) unsaved: BTreeSet<Bytes>,
    /// Writes of heartbeats that are not yet durable.
    pub(super) in_flight: usize,
}

/// The groups of one core. Owned by that core.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: GroupConfig,
    /// The metadata, for the consumer protocol's topics.
    pub(super) image: Arc<Image>,
    pub(super) capacity: Capacity,
    pub(super) groups: IndexMap<String, Group, FixedState>,
    pub(super) partitions: BTreeMap<i32, Partition>,
    /// How often partitions were read.
    pub(super) lives: u64,
    pub(super) timers: BTreeSet<(u64, String)>,
    /// Groups of which there is nothing but ids promised to members (KIP-394), oldest first: others
    /// may take their places.
    pub(super) promises: BTreeMap<u64, String>,
    /// The number of the next promise.
    pub(super) next_promise: u64,
    pub(super) offsets: usize,
    /// Offsets of transactions that are not decided.
    pub(super) pending: OpenTransactions,
    /// Bytes of all members' metadata and assignments.
    pub(super) metadata: usize,
}

impl Coordinator {
    /// A coordinator without groups.
    pub fn new(config: GroupConfig, capacity: Capacity) -> Self {
        Self {
            config,
            image: Arc::new(Image::new(&BrokerConfig::default())),
            capacity,
            groups: IndexMap::default(),
            partitions: BTreeMap::new(),
            lives: 0,
            timers: BTreeSet::new(),
            promises: BTreeMap::new(),
            next_promise: 0,
            offsets: 0,
            pending: OpenTransactions::default(),
            metadata: 0,
        }
    }

    /// Takes changed limits.
    pub fn set_config(&mut self, config: GroupConfig) {
        self.config = config;
    }

    /// Takes changed metadata. A group follows it at its next heartbeat.
    pub fn set_image(&mut self, image: Arc<Image>) {
        self.image = image;
    }

    /// The limits in force.
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    // ---- members ----

    /// A member joins; a group that does not exist begins with it.
    pub fn join(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        token: Token,
        join: Join,
    ) -> Outcome {
        let refuse = |error| {
            let mut effects = Effects::default();
            effects.refuse_join(token, &join.member_id, error);
            Outcome {
                replies: effects.replies,
                write: None,
            }
        };
        let too_long = |name: &String| name.len() > MAX_NAME_BYTES;
        if join.instance_id.as_ref().is_some_and(too_long) || too_long(&join.protocol_type) {
            return refuse(GroupError::InconsistentProtocol);
        }
        if id.is_empty() {
            return refuse(GroupError::InvalidGroupId);
        }
        // As Kafka, before anything is asked of the group or its coordinator's state.
        if !self.config.takes_session_timeout(join.session_timeout_ms) {
            return refuse(GroupError::InvalidSessionTimeout);
        }
        if let Err(error) = self.admit(id, partition) {
            return refuse(error);
        }
        if !self.has_room_to_join(id, &join) {
            return refuse(GroupError::GroupFull);
        }
        if !self.groups.contains_key(id) {
            if !join.member_id.is_empty() {
                return refuse(GroupError::UnknownMember);
            }
            if !self.make_room_for_group() {
                return refuse(GroupError::GroupFull);
            }
            self.ensure_group(now, id, partition);
        }
        let group = self.groups.get_mut(id).expect("ensured above");
        let Some(classic) = group.speak_classic(now) else {
            return self.join_consumers(now, id, token, &join);
        };
        let effects = classic.on_join(now, &self.config, token, join);
        self.outcome(id, effects)
    }

    /// A member asks for its assignment, or brings all.
    pub fn sync(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        token: Token,
        sync: Sync,
    ) -> Outcome {
        let has_room = self.has_room_to_assign(&sync);
        let admitted = self.admit(id, partition);
        let kind = self.groups.get_mut(id).map(|group| &mut group.kind);
        let refused = match (admitted, kind) {
            (Ok(()), Some(Kind::Consumer(consumers))) => {
                let synced = consumers.on_sync(now, &self.image, &sync);
                let replies = vec![Reply::Sync(token, synced)];
                return self.finish(now, id, Entries::new(id), replies);
            }
            (Ok(()), Some(_)) if !has_room => GroupError::AssignmentTooLarge,
            (Ok(()), Some(Kind::Classic(classic))) => {
                let effects = classic.on_sync(now, &self.config, token, sync);
                return self.outcome(id, effects);
            }
            (Ok(()), None) => GroupError::UnknownMember,
            (Err(error), _) => error,
        };
        Outcome {
            replies: vec![Reply::Sync(token, Err(refused))],
            write: None,
        }
    }

    /// A member says that it is alive.
    pub fn heartbeat(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        claim: &Claim,
    ) -> Result<(), GroupError> {
        match self.admit(id, partition) {
            // The members of a group that is being loaded are not to give up on it.
            Err(GroupError::LoadInProgress) => return Ok(()),
            other => other?,
        }
        let group = self.groups.get_mut(id);
        let result = match &mut group.ok_or(GroupError::UnknownMember)?.kind {
            Kind::Classic(classic) => classic.on_heartbeat(now, claim),
            Kind::Consumer(consumers) => consumers.on_classic_heartbeat(now, claim),
        };
        self.reschedule(id);
        result
    }

    /// Members leave. The error is the whole request's; inside are the results in the order of
    /// `leavers`.
    #[allow(
        clippy::type_complexity,
        reason = "one result per leaver, and the effects"
    )]
    pub fn leave(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        leavers: &[Leaver],
    ) -> Result<(Results, Outcome), GroupError> {
        self.admit(id, partition)?;
        let Some(group) = self.groups.get_mut(id) else {
            let unknown = vec![Err(GroupError::UnknownMember); leavers.len()];
            return Ok((unknown, Outcome::default()));
        };
        match &mut group.kind {
            Kind::Classic(classic) => {
                let (results, effects) = classic.on_leave(now, leavers);
                Ok((results, self.outcome(id, effects)))
            }
            Kind::Consumer(consumers) => {
                let mut log = Entries::new(id);
                let results = consumers.on_remove(&self.image, leavers, &mut log);
                Ok((results, self.finish(now, id, log, Vec::new())))
            }
        }
    }

    /// When [`Self::on_timer`] wants to be called, in monotonic milliseconds.
    pub fn deadline(&self) -> Option<u64> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Wakes every group whose time has come.
    pub fn on_timer(&mut self, now: Now) -> Vec<Outcome> {
        // Only what is due now, once each, so that no group can keep the others waiting.
        let later = self
            .timers
            .split_off(&(now.mono_ms.saturating_add(1), String::new()));
        let due = std::mem::replace(&mut self.timers, later);
        let mut outcomes = Vec::new();
        for (_, id) in due {
            let group = self
                .groups
                .get_mut(&id)
                .expect("a removed group leaves the timers");
            group.timer = None;
            outcomes.push(match &mut group.kind {
                Kind::Classic(classic) => {
                    let effects = classic.on_timer(now);
                    self.outcome(&id, effects)
                }
                Kind::Consumer(_) => self.wake_consumers(now, &id),
            });
        }
        outcomes
    }

    /// A [`Write`] of a group is durable; `is_beat` and `generation` are the write's.
    pub fn stored(
        &mut self,
        now: Now,
        id: &str,
        is_beat: bool,
        generation: Option<i32>,
    ) -> Outcome {
        let Some(group) = self.groups.get_mut(id) else {
            return Outcome::default();
        };
        group.in_flight = group.in_flight.saturating_sub(usize::from(is_beat));
        match (&mut group.kind, generation) {
            (Kind::Classic(classic), Some(generation)) => {
                let effects = classic.on_stored(now, generation);
                self.outcome(id, effects)
            }
            _ => Outcome::default(),
        }
    }

    /// A [`Write`] of a group could not be made durable: its members start over. `keys` are those of
    /// its records; `is_beat` is the write's, for the group may have changed its protocol since.
    pub fn store_failed(
        &mut self,
        now: Now,
        id: &str,
        (is_beat, keys): (bool, Vec<Bytes>),
        refused: Vec<Reply>,
    ) -> Outcome {
        match self.groups.get_mut(id) {
            Some(Group {
                kind: Kind::Classic(classic),
                unsaved,
                ..
            }) if !is_beat => {
                let effects = classic.on_store_failed(now, refused);
                // With the next event: a write now would most likely fail as this one did.
                let unsaved = std::mem::take(unsaved).into_iter().chain(keys);
                let outcome = self.outcome(id, effects);
                self.keep_unsaved(id, unsaved.collect());
                outcome
            }
            _ => self.beat_not_stored(id, (is_beat, keys), refused),
        }
    }

    // ---- shared by the events ----

    /// Whether a member's request can be taken.
    pub(super) fn admit(&self, id: &str, partition: i32) -> Result<(), GroupError> {
        if id.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.admit_change(id, partition)
    }

    /// Whether a change of the group can be taken; its id may be empty.
    pub(super) fn admit_change(&self, id: &str, partition: i32) -> Result<(), GroupError> {
        self.admit_read(id, partition)?;
        match self.groups.get(id) {
            Some(group) if group.is_ending => Err(GroupError::CoordinatorNotAvailable),
            _ => Ok(()),
        }
    }

    /// Whether the group's coordinator is here and serves.
    pub(super) fn admit_read(&self, id: &str, partition: i32) -> Result<(), GroupError> {
        if id.len() > MAX_NAME_BYTES {
            return Err(GroupError::InvalidGroupId);
        }
        match self.partitions.get(&partition).map(|state| &state.load) {
            Some(Load::Ready) => Ok(()),
            Some(Load::Loading(_)) => Err(GroupError::LoadInProgress),
            Some(Load::Failed) => Err(GroupError::CoordinatorNotAvailable),
            None => Err(GroupError::NotCoordinator),
        }
    }

    pub(super) fn ensure_group(&mut self, now: Now, id: &str, partition: i32) {
        if !self.groups.contains_key(id) {
            let group = Group {
                kind: Kind::Classic(ClassicGroup::new(now)),
                offsets: Offsets::default(),
                partition,
                stored: false,
                is_ending: false,
                metadata: 0,
                timer: None,
                promise: None,
                unsaved: BTreeSet::new(),
                in_flight: 0,
            };
            self.groups.insert(id.to_owned(), group);
        }
    }

    pub(super) fn outcome(&mut self, id: &str, effects: Effects) -> Outcome {
        let mut outcome = Outcome {
            replies: effects.replies,
            write: None,
        };
        if let Some(group) = self.groups.get_mut(id) {
            let unsaved = std::mem::take(&mut group.unsaved);
            if effects.store || !unsaved.is_empty() {
                let mut write = Write::new(group.partition, id);
                write.records = unsaved.into_iter().map(|key| (key, None)).collect();
                if let Kind::Classic(classic) = &group.kind
                    && effects.store
                {
                    group.stored = true;
                    write.group(Some(&classic.record()));
                    write.generation = Some(classic.generation());
                }
                write.after = effects.after_store;
                outcome.write = Some(write);
            }
            self.settle_in(id);
        }
        outcome
    }

    /// An event has changed a group: its place in the timers and in the counts.
    pub(super) fn settle_in(&mut self, id: &str) {
        self.reschedule(id);
        self.recount(id);
        self.drop_if_done(id);
    }

    pub(super) fn reschedule(&mut self, id: &str) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        let next = group.kind.deadline();
        if next == group.timer {
            return;
        }
        if let Some(at) = group.timer.take() {
            self.timers.remove(&(at, id.to_owned()));
        }
        if let Some(at) = next {
            self.timers.insert((at, id.to_owned()));
        }
        group.timer = next;
    }
}

impl Group {
    /// The group as one of the classic protocol; none if members of the other are in it. One that
    /// they have left may change.
    fn speak_classic(&mut self, now: Now) -> Option<&mut ClassicGroup> {
        if let Kind::Consumer(consumers) = &self.kind
            && self.kind.is_vacant()
        {
            if self.stored {
                let ends = consumers.end().into_records();
                self.unsaved.extend(ends.into_iter().map(|(key, _)| key));
            }
            self.kind = Kind::Classic(ClassicGroup::new(now));
        }
        self.kind.classic_mut()
    }
}

/// The partition of `__consumer_offsets`, of `count`, that stores a group: Kafka's own rule (Java's
/// `String.hashCode`), since its tools compute it too.
pub fn partition_of(group: &str, count: i32) -> i32 {
    let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // Kafka's Utils.abs: the least integer has no positive counterpart.
    hash.checked_abs().unwrap_or(0) % count
}
