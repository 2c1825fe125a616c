//! Producers without transactions: idempotent ones that send again what was not answered, several
//! batches at a time, and careless ones that send everything once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use ringmill_ring::{now, wall_clock_ms};
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::error::ErrorCode;
use ringmill_wire::kafka_protocol::messages::InitProducerIdRequest;
use ringmill_wire::produce::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use ringmill_wire::record::Header;
use ringmill_wire::topic::TopicRef;

use super::super::client::RingClient;
use super::scene::{Scene, text};
use super::topics::{
    AGING, COMPACTED, EVENTS, ORDERS, PARTITIONS, PLAIN, RECENT, SIZED, STATE, TRIMMED,
};
use crate::ask::PRODUCE_VERSION;
use crate::checkers::{Batch, Keyed, Place};
use crate::history::{self, Author, Outcome};
use crate::plain::PlainError;

/// Keys of each partition of a compacted topic.
pub(in crate::simulation) const KEYS: u32 = 40;
/// Batches of one producer that are on their way at a time.
const IN_FLIGHT_MAX: usize = 3;
/// A batch is sent again for so long (`delivery.timeout.ms`): brokers forget producers that are
/// silent for longer.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// A batch that is to be written, as the history has it and as bytes.
pub(in crate::simulation) struct Draft {
    pub(in crate::simulation) attempt: usize,
    pub(in crate::simulation) records: Bytes,
    pub(in crate::simulation) count: i32,
}

/// What goes into a batch.
pub(in crate::simulation) struct Plan {
    pub(in crate::simulation) place: Place,
    pub(in crate::simulation) writer: u32,
    pub(in crate::simulation) transaction: Option<usize>,
    pub(in crate::simulation) stamp: ProducerStamp,
    pub(in crate::simulation) keyed: bool,
    /// It is to be acknowledged by its leader alone, who may lose it in a cluster.
    pub(in crate::simulation) by_leader: bool,
}

/// Makes a batch and writes it into the history as sent, with nothing known of it.
pub(in crate::simulation) fn draft(scene: &Scene, random: &mut SmallRng, plan: &Plan) -> Draft {
    let count: u32 = match random.random_ratio(1, 12) {
        true => random.random_range(20..40),
        false => random.random_range(1..6),
    };
    let longest = if random.random_ratio(1, 4) { 900 } else { 80 };
    let mut book = scene.book.borrow_mut();
    let attempt = book.batches.len();
    let mut builder = BatchBuilder::new(1 << 20);
    let mut keys = Vec::new();
    for index in 0..count {
        let author = Author {
            attempt: attempt as u64,
            index,
        };
        let value = history::value(author, random.random_range(12..longest));
        let key = random.random_range(0..KEYS);
        let tombstone = plan.keyed && random.random_ratio(1, 8);
        let (name, head) = (key.to_be_bytes(), history::value(author, 12));
        let headers = [Header {
            key: b"a",
            value: Some(&head),
        }];
        let record = NewRecord {
            timestamp: wall_clock_ms(),
            key: plan.keyed.then_some(&name),
            value: (!tombstone).then_some(&value),
            headers: if plan.keyed { &headers } else { &[] },
        };
        builder.append(&record).expect("far below the limit");
        if plan.keyed {
            keys.push(Keyed { key, tombstone });
        }
    }
    let codecs = [Compression::None, Compression::None, Compression::Lz4];
    let codec = codecs[random.random_range(0..codecs.len())];
    let span = book.ask();
    book.batches.push(Batch {
        place: plan.place,
        records: count,
        keys,
        writer: plan.writer,
        transaction: plan.transaction,
        span,
        outcome: Outcome::Unknown,
        by_leader: plan.by_leader,
    });
    Draft {
        attempt,
        records: builder.seal(codec, plan.stamp),
        count: count as i32,
    }
}

/// A request with one batch.
pub(in crate::simulation) fn request(
    scene: &Scene,
    place: Place,
    transactional_id: Option<&str>,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    let partition = ProducePartition {
        index: place.1,
        records,
    };
    ProduceRequest {
        transactional_id: transactional_id.map(text),
        acks,
        timeout_ms: 15_000,
        topics: vec![ProduceTopic {
            topic: TopicRef::Name(text(&scene.topic(place))),
            partitions: vec![partition],
        }],
    }
}

/// The answer to a request with one batch: error code and base offset.
pub(in crate::simulation) fn verdict(response: &ProduceResponse) -> (i16, i64) {
    let partition = response.topics.first().and_then(|t| t.partitions.first());
    partition.map_or((-1, -1), |p| (p.error_code, p.base_offset))
}

/// A batch was acknowledged.
pub(in crate::simulation) fn acknowledge(scene: &Scene, attempt: usize, base: i64) {
    let mut book = scene.book.borrow_mut();
    let done = book.moment();
    let batch = &mut book.batches[attempt];
    batch.outcome = Outcome::Acknowledged(base);
    batch.span.done = Some(done);
}

/// A producer id and its epoch, without a transactional id.
pub(in crate::simulation) async fn identity(
    client: &mut RingClient,
) -> Result<Option<(i64, i16)>, PlainError> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let response = client.call(4, &request).await?;
    let granted = (*response.producer_id, response.producer_epoch);
    Ok((response.error_code == 0).then_some(granted))
}

fn any_place(random: &mut SmallRng) -> Place {
    let topics = [
        ORDERS, ORDERS, PLAIN, EVENTS, SIZED, SIZED, AGING, TRIMMED, STATE, STATE, RECENT,
    ];
    (
        topics[random.random_range(0..topics.len())],
        random.random_range(0..PARTITIONS),
    )
}

/// An idempotent producer: identity after identity.
pub(in crate::simulation) async fn write(scene: Scene, seed: u64) {
    let mut random = SmallRng::seed_from_u64(seed);
    loop {
        let mut client = scene.connect(&mut random).await;
        let turn = scene.turn(&mut random).await;
        match identity(&mut client).await {
            Ok(Some((producer_id, producer_epoch))) => {
                drop(turn);
                let mut writer = Writer {
                    scene: scene.clone(),
                    client,
                    number: scene.number(),
                    producer_id,
                    producer_epoch,
                    sequences: BTreeMap::new(),
                };
                while writer.step(&mut random).await {}
            }
            Ok(None) => {}
            Err(error) => scene.lost("InitProducerId", &error),
        }
    }
}

/// One identity of an idempotent producer.
struct Writer {
    scene: Scene,
    client: RingClient,
    number: u32,
    producer_id: i64,
    producer_epoch: i16,
    sequences: BTreeMap<Place, i32>,
}

impl Writer {
    /// Writes some batches to one partition, until each is answered; false when the identity is of
    /// no more use.
    async fn step(&mut self, random: &mut SmallRng) -> bool {
        let mut turn = self.scene.turn(random).await;
        if random.random_ratio(1, 10) {
            return self.careless(random).await;
        }
        let place = any_place(random);
        let began = now();
        let mut pending = Vec::new();
        for _ in 0..random.random_range(1..=IN_FLIGHT_MAX) {
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
                keyed: COMPACTED.contains(&place.0),
                by_leader: false,
            };
            let draft = draft(&self.scene, random, &plan);
            *sequence += draft.count;
            pending.push(draft);
        }
        while self.send(place, &mut pending).await {
            if pending.is_empty() {
                return true;
            }
            // what is left is sent again, or given up with its identity
            if random.random_ratio(1, 20) {
                return false;
            }
            drop(turn);
            self.client = self.scene.connect(random).await;
            turn = self.scene.turn(random).await;
            if now() - began > DELIVERY_TIMEOUT {
                return false;
            }
        }
        false
    }

    /// Sends all that is pending and takes off what was acknowledged; false when the broker does
    /// not know the identity any more.
    async fn send(&mut self, place: Place, pending: &mut Vec<Draft>) -> bool {
        let requests: Vec<_> = pending
            .iter()
            .map(|draft| request(&self.scene, place, None, -1, draft.records.clone()))
            .collect();
        let sent = self.client.produce_all(PRODUCE_VERSION, &requests).await;
        if let Some(error) = &sent.1 {
            self.scene.lost("produce", error);
        }
        for response in &sent.0 {
            let (code, base) = verdict(response);
            match ErrorCode::from_code(code) {
                Some(ErrorCode::None) => {
                    acknowledge(&self.scene, pending.remove(0).attempt, base);
                }
                // it is there, nobody remembers where
                Some(ErrorCode::DuplicateSequenceNumber) => drop(pending.remove(0)),
                Some(error) if error.is_retriable() => return true,
                Some(ErrorCode::UnknownProducerId) => return false,
                other => {
                    let name = self.scene.topic(place);
                    self.scene.scandal(|| {
                        format!(
                            "{name}-{}: an idempotent batch: {other:?} ({code})",
                            place.1
                        )
                    });
                    return false;
                }
            }
        }
        true
    }

    /// One batch without an identity, sent once.
    async fn careless(&mut self, random: &mut SmallRng) -> bool {
        let place = any_place(random);
        let plan = Plan {
            place,
            writer: self.scene.number(),
            transaction: None,
            stamp: ProducerStamp::NONE,
            keyed: COMPACTED.contains(&place.0),
            by_leader: false,
        };
        let draft = draft(&self.scene, random, &plan);
        let acks = if random.random_bool(0.5) { 1 } else { -1 };
        let produced = request(&self.scene, place, None, acks, draft.records.clone());
        let (answers, _) = self.client.produce_all(PRODUCE_VERSION, &[produced]).await;
        match answers.first().map(verdict) {
            Some((0, base)) => {
                acknowledge(&self.scene, draft.attempt, base);
                true
            }
            _ => false,
        }
    }
}
