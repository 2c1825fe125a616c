//! A group without members whose offsets have a time to live (OffsetCommit up to version 4), and
//! what nodes remember of others when nobody has been there for long.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::describe_producers_request::TopicRequest;
use ringmill_wire::kafka_protocol::messages::{
    DescribeProducersRequest, ListTransactionsRequest, TopicName,
};

use super::super::client::RingClient;
use super::commits::Committer;
use super::scene::{GROUP, Scene, text};
use super::topics::{ORDERS, PARTITIONS, TOPICS};
use crate::checkers::Place;
use crate::plain::PlainError;

/// The group.
pub(super) const NAME: (&str, u32) = ("brief", 5);
/// Its offsets are of this topic.
pub(super) const TOPIC: usize = ORDERS;
/// How long they live.
const LIVES: Duration = Duration::from_secs(80);

/// Commits and looks, again and again.
pub(super) async fn remember(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let committer = Committer {
        lives: Some(LIVES),
        ..Committer::nobody(NAME)
    };
    loop {
        let Ok(mut client) = scene.coordinator(&mut random, GROUP, NAME.0).await else {
            continue;
        };
        loop {
            let turn = scene.turn(&mut random).await;
            let done = step(&scene, &committer, &mut client, &mut random).await;
            drop(turn);
            if let Err(error) = done {
                scene.lost("offsets with a time to live", &error);
                break;
            }
            sleep(Duration::from_millis(random.random_range(1..8_000))).await;
        }
    }
}

async fn step(
    scene: &Scene,
    committer: &Committer,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let place = (TOPIC, random.random_range(0..PARTITIONS));
    let code = match random.random_bool(0.3) {
        true => {
            let offset = random.random_range(0..1_000);
            committer.commit(scene, client, place, offset).await?
        }
        false => {
            let found = committer.committed(scene, client, place, false).await?;
            found.err().unwrap_or(0)
        }
    };
    let error = ErrorCode::from_code(code);
    if error.is_none_or(|error| error.is_error() && !error.is_retriable()) {
        scene.scandal(|| format!("offsets with a time to live bring {error:?} ({code})"));
    }
    Ok(())
}

/// The transactional ids that a node knows.
pub(super) async fn transactional_ids(client: &mut RingClient) -> Result<Vec<String>, PlainError> {
    let listed = client.call(1, &ListTransactionsRequest::default()).await?;
    match listed.error_code {
        0 => {}
        code => return Err(PlainError::Refused(code)),
    }
    let ids = listed.transaction_states.iter();
    Ok(ids
        .map(|state| state.transactional_id.to_string())
        .collect())
}

/// The producers that the partitions of a topic know.
pub(super) async fn producers(
    client: &mut RingClient,
    topic: usize,
) -> Result<Vec<(Place, i64)>, PlainError> {
    let asked = TopicRequest::default()
        .with_name(TopicName(text(TOPICS[topic].name)))
        .with_partition_indexes((0..PARTITIONS).collect());
    let request = DescribeProducersRequest::default().with_topics(vec![asked]);
    let described = client.call(0, &request).await?;
    let mut found = Vec::new();
    for partition in described.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code != 0 {
            return Err(PlainError::Refused(partition.error_code));
        }
        let place = (topic, partition.partition_index);
        let active = partition.active_producers.iter();
        found.extend(active.map(|producer| (place, *producer.producer_id)));
    }
    Ok(found)
}
