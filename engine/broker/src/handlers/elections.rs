//! ElectLeaders (KIP-183, KIP-460): elections on demand. Pure; the rules and words are those of
//! Kafka's `ReplicationControlManager`.

use ringmill_replication::partition::NodeId;
use ringmill_replication::partition::state::Election;
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::elect_leaders_response::{
    PartitionResult, ReplicaElectionResult,
};
use ringmill_wire::kafka_protocol::messages::{
    ElectLeadersRequest, ElectLeadersResponse, TopicName,
};

use super::refusal::Refusal;
use crate::cluster::changes::Changes;
use crate::cluster::command::Command;
use crate::cluster::image::Image;
use crate::cluster::members::change_of;

/// The election types on the wire.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

/// Answers ElectLeaders: of some partitions, or of all that there are.
pub fn elect_leaders(
    image: &Image,
    request: &ElectLeadersRequest,
) -> (ElectLeadersResponse, Vec<Command>) {
    let election = match request.election_type {
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        other => {
            let refusal = Refusal::request(format!("Unknown election type {other}"));
            let response = elect_leaders_failed(request, refusal.code, refusal.message());
            return (response, Vec::new());
        }
    };
    let mut changes = Changes::default();
    let mut elect = |name: &TopicName, index: i32| {
        let elected = elect_leader(image, name, index, election, &mut changes);
        let (code, message) = match elected {
            Ok(()) => (ErrorCode::None, None),
            Err(refusal) => (refusal.code, refusal.message()),
        };
        PartitionResult::default()
            .with_partition_id(index)
            .with_error_code(code.code())
            .with_error_message(message)
    };
    let results: Vec<ReplicaElectionResult> = match &request.topic_partitions {
        Some(topics) => {
            let results = topics.iter().map(|topic| {
                let elected = topic
                    .partitions
                    .iter()
                    .map(|index| elect(&topic.topic, *index));
                result(&topic.topic, elected.collect())
            });
            results.collect()
        }
        None => {
            let mut topics: Vec<_> = image.topics().collect();
            topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let results = topics.into_iter().map(|topic| {
                let name: TopicName = topic.name.clone().into();
                let elected = (0..topic.count()).map(|index| elect(&name, index));
                // Those that have the leader that they are to have are not told of.
                let needed =
                    |part: &PartitionResult| part.error_code != ErrorCode::ElectionNotNeeded.code();
                result(&name, elected.filter(needed).collect())
            });
            results.collect()
        }
    };
    let response = ElectLeadersResponse::default().with_replica_election_results(results);
    (response, changes.commands())
}

fn result(topic: &TopicName, partitions: Vec<PartitionResult>) -> ReplicaElectionResult {
    ReplicaElectionResult::default()
        .with_topic(topic.clone())
        .with_partition_result(partitions)
}

fn elect_leader(
    image: &Image,
    name: &str,
    index: i32,
    election: Election,
    changes: &mut Changes,
) -> Result<(), Refusal> {
    let missing = |what: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, what);
    let topic = image
        .topic(name)
        .ok_or_else(|| missing(format!("No such topic as {name}")))?;
    let state = topic
        .partition(index)
        .ok_or_else(|| missing(format!("No such partition as {name}-{index}")))?;
    let not_needed = Refusal::new(
        ErrorCode::ElectionNotNeeded,
        "Leader election not needed for topic partition.",
    );
    let is_done = match election {
        Election::Unclean => state.leader.is_some(),
        _ => state.is_preferred_leader(),
    };
    // The second of two for one partition finds it done.
    if is_done || changes.contains(topic.id, index) {
        return Err(not_needed);
    }
    let may_lead = |node: NodeId| image.is_usable(node);
    let change = change_of(topic, state, &may_lead).election(election);
    let Some(next) = change.build() else {
        return Err(match election {
            Election::Unclean => Refusal::new(
                ErrorCode::EligibleLeadersNotAvailable,
                "Eligible topic partition leaders are not available.",
            ),
            _ => Refusal::new(
                ErrorCode::PreferredLeaderNotAvailable,
                "The preferred leader was not available.",
            ),
        });
    };
    Ok(changes.add(topic.id, index, next)?)
}

/// An answer to ElectLeaders of which nothing counts.
pub fn elect_leaders_failed(
    request: &ElectLeadersRequest,
    code: ErrorCode,
    message: Option<StrBytes>,
) -> ElectLeadersResponse {
    let topics = request.topic_partitions.iter().flatten();
    let results = topics.map(|topic| {
        let failed = topic.partitions.iter().map(|index| {
            PartitionResult::default()
                .with_partition_id(*index)
                .with_error_code(code.code())
                .with_error_message(message.clone())
        });
        result(&topic.topic, failed.collect())
    });
    ElectLeadersResponse::default()
        .with_error_code(code.code())
        .with_replica_election_results(results.collect())
}

#[cfg(test)]
#[path = "elections_test.rs"]
mod tests;
