//! ListOffsets, DeleteRecords and OffsetForLeaderEpoch: questions about a partition's offsets, put
//! to its owner.

use std::collections::BTreeSet;
use std::rc::Rc;

use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::IsolationLevel;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use ringmill_wire::kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use ringmill_wire::kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use ringmill_wire::kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use ringmill_wire::kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use super::groups::respond;
use crate::partition::{EpochQuery, OffsetFound, OffsetQuery};
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::Shard;
use crate::stage::Stage;

/// The special timestamps of ListOffsets.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

// ---- ListOffsets ----

pub(crate) async fn list(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: ListOffsetsRequest,
) -> Stage {
    let mut seen = BTreeSet::new();
    let isolation = match request.isolation_level {
        0 => Some(IsolationLevel::ReadUncommitted),
        1 => Some(IsolationLevel::ReadCommitted),
        _ => None,
    };
    let asked = request.topics.iter().flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(move |part| (&topic.name, part))
    });
    let asked = asked.map(|(name, part)| {
        if !seen.insert((name, part.partition_index)) {
            return Err(Err(ErrorCode::InvalidRequest));
        }
        isolation.ok_or(Err(ErrorCode::InvalidRequest))?;
        let query = query_of(part, header.version).map_err(Err)?;
        let id = shard.partition_id(name, part.partition_index);
        let id = id.map_err(Err)?;
        Ok((id, (query, part.current_leader_epoch)))
    });
    let (parts, questions) = shard.questions(asked);
    let take = |answer| match answer {
        Answer::Offsets(found) => found,
        _ => unreachable!("offsets were asked for"),
    };
    let call = |queries| Call::Offsets(queries, isolation.unwrap_or_default());
    let answers = shard.scatter(questions, call, take).await;
    Stage::waits(async move {
        let (mut answers, mut parts) = (answers.await.into_iter(), parts.into_iter());
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let part = parts.next().expect("one part per question");
                let found = part.resolve(&mut answers);
                listed(asked.partition_index, found, header.version)
            });
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        respond(&header, &ListOffsetsResponse::default().with_topics(topics))
    })
}

/// What a timestamp asks for; an error if the request's version does not know it.
fn query_of(part: &ListOffsetsPartition, version: i16) -> Result<OffsetQuery> {
    match (part.timestamp, version) {
        (LATEST, _) => Ok(OffsetQuery::Latest),
        (EARLIEST, _) | (EARLIEST_LOCAL, 8..) => Ok(OffsetQuery::Earliest),
        (MAX_TIMESTAMP, 7..) => Ok(OffsetQuery::MaxTimestamp),
        (LATEST_TIERED, 9..) => Ok(OffsetQuery::LatestTiered),
        (0.., _) => Ok(OffsetQuery::AtOrAfter(part.timestamp)),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

fn listed(index: i32, found: Result<OffsetFound>, version: i16) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(index);
    let found = found.map_err(|error| match (error, version) {
        // KIP-207: its own code came with version 5
        (ErrorCode::OffsetNotAvailable, ..5) => ErrorCode::LeaderNotAvailable,
        _ => error,
    });
    match found {
        Ok(found) => {
            let answer = answer
                .with_timestamp(found.timestamp)
                .with_offset(found.offset);
            match version {
                0..=3 => answer,
                _ => answer.with_leader_epoch(found.leader_epoch),
            }
        }
        Err(error) => answer
            .with_error_code(error.code())
            .with_timestamp(-1)
            .with_offset(-1),
    }
}

// ---- DeleteRecords ----

pub(crate) async fn delete_records(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DeleteRecordsRequest,
) -> Stage {
    let asked = request.topics.iter().flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(move |part| (&topic.name, part))
    });
    let asked = asked.map(|(name, part)| {
        let id = may_delete(shard, name, part.partition_index).map_err(Err)?;
        match part.offset {
            -1.. => Ok((id, part.offset)),
            _ => Err(Err(ErrorCode::OffsetOutOfRange)),
        }
    });
    let (parts, questions) = shard.questions(asked);
    let take = |answer| match answer {
        Answer::Deleted(starts) => starts,
        _ => unreachable!("a deletion was asked for"),
    };
    let answers = shard.scatter(questions, Call::DeleteRecords, take).await;
    Stage::waits(async move {
        let (mut answers, mut parts) = (answers.await.into_iter(), parts.into_iter());
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let part = parts.next().expect("one part per question");
                let start = part.resolve(&mut answers);
                DeleteRecordsPartitionResult::default()
                    .with_partition_index(asked.partition_index)
                    .with_low_watermark(start.unwrap_or(-1))
                    .with_error_code(start.err().unwrap_or(ErrorCode::None).code())
            });
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        respond(
            &header,
            &DeleteRecordsResponse::default().with_topics(topics),
        )
    })
}

/// As Kafka: records of a topic that is only compacted are not deleted from its start; nor are the
/// broker's own.
fn may_delete(shard: &Shard, name: &str, index: i32) -> Result<PartitionId> {
    let id = shard.partition_id(name, index)?;
    let image = shard.image();
    let topic = image
        .topic(name)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topic.is_internal() {
        return Err(ErrorCode::InvalidTopic);
    }
    if topic.config.compact && !topic.config.delete {
        return Err(ErrorCode::PolicyViolation);
    }
    Ok(id)
}

// ---- OffsetForLeaderEpoch ----

pub(crate) async fn leader_epochs(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: OffsetForLeaderEpochRequest,
) -> Stage {
    let asked = request.topics.iter().flat_map(|topic| {
        let parts = topic.partitions.iter();
        parts.map(move |part| (&topic.topic, part))
    });
    let asked = asked.map(|(name, part)| {
        let id = shard.partition_id(name, part.partition).map_err(Err)?;
        let query = EpochQuery {
            current: part.current_leader_epoch,
            epoch: part.leader_epoch,
        };
        Ok((id, query))
    });
    let (parts, questions) = shard.questions(asked);
    let take = |answer| match answer {
        Answer::Epochs(ends) => ends,
        _ => unreachable!("epochs were asked for"),
    };
    let answers = shard.scatter(questions, Call::Epochs, take).await;
    Stage::waits(async move {
        let (mut answers, mut parts) = (answers.await.into_iter(), parts.into_iter());
        let topics = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let part = parts.next().expect("one part per question");
                let end = part.resolve(&mut answers);
                let (epoch, offset) = end.unwrap_or((-1, -1));
                EpochEndOffset::default()
                    .with_partition(asked.partition)
                    .with_leader_epoch(epoch)
                    .with_end_offset(offset)
                    .with_error_code(end.err().unwrap_or(ErrorCode::None).code())
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(topic.topic.clone())
                .with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        respond(
            &header,
            &OffsetForLeaderEpochResponse::default().with_topics(topics),
        )
    })
}
