//! DescribeTopicPartitions (KIP-966): topics by name in pages of so many partitions; a cursor says
//! where the next page begins.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_request::Cursor as AskedCursor;
use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use ringmill_wire::kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
};
use ringmill_wire::topic::check_topic_name;

use super::cluster::TOPIC_OPERATIONS;
use super::replicas::{ids, leader_error, leader_id, offline};
use crate::cluster::image::{Image, Topic, is_internal};

/// Partitions in one answer, at most (Kafka's `max.request.partition.size.limit`).
const PARTITIONS_MAX: i32 = 2000;

/// Answers DescribeTopicPartitions.
pub fn describe_topic_partitions(
    image: &Image,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (from, first) = match &request.cursor {
        None => ("", 0),
        Some(cursor) if cursor.partition_index < 0 || !is_asked(request, cursor) => {
            return refused(request);
        }
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
    };
    let all = request.topics.is_empty();
    // in the order of their names, each once
    let wanted: BTreeMap<&str, Option<&Arc<Topic>>> = if all {
        let topics = image.topics();
        topics.map(|topic| (&*topic.name, Some(topic))).collect()
    } else {
        let names = request.topics.iter().map(|topic| topic.name.as_str());
        names.map(|name| (name, image.topic(name))).collect()
    };
    let mut page = Page {
        image,
        left: request.response_partition_limit.clamp(1, PARTITIONS_MAX),
        topics: Vec::new(),
    };
    let mut next = None;
    for (name, topic) in wanted.range(from..) {
        let first = if *name == from { first } else { 0 };
        next = page.add(name, topic.map(|topic| &**topic), first);
        if next.is_some() {
            break;
        }
    }
    DescribeTopicPartitionsResponse::default()
        .with_topics(page.topics)
        .with_next_cursor(next)
}

/// Whether a cursor's topic is one of those that are asked for.
fn is_asked(request: &DescribeTopicPartitionsRequest, cursor: &AskedCursor) -> bool {
    let mut topics = request.topics.iter();
    request.topics.is_empty() || topics.any(|topic| topic.name == cursor.topic_name)
}

/// The answer to a cursor that no answer has given; topic by topic, for want of another field.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

/// An answer in work.
struct Page<'a> {
    image: &'a Image,
    /// Partitions that still fit.
    left: i32,
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
}

impl Page<'_> {
    /// Adds a topic from a partition on, as far as it fits. Returns where it goes on.
    fn add(&mut self, name: &str, topic: Option<&Topic>, first: i32) -> Option<Cursor> {
        let cursor = |partition| {
            let name = StrBytes::from_string(name.to_owned());
            Cursor::default()
                .with_topic_name(name.into())
                .with_partition_index(partition)
        };
        if self.left == 0 {
            return Some(cursor(0));
        }
        let Some(topic) = topic else {
            self.topics.push(missing(name));
            return None;
        };
        let end = topic.count().min(first.saturating_add(self.left));
        let image = self.image;
        let partitions = (first..end).filter_map(|index| {
            let state = topic.partition(index)?;
            let found = DescribeTopicPartitionsResponsePartition::default()
                .with_error_code(leader_error(state).code())
                .with_partition_index(index)
                .with_leader_id(leader_id(state))
                .with_leader_epoch(state.leader_epoch)
                .with_replica_nodes(ids(&state.replicas))
                .with_isr_nodes(ids(&state.isr))
                .with_eligible_leader_replicas(Some(ids(&state.elr)))
                .with_last_known_elr(Some(state.last_leader.map(BrokerId).into_iter().collect()))
                .with_offline_replicas(offline(image, state));
            Some(found)
        });
        self.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic.name.clone().into()))
                .with_topic_id(topic.id)
                .with_is_internal(topic.is_internal())
                .with_partitions(partitions.collect())
                .with_topic_authorized_operations(TOPIC_OPERATIONS),
        );
        self.left -= (end - first).max(0);
        (end < topic.count()).then(|| cursor(end.max(first)))
    }
}

fn missing(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopic,
    };
    let shown = StrBytes::from_string(name.to_owned());
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_name(Some(shown.into()))
        .with_is_internal(is_internal(name))
        .with_topic_authorized_operations(TOPIC_OPERATIONS)
}

#[cfg(test)]
mod tests {
    use ringmill_wire::kafka_protocol::messages::describe_topic_partitions_request::{
        Cursor as From, TopicRequest,
    };

    use super::super::lab::{Lab, named, seen};
    use super::*;

    fn ask(
        lab: &Lab,
        names: &[&str],
        limit: i32,
        from: Option<(&str, i32)>,
    ) -> DescribeTopicPartitionsResponse {
        let topics = names
            .iter()
            .map(|name| TopicRequest::default().with_name(named(name)));
        let cursor = from.map(|(name, partition)| {
            From::default()
                .with_topic_name(named(name))
                .with_partition_index(partition)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let response = describe_topic_partitions(&lab.image, &request);
        seen::<DescribeTopicPartitionsRequest>(0, &response)
    }

    /// A topic with its error and partitions.
    type Shown = (String, i16, Vec<i32>);

    /// What a page shows, and where the next one begins.
    fn shown(response: &DescribeTopicPartitionsResponse) -> (Vec<Shown>, Option<(String, i32)>) {
        let topics = response.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| p.partition_index);
            let name = topic.name.as_ref().unwrap().to_string();
            (name, topic.error_code, partitions.collect())
        });
        let next = response.next_cursor.as_ref();
        let next = next.map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    #[test]
    fn pages_of_any_size_show_every_partition_once() {
        let mut lab = Lab::new(&[]);
        for (name, partitions) in [("b", 4), ("a", 3), ("c", 1)] {
            lab.topic(name, partitions);
        }
        for names in [&[][..], &["c", "a", "b", "a"]] {
            for limit in 1..10 {
                let (mut found, mut from) = (Vec::new(), None::<(String, i32)>);
                loop {
                    let asked = from.as_ref().map(|(name, at)| (name.as_str(), *at));
                    let (topics, next) = shown(&ask(&lab, names, limit, asked));
                    let here = topics
                        .iter()
                        .flat_map(|(name, _, parts)| parts.iter().map(move |p| (name.clone(), *p)));
                    let here: Vec<_> = here.collect();
                    assert!(here.len() <= limit as usize);
                    found.extend(here);
                    from = next;
                    if from.is_none() {
                        break;
                    }
                }
                let all = [("a", 3), ("b", 4), ("c", 1)];
                let all = all
                    .iter()
                    .flat_map(|(name, n)| (0..*n).map(|p| (name.to_string(), p)));
                assert!(found.into_iter().eq(all), "limit {limit}");
            }
        }
    }

    #[test]
    fn what_is_not_there_is_told_and_a_cursor_that_nobody_gave_is_refused() {
        let mut lab = Lab::new(&[]);
        let id = lab.topic("here", 1);
        let response = ask(&lab, &["gone", "no/name", "here"], 2000, None);
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let invalid = ErrorCode::InvalidTopic.code();
        let expected = [
            ("gone".to_owned(), unknown, vec![]),
            ("here".to_owned(), 0, vec![0]),
            ("no/name".to_owned(), invalid, vec![]),
        ];
        assert_eq!(shown(&response), (expected.to_vec(), None));
        let here = &response.topics[1];
        assert_eq!(
            (here.topic_id, here.topic_authorized_operations),
            (id, TOPIC_OPERATIONS)
        );
        assert_eq!(here.partitions[0].leader_id.0, 7);
        // past the end of a topic that has shrunk by being made anew
        let (topics, next) = shown(&ask(&lab, &["here"], 5, Some(("here", 9))));
        assert_eq!((topics, next), (vec![("here".to_owned(), 0, vec![])], None));
        let (topics, next) = shown(&ask(&lab, &["here"], 5, Some(("here", -1))));
        let refused = ErrorCode::InvalidRequest.code();
        assert_eq!(
            (topics, next),
            (vec![("here".to_owned(), refused, vec![])], None)
        );
    }
}
