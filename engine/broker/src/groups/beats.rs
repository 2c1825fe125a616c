//! The coordinator's part in the consumer protocol: heartbeats to the group they are for, what they
//! change to the log, and answers that wait for it.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::consumer::member::Member;
use super::consumer::partitions::Partitions;
use super::consumer::{Beat, BeatError, ConsumerGroup, Entries, Settings};
use super::coordinator::{Coordinator, Group};
use super::kind::Kind;
use super::records::{self, Key};
use super::write::{Outcome, Write};
use super::{Effects, GroupError, Join, Reply, Token};
use crate::clock::Now;
use crate::cluster::image::Image;
use crate::config::broker::ConsumerLimits;
use crate::limits::ELEMENT_BYTES;

/// The most keys of records that could not be stored that a group remembers, to store them later;
/// past it, what is forgotten is that members left, and their silence says the same.
const MAX_UNSAVED_KEYS: usize = 4096;

/// A consumer group as ConsumerGroupDescribe shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerDescription {
    /// The state's name.
    pub state: &'static str,
    /// The group's epoch.
    pub epoch: i32,
    /// The target assignment's.
    pub target_epoch: i32,
    /// The assignor's name.
    pub assignor: &'static str,
    /// Its members.
    pub members: Vec<DescribedConsumer>,
}

/// A member as ConsumerGroupDescribe shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConsumer {
    /// What it said of itself, and its epoch.
    pub member: Member,
    /// What it has, by topic name.
    pub assigned: Vec<DescribedTopic>,
    /// What it is to have.
    pub target: Vec<DescribedTopic>,
}

/// Some partitions of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTopic {
    /// The topic's id.
    pub id: ringmill_wire::Uuid,
    /// Its name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<i32>,
}

impl ConsumerDescription {
    /// About how many bytes it takes in an answer.
    pub fn size(&self) -> usize {
        let parts = |topics: &[DescribedTopic]| {
            let bytes = topics.iter().map(|t| t.name.len() + 4 * t.partitions.len());
            bytes.map(|bytes| bytes + ELEMENT_BYTES).sum::<usize>()
        };
        let members = self.members.iter();
        let bytes = members.map(|m| m.member.said_bytes() + parts(&m.assigned) + parts(&m.target));
        bytes.map(|bytes| bytes + ELEMENT_BYTES).sum::<usize>() + ELEMENT_BYTES
    }
}

impl Coordinator {
    /// The limits of a group.
    pub(super) fn limits_of(&self, id: &str) -> ConsumerLimits {
        self.image.consumer_limits(id, &self.config)
    }

    /// A heartbeat of the consumer protocol; a group that does not exist begins with a join.
    pub fn beat(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        token: Token,
        beat: Beat,
    ) -> Outcome {
        match self.take_beat(now, id, partition, token, &beat) {
            Ok(outcome) => outcome,
            Err(error) => {
                self.drop_if_done(id);
                Outcome {
                    replies: vec![Reply::Beat(token, Err(error))],
                    write: None,
                }
            }
        }
    }

    fn take_beat(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        token: Token,
        beat: &Beat,
    ) -> Result<Outcome, BeatError> {
        if id.is_empty() {
            return Err(BeatError::Invalid("GroupId can't be empty."));
        }
        beat.check()?;
        self.admit(id, partition)?;
        if !self.has_room_to_beat(id, beat) {
            return Err(GroupError::GroupFull.into());
        }
        let becomes = self.becomes(now, id, beat)?;
        let settings = Settings {
            config: &self.config,
            limits: self.limits_of(id),
        };
        let mut log = Entries::new(id);
        let Some(mut consumers) = becomes else {
            let group = self
                .groups
                .get_mut(id)
                .and_then(|group| group.kind.consumer_mut());
            let group = group.ok_or(GroupError::GroupIdNotFound)?;
            let beaten = group.on_heartbeat(now, settings, &self.image, beat, &mut log)?;
            return Ok(self.finish(now, id, log, vec![Reply::Beat(token, Ok(beaten))]));
        };
        let beaten = consumers.on_heartbeat(now, settings, &self.image, beat, &mut log)?;
        self.ensure_group(now, id, partition);
        let group = self.groups.get_mut(id).expect("just ensured");
        let mut waiting = Vec::new();
        if let Kind::Classic(classic) = &mut group.kind {
            waiting = classic.disband(now).replies;
        }
        // What the log has of the classic group ends, and all of the new one is written.
        let key = records::encode_key(&Key::Group(id.to_owned()));
        group.unsaved.insert(key);
        group.kind = Kind::Consumer(consumers);
        let mut outcome = self.finish(now, id, log, vec![Reply::Beat(token, Ok(beaten))]);
        outcome.replies.extend(waiting);
        Ok(outcome)
    }

    /// The consumer group that begins with a heartbeat, out of nothing or of a classic group; none
    /// if there is one.
    fn becomes(
        &mut self,
        now: Now,
        id: &str,
        beat: &Beat,
    ) -> Result<Option<ConsumerGroup>, BeatError> {
        let has_room =
            self.groups.contains_key(id) || beat.epoch != 0 || self.make_room_for_group();
        let not_one = || BeatError::NotConsumerGroup(id.to_owned());
        match self.groups.get(id).map(|group| &group.kind) {
            Some(Kind::Consumer(_)) => Ok(None),
            None if beat.epoch != 0 => Err(GroupError::GroupIdNotFound.into()),
            None if !has_room => Err(GroupError::GroupFull.into()),
            None => Ok(Some(ConsumerGroup::new(id))),
            Some(Kind::Classic(_)) if beat.epoch != 0 => Err(not_one()),
            Some(Kind::Classic(classic)) => {
                let count = classic.member_count();
                if count > 0 && !self.config.consumer_migration.upgrades() {
                    return Err(not_one());
                }
                if count > self.config.consumer.max_size {
                    return Err(not_one());
                }
                let upgraded = ConsumerGroup::upgraded(now, id, classic, &self.image);
                upgraded.map(Some).ok_or_else(not_one)
            }
        }
    }

    /// A member of the classic protocol joins a consumer group.
    pub(super) fn join_consumers(
        &mut self,
        now: Now,
        id: &str,
        token: Token,
        join: &Join,
    ) -> Outcome {
        let settings = Settings {
            config: &self.config,
            limits: self.image.consumer_limits(id, &self.config),
        };
        let mut log = Entries::new(id);
        let group = self
            .groups
            .get_mut(id)
            .and_then(|group| group.kind.consumer_mut());
        let consumers = group.expect("the caller found it");
        let joined = consumers.on_join(now, settings, &self.image, join, &mut log);
        self.finish(now, id, log, vec![Reply::Join(token, joined)])
    }

    /// A group that the last member of the consumer protocol has left is a classic one again.
    fn downgrade(
        &mut self,
        now: Now,
        id: &str,
        log: Entries,
        replies: Vec<Reply>,
    ) -> Result<Outcome, (Entries, Vec<Reply>)> {
        let downgrades = self.config.consumer_migration.downgrades();
        let group = self.groups.get_mut(id).expect("the caller found it");
        let consumers = group.kind.consumer().filter(|consumers| {
            let fits = consumers.members().len() <= self.config.max_size;
            downgrades && fits && consumers.is_all_classic()
        });
        let Some(consumers) = consumers else {
            return Err((log, replies));
        };
        let ends = consumers.end().into_records().into_iter();
        let ends = ends.chain(log.into_records()).map(|(key, _)| key);
        let classic = consumers.downgraded(now, &self.image);
        group.unsaved.extend(ends);
        group.kind = Kind::Classic(classic);
        let effects = Effects {
            store: true,
            after_store: replies,
            ..Effects::default()
        };
        Ok(self.outcome(id, effects))
    }

    /// Makes the outcome of an event of a consumer group: the answers wait for its records, and for
    /// those that are on their way.
    pub(super) fn finish(
        &mut self,
        now: Now,
        id: &str,
        log: Entries,
        replies: Vec<Reply>,
    ) -> Outcome {
        let (log, replies) = match self.downgrade(now, id, log, replies) {
            Ok(outcome) => return outcome,
            Err(unchanged) => unchanged,
        };
        let group = self.groups.get_mut(id).expect("the caller found it");
        let records = group.with_unsaved(now, log);
        let mut outcome = Outcome::default();
        if records.is_empty() && group.in_flight == 0 {
            outcome.replies = replies;
        } else if !records.is_empty() || !replies.is_empty() {
            group.stored |= !records.is_empty();
            group.in_flight += 1;
            let mut write = Write::new(group.partition, id);
            write.records = records;
            write.after = replies;
            write.is_beat = true;
            outcome.write = Some(write);
        }
        self.settle_in(id);
        outcome
    }

    /// A [`Write`] of a consumer group could not be made durable: the group is ahead of the log, and
    /// says all again with the next event.
    pub(super) fn beat_not_stored(
        &mut self,
        id: &str,
        (is_beat, keys): (bool, Vec<Bytes>),
        refused: Vec<Reply>,
    ) -> Outcome {
        if let Some(group) = self.groups.get_mut(id) {
            group.in_flight = group.in_flight.saturating_sub(usize::from(is_beat));
        }
        self.keep_unsaved(id, keys);
        let error = GroupError::CoordinatorNotAvailable;
        let replies = refused.into_iter().map(|reply| reply.refused(error));
        Outcome {
            replies: replies.collect(),
            write: None,
        }
    }

    /// Remembers keys of records that could not be stored. What ends a classic group is not among
    /// them while it is one: its record comes with its next generation.
    pub(super) fn keep_unsaved(&mut self, id: &str, mut keys: Vec<Bytes>) {
        let Some(group) = self.groups.get_mut(id) else {
            return;
        };
        if let Kind::Classic(_) = group.kind {
            let record = records::encode_key(&Key::Group(id.to_owned()));
            keys.retain(|key| *key != record);
        }
        let room = MAX_UNSAVED_KEYS.saturating_sub(group.unsaved.len());
        group.unsaved.extend(keys.into_iter().take(room));
    }

    /// A consumer group's deadline has come.
    pub(super) fn wake_consumers(&mut self, now: Now, id: &str) -> Outcome {
        let group = self.groups.get_mut(id).expect("the caller found it");
        let mut log = Entries::new(id);
        if let Some(consumers) = group.kind.consumer_mut() {
            consumers.on_timer(now, &self.image, &mut log);
        }
        self.finish(now, id, log, Vec::new())
    }

    /// A consumer group as it is; none if there is no such group, or it is of the classic protocol.
    pub fn describe_consumers(
        &self,
        id: &str,
        partition: i32,
    ) -> Result<Option<ConsumerDescription>, GroupError> {
        self.admit_read(id, partition)?;
        let group = self.groups.get(id).and_then(|group| group.kind.consumer());
        Ok(group.map(|group| ConsumerDescription {
            state: group.state().name(),
            epoch: group.epoch(),
            target_epoch: group.target_epoch(),
            assignor: group.assignor(&self.config).name(),
            members: group
                .members()
                .map(|member| DescribedConsumer {
                    assigned: described(&member.assigned, &self.image),
                    target: described(&member.target, &self.image),
                    member: member.clone(),
                })
                .collect(),
        }))
    }
}

/// Partitions by the names of their topics; those of deleted topics are not shown.
fn described(partitions: &Partitions, image: &Image) -> Vec<DescribedTopic> {
    let topics = partitions.topics().filter_map(|(id, numbers)| {
        let topic = image.topic_by_id(id)?;
        Some(DescribedTopic {
            id,
            name: topic.name.to_string(),
            partitions: numbers.iter().copied().collect(),
        })
    });
    topics.collect()
}

impl Group {
    /// The records of an event; after a failure to store, the whole group.
    fn with_unsaved(&mut self, now: Now, log: Entries) -> Vec<(Bytes, Option<Bytes>)> {
        let unsaved = std::mem::take(&mut self.unsaved);
        let records = log.into_records();
        if unsaved.is_empty() {
            return records;
        }
        let all = match &self.kind {
            Kind::Consumer(group) => group.entries(now.wall_ms).into_records(),
            Kind::Classic(_) => Vec::new(),
        };
        let alive: BTreeSet<&Bytes> = all.iter().map(|(key, _)| key).collect();
        let keys = records.into_iter().map(|(key, _)| key).chain(unsaved);
        let ends: Vec<Bytes> = keys.filter(|key| !alive.contains(key)).collect();
        let ends = ends.into_iter().map(|key| (key, None));
        ends.chain(all).collect()
    }
}
