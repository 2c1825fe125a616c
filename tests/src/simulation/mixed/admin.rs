//! Administrators: they make the topics, change settings, delete records, make and delete topics of
//! their own, and look around.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{sleep, wall_clock_ms};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::BatchBuilder;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use ringmill_wire::kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use ringmill_wire::kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use ringmill_wire::kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteTopicsRequest, IncrementalAlterConfigsRequest, ListGroupsRequest,
    ListTransactionsRequest, TopicName,
};

use super::super::client::RingClient;
use super::reading;
use super::scene::{Scene, text};
use super::topics::{self, Bug, PARTITIONS, TOPICS, TRIMMED};
use crate::checkers::What;
use crate::history;
use crate::plain::PlainError;

/// Attempts of topics that come and go are far above those of the history.
const OWN_ATTEMPTS: u64 = 1 << 40;

/// Makes the topics, however long it takes.
pub(super) async fn create_topics(scene: Scene, bug: Option<Bug>, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    for (number, spec) in TOPICS.iter().enumerate() {
        let configs = topics::configs(number, bug);
        loop {
            let mut client = scene.connect(&mut random).await;
            let created = client.create_topic(spec.name, PARTITIONS, &configs).await;
            match created.map(ErrorCode::from_code) {
                Ok(Some(ErrorCode::None | ErrorCode::TopicAlreadyExists)) => break,
                Ok(Some(error)) if error.is_retriable() => {}
                Ok(other) => scene.scandal(|| format!("CreateTopics brings {other:?}")),
                Err(error) => scene.lost("CreateTopics", &error),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Administers until the world ends it.
pub(super) async fn administer(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let mut client = scene.connect(&mut random).await;
        loop {
            let turn = scene.turn(&mut random).await;
            let done = match random.random_range(0..10) {
                0..4 => trim(&scene, &mut client, &mut random).await,
                4..7 => alter(&scene, &mut client, &mut random).await,
                7..9 => look_around(&scene, &mut client).await,
                _ => short_lived_topic(&scene, &mut client, &mut random).await,
            };
            drop(turn);
            if let Err(error) = done {
                scene.lost("an administrator", &error);
                break;
            }
            sleep(Duration::from_millis(random.random_range(1..5_000))).await;
        }
    }
}

/// Deletes the records before an offset.
async fn trim(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let place = (TRIMMED, random.random_range(0..PARTITIONS));
    let topic = scene.topic(place);
    let end = client.offset_for(&topic, place.1, -1).await?;
    let start = client.offset_for(&topic, place.1, -2).await?;
    let offset = random.random_range(start..=end);
    {
        let mut book = scene.book.borrow_mut();
        let highest = book.trims.entry(place).or_insert(0);
        *highest = offset.max(*highest);
    }
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(place.1)
        .with_offset(offset);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(text(&topic)))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(15_000);
    let response = client.call(2, &request).await?;
    let partition = response.topics.first().and_then(|t| t.partitions.first());
    let (code, low) = partition.map_or((-1, -1), |p| (p.error_code, p.low_watermark));
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) if low < offset => {
            scene.scandal(|| {
                format!("records before {offset} are deleted, the log begins at {low}")
            });
        }
        Some(ErrorCode::None) => {}
        Some(error) if error.is_retriable() => {}
        other => scene.scandal(|| format!("DeleteRecords brings {other:?} ({code})")),
    }
    Ok(())
}

/// Changes a setting that changes no promise.
async fn alter(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let (name, values): (&str, &[&str]) = match random.random_range(0..4) {
        0 => ("segment.bytes", &["65536", "131072", "1000000"]),
        1 => ("flush.messages", &["1", "100", "9223372036854775807"]),
        2 => ("file.delete.delay.ms", &["0", "1000", "20000"]),
        _ => ("index.interval.bytes", &["512", "4096"]),
    };
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(0)
        .with_value(Some(text(values[random.random_range(0..values.len())])));
    let topic = TOPICS[random.random_range(0..TOPICS.len())].name;
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text(topic))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let response = client.call(1, &request).await?;
    let code = response.responses.first().map_or(-1, |r| r.error_code);
    expect(scene, "IncrementalAlterConfigs", code);
    Ok(())
}

fn expect(scene: &Scene, what: &str, code: i16) {
    let error = ErrorCode::from_code(code);
    if error.is_none_or(|error| error.is_error() && !error.is_retriable()) {
        scene.scandal(|| format!("{what} brings {error:?} ({code})"));
    }
}

/// Asks for what brokers know of groups and transactions.
async fn look_around(scene: &Scene, client: &mut RingClient) -> Result<(), PlainError> {
    let groups = client.call(4, &ListGroupsRequest::default()).await?;
    expect(scene, "ListGroups", groups.error_code);
    let transactions = client.call(1, &ListTransactionsRequest::default()).await?;
    expect(scene, "ListTransactions", transactions.error_code);
    Ok(())
}

/// A topic that is made, written, read back and deleted: what an earlier one of the same name held
/// does not show.
async fn short_lived_topic(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    let name = "short-lived";
    let code = client.create_topic(name, 1, &[]).await?;
    if code == ErrorCode::TopicAlreadyExists.code() {
        // of a life before
        return delete(scene, client, name).await;
    }
    expect(scene, "CreateTopics", code);
    if code != 0 {
        return Ok(());
    }
    let attempt = OWN_ATTEMPTS + u64::from(scene.number());
    let mut builder = BatchBuilder::new(1 << 20);
    let count = random.random_range(1..20);
    history::fill(&mut builder, attempt, &vec![50; count], wall_clock_ms());
    let records: Bytes = builder.seal(Compression::None, ProducerStamp::NONE);
    let produced = client.produce(name, 0, -1, records).await?;
    if produced.error_code == 0 {
        let log = reading::read_all(client, name, 0).await?;
        let authors = log.found.iter().filter_map(|found| match found.what {
            What::Record { author, .. } => author,
            What::Marker { .. } => None,
        });
        let whole = authors.filter(|author| author.attempt == attempt).count();
        if whole != count || log.found.len() != count {
            let found = log.found.len();
            scene
                .scandal(|| format!("{count} records in a new topic, {whole} of {found} are ours"));
        }
    } else {
        expect(scene, "Produce", produced.error_code);
    }
    delete(scene, client, name).await
}

async fn delete(scene: &Scene, client: &mut RingClient, name: &str) -> Result<(), PlainError> {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(15_000);
    let response = client.call(6, &request).await?;
    let code = response.responses.first().map_or(-1, |r| r.error_code);
    // it may be gone since an earlier request whose answer was lost
    if code != ErrorCode::UnknownTopicOrPartition.code() {
        expect(scene, "DeleteTopics", code);
    }
    Ok(())
}
