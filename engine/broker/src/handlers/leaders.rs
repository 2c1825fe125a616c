//! Who leads now, as a client is told that has come to another node (KIP-951): it need not ask for
//! metadata before it tries again. Pure.

use std::collections::BTreeMap;

use ringmill_replication::partition::NodeId;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::fetch::FetchedTopic;
use ringmill_wire::leader::{CurrentLeader, NodeEndpoint};
use ringmill_wire::produce::ProduceResponse;
use ringmill_wire::topic::TopicRef;

use crate::cluster::image::{Image, Topic};

/// From here on answers to Fetch say where leaders are; who they are, some of those before could say
/// as well, but as Kafka they do not.
pub(super) const FIRST_FETCH: i16 = 16;

/// Tells of each batch that came to the wrong node who leads; of versions that do not know it, the
/// encoder leaves it out.
pub(super) fn tell_produced(image: &Image, response: &mut ProduceResponse) {
    let mut nodes = Nodes::default();
    for topic in &mut response.topics {
        let wrong = |code| code == ErrorCode::NotLeaderOrFollower.code();
        let parts = topic.partitions.iter_mut();
        for part in parts.filter(|part| wrong(part.error_code)) {
            part.current_leader = nodes.leader(image, &topic.topic, part.index);
        }
    }
    response.node_endpoints = nodes.endpoints();
}

/// The same of what was to be fetched; gives where the nodes are.
pub(super) fn tell_fetched(image: &Image, topics: &mut [FetchedTopic<usize>]) -> Vec<NodeEndpoint> {
    let wrong = [
        ErrorCode::NotLeaderOrFollower.code(),
        ErrorCode::FencedLeaderEpoch.code(),
    ];
    let mut nodes = Nodes::default();
    for topic in topics {
        let parts = topic.partitions.iter_mut();
        for part in parts.filter(|part| wrong.contains(&part.error_code)) {
            part.current_leader = nodes.leader(image, &topic.topic, part.partition);
        }
    }
    nodes.endpoints()
}

/// The nodes that an answer names.
#[derive(Default)]
struct Nodes(BTreeMap<NodeId, NodeEndpoint>);

impl Nodes {
    /// Who leads a partition, if that is another node and it is up.
    fn leader(&mut self, image: &Image, topic: &TopicRef, index: i32) -> Option<CurrentLeader> {
        let topic: &Topic = match topic {
            TopicRef::Name(name) => image.topic(name)?,
            TopicRef::Id(id) => image.topic_by_id(*id)?,
        };
        let state = topic.partition(index)?;
        let leader = state.leader.filter(|node| *node != image.node_id)?;
        let node = image.nodes().get(&leader)?;
        self.0.entry(leader).or_insert_with(|| NodeEndpoint {
            node_id: leader,
            host: StrBytes::from_string(node.address.host.clone()),
            port: node.address.port.into(),
            rack: node.rack.clone().map(StrBytes::from_string),
        });
        Some(CurrentLeader {
            leader_id: leader,
            leader_epoch: state.leader_epoch,
        })
    }

    fn endpoints(self) -> Vec<NodeEndpoint> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use ringmill_replication::nodes::NodeState;
    use ringmill_replication::partition::state::PartitionState;
    use ringmill_replication::quorum::Address;
    use ringmill_wire::Uuid;
    use ringmill_wire::produce::{ProducedPartition, ProducedTopic};

    use super::*;
    use crate::cluster::command::Command;
    use crate::config::{BrokerConfig, Overrides};

    /// Node 1 as it sees a topic of two partitions, which nodes 2 and 1 lead.
    fn image() -> Image {
        let config = BrokerConfig::from_pairs([("node.id", "1")]).unwrap();
        let mut image = Image::alone(&config);
        let address = Address {
            host: "10.0.0.2".to_owned(),
            port: 19092,
        };
        let state = NodeState {
            epoch: 5,
            folder: 2,
            address,
            rack: Some("b".to_owned()),
            supported: Default::default(),
            is_fenced: false,
            is_stopping: false,
        };
        let led_by = |replicas: Vec<NodeId>| PartitionState {
            leader_epoch: 7,
            ..PartitionState::new(replicas, |_| true)
        };
        let create = Command::CreateTopic {
            id: Uuid::from_u128(9),
            name: "t".to_owned(),
            partitions: vec![led_by(vec![2, 1]), led_by(vec![1, 2])],
            overrides: Overrides::new(),
        };
        for command in [Command::SetNode { node: 2, state }, create] {
            image.apply(&config, &command).unwrap();
        }
        image
    }

    fn produced(index: i32, code: ErrorCode) -> ProducedPartition {
        ProducedPartition::failed(index, code.code())
    }

    #[test]
    fn whoever_comes_to_the_wrong_node_is_told_the_right_one() {
        let wrong = ErrorCode::NotLeaderOrFollower;
        let mut response = ProduceResponse {
            topics: vec![ProducedTopic {
                topic: TopicRef::Name(StrBytes::from_static_str("t")),
                partitions: vec![
                    produced(0, wrong),
                    produced(1, wrong),
                    produced(2, wrong),
                    produced(0, ErrorCode::NotEnoughReplicas),
                ],
            }],
            ..ProduceResponse::default()
        };
        tell_produced(&image(), &mut response);
        let told: Vec<Option<CurrentLeader>> = response.topics[0]
            .partitions
            .iter()
            .map(|part| part.current_leader)
            .collect();
        let leader = CurrentLeader {
            leader_id: 2,
            leader_epoch: 7,
        };
        // This node itself is no news, and of what does not exist nothing is known.
        assert_eq!(told, [Some(leader), None, None, None]);
        assert_eq!(response.node_endpoints.len(), 1);
        let there = &response.node_endpoints[0];
        assert_eq!(
            (there.node_id, &*there.host, there.port),
            (2, "10.0.0.2", 19092)
        );
        assert_eq!(there.rack.as_deref(), Some("b"));
    }
}
