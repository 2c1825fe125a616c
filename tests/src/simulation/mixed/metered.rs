//! A client with a quota, which sends as much as it is let.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::sleep;
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::kafka_protocol::messages::AlterClientQuotasRequest;
use ringmill_wire::kafka_protocol::messages::alter_client_quotas_request::{
    EntityData, EntryData, OpData,
};

use super::super::client::RingClient;
use super::scene::{Scene, text};
use super::topics::{PARTITIONS, SIZED};
use super::writers::{Plan, acknowledge, draft, request, verdict};
use crate::ask::PRODUCE_VERSION;
use crate::plain::PlainError;

const CLIENT_ID: &str = "metered";
/// Bytes a second.
pub(super) const QUOTA: f64 = 2_000.0;

/// Sends as fast as it may.
pub(super) async fn send(scene: Scene, is_limited: bool, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let mut client = scene.connect_as(&mut random, CLIENT_ID).await;
        let set = scene.book.borrow().metered.quota > 0.0;
        let done = match set {
            true => burst(&scene, &mut client, &mut random).await,
            false => limit(&scene, &mut client, is_limited).await,
        };
        if let Err(error) = done {
            scene.lost("a client with a quota", &error);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Sets the quota; a node that knows none is only said to.
async fn limit(scene: &Scene, client: &mut RingClient, is_limited: bool) -> Result<(), PlainError> {
    let entity = EntityData::default()
        .with_entity_type(text("client-id"))
        .with_entity_name(Some(text(CLIENT_ID)));
    let op = OpData::default()
        .with_key(text("producer_byte_rate"))
        .with_value(QUOTA);
    let entry = EntryData::default()
        .with_entity(vec![entity])
        .with_ops(vec![op]);
    let quotas = AlterClientQuotasRequest::default()
        .with_entries(vec![entry])
        .with_validate_only(!is_limited);
    let response = client.call(1, &quotas).await?;
    let code = response
        .entries
        .first()
        .map_or(-1, |entry| entry.error_code);
    if code == 0 {
        scene.book.borrow_mut().metered.quota = QUOTA;
    }
    Ok(())
}

async fn burst(
    scene: &Scene,
    client: &mut RingClient,
    random: &mut SmallRng,
) -> Result<(), PlainError> {
    for _ in 0..random.random_range(1..200) {
        let _turn = scene.turn(random).await;
        let place = (SIZED, random.random_range(0..PARTITIONS));
        let plan = Plan {
            place,
            writer: scene.number(),
            transaction: None,
            stamp: ProducerStamp::NONE,
            keyed: false,
            by_leader: false,
        };
        let draft = draft(scene, random, &plan);
        let bytes = draft.records.len() as u64;
        let produced = [request(scene, place, None, -1, draft.records)];
        let (answers, failed) = client.produce_all(PRODUCE_VERSION, &produced).await;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some((0, base)) = answers.first().map(verdict) {
            acknowledge(scene, draft.attempt, base);
            let mut book = scene.book.borrow_mut();
            let now = book.now.at;
            book.metered.passed.push((now, bytes));
        }
    }
    Ok(())
}
