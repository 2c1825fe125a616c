//! DescribeLogDirs (KIP-113, KIP-827) and DescribeProducers (KIP-664): what administrators look at in
//! partitions, asked of their owners.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ringmill_log::ActiveProducer;
use ringmill_ring::fs;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::header::RequestHeader;
use ringmill_wire::kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ringmill_wire::kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use ringmill_wire::kafka_protocol::messages::{
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest,
    DescribeProducersResponse, TopicName,
};
use ringmill_wire::topic::check_topic_name;

use super::groups::respond;
use super::refusal::Refusal;
use crate::cluster::image::Image;
use crate::router::{Answer, Call, PartitionId, Result};
use crate::shard::Shard;
use crate::stage::Stage;

/// Producers that one answer shows, at most: some ten megabytes of it. Partitions past it are
/// refused, for each takes a few bytes in the request.
const PRODUCERS_SHOWN_MAX: usize = 1 << 18;
/// A room that is not known (KIP-827).
const UNKNOWN_BYTES: i64 = -1;

/// Partitions by the name of their topic, each once.
type Wanted = BTreeMap<StrBytes, BTreeSet<i32>>;

// ---- DescribeLogDirs ----

pub(crate) async fn log_dirs(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DescribeLogDirsRequest,
) -> Stage {
    let wanted = wanted(&shard.image(), &request);
    let mut asked = Vec::new();
    for (name, partitions) in &wanted {
        for index in partitions {
            // what is not there is left out, as Kafka does
            if let Ok(id) = shard.partition_id(name, *index) {
                asked.push((name.clone(), id));
            }
        }
    }
    let items = asked.iter().map(|(_, id)| (shard.router.owner(*id), *id));
    let take = |answer| match answer {
        Answer::Sizes(sizes) => sizes,
        _ => unreachable!("sizes were asked for"),
    };
    let sizes = shard.scatter(items.collect(), Call::Sizes, take).await;
    let folder = shard.config.data_dir.clone();
    Stage::waits(async move {
        let (sizes, space) = (sizes.await, fs::space(&folder).await);
        let mut topics: Vec<DescribeLogDirsTopic> = Vec::new();
        for ((name, id), size) in asked.into_iter().zip(sizes) {
            let Ok(size) = size else { continue };
            if topics.last().is_none_or(|last| last.name.0 != name) {
                topics.push(DescribeLogDirsTopic::default().with_name(TopicName(name)));
            }
            let shown = DescribeLogDirsPartition::default()
                .with_partition_index(id.index)
                .with_partition_size(size as i64);
            let topic = topics.last_mut().expect("just pushed");
            topic.partitions.push(shown);
        }
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let (total, usable) = match space {
            Ok(space) => (bytes(space.total), bytes(space.available)),
            Err(_) => (UNKNOWN_BYTES, UNKNOWN_BYTES),
        };
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let found = DescribeLogDirsResult::default()
            .with_log_dir(StrBytes::from_string(folder.display().to_string()))
            .with_topics(topics)
            .with_total_bytes(total)
            .with_usable_bytes(usable);
        respond(
            &header,
            &DescribeLogDirsResponse::default().with_results(vec![found]),
        )
    })
}

fn wanted(image: &Image, request: &DescribeLogDirsRequest) -> Wanted {
    let mut wanted = Wanted::new();
    match &request.topics {
        None => {
            for topic in image.topics() {
                let all = (0..topic.count()).collect();
                wanted.insert(topic.name.clone(), all);
            }
        }
        Some(topics) => {
            for topic in topics {
                let partitions = wanted.entry(topic.topic.0.clone()).or_default();
                partitions.extend(&topic.partitions);
            }
        }
    }
    wanted
}

// ---- DescribeProducers ----

pub(crate) async fn producers(
    shard: &Rc<Shard>,
    header: RequestHeader,
    request: DescribeProducersRequest,
) -> Stage {
    let mut wanted = Wanted::new();
    for topic in &request.topics {
        let partitions = wanted.entry(topic.name.0.clone()).or_default();
        partitions.extend(&topic.partition_indexes);
    }
    let named = wanted.into_iter().flat_map(|(name, partitions)| {
        let partitions = partitions.into_iter();
        partitions.map(move |index| (name.clone(), index))
    });
    let named: Vec<(StrBytes, i32)> = named.collect();
    let asked = named.iter().map(|(name, index)| {
        let id = find(shard, name, *index).map_err(Err)?;
        Ok((id, ()))
    });
    let (parts, questions) = shard.questions(asked);
    let take = |answer| match answer {
        Answer::Producers(producers) => producers,
        _ => unreachable!("producers were asked for"),
    };
    let call = |asked: Vec<(PartitionId, ())>| {
        let ids = asked.into_iter().map(|(id, ())| id);
        Call::Producers(ids.collect(), PRODUCERS_SHOWN_MAX)
    };
    let answers = shard.scatter(questions, call, take).await;
    Stage::waits(async move {
        let (mut answers, mut left) = (answers.await.into_iter(), Some(PRODUCERS_SHOWN_MAX));
        let mut topics: Vec<TopicResponse> = Vec::new();
        for ((name, index), part) in named.into_iter().zip(parts) {
            let found = part.resolve(&mut answers);
            if topics.last().is_none_or(|last| last.name.0 != name) {
                topics.push(TopicResponse::default().with_name(TopicName(name)));
            }
            let topic = topics.last_mut().expect("just pushed");
            topic.partitions.push(shown(index, found, &mut left));
        }
        respond(
            &header,
            &DescribeProducersResponse::default().with_topics(topics),
        )
    })
}

fn find(shard: &Shard, name: &str, index: i32) -> Result<PartitionId> {
    check_topic_name(name).map_err(|_| ErrorCode::InvalidTopic)?;
    shard.partition_id(name, index)
}

/// What is said of a partition; `left` is how many producers may still be shown, none after the
/// first partition that had more.
fn shown(
    index: i32,
    found: Result<Vec<ActiveProducer>>,
    left: &mut Option<usize>,
) -> PartitionResponse {
    let answer = PartitionResponse::default()
        .with_partition_index(index)
        .with_error_message(None);
    let producers = match found {
        Ok(producers) => producers,
        Err(code) => return answer.with_error_code(code.code()),
    };
    *left = left.and_then(|left| left.checked_sub(producers.len()));
    if left.is_none() {
        let refusal = Refusal::request(format!(
            "A request may ask for at most {PRODUCERS_SHOWN_MAX} producers: ask in parts"
        ));
        return answer
            .with_error_code(refusal.code.code())
            .with_error_message(refusal.message());
    }
    let states = producers.iter().map(|producer| {
        ProducerState::default()
            .with_producer_id(producer.id.into())
            .with_producer_epoch(producer.epoch.into())
            .with_last_sequence(producer.last_sequence)
            .with_last_timestamp(producer.last_timestamp)
            .with_coordinator_epoch(producer.coordinator_epoch)
            .with_current_txn_start_offset(producer.txn_start_offset.unwrap_or(-1))
    });
    answer.with_active_producers(states.collect())
}
