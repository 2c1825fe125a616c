//! OffsetCommit, OffsetFetch and OffsetDelete: between Kafka's messages and the groups' owners.

use std::collections::BTreeSet;
use std::rc::Rc;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use ringmill_wire::kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use ringmill_wire::kafka_protocol::messages::{
    GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse,
};

use super::commits::{Offered, commits_of};
use super::groups::{optional, respond, text};
use crate::groups::Claim;
use crate::groups::admin::Fetched;
use crate::groups::records::OffsetRecord;
use crate::groups::service::{FetchOffsets, GroupAnswer, GroupAsk};
use crate::limits::MAX_ANSWER_BYTES;
use crate::router::Result;
use crate::shard::Shard;
use crate::stage::Stage;

/// The offset of a partition without one.
const NO_OFFSET: i64 = -1;
/// "The broker's own retention", in OffsetCommit v2 to v4.
const DEFAULT_RETENTION: i64 = -1;
/// The first version of OffsetCommit with which members name their epoch (KIP-848).
const FIRST_WITH_EPOCHS: i16 = 9;

// ---- OffsetCommit ----

pub(crate) async fn commit(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: OffsetCommitRequest,
) -> Stage {
    let claim = Claim {
        member_id: text(&request.member_id),
        instance_id: optional(request.group_instance_id.as_ref()),
        generation: request.generation_id_or_member_epoch,
    };
    let asked_ms = request.retention_time_ms;
    let retention_ms = (asked_ms != DEFAULT_RETENTION).then_some(asked_ms);
    let (commits, known) = commits_of(shard, offered(&request), retention_ms);
    let group = request.group_id.clone();
    let knows_epochs = header.version >= FIRST_WITH_EPOCHS;
    let finish = move |answer| respond(&header, &committed_response(&request, known.codes(answer)));
    // As Kafka: nobody is asked about partitions that are not there.
    if commits.is_empty() {
        return Stage::Done(finish(Ok(GroupAnswer::Parts(Ok(Vec::new())))));
    }
    let ask = GroupAsk::Commit(claim, knows_epochs, commits);
    shard.ask_group(&group, ask, finish).await
}

/// The offsets of a request.
fn offered(request: &OffsetCommitRequest) -> impl Iterator<Item = Offered<'_>> {
    request.topics.iter().flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(|part| Offered {
            topic: topic.name.as_str(),
            partition: part.partition_index,
            offset: part.committed_offset,
            leader_epoch: part.committed_leader_epoch,
            metadata: part.committed_metadata.as_ref(),
        })
    })
}

fn committed_response(
    request: &OffsetCommitRequest,
    mut codes: impl Iterator<Item = ErrorCode>,
) -> OffsetCommitResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|part| {
            let code = codes.next().expect("one code per offset");
            OffsetCommitResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(code.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

// ---- OffsetFetch ----

/// What one group is asked for.
struct Wanted {
    group: GroupId,
    /// The member that asks, if it says so (version 9).
    member: Option<String>,
    epoch: i32,
    /// None for all.
    topics: Option<Vec<(StrBytes, Vec<i32>)>>,
}

pub(crate) async fn fetch(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: OffsetFetchRequest,
) -> Stage {
    let wanted = match header.version {
        0..=7 => vec![Wanted {
            group: request.group_id,
            member: None,
            epoch: -1,
            topics: request.topics.map(|topics| {
                let topics = topics.into_iter();
                topics.map(|t| (t.name.0, t.partition_indexes)).collect()
            }),
        }],
        _ => request
            .groups
            .into_iter()
            .map(|group| Wanted {
                group: group.group_id,
                member: optional(group.member_id.as_ref()),
                epoch: group.member_epoch,
                topics: group.topics.map(|topics| {
                    let topics = topics.into_iter();
                    topics.map(|t| (t.name.0, t.partition_indexes)).collect()
                }),
            })
            .collect(),
    };
    let (shard, require_stable) = (Rc::clone(shard), request.require_stable);
    Stage::waits(async move {
        let (mut results, mut left) = (Vec::with_capacity(wanted.len()), MAX_ANSWER_BYTES);
        for mut one in wanted {
            let topics = match header.version {
                // Needed again if the answer has no other place for an error.
                0..=1 => one.topics.clone(),
                _ => one.topics.take(),
            };
            let ask = GroupAsk::Fetch(FetchOffsets {
                wanted: topics,
                member: one.member.take(),
                epoch: one.epoch,
                require_stable,
            });
            let size = |answer: &_| match answer {
                GroupAnswer::Fetch(Ok(found)) => found.iter().map(Fetched::size).sum(),
                _ => 0,
            };
            let result = match shard.ask_in_turn(&one.group, ask, &mut left, size).await {
                Ok(GroupAnswer::Fetch(result)) => result,
                Ok(_) => unreachable!("offsets were asked for"),
                Err(error) => Err(error),
            };
            results.push((one, result));
        }
        let mut results = results.into_iter();
        let response = match header.version {
            0..=7 => {
                let (one, result) = results.next().expect("one group was asked for");
                single_group(one, result, header.version)
            }
            _ => OffsetFetchResponse::default().with_groups(
                results
                    .map(|(one, result)| group_of_many(one, result))
                    .collect(),
            ),
        };
        respond(&header, &response)
    })
}

/// A response of version 0 to 7. Version 1 has no place for an error of the whole.
fn single_group(one: Wanted, result: Result<Vec<Fetched>>, version: i16) -> OffsetFetchResponse {
    let (found, error) = match result {
        Ok(found) => (found, ErrorCode::None),
        Err(error) if version >= 2 => {
            return OffsetFetchResponse::default().with_error_code(error.code());
        }
        Err(error) => (nothing(one), error),
    };
    let topics = found.into_iter().map(|topic| {
        let unstable = topic.unstable;
        let partitions = topic.partitions.into_iter().map(|(index, record)| {
            let ((offset, epoch, metadata), code) = stable(index, record, &unstable);
            let error = if error.is_error() { error } else { code };
            OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(if version >= 5 { epoch } else { -1 })
                .with_metadata(Some(metadata))
                .with_error_code(error.code())
        });
        OffsetFetchResponseTopic::default()
            .with_name(topic.topic.into())
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_topics(topics.collect())
}

/// One group's part of a response of version 8 or later.
fn group_of_many(one: Wanted, result: Result<Vec<Fetched>>) -> OffsetFetchResponseGroup {
    let group = OffsetFetchResponseGroup::default().with_group_id(one.group);
    let found = match result {
        Ok(found) => found,
        Err(error) => return group.with_error_code(error.code()),
    };
    let topics = found.into_iter().map(|topic| {
        let unstable = topic.unstable;
        let partitions = topic.partitions.into_iter().map(|(index, record)| {
            let ((offset, epoch, metadata), error) = stable(index, record, &unstable);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(epoch)
                .with_metadata(Some(metadata))
                .with_error_code(error.code())
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic.topic.into())
            .with_partitions(partitions.collect())
    });
    group.with_topics(topics.collect())
}

fn nothing(one: Wanted) -> Vec<Fetched> {
    let topics = one.topics.into_iter().flatten();
    let none = |numbers: Vec<i32>| numbers.into_iter().map(|number| (number, None)).collect();
    topics
        .map(|(topic, numbers)| Fetched {
            topic,
            partitions: none(numbers),
            unstable: BTreeSet::new(),
        })
        .collect()
}

/// What is shown of a partition; nothing while a transaction may change it (KIP-447).
fn stable(
    index: i32,
    record: Option<OffsetRecord>,
    unstable: &BTreeSet<i32>,
) -> ((i64, i32, StrBytes), ErrorCode) {
    match unstable.contains(&index) {
        true => (shown(None), ErrorCode::UnstableOffsetCommit),
        false => (shown(record), ErrorCode::None),
    }
}

fn shown(record: Option<OffsetRecord>) -> (i64, i32, StrBytes) {
    match record {
        Some(record) => {
            let metadata = StrBytes::from_string(record.metadata);
            (record.offset, record.leader_epoch, metadata)
        }
        None => (NO_OFFSET, -1, StrBytes::new()),
    }
}

// ---- OffsetDelete ----

pub(crate) async fn delete(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: OffsetDeleteRequest,
) -> Stage {
    let (mut wanted, mut known) = (Vec::new(), Vec::new());
    for topic in &request.topics {
        for part in &topic.partitions {
            let index = part.partition_index;
            let exists = shard.partition_id(&topic.name, index).is_ok();
            known.push(exists);
            if exists {
                wanted.push((text(&topic.name), index));
            }
        }
    }
    let group = request.group_id.clone();
    let finish = move |answer| {
        let parts = match answer {
            Ok(GroupAnswer::Parts(parts)) => parts,
            Ok(_) => unreachable!("deleting offsets has an answer of parts"),
            Err(error) => Err(error),
        };
        respond(&header, &deleted_response(&request, &known, parts))
    };
    shard
        .ask_group(&group, GroupAsk::DeleteOffsets(wanted), finish)
        .await
}

fn deleted_response(
    request: &OffsetDeleteRequest,
    known: &[bool],
    parts: Result<Vec<Result<()>>>,
) -> OffsetDeleteResponse {
    let results = match parts {
        Ok(results) => results,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let (mut known, mut results) = (known.iter(), results.into_iter());
    let mut code = || match known.next() {
        Some(true) => {
            let result = results.next().unwrap_or(Ok(()));
            result.err().unwrap_or(ErrorCode::None)
        }
        _ => ErrorCode::UnknownTopicOrPartition,
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|part| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(part.partition_index)
                .with_error_code(code().code())
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
