//! Administrators of a cluster: topics of their own come and go, copies move from node to node, and
//! preferred leaders take over. What they were told of their topics has to be so in the end.

use std::rc::Rc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::sleep;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use ringmill_wire::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, DeleteTopicsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, TopicName,
};

use super::super::client::RingClient;
use super::super::mixed::scene::{Scene, text};
use super::super::mixed::topics::{PARTITIONS, TOPICS};
use super::roster::Roster;
use super::routes::Routes;
use super::{COPIES, COUNT};
use crate::ask;
use crate::plain::PlainError;

/// The most topics of its own that an administrator has at a time.
const OWN_TOPICS_MAX: usize = 3;
/// Between two steps, at most.
const PAUSE_MS: u64 = 1_500;
/// What may become of a topic's setting that changes no promise.
const SEGMENT_BYTES: [&str; 3] = ["65536", "131072", "1000000"];

/// Administers until the world ends it.
pub(super) async fn administer(scene: Scene, roster: Rc<Roster>, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut administrator = Administrator {
        routes: Routes::new(&scene),
        scene,
        roster,
        own: Vec::new(),
    };
    loop {
        let turn = administrator.scene.turn(&mut random).await;
        administrator.step(&mut random).await;
        drop(turn);
        sleep(Duration::from_millis(random.random_range(1..PAUSE_MS))).await;
    }
}

struct Administrator {
    scene: Scene,
    routes: Routes,
    roster: Rc<Roster>,
    /// Topics that are there, as it was told.
    own: Vec<String>,
}

impl Administrator {
    async fn step(&mut self, random: &mut SmallRng) {
        let addr = self.routes.any(random);
        let chance = random.random_range(0..10);
        let done = match self.routes.at(addr).await {
            Err(error) => Err(error),
            Ok(client) => match chance {
                0..3 if self.own.len() < OWN_TOPICS_MAX => {
                    create(&self.scene, client, random, &mut self.own).await
                }
                0..5 if !self.own.is_empty() => {
                    let which = random.random_range(0..self.own.len());
                    delete(&self.scene, client, self.own.swap_remove(which)).await
                }
                5 => elect(&self.scene, client).await,
                6 => alter(&self.scene, client, random).await,
                _ => reassign(&self.scene, client, &self.roster, random).await,
            },
        };
        if let Err(error) = done {
            self.routes.drop_connection(addr);
            self.scene.lost("an administrator", &error);
        }
    }
}

/// An answer that no broker may give is a scandal.
fn expect(scene: &Scene, what: &str, code: i16, expected: &[ErrorCode]) {
    let error = ErrorCode::from_code(code);
    let is_fine =
        |error: ErrorCode| !error.is_error() || error.is_retriable() || expected.contains(&error);
    if !error.is_some_and(is_fine) {
        scene.scandal(|| format!("{what} brings {error:?} ({code})"));
    }
}

/// A topic whose name nobody has had before.
async fn create(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
    own: &mut Vec<String>,
) -> Result<(), PlainError> {
    let name = format!("own-{}", scene.number());
    let mut request = ask::create_topic(&name, random.random_range(1..4), &[]);
    request.topics[0].replication_factor = random.random_range(1..=COPIES as i16);
    let told = |is_there| {
        let mut book = scene.book.borrow_mut();
        book.own_topics.insert(name.clone(), is_there);
    };
    told(None);
    let created = client.call(ask::CREATE_TOPICS_VERSION, &request).await?;
    let code = ask::created(&created)?;
    // as many nodes may not be there
    let expected = [
        ErrorCode::InvalidReplicationFactor,
        // an earlier copy of the request, whose answer the node that passed it on has not got
        ErrorCode::TopicAlreadyExists,
    ];
    expect(scene, "CreateTopics", code, &expected);
    if code == 0 || code == ErrorCode::TopicAlreadyExists.code() {
        told(Some(true));
        own.push(name);
    }
    Ok(())
}

async fn delete(scene: &Scene, client: &mut RingClient, name: String) -> Result<(), PlainError> {
    let told = |is_there| {
        let mut book = scene.book.borrow_mut();
        book.own_topics.insert(name.clone(), is_there);
    };
    told(None);
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(&name))));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(15_000);
    let response = client.call(6, &request).await?;
    let code = response.responses.first().map_or(-1, |r| r.error_code);
    // as with Kafka, a node that has not heard of it yet does not know it; or it is gone by an
    // earlier copy of the request
    expect(scene, "DeleteTopics", code, &[]);
    if code == 0 {
        told(Some(false));
    }
    Ok(())
}

/// Preferred leaders lead, where they can.
async fn elect(scene: &Scene, client: &mut RingClient) -> Result<(), PlainError> {
    let request = ElectLeadersRequest::default()
        .with_election_type(0)
        .with_topic_partitions(None)
        .with_timeout_ms(5_000);
    let response = client.call(2, &request).await?;
    expect(scene, "ElectLeaders", response.error_code, &[]);
    Ok(())
}

/// Changes a setting that changes no promise.
async fn alter(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let value = SEGMENT_BYTES[random.random_range(0..SEGMENT_BYTES.len())];
    let config = AlterableConfig::default()
        .with_name(text("segment.bytes"))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let topic = TOPICS[random.random_range(0..COUNT)].name;
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(1, &request).await?;
    let code = response.responses.first().map_or(-1, |r| r.error_code);
    expect(scene, "IncrementalAlterConfigs", code, &[]);
    Ok(())
}

/// Has a partition's copies go elsewhere, or takes that back.
async fn reassign(
    scene: &Scene,
    client: &mut RingClient,
    roster: &Roster,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let mut to = roster.may_have_copies();
    while to.len() > COPIES {
        to.swap_remove(random.random_range(0..to.len()));
    }
    for at in 1..to.len() {
        to.swap(at, random.random_range(0..=at));
    }
    let takes_back = random.random_ratio(1, 4) && !roster.plan.is_strict;
    let to = (!takes_back).then(|| to.into_iter().map(BrokerId).collect());
    let partition = ReassignablePartition::default()
        .with_partition_index(random.random_range(0..PARTITIONS))
        .with_replicas(to);
    let topic = ReassignableTopic::default()
        .with_name(TopicName(text(TOPICS[random.random_range(0..COUNT)].name)))
        .with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(5_000);
    let response = client.call(0, &request).await?;
    expect(
        scene,
        "AlterPartitionReassignments",
        response.error_code,
        &[],
    );
    let topic = response.responses.first();
    let code = topic
        .and_then(|topic| topic.partitions.first())
        .map_or(0, |part| part.error_code);
    let expected = [
        ErrorCode::NoReassignmentInProgress,
        // a node that is not there gets no copy
        ErrorCode::InvalidReplicaAssignment,
    ];
    expect(scene, "AlterPartitionReassignments", code, &expected);
    Ok(())
}
