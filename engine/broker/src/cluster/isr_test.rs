//! What a partition's leader may say of its replicas, and what comes of it.

use ringmill_replication::nodes::NodeState;
use ringmill_replication::quorum::Address;
use ringmill_wire::kafka_protocol::messages::alter_partition_request::{
    BrokerState, TopicData as WantedTopic,
};

use super::*;
use crate::config::{BrokerConfig, Overrides};

const TOPIC: Uuid = Uuid::from_u128(7);

/// Nodes 1 to 3, of epochs 11 to 13, the third fenced; a partition that 1 leads, alone in sync.
fn image() -> Image {
    let config = BrokerConfig::default();
    let mut image = Image::new(&config);
    for node in 1..=3 {
        let state = NodeState {
            epoch: 10 + i64::from(node),
            folder: node as u128,
            address: Address {
                host: "h".to_owned(),
                port: node as u16,
            },
            rack: None,
            supported: Default::default(),
            is_fenced: node == 3,
            is_stopping: false,
        };
        image
            .apply(&config, &Command::SetNode { node, state })
            .unwrap();
    }
    let create = Command::CreateTopic {
        id: TOPIC,
        name: "t".to_owned(),
        partitions: vec![PartitionState::new(vec![1, 2, 3], |node| node == 1)],
        overrides: Overrides::new(),
    };
    image.apply(&config, &create).unwrap();
    image
}

fn wanted(isr: &[(i32, i64)]) -> Wanted {
    let isr = isr.iter().map(|(node, epoch)| {
        BrokerState::default()
            .with_broker_id((*node).into())
            .with_broker_epoch(*epoch)
    });
    Wanted::default().with_new_isr_with_epochs(isr.collect())
}

fn ask(leader: i32, epoch: i64, wanted: Vec<Wanted>) -> (AlterPartitionResponse, Vec<Command>) {
    ask_of(&image(), leader, epoch, wanted)
}

fn ask_of(
    image: &Image,
    leader: i32,
    epoch: i64,
    wanted: Vec<Wanted>,
) -> (AlterPartitionResponse, Vec<Command>) {
    let topic = WantedTopic::default()
        .with_topic_id(TOPIC)
        .with_partitions(wanted);
    let request = AlterPartitionRequest::default()
        .with_broker_id(leader.into())
        .with_broker_epoch(epoch)
        .with_topics(vec![topic]);
    alter_partitions(image, &request, &|_, _| false)
}

fn refused(leader: i32, epoch: i64, wanted: Wanted) -> Option<ErrorCode> {
    let (response, commands) = ask(leader, epoch, vec![wanted]);
    assert_eq!(commands, [], "nothing counts");
    ErrorCode::from_code(response.topics[0].partitions[0].error_code)
}

#[test]
fn a_leader_takes_a_replica_into_the_isr() {
    let (response, commands) = ask(1, 11, vec![wanted(&[(1, 11), (2, 12)])]);
    let part = &response.topics[0].partitions[0];
    assert_eq!((part.error_code, part.partition_epoch), (0, 1));
    assert_eq!(part.isr, [BrokerId(1), BrokerId(2)]);
    let [Command::SetPartitions { topic, partitions }] = &commands[..] else {
        panic!("{commands:?}");
    };
    assert_eq!((*topic, partitions[0].0), (TOPIC, 0));
    assert_eq!(partitions[0].1.isr, [1, 2]);
    let mut image = image();
    image.apply(&BrokerConfig::default(), &commands[0]).unwrap();
}

/// Nobody could take over from it; it goes on until somebody can.
#[test]
fn a_leader_that_is_about_to_stop_may_say_who_is_in_sync() {
    let mut image = image();
    let state = NodeState {
        is_stopping: true,
        ..image.nodes()[&1].clone()
    };
    let stops = Command::SetNode { node: 1, state };
    image.apply(&BrokerConfig::default(), &stops).unwrap();
    for isr in [&[(1, -1)][..], &[(1, -1), (2, 12)]] {
        let (response, commands) = ask_of(&image, 1, 11, vec![wanted(isr)]);
        let part = &response.topics[0].partitions[0];
        assert_eq!((part.error_code, part.leader_id), (0, BrokerId(1)));
        assert_eq!(part.isr.len(), isr.len());
        assert_eq!(commands.len(), 1);
    }
}

#[test]
fn what_does_not_follow_is_refused_as_kafka_does() {
    let good = || wanted(&[(1, 11), (2, 12)]);
    let cases = [
        (2, 12, good(), ErrorCode::InvalidRequest),
        (1, 11, good().with_leader_epoch(1), ErrorCode::NotController),
        (
            1,
            11,
            good().with_partition_epoch(1),
            ErrorCode::NotController,
        ),
        (
            1,
            11,
            good().with_leader_epoch(-1),
            ErrorCode::FencedLeaderEpoch,
        ),
        (
            1,
            11,
            good().with_partition_epoch(-1),
            ErrorCode::InvalidUpdateVersion,
        ),
        (
            1,
            11,
            good().with_partition_index(1),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            1,
            11,
            good().with_leader_recovery_state(1),
            ErrorCode::InvalidRequest,
        ),
        (1, 11, wanted(&[(2, 12)]), ErrorCode::InvalidRequest),
        (
            1,
            11,
            wanted(&[(1, 11), (4, 14)]),
            ErrorCode::InvalidRequest,
        ),
        (
            1,
            11,
            wanted(&[(1, 11), (1, 11)]),
            ErrorCode::InvalidRequest,
        ),
        (
            1,
            11,
            wanted(&[(1, 11), (3, 13)]),
            ErrorCode::IneligibleReplica,
        ),
        (
            1,
            11,
            wanted(&[(1, 11), (2, 9)]),
            ErrorCode::IneligibleReplica,
        ),
    ];
    for (leader, epoch, wanted, code) in cases {
        let what = format!("{wanted:?}");
        assert_eq!(refused(leader, epoch, wanted), Some(code), "{what}");
    }
    let (response, commands) = ask(1, 10, vec![good()]);
    assert_eq!(response.error_code, ErrorCode::StaleBrokerEpoch.code());
    assert_eq!(commands, []);
}

#[test]
fn a_partition_is_altered_once_in_a_request() {
    let (response, commands) = ask(1, 11, vec![wanted(&[(1, 11)]), wanted(&[(1, 11)])]);
    let codes: Vec<i16> = response.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(codes, [0, ErrorCode::InvalidRequest.code()]);
    assert_eq!(commands.len(), 1);
}
