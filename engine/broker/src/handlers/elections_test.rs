//! Leaders are elected on demand as Kafka elects them.

use ringmill_wire::kafka_protocol::messages::elect_leaders_request::TopicPartitions;

use super::super::lab::Lab;
use super::*;

/// Elects, applies, and gives each partition's number and code.
fn elect(lab: &mut Lab, election: i8, asked: Option<&[(&str, &[i32])]>) -> Vec<(i32, ErrorCode)> {
    let topics = asked.map(|asked| {
        let topics = asked.iter().map(|(topic, partitions)| {
            TopicPartitions::default()
                .with_topic(StrBytes::from_string((*topic).to_owned()).into())
                .with_partitions(partitions.to_vec())
        });
        topics.collect()
    });
    let request = ElectLeadersRequest::default()
        .with_election_type(election)
        .with_topic_partitions(topics);
    let (response, commands) = elect_leaders(&lab.image, &request);
    lab.apply(&commands);
    let results = response.replica_election_results.into_iter();
    let results = results.flat_map(|topic| topic.partition_result);
    results
        .map(|part| {
            (
                part.partition_id,
                ErrorCode::from_code(part.error_code).unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_preferred_leads_if_it_can() {
    let mut lab = Lab::with_nodes(&[1, 2, 3], "t", &[&[1, 2], &[2, 1], &[3, 1]]);
    for index in [0, 2] {
        lab.set_state("t", index, |state| state.leader = Some(state.replicas[1]));
    }
    // 3 is not in sync
    lab.set_state("t", 2, |state| state.isr = vec![1]);
    assert_eq!(
        elect(
            &mut lab,
            PREFERRED,
            Some(&[("t", &[0, 0, 1, 2, 7]), ("x", &[0])])
        ),
        [
            (0, ErrorCode::None),
            (0, ErrorCode::ElectionNotNeeded),
            (1, ErrorCode::ElectionNotNeeded),
            (2, ErrorCode::PreferredLeaderNotAvailable),
            (7, ErrorCode::UnknownTopicOrPartition),
            (0, ErrorCode::UnknownTopicOrPartition),
        ]
    );
    let state = lab.partition("t", 0);
    assert_eq!((state.leader, state.leader_epoch), (Some(1), 1));
    // Of all, those that need none are not told of.
    assert_eq!(
        elect(&mut lab, PREFERRED, None),
        [(2, ErrorCode::PreferredLeaderNotAvailable)]
    );
}

#[test]
fn whoever_is_there_leads_after_an_unclean_election() {
    let mut lab = Lab::with_nodes(&[1, 2, 3], "t", &[&[1, 2], &[2, 1], &[3]]);
    lab.fence(1);
    for index in 0..2 {
        lab.set_state("t", index, |state| {
            state.isr = vec![1];
            state.elr = Vec::new();
            state.leader = None;
        });
    }
    lab.fence(3);
    assert_eq!(
        elect(&mut lab, PREFERRED, Some(&[("t", &[0])])),
        [(0, ErrorCode::PreferredLeaderNotAvailable)]
    );
    assert_eq!(
        elect(&mut lab, UNCLEAN, Some(&[("t", &[0, 2])])),
        [
            (0, ErrorCode::None),
            (2, ErrorCode::EligibleLeadersNotAvailable)
        ]
    );
    let state = lab.partition("t", 0);
    assert_eq!((state.leader, &state.isr[..]), (Some(2), &[2][..]));
    assert!(state.is_recovering);
    assert_eq!(
        elect(&mut lab, UNCLEAN, Some(&[("t", &[0])])),
        [(0, ErrorCode::ElectionNotNeeded)]
    );
}

#[test]
fn a_kind_of_election_that_nobody_knows_is_refused() {
    let lab = Lab::with_nodes(&[1], "t", &[&[1]]);
    let request = ElectLeadersRequest::default().with_election_type(7);
    let (response, commands) = elect_leaders(&lab.image, &request);
    assert_eq!(response.error_code, ErrorCode::InvalidRequest.code());
    assert!(commands.is_empty());
}
