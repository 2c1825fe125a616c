//! Groups and transactions move with their partition's leader, and whoever waits is told so.

use std::time::Duration;

use ringmill_ring::{now, sleep};
use ringmill_wire::StrBytes;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use ringmill_wire::kafka_protocol::messages::{
    FindCoordinatorRequest, InitProducerIdRequest, JoinGroupRequest, JoinGroupResponse,
    SyncGroupRequest,
};

use crate::reassignment::reassign;
use crate::records::until;
use crate::wire_client::Client;
use crate::world::{Cluster, SOON, address, ask};

const GROUP: i8 = 0;
pub(crate) const TRANSACTION: i8 = 1;
const OFFSETS: &str = "__consumer_offsets";
const TRANSACTIONS: &str = "__transaction_state";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Who coordinates a group or a transactional id, once somebody does.
pub(crate) async fn coordinator(node: usize, kind: i8, key: &str) -> usize {
    loop {
        let request = FindCoordinatorRequest::default()
            .with_key_type(kind)
            .with_coordinator_keys(vec![text(key)]);
        if let Some(answer) = ask(node, 4, request).await {
            let found = &answer.coordinators[0];
            if found.error_code == 0 {
                return *found.node_id as usize;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn join(member: &StrBytes) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(vec![0; 8].into());
    JoinGroupRequest::default()
        .with_group_id(text("g").into())
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(60_000)
        .with_member_id(member.clone())
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

async fn connect(node: usize) -> Client {
    Client::connect_to(address(node).parse().unwrap()).await
}

/// Joins as a new member, without waiting for the rebalance.
async fn begin_to_join(node: usize) -> (Client, i32) {
    let mut client = connect(node).await;
    loop {
        let answer: JoinGroupResponse = client.call(9, &join(&StrBytes::new())).await;
        if answer.error_code == ErrorCode::MemberIdRequired.code() {
            let id = client.ask(9, &join(&answer.member_id)).await;
            return (client, id);
        }
        let code = ErrorCode::from_code(answer.error_code);
        assert!(code.is_some_and(ErrorCode::is_retriable), "{code:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Has all partitions of one of the broker's own topics led by another node, which has no copy yet or
/// one, and waits until `asked` knows.
async fn move_leaders(asked: usize, topic: &str, partitions: usize, to: &[i32]) {
    for index in 0..partitions {
        let code = reassign(asked, topic, index as i32, Some(to)).await;
        assert_eq!(code, ErrorCode::None);
    }
    for index in 0..partitions {
        until(asked, (topic, index), |shown| shown.replicas == to).await;
    }
}

fn cluster(seed: u64) -> Cluster {
    let mut cluster = Cluster::new(seed, 3);
    for node in 1..=3 {
        cluster.set(node, "offsets.topic.num.partitions", "2");
        cluster.set(node, "offsets.topic.replication.factor", "1");
        cluster.set(node, "transaction.state.log.num.partitions", "2");
        cluster.set(node, "transaction.state.log.replication.factor", "1");
        cluster.set(node, "transaction.state.log.min.isr", "1");
        cluster.set(node, "group.initial.rebalance.delay.ms", "60000");
    }
    cluster.start_all();
    cluster.formed(&[1, 2, 3], SOON);
    cluster
}

/// Who waits in a join is told at once that its coordinator is another, and joins there.
#[test]
fn a_member_that_waits_is_sent_to_the_new_coordinator() {
    for seed in 0..4 {
        let mut cluster = cluster(seed);
        cluster.client(Duration::from_secs(20), async move {
            let first = coordinator(1, GROUP, "g").await;
            let (mut client, id) = begin_to_join(first).await;
            let other = 1 + first % 3;
            let begun = now();
            move_leaders(other, OFFSETS, 2, &[other as i32]).await;
            let answer = client.answer::<JoinGroupRequest>(9, id).await;
            let not_here = ErrorCode::NotCoordinator.code();
            assert_eq!(answer.error_code, not_here, "seed {seed}");
            let took = now() - begun;
            assert!(took < Duration::from_secs(10), "seed {seed}: {took:?}");
            // So is everybody who comes.
            let sync = SyncGroupRequest::default()
                .with_group_id(text("g").into())
                .with_member_id(text("m"));
            let answer = client.call(5, &sync).await;
            assert_eq!(answer.error_code, not_here, "seed {seed}");
            assert_eq!(coordinator(first, GROUP, "g").await, other, "seed {seed}");
            begin_to_join(other).await;
        });
    }
}

#[test]
fn a_transactional_id_moves_with_its_coordinator() {
    for seed in 0..4 {
        let mut cluster = cluster(seed);
        cluster.client(Duration::from_secs(20), async move {
            let first = coordinator(1, TRANSACTION, "x").await;
            let init = || {
                InitProducerIdRequest::default()
                    .with_transactional_id(Some(text("x").into()))
                    .with_transaction_timeout_ms(60_000)
                    .with_producer_id((-1).into())
                    .with_producer_epoch(-1)
            };
            let before = loop {
                let answer = ask(first, 4, init()).await.expect("an answer");
                if answer.error_code == 0 {
                    break answer;
                }
                sleep(Duration::from_millis(20)).await;
            };
            let other = 1 + first % 3;
            move_leaders(other, TRANSACTIONS, 2, &[other as i32]).await;
            assert_eq!(coordinator(other, TRANSACTION, "x").await, other);
            let code = loop {
                let answer = ask(first, 4, init()).await.expect("an answer");
                // until the old one knows
                if answer.error_code != 0 {
                    break answer.error_code;
                }
            };
            assert_eq!(code, ErrorCode::NotCoordinator.code(), "seed {seed}");
            let after = loop {
                let answer = ask(other, 4, init()).await.expect("an answer");
                if answer.error_code == 0 {
                    break answer;
                }
                sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(after.producer_id, before.producer_id, "seed {seed}");
            assert!(after.producer_epoch > before.producer_epoch, "seed {seed}");
        });
    }
}
