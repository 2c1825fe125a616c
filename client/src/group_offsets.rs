//! A group's committed offsets: OffsetCommit and OffsetFetch in all their versions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmill_wire::StrBytes;
use ringmill_wire::control::Call;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use ringmill_wire::kafka_protocol::messages::{
    OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse,
};

use crate::assignor::TopicPartition;
use crate::connection::{CallError, Connection};
use crate::consumer::MemberId;
use crate::metadata::error_code;

/// The first version that can ask for stable offsets.
const FIRST_STABLE: i16 = 7;
/// The first version that asks for several groups at once.
const FIRST_WITH_GROUPS: i16 = 8;
/// The first version in which members of the consumer protocol say who they are (KIP-848).
const FIRST_WITH_MEMBER: i16 = 9;
/// The first version that can ask for all topics by null.
const FIRST_WITH_ALL: i16 = 2;

/// A committed offset.
///
/// # Examples
/// ```
/// use ringmill_client::Committed;
///
/// let noted = Committed { metadata: "after the repair".into(), ..Committed::at(42) };
/// assert_eq!(noted.offset, 42);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Committed {
    /// The next record to be read.
    pub offset: i64,
    /// Epoch of the leader that the record before it came from; −1 if not known.
    pub leader_epoch: i32,
    /// What the committer wrote beside it.
    pub metadata: String,
}

impl Committed {
    /// An offset without further words.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Committed;
    ///
    /// let last_processed = 41;
    /// assert_eq!(Committed::at(last_processed + 1).offset, 42);
    /// ```
    pub fn at(offset: i64) -> Self {
        Self {
            offset,
            leader_epoch: -1,
            metadata: String::new(),
        }
    }
}

/// Offsets by partition.
pub type CommittedOffsets = BTreeMap<TopicPartition, Committed>;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn by_topic<'a, T: 'a>(
    offsets: impl IntoIterator<Item = (&'a TopicPartition, T)>,
) -> BTreeMap<&'a Arc<str>, Vec<(i32, T)>> {
    let mut topics: BTreeMap<&Arc<str>, Vec<(i32, T)>> = BTreeMap::new();
    for (partition, what) in offsets {
        let of_topic = topics.entry(&partition.topic).or_default();
        of_topic.push((partition.partition, what));
    }
    topics
}

/// Commits offsets, as a member of the group or, without one, as nobody in particular, which only
/// an empty group accepts. Returns the partitions that were refused.
pub(crate) async fn commit(
    connection: &Connection,
    group: &str,
    member: Option<&MemberId>,
    offsets: &CommittedOffsets,
    limit: Duration,
) -> Result<BTreeMap<TopicPartition, ErrorCode>, CallError> {
    let topics = by_topic(offsets).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, committed)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_committed_metadata(Some(text(&committed.metadata)))
        });
        OffsetCommitRequestTopic::default()
            .with_name(text(topic).into())
            .with_partitions(partitions.collect())
    });
    let mut request = OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics.collect());
    if let Some(member) = member {
        request = request
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text));
    }
    let response = connection.call(&request, limit).await?;
    let mut refused = BTreeMap::new();
    for topic in response.topics {
        let name: Arc<str> = (&*topic.name.0).into();
        for partition in topic.partitions {
            let code = error_code(partition.error_code);
            if code.is_error() {
                let partition = TopicPartition::new(name.clone(), partition.partition_index);
                refused.insert(partition, code);
            }
        }
    }
    Ok(refused)
}

/// What a group has committed, for some partitions or for all. Partitions without an offset are
/// not in the answer. For some, as consumers ask, offsets of transactions that are being completed
/// are waited for (KIP-447); for all, as people ask, they are passed over. A member of the consumer
/// protocol is refused if it is none any more.
pub(crate) async fn fetch(
    connection: &Connection,
    group: &str,
    (partitions, reader): (Option<&[TopicPartition]>, Option<&MemberId>),
    limit: Duration,
) -> Result<Result<CommittedOffsets, ErrorCode>, CallError> {
    let version = connection.version(<OffsetFetchRequest as Call>::KEY, i16::MAX)?;
    let request = fetch_request(group, partitions, reader, version);
    let request = match version {
        FIRST_STABLE.. => request.with_require_stable(partitions.is_some()),
        _ => request,
    };
    Ok(fetched(connection.call_at(version, &request, limit).await?))
}

fn fetch_request(
    group: &str,
    partitions: Option<&[TopicPartition]>,
    reader: Option<&MemberId>,
    version: i16,
) -> OffsetFetchRequest {
    let topics = partitions.map(|partitions| by_topic(partitions.iter().map(|p| (p, ()))));
    let numbers = |partitions: Vec<(i32, ())>| partitions.into_iter().map(|(p, ())| p).collect();
    if version >= FIRST_WITH_GROUPS {
        let topic = |(topic, partitions): (&Arc<str>, _)| {
            OffsetFetchRequestTopics::default()
                .with_name(text(topic).into())
                .with_partition_indexes(numbers(partitions))
        };
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(text(group).into())
            .with_topics(topics.map(|topics| topics.into_iter().map(topic).collect()));
        let group = match reader {
            Some(member) if version >= FIRST_WITH_MEMBER => group
                .with_member_id(Some(text(&member.member_id)))
                .with_member_epoch(member.generation),
            _ => group,
        };
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topic = |(topic, partitions): (&Arc<str>, _)| {
        OffsetFetchRequestTopic::default()
            .with_name(text(topic).into())
            .with_partition_indexes(numbers(partitions))
    };
    let topics = topics.map(|topics| topics.into_iter().map(topic).collect());
    OffsetFetchRequest::default()
        .with_group_id(text(group).into())
        .with_topics(match version {
            FIRST_WITH_ALL.. => topics,
            _ => Some(topics.unwrap_or_default()),
        })
}

/// The answer, which from version 8 on is a list of groups.
fn fetched(mut response: OffsetFetchResponse) -> Result<CommittedOffsets, ErrorCode> {
    let mut rows = Vec::new();
    let mut code = response.error_code;
    if let Some(group) = response.groups.pop() {
        code = group.error_code;
        for topic in group.topics {
            let name: Arc<str> = (&*topic.name.0).into();
            rows.extend(topic.partitions.into_iter().map(|p| {
                let partition = TopicPartition::new(name.clone(), p.partition_index);
                let place = (p.committed_offset, p.committed_leader_epoch);
                (partition, place, p.metadata, p.error_code)
            }));
        }
    }
    for topic in response.topics {
        let name: Arc<str> = (&*topic.name.0).into();
        rows.extend(topic.partitions.into_iter().map(|p| {
            let partition = TopicPartition::new(name.clone(), p.partition_index);
            let place = (p.committed_offset, p.committed_leader_epoch);
            (partition, place, p.metadata, p.error_code)
        }));
    }
    if error_code(code).is_error() {
        return Err(error_code(code));
    }
    let mut offsets = CommittedOffsets::new();
    for (partition, (offset, leader_epoch), metadata, code) in rows {
        match error_code(code) {
            ErrorCode::None if offset >= 0 => {
                let metadata = metadata.map(|text| text.to_string()).unwrap_or_default();
                let committed = Committed {
                    offset,
                    leader_epoch,
                    metadata,
                };
                offsets.insert(partition, committed);
            }
            // no offset, or no such partition
            ErrorCode::None | ErrorCode::UnknownTopicOrPartition => {}
            code => return Err(code),
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use ringmill_wire::api::ApiKey;
    use ringmill_wire::control::encode_request;
    use ringmill_wire::header::RequestHeader;

    use super::*;

    #[test]
    fn offsets_can_be_asked_for_in_every_version() {
        let partitions = [TopicPartition::new("t", 0), TopicPartition::new("t", 1)];
        let api = ApiKey::OffsetFetch.api();
        for version in api.min..=api.max {
            let header = RequestHeader {
                key: ApiKey::OffsetFetch,
                version,
                correlation_id: 0,
                client_id: None,
            };
            let member = MemberId {
                member_id: "m".into(),
                generation: 3,
                instance_id: None,
            };
            let asked = [(None, None), (Some(&partitions[..]), Some(&member))];
            for (partitions, reader) in asked {
                let request = fetch_request("g", partitions, reader, version);
                encode_request(&header, &request).unwrap();
            }
        }
    }
}
