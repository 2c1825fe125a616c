//! AlterPartition (KIP-497): a partition's leader says who is in sync. Pure; the checks are Kafka's, in
//! its order (`ReplicationControlManager.validateAlterPartitionData`).

use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::PartitionState;
use ringmill_wire::Uuid;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_request::PartitionData as Wanted;
use ringmill_wire::kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionRequest, AlterPartitionResponse, BrokerId,
};

use super::command::Command;
use super::image::Image;
use super::members::change_of;

/// The codes of a partition that is recovered from an unclean election, and one that is not.
const RECOVERED: i8 = 0;
const RECOVERING: i8 = 1;

/// Whether a node has no room for more of its copy of a partition.
pub type HasNoRoom<'a> = &'a dyn Fn(NodeId, (Uuid, i32)) -> bool;

/// The answer to a leader, and the commands that follow.
pub fn alter_partitions(
    image: &Image,
    request: &AlterPartitionRequest,
    has_no_room: HasNoRoom<'_>,
) -> (AlterPartitionResponse, Vec<Command>) {
    let leader = *request.broker_id;
    let epoch = image.nodes().get(&leader).map(|node| node.epoch);
    if epoch != Some(request.broker_epoch) {
        let code = ErrorCode::StaleBrokerEpoch.code();
        return (
            AlterPartitionResponse::default().with_error_code(code),
            Vec::new(),
        );
    }
    let mut commands = Vec::new();
    let topics = request.topics.iter().map(|topic| {
        let mut changed: Vec<(i32, PartitionState)> = Vec::new();
        let partitions = topic.partitions.iter().map(|wanted| {
            let index = wanted.partition_index;
            // The second of two for one partition goes by what the first has not made yet.
            let is_again = changed.iter().any(|(number, _)| *number == index);
            let altered = match is_again {
                true => Err(ErrorCode::InvalidRequest),
                false => alter(image, leader, topic.topic_id, wanted, has_no_room),
            };
            let answer = PartitionData::default().with_partition_index(index);
            match altered {
                Err(code) => answer.with_error_code(code.code()),
                Ok(next) => {
                    let answer = match next.leader == Some(leader) {
                        true => told(answer, &next),
                        // A reassignment has ended, and another leads from now on.
                        false => answer.with_error_code(ErrorCode::NewLeaderElected.code()),
                    };
                    changed.push((index, next));
                    answer
                }
            }
        });
        let answer = TopicData::default()
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.collect());
        if !changed.is_empty() {
            commands.push(Command::SetPartitions {
                topic: topic.topic_id,
                partitions: changed,
            });
        }
        answer
    });
    let response = AlterPartitionResponse::default().with_topics(topics.collect());
    (response, commands)
}

fn told(answer: PartitionData, state: &PartitionState) -> PartitionData {
    answer
        .with_leader_id(state.leader.unwrap_or(-1).into())
        .with_leader_epoch(state.leader_epoch)
        .with_isr(state.isr.iter().copied().map(BrokerId).collect())
        .with_leader_recovery_state(if state.is_recovering {
            RECOVERING
        } else {
            RECOVERED
        })
        .with_partition_epoch(state.partition_epoch)
}

/// The partition as its leader wants it.
fn alter(
    image: &Image,
    leader: NodeId,
    topic: Uuid,
    wanted: &Wanted,
    has_no_room: HasNoRoom<'_>,
) -> Result<PartitionState, ErrorCode> {
    let topic = image.topic_by_id(topic).ok_or(ErrorCode::UnknownTopicId)?;
    let state = topic.partition(wanted.partition_index);
    let state = state.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let isr: Vec<NodeId> = wanted
        .new_isr_with_epochs
        .iter()
        .map(|r| *r.broker_id)
        .collect();
    // The leader knows more than we do: another leads the quorum.
    if wanted.leader_epoch > state.leader_epoch || wanted.partition_epoch > state.partition_epoch {
        return Err(ErrorCode::NotController);
    }
    if wanted.leader_epoch < state.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if state.leader != Some(leader) {
        return Err(ErrorCode::InvalidRequest);
    }
    if wanted.partition_epoch < state.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    let is_twice = |at: usize| isr[..at].contains(&isr[at]);
    let is_sound = isr.iter().all(|node| state.replicas.contains(node)) && isr.contains(&leader);
    if !is_sound || (0..isr.len()).any(is_twice) {
        return Err(ErrorCode::InvalidRequest);
    }
    let recovers = match wanted.leader_recovery_state {
        RECOVERED => false,
        RECOVERING if isr.len() == 1 && state.is_recovering => true,
        _ => return Err(ErrorCode::InvalidRequest),
    };
    let is_eligible = |(node, epoch): (NodeId, i64)| {
        // -1: the follower does not say
        let is_same = epoch == -1 || image.nodes().get(&node).is_some_and(|n| n.epoch == epoch);
        let id = (topic.id, wanted.partition_index);
        image.is_usable(node) && is_same && !has_no_room(node, id)
    };
    // Who is in sync already is not let in: that it leaves is the cluster's to decide, and a leader that
    // is about to stop may be the only one.
    let replicas = wanted.new_isr_with_epochs.iter();
    let mut joining = replicas.filter(|replica| !state.isr.contains(&*replica.broker_id));
    if !joining.all(|replica| is_eligible((*replica.broker_id, replica.broker_epoch))) {
        return Err(ErrorCode::IneligibleReplica);
    }
    let may_lead = |node: NodeId| node == leader || image.is_usable(node);
    let change = change_of(topic, state, &may_lead).isr(isr);
    let change = if recovers { change } else { change.recovered() };
    Ok(change
        .build()
        .expect("an ISR that is said begins a partition epoch"))
}

#[cfg(test)]
#[path = "isr_test.rs"]
mod tests;
