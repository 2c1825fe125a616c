//! One group's committed offsets, as far as they are durable, and the rule by which they end
//! (`offsets.retention.minutes`, KIP-211). What is appended but not yet flushed waits in the
//! coordinator's queue: a consumer never reads a commit that a crash could take back.

use std::collections::{BTreeMap, BTreeSet};

use super::classic::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, State};
use super::consumer::ConsumerGroup;
use super::kind::Kind;
use super::records::OffsetRecord;

/// A group's offsets by topic and partition. Owned by the group's core.
#[derive(Debug, Clone, Default)]
pub struct Offsets {
    topics: BTreeMap<String, BTreeMap<i32, OffsetRecord>>,
    len: usize,
}

impl Offsets {
    /// How many partitions have an offset.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no partition has one.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A partition's offset.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&OffsetRecord> {
        self.topics.get(topic)?.get(&partition)
    }

    /// A topic's offsets.
    pub fn of_topic(&self, topic: &str) -> Option<&BTreeMap<i32, OffsetRecord>> {
        self.topics.get(topic)
    }

    /// All offsets, by topic.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &BTreeMap<i32, OffsetRecord>)> {
        self.topics
            .iter()
            .map(|(topic, offsets)| (topic.as_str(), offsets))
    }

    /// All offsets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &OffsetRecord)> {
        self.topics().flat_map(|(topic, offsets)| {
            offsets
                .iter()
                .map(move |(partition, record)| (topic, *partition, record))
        })
    }

    /// Sets or, without a record, removes a partition's offset.
    pub fn apply(&mut self, topic: &str, partition: i32, record: Option<OffsetRecord>) {
        match record {
            Some(record) => {
                let partitions = match self.topics.get_mut(topic) {
                    Some(partitions) => partitions,
                    None => self.topics.entry(topic.to_owned()).or_default(),
                };
                self.len += usize::from(partitions.insert(partition, record).is_none());
            }
            None => {
                let Some(partitions) = self.topics.get_mut(topic) else {
                    return;
                };
                self.len -= usize::from(partitions.remove(&partition).is_some());
                if partitions.is_empty() {
                    self.topics.remove(topic);
                }
            }
        }
    }

    /// The offsets whose time is over at `wall_ms`, given what their group is doing.
    ///
    /// A consumer group that is empty loses its offsets when it has been empty for `retention_ms`;
    /// a stable one those of topics that nobody subscribes to any more, `retention_ms` after their
    /// last commit; offsets without a group `retention_ms` after their last commit.
    pub(super) fn expired(
        &self,
        group: &Kind,
        wall_ms: i64,
        retention_ms: i64,
    ) -> Vec<(String, i32)> {
        let Some(rule) = Retention::of(group) else {
            return Vec::new();
        };
        let is_over = |topic: &str, record: &OffsetRecord| {
            let end = |start: i64| {
                record
                    .expires_ms
                    .unwrap_or(start.saturating_add(retention_ms))
            };
            rule.starts(topic, record)
                .is_some_and(|start| end(start) <= wall_ms)
        };
        self.iter()
            .filter(|(topic, _, record)| is_over(topic, record))
            .map(|(topic, partition, _)| (topic.to_owned(), partition))
            .collect()
    }
}

/// From when on a group's offsets age.
enum Retention<'a> {
    /// From their commit: nobody but the commit tells of the consumer.
    Commit,
    /// From when the group lost its last member, or from a later commit by a tool; a time before
    /// 1970 is unknown (records of old versions).
    Empty(i64),
    /// From their commit, if the topic is none of these.
    Unsubscribed(&'a BTreeSet<String>),
    /// The same, of a group of the consumer protocol, whatever its state (as Kafka).
    Consumers(&'a ConsumerGroup),
}

impl<'a> Retention<'a> {
    /// The rule for a group as it is; none if nothing of it may expire.
    fn of(group: &'a Kind) -> Option<Self> {
        match group {
            Kind::Classic(group) => Self::of_classic(group),
            Kind::Consumer(group) => Some(Self::Consumers(group)),
        }
    }

    fn of_classic(group: &'a ClassicGroup) -> Option<Self> {
        match (group.protocol_type(), group.state()) {
            (None, _) => Some(Self::Commit),
            (Some(_), State::Empty) => Some(Self::Empty(group.state_since_ms())),
            (Some(CONSUMER_PROTOCOL_TYPE), State::Stable) => {
                group.subscribed_topics().map(Self::Unsubscribed)
            }
            _ => None,
        }
    }

    fn starts(&self, topic: &str, record: &OffsetRecord) -> Option<i64> {
        match self {
            Self::Commit => Some(record.committed_ms),
            Self::Empty(since) => Some(record.committed_ms.max(*since)),
            Self::Unsubscribed(topics) => (!topics.contains(topic)).then_some(record.committed_ms),
            Self::Consumers(group) => (!group.is_subscribed(topic)).then_some(record.committed_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::records::{GroupRecord, MemberRecord};
    use super::*;
    use crate::clock::Now;

    const HOUR: i64 = 3_600_000;

    fn offsets(committed_ms: i64) -> Offsets {
        let mut offsets = Offsets::default();
        for topic in ["a", "b"] {
            let record = OffsetRecord {
                offset: 1,
                committed_ms,
                ..OffsetRecord::default()
            };
            offsets.apply(topic, 0, Some(record));
        }
        offsets
    }

    fn group(kind: &str, since: i64, subscription: Option<&'static [u8]>) -> Kind {
        let member = subscription.map(|bytes| MemberRecord {
            member_id: "m".into(),
            session_timeout_ms: 1000,
            subscription: Bytes::from_static(bytes),
            ..MemberRecord::default()
        });
        let record = GroupRecord {
            protocol_type: kind.into(),
            generation: 1,
            protocol: member.as_ref().map(|_| "range".into()),
            state_since_ms: since,
            leader: member.as_ref().map(|member| member.member_id.clone()),
            members: member.into_iter().collect(),
        };
        Kind::Classic(ClassicGroup::restore(Now::default(), record))
    }

    #[test]
    fn an_empty_group_keeps_its_offsets_from_its_end_not_from_their_commit() {
        let group = group("consumer", 10 * HOUR, None);
        let offsets = offsets(0);
        assert!(offsets.expired(&group, 12 * HOUR - 1, 2 * HOUR).is_empty());
        assert_eq!(offsets.expired(&group, 12 * HOUR, 2 * HOUR).len(), 2);
    }

    #[test]
    fn a_consumer_without_a_group_keeps_them_from_their_commit() {
        let group = Kind::Classic(ClassicGroup::new(Now::default()));
        assert!(
            offsets(HOUR)
                .expired(&group, 3 * HOUR - 1, 2 * HOUR)
                .is_empty()
        );
        assert_eq!(offsets(HOUR).expired(&group, 3 * HOUR, 2 * HOUR).len(), 2);
    }

    #[test]
    fn a_stable_group_only_loses_topics_that_nobody_subscribes_to() {
        // Version 0, one topic, "a".
        let group = group(
            "consumer",
            0,
            Some(b"\0\0\0\0\0\x01\0\x01a\xff\xff\xff\xff"),
        );
        assert_eq!(group.state_name(), State::Stable.name());
        assert_eq!(
            offsets(0).expired(&group, 9 * HOUR, HOUR),
            vec![("b".to_owned(), 0)]
        );
    }

    #[test]
    fn members_of_another_kind_or_without_readable_metadata_protect_all_offsets() {
        for kind in ["connect", "consumer"] {
            let group = group(kind, 0, Some(b"\xff"));
            assert!(
                offsets(0).expired(&group, 9 * HOUR, HOUR).is_empty(),
                "{kind}"
            );
        }
    }

    #[test]
    fn removing_counts_only_what_was_there() {
        let mut offsets = offsets(0);
        offsets.apply("a", 5, None);
        offsets.apply("c", 0, None);
        assert_eq!(offsets.len(), 2);
        offsets.apply("a", 0, None);
        offsets.apply("b", 0, None);
        assert!(offsets.is_empty());
        assert_eq!(offsets.topics().count(), 0);
    }
}
