//! A group as records: what an event adds to the log, the whole of a group, and a group read back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::member::Member;
use super::partitions::Partitions;
use super::records::{self, Current, Subject, Value};
use super::{ConsumerGroup, Settings};
use crate::clock::Now;

/// Records to be appended for one group, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    group: String,
    records: Vec<(Bytes, Option<Bytes>)>,
}

impl Entries {
    /// None yet.
    pub fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            records: Vec::new(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records.
    pub fn into_records(self) -> Vec<(Bytes, Option<Bytes>)> {
        self.records
    }

    fn push(&mut self, subject: &Subject, value: Option<Bytes>) {
        let key = records::encode_key(&self.group, subject);
        self.records.push((key, value));
    }

    pub(super) fn group(&mut self, epoch: i32, hash: i64) {
        self.push(&Subject::Group, Some(records::encode_group(epoch, hash)));
    }

    pub(super) fn target_epoch(&mut self, epoch: i32) {
        let value = records::encode_target_epoch(epoch);
        self.push(&Subject::TargetEpoch, Some(value));
    }

    pub(super) fn member(&mut self, member: &Member) {
        let subject = Subject::Member(member.id.clone());
        self.push(&subject, Some(records::encode_member(member)));
    }

    pub(super) fn target(&mut self, id: &str, target: &Partitions) {
        let subject = Subject::Target(id.to_owned());
        self.push(&subject, Some(records::encode_target(target)));
    }

    pub(super) fn current(&mut self, member: &Member) {
        let subject = Subject::Current(member.id.clone());
        self.push(&subject, Some(records::encode_current(member)));
    }

    pub(super) fn pattern(
        &mut self,
        text: &str,
        topics: &BTreeSet<String>,
        version: u64,
        time_ms: i64,
    ) {
        let value = records::encode_pattern(topics, version.cast_signed(), time_ms);
        self.push(&Subject::Pattern(text.to_owned()), Some(value));
    }

    pub(super) fn no_pattern(&mut self, text: &str) {
        self.push(&Subject::Pattern(text.to_owned()), None);
    }

    /// A member is out. Kafka reads them in this order.
    pub(super) fn gone(&mut self, id: &str) {
        self.push(&Subject::Current(id.to_owned()), None);
        self.push(&Subject::Target(id.to_owned()), None);
        self.push(&Subject::Member(id.to_owned()), None);
    }
}

#[derive(Debug, Default)]
struct StoredMember {
    said: Option<Box<Member>>,
    target: Partitions,
    current: Option<Current>,
}

/// What a log has said of a group so far.
#[derive(Debug, Default)]
pub struct Stored {
    group: Option<(i32, i64)>,
    target_epoch: i32,
    members: BTreeMap<String, StoredMember>,
    patterns: BTreeMap<String, BTreeSet<String>>,
}

impl Stored {
    /// The next record; no value is its end.
    pub fn apply(&mut self, subject: Subject, value: Option<Value>) {
        match (subject, value) {
            (Subject::Group, Some(Value::Group(epoch, hash))) => self.group = Some((epoch, hash)),
            (Subject::Group, _) => self.group = None,
            (Subject::TargetEpoch, value) => {
                self.target_epoch = match value {
                    Some(Value::TargetEpoch(epoch)) => epoch,
                    _ => 0,
                }
            }
            (Subject::Pattern(text), Some(Value::Pattern(topics))) => {
                self.patterns.insert(text, topics);
            }
            (Subject::Pattern(text), _) => drop(self.patterns.remove(&text)),
            (Subject::Member(id), Some(Value::Member(said))) => {
                self.members.entry(id).or_default().said = Some(said);
            }
            (Subject::Member(id), _) => drop(self.members.remove(&id)),
            (Subject::Target(id), Some(Value::Target(target))) => {
                self.members.entry(id).or_default().target = target;
            }
            (Subject::Target(id), _) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.target = Partitions::default();
                }
            }
            (Subject::Current(id), Some(Value::Current(current))) => {
                self.members.entry(id).or_default().current = Some(current);
            }
            (Subject::Current(id), _) => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.current = None;
                }
            }
        }
    }

    /// Whether it is a group: one whose epoch is known and has not ended.
    pub fn is_group(&self) -> bool {
        self.group.is_some()
    }
}

impl ConsumerGroup {
    /// The group that a log describes; its members have a whole session from now.
    pub fn restore(now: Now, settings: Settings<'_>, id: &str, stored: Stored) -> Self {
        let (mut group, patterns) = (Self::new(id), stored.patterns);
        if let Some((epoch, hash)) = stored.group {
            (group.epoch, group.topics_hash) = (epoch, hash);
        }
        group.target_epoch = stored.target_epoch;
        for (id, stored) in stored.members {
            let Some(mut member) = stored.said.map(|said| *said) else {
                continue;
            };
            member.id = id;
            member.target = stored.target;
            if let Some(current) = stored.current {
                member.epoch = current.epoch;
                member.previous_epoch = current.previous_epoch;
                member.state = current.state;
                member.assigned = current.assigned;
                member.revoking = current.revoking;
            }
            let session = member
                .classic
                .as_ref()
                .map(|offer| offer.session_timeout_ms);
            let session = session.and_then(|ms| u64::try_from(ms).ok());
            member.expires_at = now.after(session.unwrap_or(settings.limits.session_timeout_ms));
            member.set_revoke_by(now);
            if let Some(regex) = &member.regex {
                let topics = patterns.get(regex).cloned().unwrap_or_default();
                group.patterns.insert(regex.clone(), topics);
            }
            group.put(member);
        }
        group
    }

    /// The whole group.
    pub fn entries(&self, now_ms: i64) -> Entries {
        let mut log = Entries::new(&self.id);
        for member in self.members.values() {
            log.member(member);
        }
        for (text, topics) in &self.patterns {
            log.pattern(text, topics, self.seen.unwrap_or(0), now_ms);
        }
        log.group(self.epoch, self.topics_hash);
        for member in self.members.values() {
            log.target(&member.id, &member.target);
        }
        log.target_epoch(self.target_epoch);
        for member in self.members.values() {
            log.current(member);
        }
        log
    }

    /// What ends all that a log may have of a group without members.
    pub fn end(&self) -> Entries {
        let mut log = Entries::new(&self.id);
        for member in self.members.keys() {
            log.gone(member);
        }
        for text in self.patterns.keys() {
            log.no_pattern(text);
        }
        log.push(&Subject::TargetEpoch, None);
        log.push(&Subject::Group, None);
        log
    }
}
