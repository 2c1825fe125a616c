//! Producers that follow the leaders: idempotent ones that send again what was not answered, to
//! whoever leads by then, and careless ones that send everything once.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::now;
use ringmill_wire::batch::ProducerStamp;
use ringmill_wire::error::ErrorCode;
use ringmill_wire::produce::ProduceRequest;

use super::super::mixed::scene::Scene;
use super::super::mixed::topics::PARTITIONS;
use super::super::mixed::writers::{Draft, Plan, acknowledge, draft, identity, request, verdict};
use super::COUNT;
use super::routes::Routes;
use crate::ask::PRODUCE_VERSION;
use crate::checkers::Place;

/// Batches of one producer that are on their way at a time.
const IN_FLIGHT_MAX: usize = 3;
/// A batch is sent again for so long (`delivery.timeout.ms`).
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a leader may wait for the others.
const PRODUCE_MS: i32 = 2_000;

/// An idempotent producer: identity after identity.
pub(super) async fn write(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut routes = Routes::new(&scene);
    loop {
        let turn = scene.turn(&mut random).await;
        let addr = routes.any(&mut random);
        let granted = match routes.at(addr).await {
            Ok(client) => identity(client).await,
            Err(error) => Err(error),
        };
        drop(turn);
        match granted {
            Ok(Some((producer_id, producer_epoch))) => {
                let mut producer = Producer {
                    routes: &mut routes,
                    number: scene.number(),
                    producer_id,
                    producer_epoch,
                    sequences: BTreeMap::new(),
                };
                while producer.step(&scene, &mut random).await {}
            }
            Ok(None) => Routes::back_off(&mut random).await,
            Err(error) => {
                routes.drop_connection(addr);
                scene.lost("InitProducerId", &error);
            }
        }
    }
}

/// One identity of an idempotent producer.
struct Producer<'a> {
    routes: &'a mut Routes,
    number: u32,
    producer_id: i64,
    producer_epoch: i16,
    sequences: BTreeMap<Place, i32>,
}

impl Producer<'_> {
    /// Writes some batches to one partition, until each is answered; false when the identity is of
    /// no more use.
    async fn step(&mut self, scene: &Scene, random: &mut SmallRng) -> bool {
        let mut turn = scene.turn(random).await;
        let place = (
            random.random_range(0..COUNT),
            random.random_range(0..PARTITIONS),
        );
        if random.random_ratio(1, 6) {
            self.careless(scene, place, random).await;
            return true;
        }
        let mut pending = Vec::new();
        for _ in 0..random.random_range(1..=IN_FLIGHT_MAX) {
            pending.push(self.draft(scene, place, random));
        }
        let (began, mut is_first) = (now(), true);
        while self
            .send(
                scene,
                place,
                &mut pending,
                std::mem::take(&mut is_first),
                random,
            )
            .await
        {
            if pending.is_empty() {
                return true;
            }
            // what is left is sent again, or given up with its identity
            if random.random_ratio(1, 60) || now() - began > DELIVERY_TIMEOUT {
                return false;
            }
            drop(turn);
            Routes::back_off(random).await;
            turn = scene.turn(random).await;
        }
        false
    }

    fn draft(&mut self, scene: &Scene, place: Place, random: &mut SmallRng) -> Draft {
        let sequence = self.sequences.entry(place).or_insert(0);
        let plan = Plan {
            place,
            writer: self.number,
            transaction: None,
            stamp: ProducerStamp {
                producer_id: self.producer_id,
                producer_epoch: self.producer_epoch,
                base_sequence: *sequence,
                transactional: false,
            },
            keyed: false,
            by_leader: false,
        };
        let draft = draft(scene, random, &plan);
        *sequence += draft.count;
        draft
    }

    /// Sends all that is pending and takes off what was acknowledged; false when the broker does
    /// not know the identity any more.
    async fn send(
        &mut self,
        scene: &Scene,
        place: Place,
        pending: &mut Vec<Draft>,
        is_first: bool,
        random: &mut SmallRng,
    ) -> bool {
        let requests: Vec<_> = pending
            .iter()
            .map(|draft| produce(scene, place, -1, draft))
            .collect();
        for (code, base) in self.ask(scene, place, &requests, random).await {
            match ErrorCode::from_code(code) {
                Some(ErrorCode::None) => acknowledge(scene, pending.remove(0).attempt, base),
                // it is there, nobody remembers where
                Some(ErrorCode::DuplicateSequenceNumber) => drop(pending.remove(0)),
                Some(error) if error.is_retriable() => {
                    self.routes.forget(place);
                    return true;
                }
                Some(ErrorCode::UnknownProducerId) => return false,
                // as with Kafka: of several in flight the first was refused, and the next taken by a
                // leader that knew nothing of the producer yet
                Some(ErrorCode::OutOfOrderSequenceNumber) if !is_first => return false,
                other => {
                    let name = scene.topic(place);
                    scene.scandal(|| {
                        format!(
                            "{name}-{}: batch {} of producer {}: {other:?} ({code})",
                            place.1, pending[0].attempt, self.producer_id
                        )
                    });
                    return false;
                }
            }
        }
        true
    }

    /// What the partition's leader answers, as far as it does.
    async fn ask(
        &mut self,
        scene: &Scene,
        place: Place,
        requests: &[ProduceRequest],
        random: &mut SmallRng,
    ) -> Vec<(i16, i64)> {
        let Some(leader) = self.routes.leader(place, random).await else {
            return Vec::new();
        };
        let (answers, failed) = match self.routes.at(leader.addr).await {
            Ok(client) => client.produce_all(PRODUCE_VERSION, requests).await,
            Err(error) => (Vec::new(), Some(error)),
        };
        if let Some(error) = failed {
            self.routes.drop_connection(leader.addr);
            scene.lost("produce", &error);
        }
        let answers: Vec<_> = answers.iter().map(verdict).collect();
        tracing::debug!(at = ?now(), ?place, ?leader, sent = requests.len(), ?answers, "produced");
        answers
    }

    /// One batch without an identity, sent once.
    async fn careless(&mut self, scene: &Scene, place: Place, random: &mut SmallRng) {
        let by_leader = random.random_bool(0.7);
        let plan = Plan {
            place,
            writer: scene.number(),
            transaction: None,
            stamp: ProducerStamp::NONE,
            keyed: false,
            by_leader,
        };
        // nothing is sent to nobody
        if self.routes.leader(place, random).await.is_none() {
            return;
        }
        let draft = draft(scene, random, &plan);
        let acks = if by_leader { 1 } else { -1 };
        let produced = [produce(scene, place, acks, &draft)];
        let answers = self.ask(scene, place, &produced, random).await;
        match answers.first() {
            Some((0, base)) => acknowledge(scene, draft.attempt, *base),
            _ => self.routes.forget(place),
        }
    }
}

fn produce(scene: &Scene, place: Place, acks: i16, draft: &Draft) -> ProduceRequest {
    ProduceRequest {
        timeout_ms: PRODUCE_MS,
        ..request(scene, place, None, acks, draft.records.clone())
    }
}
