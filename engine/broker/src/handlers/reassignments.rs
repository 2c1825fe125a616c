//! AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860): which nodes have
//! copies. Pure; the rules and words are those of Kafka's `ReplicationControlManager`.

use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::{OnlyCopies, PartitionState};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::ReassignablePartition;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use ringmill_wire::kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use super::refusal::Refusal;
use super::replicas::ids;
use crate::cluster::changes::Changes;
use crate::cluster::command::Command;
use crate::cluster::image::{Image, Topic};
use crate::cluster::members::change_of;
use crate::cluster::topics;

/// Answers AlterPartitionReassignments.
pub fn alter_partition_reassignments(
    image: &Image,
    request: &AlterPartitionReassignmentsRequest,
) -> (AlterPartitionReassignmentsResponse, Vec<Command>) {
    let mut changes = Changes::default();
    let may_resize = request.allow_replication_factor_change;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let altered = alter(image, &topic.name, wanted, may_resize, &mut changes);
            let (code, message) = match altered {
                Ok(()) => (ErrorCode::None, None),
                Err(refusal) => (refusal.code, refusal.message()),
            };
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.code())
                .with_error_message(message)
        });
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    let response = AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_allow_replication_factor_change(may_resize)
        .with_responses(topics.collect());
    (response, changes.commands())
}

fn alter(
    image: &Image,
    name: &str,
    wanted: &ReassignablePartition,
    may_resize: bool,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    let index = wanted.partition_index;
    let missing = |what: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, what);
    let topic = image
        .topic(name)
        .ok_or_else(|| missing(format!("Unable to find a topic named {name}.")))?;
    let state = topic
        .partition(index)
        .ok_or_else(|| missing(format!("Unable to find partition {name}:{index}.")))?;
    if changes.contains(topic.id, index) {
        return Err(Refusal::request("The request names the partition twice."));
    }
    let next = match &wanted.replicas {
        None => cancelled(image, topic, index, state)?,
        Some(nodes) => {
            let target: Vec<NodeId> = nodes.iter().map(|node| node.0).collect();
            reassigned(image, topic, state, &target, may_resize)?
        }
    };
    let Some(next) = next else {
        return Ok(());
    };
    Ok(changes.add(topic.id, index, next)?)
}

/// The partition with its copies on their way; none if they are where they are to be.
fn reassigned(
    image: &Image,
    topic: &Topic,
    state: &PartitionState,
    target: &[NodeId],
    may_resize: bool,
) -> Result<Option<PartitionState>, Refusal> {
    topics::check_assignment(image, target)?;
    let copies = state.target().len();
    if !may_resize && copies != target.len() {
        let to = target.len();
        return Err(Refusal::new(
            ErrorCode::InvalidReplicationFactor,
            format!("The replication factor is changed from {copies} to {to}"),
        ));
    }
    let may_lead = |node: NodeId| image.is_usable(node);
    Ok(change_of(topic, state, &may_lead).reassign(target).build())
}

/// The partition with its copies where they were.
fn cancelled(
    image: &Image,
    topic: &Topic,
    index: i32,
    state: &PartitionState,
) -> Result<Option<PartitionState>, Refusal> {
    if !state.is_reassigning() {
        return Err(Refusal::new(
            ErrorCode::NoReassignmentInProgress,
            "No partition reassignment is in progress.",
        ));
    }
    let may_lead = |node: NodeId| image.is_usable(node);
    let change = change_of(topic, state, &may_lead).cancel_reassignment();
    let change = change.map_err(|OnlyCopies| {
        let name = &topic.name;
        Refusal::new(
            ErrorCode::InvalidReplicaAssignment,
            format!(
                "Unable to revert partition assignment for {name}:{index} because it would require \
                 an unclean leader election."
            ),
        )
    })?;
    Ok(change.build())
}

/// An answer to AlterPartitionReassignments of which nothing counts.
pub fn alter_partition_reassignments_failed(
    request: &AlterPartitionReassignmentsRequest,
    code: ErrorCode,
) -> AlterPartitionReassignmentsResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            ReassignablePartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_error_code(code.code())
                .with_error_message(None)
        });
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    AlterPartitionReassignmentsResponse::default()
        .with_error_code(code.code())
        .with_error_message(None)
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_responses(topics.collect())
}

/// Answers ListPartitionReassignments: what goes on, of all topics or of some partitions.
pub fn list_partition_reassignments(
    image: &Image,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let listed: Vec<OngoingTopicReassignment> = match &request.topics {
        None => {
            let mut topics: Vec<_> = image.topics().collect();
            topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let listed = topics
                .into_iter()
                .map(|topic| ongoing(topic, 0..topic.count()));
            listed.flatten().collect()
        }
        Some(topics) => {
            let found = topics.iter().filter_map(|asked| {
                let topic = image.topic(&asked.name)?;
                ongoing(topic, asked.partition_indexes.iter().copied())
            });
            found.collect()
        }
    };
    ListPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_topics(listed)
}

fn ongoing(topic: &Topic, indexes: impl Iterator<Item = i32>) -> Option<OngoingTopicReassignment> {
    let partitions = indexes.filter_map(|index| {
        let state = topic.partition(index)?;
        state.is_reassigning().then(|| shown(index, state))
    });
    let partitions: Vec<_> = partitions.collect();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(topic.name.clone().into())
            .with_partitions(partitions)
    })
}

/// Who was added by a reassignment that another has taken the place of is on the way out, and no
/// more.
fn shown(index: i32, state: &PartitionState) -> OngoingPartitionReassignment {
    let adding = state.adding.iter().copied();
    let adding: Vec<NodeId> = adding
        .filter(|node| !state.removing.contains(node))
        .collect();
    OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(&state.replicas))
        .with_adding_replicas(ids(&adding))
        .with_removing_replicas(ids(&state.removing))
}

#[cfg(test)]
#[path = "reassignments_test.rs"]
mod tests;
