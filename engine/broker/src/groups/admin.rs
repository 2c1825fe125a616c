//! Offsets and administration of a core's groups: commit, fetch, describe, list, delete, expire.

use std::collections::BTreeSet;

use ringmill_wire::StrBytes;

use super::coordinator::Coordinator;
use super::kind::Kind;
use super::records::OffsetRecord;
use super::write::{Outcome, Write, offset_key};
use super::{Claim, GroupError, Results};
use crate::clock::Now;
use crate::limits::{ELEMENT_BYTES, MAX_ANSWER_BYTES};

/// The name of a group that exists no more, or never did, in descriptions.
pub const DEAD: &str = "Dead";

/// One offset of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
    /// What to store.
    pub record: OffsetRecord,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description {
    /// The state's name.
    pub state: &'static str,
    /// The kind of group, empty without members.
    pub protocol_type: String,
    /// The protocol of a stable group, else empty.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Its instance id, if static.
    pub instance_id: Option<String>,
    /// The client's id.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Its metadata, in a stable group.
    pub metadata: bytes::Bytes,
    /// Its assignment, in a stable group.
    pub assignment: bytes::Bytes,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its id.
    pub group: String,
    /// The kind of group, empty if it has none.
    pub protocol_type: String,
    /// The state's name.
    pub state: &'static str,
    /// The kind's name (KIP-848).
    pub kind: &'static str,
}

/// A topic's committed offsets as OffsetFetch shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The topic's name.
    pub topic: StrBytes,
    /// Each partition with what was committed; none if nothing was.
    pub partitions: Vec<(i32, Option<OffsetRecord>)>,
    /// Those whose offset a transaction may change, if it was asked for.
    pub unstable: BTreeSet<i32>,
}

/// What is left of [`MAX_ANSWER_BYTES`].
struct Left(usize);

impl Left {
    /// Takes an element with `bytes` of text and the like.
    fn take(&mut self, bytes: usize) -> Result<(), GroupError> {
        let left = self.0.checked_sub(bytes + ELEMENT_BYTES);
        self.0 = left.ok_or(GroupError::AnswerTooLarge)?;
        Ok(())
    }
}

impl Description {
    /// About how many bytes it takes in an answer.
    pub fn size(&self) -> usize {
        let size = |m: &DescribedMember| {
            let instance = m.instance_id.as_ref().map_or(0, String::len);
            let names = m.member_id.len() + instance + m.client_id.len() + m.client_host.len();
            names + m.metadata.len() + m.assignment.len() + ELEMENT_BYTES
        };
        self.members.iter().map(size).sum::<usize>() + ELEMENT_BYTES
    }
}

impl Fetched {
    /// About how many bytes it takes in an answer.
    pub fn size(&self) -> usize {
        let notes = self.partitions.iter();
        let notes = notes.map(|(_, record)| record.as_ref().map_or(0, |r| r.metadata.len()));
        let notes: usize = notes.map(|note| note + ELEMENT_BYTES).sum();
        self.topic.len() + notes
    }
}

impl Coordinator {
    /// Offsets are committed. The error is the whole request's; the results are in the order of
    /// `commits`, and what they admit is in the write, if anything is.
    #[allow(
        clippy::type_complexity,
        reason = "one result per commit, and the write"
    )]
    pub fn commit(
        &mut self,
        now: Now,
        id: &str,
        partition: i32,
        claim: &Claim,
        knows_epochs: bool,
        commits: Vec<Commit>,
    ) -> Result<(Results, Option<Write>), GroupError> {
        self.admit_change(id, partition)?;
        self.check_claim(now, id, claim, knows_epochs)?;
        self.commit_admitted(id, partition, commits)
    }

    /// Whether a member may commit.
    pub(super) fn check_claim(
        &mut self,
        now: Now,
        id: &str,
        claim: &Claim,
        knows_epochs: bool,
    ) -> Result<(), GroupError> {
        match self.groups.get_mut(id) {
            Some(group) => match &mut group.kind {
                Kind::Classic(classic) => classic.on_commit(now, claim),
                Kind::Consumer(consumers) => {
                    consumers.on_commit(&claim.member_id, claim.generation, knows_epochs)
                }
            },
            // A group that nobody has joined may store offsets, but has no generation.
            None if claim.generation >= 0 && knows_epochs => Err(GroupError::GroupIdNotFound),
            None if claim.generation >= 0 => Err(GroupError::IllegalGeneration),
            None => Ok(()),
        }
    }

    /// Commits what there is room for, whoever asks. A client tries again if there is none: of the
    /// errors that it knows of commits, that is the one that says so.
    #[allow(
        clippy::type_complexity,
        reason = "one result per commit, and the write"
    )]
    pub(super) fn commit_admitted(
        &mut self,
        id: &str,
        partition: i32,
        commits: Vec<Commit>,
    ) -> Result<(Results, Option<Write>), GroupError> {
        if !self.has_room(id, &commits) {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let mut write = Write::new(partition, id);
        let mut results = Vec::with_capacity(commits.len());
        for commit in commits {
            let fits = commit.record.metadata.len() <= self.config.max_offset_metadata_bytes;
            results.push(if fits {
                Ok(())
            } else {
                Err(GroupError::OffsetMetadataTooLarge)
            });
            if fits {
                let key = offset_key(id, &commit.topic, commit.partition);
                write.offset(key, Some(commit.record));
            }
        }
        Ok((results, (!write.records.is_empty()).then_some(write)))
    }

    /// Committed offsets: of `wanted`, or all of the group. A group that does not exist has none.
    /// Members of a consumer group may say who they are, and are told if they are behind.
    pub fn fetch(
        &self,
        id: &str,
        partition: i32,
        reader: (Option<&str>, i32),
        wanted: Option<&[(StrBytes, Vec<i32>)]>,
    ) -> Result<Vec<Fetched>, GroupError> {
        self.admit_read(id, partition)?;
        if let Some(consumers) = self.groups.get(id).and_then(|g| g.kind.consumer()) {
            consumers.on_fetch(reader.0, reader.1)?;
        }
        let offsets = self.groups.get(id).map(|group| &group.offsets);
        let mut left = Left(MAX_ANSWER_BYTES);
        let mut show = |number: i32, record: Option<&OffsetRecord>| {
            left.take(record.map_or(0, |record| record.metadata.len()))?;
            Ok((number, record.cloned()))
        };
        let Some(wanted) = wanted else {
            let all = offsets.into_iter().flat_map(|offsets| offsets.topics());
            let all = all.map(|(topic, records)| {
                let shown = records.iter().map(|(n, record)| show(*n, Some(record)));
                Ok(Fetched {
                    topic: StrBytes::from_string(topic.to_owned()),
                    partitions: shown.collect::<Result<_, _>>()?,
                    unstable: BTreeSet::new(),
                })
            });
            return all.collect();
        };
        let found = wanted.iter().map(|(topic, numbers)| {
            let records = offsets.and_then(|offsets| offsets.of_topic(topic));
            let shown = numbers
                .iter()
                .map(|n| show(*n, records.and_then(|r| r.get(n))));
            Ok(Fetched {
                topic: topic.clone(),
                partitions: shown.collect::<Result<_, _>>()?,
                unstable: BTreeSet::new(),
            })
        });
        found.collect()
    }

    /// The group as it is; none if it does not exist, or speaks the consumer protocol.
    pub fn describe(&self, id: &str, partition: i32) -> Result<Option<Description>, GroupError> {
        self.admit_read(id, partition)?;
        let Some(classic) = self.groups.get(id).and_then(|group| group.kind.classic()) else {
            return Ok(None);
        };
        let stable = classic.state() == super::classic::State::Stable;
        let protocol = if stable {
            classic.protocol().unwrap_or_default()
        } else {
            ""
        };
        Ok(Some(Description {
            state: classic.state().name(),
            protocol_type: classic.protocol_type().unwrap_or_default().to_owned(),
            protocol: protocol.to_owned(),
            members: classic
                .members()
                .map(|member| DescribedMember {
                    member_id: member.id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    metadata: if stable {
                        member.metadata(protocol)
                    } else {
                        Default::default()
                    },
                    assignment: if stable {
                        member.assignment.clone()
                    } else {
                        Default::default()
                    },
                })
                .collect(),
        }))
    }

    /// All groups of this core.
    pub fn list(&self) -> impl Iterator<Item = Listing> {
        self.groups.iter().map(|(id, group)| Listing {
            group: id.clone(),
            protocol_type: group.kind.protocol_type().unwrap_or_default().to_owned(),
            state: group.kind.state_name(),
            kind: group.kind.name(),
        })
    }

    /// Deletes a group without members, and with it the ids that it has promised to some; it is gone
    /// when the write is durable.
    pub fn delete(&mut self, id: &str, partition: i32) -> Result<Write, GroupError> {
        self.admit_change(id, partition)?;
        let group = self.groups.get(id).ok_or(GroupError::GroupIdNotFound)?;
        if group.kind.member_count() > 0 {
            return Err(GroupError::NonEmptyGroup);
        }
        Ok(self.bury(id))
    }

    /// Deletes offsets of a group. The error is the whole request's; the results are in the order
    /// of `wanted`.
    #[allow(
        clippy::type_complexity,
        reason = "one result per offset, and the write"
    )]
    pub fn delete_offsets(
        &mut self,
        id: &str,
        partition: i32,
        wanted: &[(String, i32)],
    ) -> Result<(Results, Option<Write>), GroupError> {
        self.admit(id, partition)?;
        let group = self.groups.get(id).ok_or(GroupError::GroupIdNotFound)?;
        let members = &group.kind;
        let consumers = members.protocol_type() == Some(super::classic::CONSUMER_PROTOCOL_TYPE);
        if members.member_count() > 0 && !consumers {
            return Err(GroupError::NonEmptyGroup);
        }
        let mut write = Write::new(partition, id);
        let mut results = Vec::with_capacity(wanted.len());
        for (topic, number) in wanted {
            if members.member_count() > 0 && members.is_subscribed(topic) {
                results.push(Err(GroupError::SubscribedToTopic));
                continue;
            }
            results.push(Ok(()));
            let queued = self
                .queued(partition, id)
                .any(|(t, p, _)| t == topic && p == *number);
            let mut pending = self.pending.of_group(partition, id);
            let pending = pending.any(|(t, p)| t == topic && p == *number);
            if queued || pending || group.offsets.get(topic, *number).is_some() {
                write.offset(offset_key(id, topic, *number), None);
            }
        }
        Ok((results, (!write.records.is_empty()).then_some(write)))
    }

    /// What has expired: offsets by retention, and groups of which nothing is left.
    pub fn expire(&mut self, now: Now) -> Vec<Write> {
        let retention = self.config.offsets_retention_ms;
        let mut writes = Vec::new();
        let mut done = Vec::new();
        for (id, group) in &self.groups {
            let expired = group.offsets.expired(&group.kind, now.wall_ms, retention);
            let queued = self.queued(group.partition, id).next().is_some()
                || self.is_unstable(id, group.partition);
            if group.is_ending {
                continue;
            }
            if expired.len() == group.offsets.len() && group.kind.is_vacant() && !queued {
                done.push(id.clone());
            } else if !expired.is_empty() {
                let mut write = Write::new(group.partition, id);
                for (topic, number) in expired {
                    write.offset(offset_key(id, &topic, number), None);
                }
                writes.push(write);
            }
        }
        writes.extend(done.iter().map(|id| self.bury(id)));
        writes
    }

    /// The topics that offsets are committed for and that do not exist.
    pub fn topics_without(&self, exists: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let topics = self
            .groups
            .values()
            .flat_map(|group| group.offsets.topics());
        topics
            .map(|(topic, _)| topic)
            .filter(|topic| !exists(topic))
            .map(str::to_owned)
            .collect()
    }

    /// Topics were deleted: so are all groups' offsets of them.
    pub fn forget_topics(&self, topics: &BTreeSet<String>) -> Vec<Write> {
        let durable = self.groups.iter().flat_map(|(id, group)| {
            let offsets = group.offsets.iter();
            offsets.map(|(topic, number, _)| (group.partition, id.as_str(), topic, number))
        });
        let gone: BTreeSet<(i32, &str, &str, i32)> = durable
            .chain(self.pending.all())
            .chain(self.all_queued())
            .filter(|(_, _, topic, _)| topics.contains(*topic))
            .collect();
        let mut writes: Vec<Write> = Vec::new();
        for (home, id, topic, number) in gone {
            match writes.last_mut() {
                Some(write) if write.group == id => {}
                _ => writes.push(Write::new(home, id)),
            }
            let write = writes.last_mut().expect("just pushed");
            write.offset(offset_key(id, topic, number), None);
        }
        writes
    }

    /// Tombstones for all that the log has of a group, which takes part in nothing from now on.
    fn bury(&mut self, id: &str) -> Write {
        let group = self.groups.get_mut(id).expect("the caller found it");
        group.is_ending = true;
        let group = &self.groups[id];
        let durable = group
            .offsets
            .iter()
            .map(|(topic, number, _)| (topic, number));
        let queued = self.queued(group.partition, id);
        let keys: BTreeSet<(String, i32)> = durable
            .chain(queued.map(|(topic, number, _)| (topic, number)))
            .chain(self.pending.of_group(group.partition, id))
            .map(|(topic, number)| (topic.to_owned(), number))
            .collect();
        let mut write = Write::new(group.partition, id);
        for (topic, number) in keys {
            write.offset(offset_key(id, &topic, number), None);
        }
        let unsaved = group.unsaved.iter();
        write.records.extend(unsaved.map(|key| (key.clone(), None)));
        match &group.kind {
            Kind::Classic(_) => write.group(None),
            Kind::Consumer(consumers) => write.end(consumers.end().into_records()),
        }
        write
    }
}

impl Outcome {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty() && self.write.is_none()
    }
}
