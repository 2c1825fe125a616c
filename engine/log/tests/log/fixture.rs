//! A machine with one partition, batches to put into it, and a log in memory to compare with.

use std::future::Future;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use ringmill_log::{
    CacheLimits, CoreCaches, FetchData, FetchSlice, LogConfig, Partition, ReadError,
};
use ringmill_ring::sim::{NodeId, World};
use ringmill_wire::batch::{self, BatchHeader, BatchView, Batches, Compression, ProducerStamp};
use ringmill_wire::builder::{BatchBuilder, NewRecord};

/// The partition's folder.
pub(crate) const DIR: &str = "/data/t-0";

/// The seeds of a randomised test: `count` of them or as many as `SEEDS` says, or the one in
/// `SEED`.
pub(crate) fn seeds(count: u64) -> Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .map(|n: String| n.parse().expect("a number"))
    };
    if let Some(seed) = number("SEED") {
        return seed..seed + 1;
    }
    0..number("SEEDS").unwrap_or(count)
}

/// A random number, out of the world's seed.
pub(crate) fn below(bound: u64) -> u64 {
    ringmill_ring::random_u64() % bound.max(1)
}

/// Says which seed failed.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SEED={}", self.0);
        }
    }
}

/// One simulated machine.
pub(crate) struct Machine {
    pub(crate) world: World,
    pub(crate) node: NodeId,
}

impl Machine {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        let node = world.add_node("a", "10.0.0.1".parse().unwrap());
        Machine { world, node }
    }

    /// A process that opens the partition, does something with it, and exits without closing it.
    pub(crate) fn life<T, F>(
        &mut self,
        config: LogConfig,
        then: impl FnOnce(Partition) -> F + 'static,
    ) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        self.world.block_on(self.node, async move {
            let caches = CoreCaches::new(CacheLimits::default());
            let partition = Partition::open(DIR, config, &caches)
                .await
                .expect("the log opens");
            partition.set_leader_epoch(3);
            then(partition).await
        })
    }

    /// The same, without memory for a tail: every read goes to the files.
    pub(crate) fn life_from_files<T, F>(
        &mut self,
        config: LogConfig,
        then: impl FnOnce(Partition) -> F + 'static,
    ) -> T
    where
        T: 'static,
        F: Future<Output = T> + 'static,
    {
        self.world.block_on(self.node, async move {
            let caches = CoreCaches::new(CacheLimits {
                tail_bytes: 0,
                open_files: 4,
            });
            let partition = Partition::open(DIR, config, &caches)
                .await
                .expect("the log opens");
            partition.set_leader_epoch(3);
            then(partition).await
        })
    }

    /// The files in the partition's folder whose names end so, with their lengths.
    pub(crate) fn files(&self, suffix: &str) -> Vec<(String, u64)> {
        let all = self.world.disk(self.node).list();
        all.into_iter()
            .filter(|(path, _)| path.ends_with(suffix))
            .collect()
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        self.world
            .disk(self.node)
            .read(path)
            .expect("the file is there")
            .to_vec()
    }

    pub(crate) fn put(&self, path: &str, content: &[u8]) {
        self.world
            .disk(self.node)
            .put(path, Bytes::copy_from_slice(content));
    }
}

pub(crate) fn path(base_offset: i64, extension: &str) -> String {
    format!("{DIR}/{base_offset:020}.{extension}")
}

/// What a producer sends: `records` records with values of `value_len` bytes.
pub(crate) fn batch(records: usize, value_len: usize, timestamp: i64) -> Bytes {
    stamped(records, value_len, timestamp, ProducerStamp::NONE)
}

pub(crate) fn stamped(
    records: usize,
    value_len: usize,
    timestamp: i64,
    stamp: ProducerStamp,
) -> Bytes {
    let mut builder = BatchBuilder::new(64 << 20);
    let value: Vec<u8> = (0..value_len)
        .map(|n| (n as u8).wrapping_mul(31) ^ timestamp as u8)
        .collect();
    for n in 0..records {
        let record = NewRecord {
            timestamp: timestamp + n as i64,
            value: Some(&value),
            ..NewRecord::default()
        };
        builder.append(&record).unwrap();
    }
    builder.seal(Compression::None, stamp)
}

/// An idempotent producer.
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) next: i32,
}

impl Producer {
    pub(crate) fn new(id: i64) -> Self {
        Producer {
            id,
            epoch: 0,
            next: 0,
        }
    }

    pub(crate) fn batch(&mut self, records: usize, value_len: usize, timestamp: i64) -> Bytes {
        let stamp = ProducerStamp {
            producer_id: self.id,
            producer_epoch: self.epoch,
            base_sequence: self.next,
            transactional: false,
        };
        self.next += records as i32;
        stamped(records, value_len, timestamp, stamp)
    }
}

/// A batch of one record with this value.
pub(crate) fn holding(value: &[u8]) -> Bytes {
    let mut builder = BatchBuilder::new(64 << 20);
    let record = NewRecord {
        value: Some(value),
        ..NewRecord::default()
    };
    builder.append(&record).unwrap();
    builder.seal(Compression::None, ProducerStamp::NONE)
}

/// The batch as it must stand in the log.
pub(crate) fn stored(batch: &Bytes, base_offset: i64, epoch: i32) -> Vec<u8> {
    let mut bytes = BytesMut::from(&batch[..]);
    batch::set_base_offset(&mut bytes, base_offset);
    batch::set_leader_epoch(&mut bytes, epoch);
    bytes.to_vec()
}

/// Batches by their offsets, as a naive log has them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Model {
    pub(crate) batches: Vec<(Range<i64>, Vec<u8>)>,
}

impl Model {
    pub(crate) fn end(&self) -> i64 {
        self.batches.last().map_or(0, |(offsets, _)| offsets.end)
    }

    pub(crate) fn push(&mut self, batch: &Bytes, base_offset: i64, epoch: i32) {
        let bytes = stored(batch, base_offset, epoch);
        let next = BatchHeader::parse(&bytes).unwrap().next_offset();
        assert!(base_offset >= self.end(), "offsets go up");
        self.batches.push((base_offset..next, bytes));
    }

    /// All bytes from the batch that holds an offset on.
    pub(crate) fn from(&self, offset: i64) -> Vec<u8> {
        let batches = self
            .batches
            .iter()
            .filter(|(offsets, _)| offsets.end > offset);
        batches
            .flat_map(|(_, bytes)| bytes.iter().copied())
            .collect()
    }
}

pub(crate) async fn bytes_of(slice: &FetchSlice) -> Bytes {
    match &slice.data {
        FetchData::Empty => Bytes::new(),
        FetchData::Memory(parts) => Bytes::from(parts.concat()),
        FetchData::File { file, position } => file
            .read_exact_at(*position, slice.len)
            .await
            .expect("the range is in the file"),
    }
}

/// The whole batches at the front of what was read.
pub(crate) fn whole_batches(bytes: &[u8]) -> (usize, i64) {
    let mut batches = Batches::new(bytes);
    let mut next = 0;
    for (_, view) in batches.by_ref().map_while(Result::ok) {
        view.check_crc().expect("what is read is whole");
        next = view.header().next_offset();
    }
    (batches.position(), next)
}

/// Everything that is visible from an offset on, read as a consumer does.
pub(crate) async fn read_all(
    p: &Partition,
    from: i64,
    max_bytes: usize,
) -> Result<Vec<u8>, ReadError> {
    let (mut out, mut offset) = (Vec::new(), from);
    while offset < p.visible_end() {
        let slice = p.read(offset, max_bytes).await?;
        let bytes = bytes_of(&slice).await;
        assert_eq!(bytes.len(), slice.len);
        let (len, next) = whole_batches(&bytes);
        assert!(
            next > offset,
            "a read at {offset} has at least one whole batch"
        );
        let first = BatchView::parse(&bytes).unwrap();
        assert!(
            first.header().base_offset <= offset,
            "it begins with the batch of the offset"
        );
        assert_eq!(first.header().base_offset, slice.base_offset);
        out.extend_from_slice(&bytes[..len]);
        offset = next;
    }
    Ok(out)
}

/// Appends and waits until it is acknowledged.
pub(crate) async fn append(p: &Partition, model: &mut Model, batch: Bytes) -> i64 {
    let appended = p.append(batch.clone()).expect("the batch is taken");
    assert!(!appended.duplicate);
    p.acknowledged(&appended.receipt)
        .await
        .expect("it is acknowledged");
    model.push(&batch, appended.base_offset, 3);
    appended.base_offset
}

pub(crate) fn small_segments(bytes: u32) -> LogConfig {
    LogConfig {
        segment_bytes: bytes,
        ..LogConfig::default()
    }
}
