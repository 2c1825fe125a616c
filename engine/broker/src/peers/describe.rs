//! DescribeQuorum (KIP-595, KIP-836): the metadata's quorum as its leader sees it. Pure.

use ringmill_replication::partition::NodeId;
use ringmill_replication::quorum::View;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use ringmill_wire::kafka_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use ringmill_wire::{StrBytes, Uuid};

use crate::cluster::image::Image;

/// The topic that Kafka keeps its metadata in, and the only partition of it.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Nobody knows when.
const UNKNOWN_TIME: i64 = -1;

/// Answers for the only partition that has a quorum; as Kafka, all are refused if another is asked
/// for.
pub(super) fn describe_quorum(
    view: &View,
    image: &Image,
    request: &DescribeQuorumRequest,
    version: i16,
) -> DescribeQuorumResponse {
    let is_it = match &request.topics[..] {
        [topic] => match &topic.partitions[..] {
            [partition] => &**topic.topic_name == METADATA_TOPIC && partition.partition_index == 0,
            _ => false,
        },
        _ => false,
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| match is_it {
            true => partition_of(view, image, version),
            false => PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ErrorCode::UnknownTopicOrPartition.code())
                .with_error_message(None),
        });
        TopicData::default()
            .with_topic_name(topic.topic_name.clone())
            .with_partitions(partitions.collect())
    });
    let response = DescribeQuorumResponse::default()
        .with_error_message(None)
        .with_topics(topics.collect());
    match version {
        2.. if is_it => response.with_nodes(nodes(view)),
        _ => response,
    }
}

fn partition_of(view: &View, image: &Image, version: i16) -> PartitionData {
    let replica = |node: NodeId| replica(view, image, node, version);
    // While the voters change, the quorum may hang on those who are in either set: nobody is to count on
    // them as on others.
    let voters = view.voters.iter().copied();
    let voters = voters.filter(|node| view.is_sure_voter(*node));
    let others = view.nodes.keys().copied();
    let observers = others.filter(|node| !view.is_sure_voter(*node));
    PartitionData::default()
        .with_error_message(None)
        .with_leader_id(view.leader.unwrap_or(-1).into())
        .with_leader_epoch(i32::try_from(view.term).unwrap_or(i32::MAX))
        .with_high_watermark(end(view.applied))
        .with_current_voters(voters.map(replica).collect())
        .with_observers(observers.map(replica).collect())
}

fn replica(view: &View, image: &Image, node: NodeId, version: i16) -> ReplicaState {
    let last = match view.leader == Some(node) {
        true => view.last,
        false => view.progress.get(&node).copied().flatten(),
    };
    let state = ReplicaState::default()
        .with_replica_id(node.into())
        .with_log_end_offset(end(last));
    let state = match version {
        0 => state,
        _ => state
            .with_last_fetch_timestamp(UNKNOWN_TIME)
            .with_last_caught_up_timestamp(UNKNOWN_TIME),
    };
    let folder = image.nodes().get(&node).map(|state| state.folder);
    match version {
        2.. => state.with_replica_directory_id(folder.map_or(Uuid::nil(), Uuid::from_u128)),
        _ => state,
    }
}

/// The offset behind an entry; -1 if that is not known.
fn end(last: Option<u64>) -> i64 {
    let end = last.map(|last| i64::try_from(last).unwrap_or(i64::MAX - 1) + 1);
    end.unwrap_or(-1)
}

fn nodes(view: &View) -> Vec<Node> {
    let nodes = view.nodes.iter().map(|(node, address)| {
        let listener = Listener::default()
            .with_name(StrBytes::from_static_str("PLAINTEXT"))
            .with_host(StrBytes::from_string(address.host.clone()))
            .with_port(address.port);
        Node::default()
            .with_node_id((*node).into())
            .with_listeners(vec![listener])
    });
    nodes.collect()
}

#[cfg(test)]
mod tests {
    use ringmill_replication::quorum::Address;
    use ringmill_wire::kafka_protocol::messages::describe_quorum_request as request;

    use super::*;
    use crate::config::BrokerConfig;

    fn view() -> View {
        let address = Address {
            host: "h".to_owned(),
            port: 9,
        };
        View {
            term: 4,
            leader: Some(1),
            applied: Some(6),
            last: Some(7),
            voters: [1, 2, 3].into(),
            majorities: vec![[1, 2, 3].into()],
            nodes: (1..=4).map(|node| (node, address.clone())).collect(),
            progress: [(1, Some(7)), (2, Some(5)), (4, Some(0))].into(),
            is_stuck: false,
        }
    }

    fn ask(topic: &str, partition: i32) -> DescribeQuorumRequest {
        let partition = request::PartitionData::default().with_partition_index(partition);
        let topic = request::TopicData::default()
            .with_topic_name(StrBytes::from_string(topic.to_owned()).into())
            .with_partitions(vec![partition]);
        DescribeQuorumRequest::default().with_topics(vec![topic])
    }

    #[test]
    fn nobody_is_a_voter_who_is_none_before_or_after_a_change() {
        let image = Image::new(&BrokerConfig::default());
        let view = View {
            majorities: vec![[1, 3].into(), [1, 2, 3].into()],
            ..view()
        };
        assert_eq!(view.unfinished_change(), Some(&[1, 2, 3].into()));
        let answer = describe_quorum(&view, &image, &ask(METADATA_TOPIC, 0), 2);
        let part = &answer.topics[0].partitions[0];
        let ids = |of: &[ReplicaState]| -> Vec<i32> { of.iter().map(|r| *r.replica_id).collect() };
        assert_eq!(ids(&part.current_voters), [1, 3]);
        assert_eq!(ids(&part.observers), [2, 4]);
    }

    #[test]
    fn each_member_is_told_with_how_far_it_is() {
        let image = Image::new(&BrokerConfig::default());
        for version in 0..=2 {
            let answer = describe_quorum(&view(), &image, &ask(METADATA_TOPIC, 0), version);
            let part = &answer.topics[0].partitions[0];
            assert_eq!(
                (*part.leader_id, part.leader_epoch, part.high_watermark),
                (1, 4, 7)
            );
            let ends = |states: &[ReplicaState]| -> Vec<(i32, i64)> {
                let ends = states.iter().map(|s| (*s.replica_id, s.log_end_offset));
                ends.collect()
            };
            assert_eq!(ends(&part.current_voters), [(1, 8), (2, 6), (3, -1)]);
            assert_eq!(ends(&part.observers), [(4, 1)]);
            assert_eq!(answer.nodes.len(), if version == 2 { 4 } else { 0 });
        }
    }

    #[test]
    fn nothing_else_has_a_quorum() {
        let image = Image::new(&BrokerConfig::default());
        for (topic, partition) in [("t", 0), (METADATA_TOPIC, 1)] {
            let answer = describe_quorum(&view(), &image, &ask(topic, partition), 2);
            let code = ErrorCode::UnknownTopicOrPartition.code();
            assert_eq!(answer.topics[0].partitions[0].error_code, code);
        }
    }
}
