//! Produce: codecs, idempotence, damaged batches, limits.

use bytes::{Bytes, BytesMut};
use ringmill_wire::StrBytes;
use ringmill_wire::batch::{Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};
use ringmill_wire::kafka_protocol::messages::produce_request::{
    PartitionProduceData, TopicProduceData,
};
use ringmill_wire::kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, ProduceRequest, ProducerId, RequestKind, ResponseKind,
    TopicName, TransactionalId,
};

use super::side::NO_ID;
use super::world::{Step, World, ask};

/// The first record of a load comes so long after the run's begin at most.
const LAST_MS: usize = 1_000;
/// All records of loads lie within so many milliseconds of the run's begin.
pub const TIMES_MS: i64 = LAST_MS as i64 + RECORDS_MAX as i64;
/// Records of a load, at most.
const RECORDS_MAX: usize = 10;

/// Damage to a batch, or a batch that no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// None.
    None,
    /// A byte of the records flipped.
    Crc,
    /// A magic of another time.
    Magic(u8),
    /// Bits of the attributes set, under a right checksum.
    Attributes(u8),
    /// So many records claimed, under a right checksum.
    Count(i32),
    /// The last offset's delta, under a right checksum.
    LastDelta(i32),
    /// The end is missing.
    Short,
    /// The length field.
    Length(i32),
    /// No bytes at all.
    Empty,
    /// Twice the same batch.
    Twice,
    /// The base offset.
    BaseOffset(i64),
}

/// Bytes, or null.
type MaybeBytes = Option<Vec<u8>>;

/// What to write into a partition.
#[derive(Debug, Clone)]
pub struct Load {
    /// Keys and values.
    pub records: Vec<(MaybeBytes, MaybeBytes)>,
    /// Of the records.
    pub codec: Compression,
    /// What is wrong with it.
    pub harm: Harm,
    /// Of the first record.
    pub timestamp: i64,
    /// Part of a transaction.
    pub transactional: bool,
}

impl Load {
    /// A load to be sent.
    pub fn draw(world: &mut World) -> Self {
        let count = world.pick(&[1, 1, 2, 3, RECORDS_MAX]);
        let records = (0..count).map(|i| {
            let key = world.usually(Some(format!("key {i}").into_bytes()), &[None, Some(vec![])]);
            let long = world.pick(&[10, 10, 100, 300]);
            (
                key,
                world.usually(Some(vec![b'a' + i as u8; long]), &[None, Some(vec![])]),
            )
        });
        let records = records.collect();
        let codec = world.pick(&[
            Compression::None,
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ]);
        let harm = match world.chance(15) {
            true => world.pick(&[
                Harm::Crc,
                Harm::Magic(0),
                Harm::Magic(1),
                Harm::Magic(3),
                Harm::Attributes(0x20),
                Harm::Attributes(0x10),
                Harm::Attributes(0x07),
                Harm::Count(0),
                Harm::Count(-1),
                Harm::Count(100),
                Harm::LastDelta(100),
                Harm::LastDelta(-1),
                Harm::Short,
                Harm::Length(0),
                Harm::Length(-1),
                Harm::Length(1 << 30),
                Harm::Empty,
                Harm::Twice,
                Harm::BaseOffset(5),
            ]),
            false => Harm::None,
        };
        Self {
            records,
            codec,
            harm,
            timestamp: world.began_ms + world.below(LAST_MS) as i64,
            transactional: false,
        }
    }

    /// Its bytes, as the producer's of that stamp.
    pub fn bytes(&self, stamp: ProducerStamp) -> Bytes {
        let mut builder = BatchBuilder::new(1 << 20);
        for (i, (key, value)) in self.records.iter().enumerate() {
            let record = NewRecord {
                timestamp: self.timestamp + i as i64,
                key: key.as_deref(),
                value: value.as_deref(),
                headers: &[],
            };
            builder.append(&record).expect("a small record fits");
        }
        let sealed = builder.seal(self.codec, stamp);
        harmed(BytesMut::from(&sealed[..]), self.harm)
    }
}

fn harmed(mut batch: BytesMut, harm: Harm) -> Bytes {
    match harm {
        Harm::None => {}
        Harm::Crc => *batch.last_mut().expect("a batch has bytes") ^= 1,
        Harm::Magic(magic) => batch[16] = magic,
        Harm::Attributes(bits) => batch[22] |= bits,
        Harm::Count(count) => batch[57..61].copy_from_slice(&count.to_be_bytes()),
        Harm::LastDelta(delta) => batch[23..27].copy_from_slice(&delta.to_be_bytes()),
        Harm::Short => batch.truncate(batch.len() - 5),
        Harm::Length(length) => batch[8..12].copy_from_slice(&length.to_be_bytes()),
        Harm::Empty => batch.clear(),
        Harm::Twice => {
            let again = batch.clone();
            batch.extend_from_slice(&again);
        }
        Harm::BaseOffset(offset) => batch[..8].copy_from_slice(&offset.to_be_bytes()),
    }
    if matches!(
        harm,
        Harm::Attributes(_) | Harm::Count(_) | Harm::LastDelta(_)
    ) {
        set_crc(&mut batch);
    }
    batch.freeze()
}

fn set_crc(batch: &mut BytesMut) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A request to write.
pub fn draw(world: &mut World) -> Vec<Step> {
    match world.below(10) {
        0 => vec![init_idempotent(world)],
        1..5 => vec![plain(world)],
        _ => idempotent(world),
    }
}

/// Where a load goes.
#[derive(Debug, Clone)]
pub struct Target {
    /// The topic.
    pub topic: StrBytes,
    /// Its partition.
    pub partition: i32,
    /// The request's version.
    pub version: i16,
    /// The id is of no topic, in versions that have ids.
    pub lost: bool,
}

impl Target {
    /// Where a load may go.
    pub fn draw(world: &mut World) -> Self {
        let topic = world.pick(&["one", "three", "three", "compacted", "gone"]);
        Self {
            topic: world.named(topic),
            partition: world.usually(0, &[0, 1, 2, 3, -1]),
            version: world.version(ApiKey::Produce),
            lost: world.chance(3),
        }
    }
}

/// A request for one partition.
pub fn request(
    memory: &super::side::Memory,
    target: &Target,
    acks: i16,
    id: Option<StrBytes>,
    records: Bytes,
) -> super::side::Ask {
    let data = PartitionProduceData::default()
        .with_index(target.partition)
        .with_records(Some(records));
    let topic = TopicProduceData::default().with_partition_data(vec![data]);
    let topic = match target.version >= 13 {
        true if target.lost => topic.with_topic_id(NO_ID),
        true => topic.with_topic_id(memory.id(&target.topic)),
        false => topic.with_name(TopicName(target.topic.clone())),
    };
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(5_000)
        .with_transactional_id(id.map(TransactionalId))
        .with_topic_data(vec![topic]);
    ask(
        ApiKey::Produce,
        target.version,
        RequestKind::Produce(request),
    )
}

fn plain(world: &mut World) -> Step {
    let (load, target) = (Load::draw(world), Target::draw(world));
    let acks = world.pick(&[-1, -1, -1, 1, 1, 0, 2]);
    Step::of(move |memory| {
        let records = load.bytes(ProducerStamp::NONE);
        request(memory, &target, acks, None, records)
    })
}

fn init_idempotent(world: &mut World) -> Step {
    let version = world.version(ApiKey::InitProducerId);
    let who = world.pick(&["p", "p", "q"]);
    let again = version >= 3 && world.chance(30);
    let bump = world.pick(&[0, 0, 1, -1]);
    Step::of(move |memory| {
        let request = InitProducerIdRequest::default().with_transaction_timeout_ms(60_000);
        let request = match again {
            true => request
                .with_producer_id(ProducerId(memory.number(&format!("{who} id"), -1)))
                .with_producer_epoch((memory.number(&format!("{who} epoch"), -1) + bump) as i16),
            false => request
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1),
        };
        ask(
            ApiKey::InitProducerId,
            version,
            RequestKind::InitProducerId(request),
        )
    })
    .learning(move |memory, response| {
        let ResponseKind::InitProducerId(response) = response else {
            return;
        };
        if response.error_code == 0 {
            let numbers = &mut memory.numbers;
            numbers.insert(format!("{who} id"), response.producer_id.0);
            numbers.insert(format!("{who} epoch"), response.producer_epoch.into());
            numbers.retain(|name, _| !name.starts_with(&format!("{who} next")));
        }
    })
}

fn idempotent(world: &mut World) -> Vec<Step> {
    let who = world.pick(&["p", "p", "q"]);
    let (load, target) = (Load::draw(world), Target::draw(world));
    let acks = world.usually(-1, &[1]);
    let ahead: i64 = world.pick(&[0, 0, 0, 0, 0, 0, 1, 5, -1, -2, -3, -10]);
    let epoch: i64 = world.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 1, -1]);
    let next = format!("{who} next {} {}", target.topic.as_str(), target.partition);
    let (read, count) = (next.clone(), load.records.len() as i64);
    let step = Step::of(move |memory| {
        let sequence = (memory.number(&read, 0) + ahead).max(0);
        let stamp = ProducerStamp {
            producer_id: memory.number(&format!("{who} id"), 12_345_678),
            producer_epoch: (memory.number(&format!("{who} epoch"), 0) + epoch).max(0) as i16,
            base_sequence: sequence as i32,
            transactional: false,
        };
        request(memory, &target, acks, None, load.bytes(stamp))
    })
    .learning(move |memory, response| {
        let ResponseKind::Produce(response) = response else {
            return;
        };
        let answers = response.responses.iter();
        let codes = answers.flat_map(|topic| topic.partition_responses.iter());
        if ahead >= 0 && codes.clone().count() == 1 && codes.clone().all(|p| p.error_code == 0) {
            let sequence = memory.number(&next, 0) + ahead;
            memory.numbers.insert(next.clone(), sequence + count);
        }
    });
    match world.chance(25) {
        true => vec![init_idempotent(world), step],
        false => vec![step],
    }
}
