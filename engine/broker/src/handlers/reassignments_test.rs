//! Copies move as Kafka moves them.

use ringmill_wire::StrBytes;
use ringmill_wire::kafka_protocol::messages::BrokerId;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::ReassignableTopic;
use ringmill_wire::kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;

use super::super::lab::Lab;
use super::*;

/// One partition to move; without nodes, its reassignment is cancelled.
fn wanted(index: i32, nodes: Option<&[NodeId]>) -> ReassignablePartition {
    let nodes = nodes.map(|nodes| nodes.iter().copied().map(BrokerId).collect());
    ReassignablePartition::default()
        .with_partition_index(index)
        .with_replicas(nodes)
}

fn request(topic: &str, wanted: Vec<ReassignablePartition>) -> AlterPartitionReassignmentsRequest {
    let topic = ReassignableTopic::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_partitions(wanted);
    AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
}

/// Alters, applies, and gives each partition's code and words.
fn alter(lab: &mut Lab, request: &AlterPartitionReassignmentsRequest) -> Vec<(ErrorCode, String)> {
    let (response, commands) = alter_partition_reassignments(&lab.image, request);
    lab.apply(&commands);
    let answers = response
        .responses
        .into_iter()
        .flat_map(|topic| topic.partitions);
    let told = answers.map(|part| {
        let code = ErrorCode::from_code(part.error_code).unwrap();
        (
            code,
            part.error_message
                .map_or_else(String::new, |m| m.to_string()),
        )
    });
    told.collect()
}

fn code(lab: &mut Lab, index: i32, nodes: Option<&[NodeId]>) -> ErrorCode {
    alter(lab, &request("t", vec![wanted(index, nodes)]))[0].0
}

/// What goes on: topic, index, replicas, adding, removing.
fn list(lab: &Lab, topics: Option<Vec<(&str, Vec<i32>)>>) -> Vec<String> {
    let topics = topics.map(|topics| {
        let topics = topics.into_iter().map(|(name, indexes)| {
            ListPartitionReassignmentsTopics::default()
                .with_name(StrBytes::from_string(name.to_owned()).into())
                .with_partition_indexes(indexes)
        });
        topics.collect()
    });
    let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
    let listed = list_partition_reassignments(&lab.image, &request);
    let nodes = |nodes: &[BrokerId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let mut shown = Vec::new();
    for topic in listed.topics {
        for part in &topic.partitions {
            shown.push(format!(
                "{}-{} {:?} +{:?} -{:?}",
                &*topic.name,
                part.partition_index,
                nodes(&part.replicas),
                nodes(&part.adding_replicas),
                nodes(&part.removing_replicas)
            ));
        }
    }
    shown
}

fn lab() -> Lab {
    Lab::with_nodes(&[1, 2, 3, 4, 5], "t", &[&[1, 2, 3], &[2, 3, 1]])
}

#[test]
fn copies_move_when_those_to_come_are_in_sync() {
    let mut lab = lab();
    assert_eq!(code(&mut lab, 0, Some(&[4, 5, 3])), ErrorCode::None);
    let expected = ["t-0 [4, 5, 3, 1, 2] +[4, 5] -[1, 2]"];
    assert_eq!(list(&lab, None), expected);
    assert_eq!(list(&lab, Some(vec![("t", vec![1, 0, 9])])), expected);
    assert!(list(&lab, Some(vec![("t", vec![1]), ("x", vec![0])])).is_empty());
    let state = lab.partition("t", 0);
    assert_eq!((state.leader, state.leader_epoch), (Some(1), 0));

    lab.set_isr("t", 0, &[1, 2, 3, 4]);
    assert_eq!(list(&lab, None), expected);
    lab.set_isr("t", 0, &[1, 2, 3, 4, 5]);
    assert!(list(&lab, None).is_empty());
    let state = lab.partition("t", 0);
    assert_eq!(state.replicas, [4, 5, 3]);
    assert_eq!((state.leader, state.leader_epoch), (Some(4), 1));
}

#[test]
fn what_goes_on_is_taken_back_or_replaced() {
    let mut lab = lab();
    let nothing = alter(&mut lab, &request("t", vec![wanted(0, None)]));
    assert_eq!(nothing[0].0, ErrorCode::NoReassignmentInProgress);
    assert_eq!(nothing[0].1, "No partition reassignment is in progress.");
    assert_eq!(code(&mut lab, 0, Some(&[4, 2, 3])), ErrorCode::None);
    assert_eq!(code(&mut lab, 0, Some(&[5, 2, 3])), ErrorCode::None);
    assert_eq!(list(&lab, None), ["t-0 [5, 2, 3, 1, 4] +[5] -[1, 4]"]);
    assert_eq!(code(&mut lab, 0, None), ErrorCode::None);
    let state = lab.partition("t", 0);
    assert_eq!(
        (&state.replicas[..], state.leader),
        (&[2, 3, 1][..], Some(1))
    );
    assert!(list(&lab, None).is_empty());
}

/// Another order of the same nodes is another preferred leader, at once.
#[test]
fn an_order_changes_at_once_and_what_is_so_is_no_change() {
    let mut lab = lab();
    assert_eq!(code(&mut lab, 0, Some(&[3, 1, 2])), ErrorCode::None);
    assert!(list(&lab, None).is_empty());
    assert_eq!(lab.partition("t", 0).replicas, [3, 1, 2]);
    let version = lab.image.version;
    assert_eq!(code(&mut lab, 0, Some(&[3, 1, 2])), ErrorCode::None);
    assert_eq!(lab.image.version, version);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut lab = lab();
    let cases: [(&str, i32, &[NodeId], ErrorCode, &str); 6] = [
        (
            "x",
            0,
            &[1],
            ErrorCode::UnknownTopicOrPartition,
            "a topic named x.",
        ),
        (
            "t",
            2,
            &[1],
            ErrorCode::UnknownTopicOrPartition,
            "partition t:2.",
        ),
        (
            "t",
            -1,
            &[1],
            ErrorCode::UnknownTopicOrPartition,
            "partition t:-1.",
        ),
        (
            "t",
            0,
            &[],
            ErrorCode::InvalidReplicaAssignment,
            "an empty replica list",
        ),
        (
            "t",
            0,
            &[9, 1],
            ErrorCode::InvalidReplicaAssignment,
            "broker 9, but no such broker",
        ),
        (
            "t",
            0,
            &[1, 2, 1],
            ErrorCode::InvalidReplicaAssignment,
            "broker 1 more than once",
        ),
    ];
    for (topic, index, nodes, code, words) in cases {
        let told = alter(&mut lab, &request(topic, vec![wanted(index, Some(nodes))]));
        assert_eq!(told[0].0, code, "{nodes:?}");
        assert!(told[0].1.contains(words), "{}", told[0].1);
    }
    let twice = vec![
        wanted(0, Some(&[4])),
        wanted(0, Some(&[5])),
        wanted(1, Some(&[5])),
    ];
    let told = alter(&mut lab, &request("t", twice));
    let codes: Vec<ErrorCode> = told.into_iter().map(|(code, _)| code).collect();
    assert_eq!(
        codes,
        [ErrorCode::None, ErrorCode::InvalidRequest, ErrorCode::None]
    );
}

/// KIP-860: who wants to move copies does not change their number by mistake.
#[test]
fn the_number_of_copies_stays_if_the_client_says_so() {
    let mut lab = lab();
    let mut alter_to = |nodes: &[NodeId], may_resize| {
        let request = request("t", vec![wanted(0, Some(nodes))]);
        let request = request.with_allow_replication_factor_change(may_resize);
        alter(&mut lab, &request).remove(0)
    };
    let (code, words) = alter_to(&[4, 5], false);
    assert_eq!(code, ErrorCode::InvalidReplicationFactor);
    assert_eq!(words, "The replication factor is changed from 3 to 2");
    assert_eq!(alter_to(&[4, 2, 3], false).0, ErrorCode::None);
    assert_eq!(alter_to(&[4, 5], true).0, ErrorCode::None);
    // It counts where it is headed for.
    assert_eq!(alter_to(&[1, 2], false).0, ErrorCode::None);
    assert_eq!(
        alter_to(&[1, 2, 3], false).0,
        ErrorCode::InvalidReplicationFactor
    );
}

#[test]
fn the_only_copy_is_given_up_only_by_explicit_setting() {
    let mut lab = lab();
    assert_eq!(code(&mut lab, 0, Some(&[4])), ErrorCode::None);
    lab.set_state("t", 0, |state| {
        state.isr = vec![4];
        state.leader = Some(4);
    });
    let (code, words) = alter(&mut lab, &request("t", vec![wanted(0, None)])).remove(0);
    assert_eq!(code, ErrorCode::InvalidReplicaAssignment);
    assert!(
        words.contains("require an unclean leader election"),
        "{words}"
    );
    lab.configure("t", "unclean.leader.election.enable", "true");
    let (code, _) = alter(&mut lab, &request("t", vec![wanted(0, None)])).remove(0);
    assert_eq!(code, ErrorCode::None);
    let state = lab.partition("t", 0);
    assert_eq!((state.leader, state.is_recovering), (Some(1), true));
}
