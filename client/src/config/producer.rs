//! What an application may set of a producer.

use std::time::Duration;

use ringmill_wire::batch::{Compression, HEADER_LEN};

use super::{ClientConfig, ConfigError, MAX_BATCH_BYTES, PropertyError, properties, require};
use crate::partitioner::Partitioning;

/// What a produce request waits for (`acks`).
///
/// # Examples
/// ```
/// use ringmill_client::{Acks, ProducerConfig};
///
/// // fast, and lost with the leader's disk
/// let config = ProducerConfig { acks: Acks::Leader, idempotence: false, ..Default::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nothing: the broker does not even answer (0).
    None,
    /// The leader's append (1).
    Leader,
    /// All replicas in sync, and with them the topic's durability (all, −1).
    #[default]
    All,
}

impl Acks {
    /// The number in a produce request.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Acks;
    ///
    /// assert_eq!(Acks::All.code(), -1);
    /// ```
    pub const fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }

    /// From the text that Kafka's configuration has: `0`, `1`, `all` or `-1`.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::Acks;
    ///
    /// assert_eq!(Acks::from_text("all"), Some(Acks::All));
    /// ```
    pub fn from_text(text: &str) -> Option<Self> {
        match text {
            "0" => Some(Self::None),
            "1" => Some(Self::Leader),
            "all" | "-1" => Some(Self::All),
            _ => None,
        }
    }
}

/// How a producer gathers, sends and repeats.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmill_client::{Compression, ProducerConfig};
///
/// let config = ProducerConfig {
///     linger: Duration::from_millis(20),
///     compression: Compression::Lz4,
///     ..ProducerConfig::default()
/// };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerConfig {
    /// What a request waits for.
    pub acks: Acks,
    /// Sequence numbers make repeated sends harmless (`enable.idempotence`); needs [`Acks::All`].
    pub idempotence: bool,
    /// How batches are compressed (`compression.type`).
    pub compression: Compression,
    /// Bytes of records, before compression, at which a batch is full (`batch.size`). A larger
    /// single record has a batch of its own.
    pub batch_bytes: usize,
    /// How long a batch that is not full waits for more records (`linger.ms`).
    pub linger: Duration,
    /// Bytes of records that may wait for their delivery in all (`buffer.memory`); past it, sends
    /// wait.
    pub buffer_bytes: usize,
    /// The largest request, and with it the largest record, in bytes (`max.request.size`).
    pub max_request_bytes: usize,
    /// Produce requests in flight per broker (`max.in.flight.requests.per.connection`).
    pub max_in_flight: usize,
    /// From the moment a record is taken to its delivery or failure, retries included
    /// (`delivery.timeout.ms`).
    pub delivery_timeout: Duration,
    /// How long an application's send waits for room in the buffer, and a topic's first record for
    /// its partitions (`max.block.ms`).
    pub max_block: Duration,
    /// How partitions are chosen for records that name none (`partitioner.class`).
    pub partitioning: Partitioning,
    /// The producer's lasting name, with which it may use transactions (`transactional.id`,
    /// KIP-98); needs idempotence.
    pub transactional_id: Option<String>,
    /// The coordinator aborts a transaction that is open for longer (`transaction.timeout.ms`).
    pub transaction_timeout: Duration,
}

/// Most requests in flight under idempotence: as many batches as a broker remembers per producer
/// and partition (KIP-98).
pub const MAX_IN_FLIGHT_IDEMPOTENT: usize = 5;
/// Most requests in flight without it.
const MAX_IN_FLIGHT: usize = 1000;

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotence: true,
            compression: Compression::None,
            batch_bytes: 64 << 10,
            linger: Duration::from_millis(5),
            buffer_bytes: 32 << 20,
            max_request_bytes: 1 << 20,
            max_in_flight: MAX_IN_FLIGHT_IDEMPOTENT,
            delivery_timeout: Duration::from_secs(120),
            max_block: Duration::from_secs(60),
            partitioning: Partitioning::KeyHash,
            transactional_id: None,
            transaction_timeout: Duration::from_secs(60),
        }
    }
}

impl ProducerConfig {
    /// Sets what Kafka calls `name`, of the producer or of its client.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, ProducerConfig};
    ///
    /// let (mut client, mut config) = (ClientConfig::default(), ProducerConfig::default());
    /// config.set(&mut client, "linger.ms", "20").unwrap();
    /// config.set(&mut client, "client.id", "gate-7").unwrap();
    /// ```
    pub fn set(
        &mut self,
        client: &mut ClientConfig,
        name: &str,
        value: &str,
    ) -> Result<(), PropertyError> {
        properties::set(client, self, properties::PRODUCER, name, value)
    }

    /// Refuses settings that cannot be kept.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, ProducerConfig};
    ///
    /// let wrong = ProducerConfig { batch_bytes: 2 << 20, ..ProducerConfig::default() };
    /// assert_eq!(wrong.check(&ClientConfig::default()).unwrap_err().name, "batch.size");
    /// ```
    pub fn check(&self, client: &ClientConfig) -> Result<(), ConfigError> {
        require(
            !self.idempotence || self.acks == Acks::All,
            "acks",
            self.acks,
            "but idempotence needs all: set acks=all or switch idempotence off",
        )?;
        require(
            self.transactional_id.is_none() || self.idempotence,
            "transactional.id",
            &self.transactional_id,
            "but transactions need enable.idempotence",
        )?;
        let most = if self.idempotence {
            MAX_IN_FLIGHT_IDEMPOTENT
        } else {
            MAX_IN_FLIGHT
        };
        require(
            (1..=most).contains(&self.max_in_flight),
            "max.in.flight.requests.per.connection",
            self.max_in_flight,
            "it must be 1 to 5 with idempotence, 1 to 1000 without",
        )?;
        require(
            (MIN_BATCH_BYTES..=MAX_BATCH_BYTES).contains(&self.max_request_bytes),
            "max.request.size",
            self.max_request_bytes,
            "it must be 128 bytes to 1 GiB",
        )?;
        require(
            (MIN_BATCH_BYTES..=self.max_request_bytes).contains(&self.batch_bytes),
            "batch.size",
            self.batch_bytes,
            "it must be at least 128 bytes and at most max.request.size",
        )?;
        require(
            self.buffer_bytes >= self.max_request_bytes,
            "buffer.memory",
            self.buffer_bytes,
            "it must be at least max.request.size",
        )?;
        require(
            self.delivery_timeout >= self.linger + client.request_timeout,
            "delivery.timeout.ms",
            self.delivery_timeout,
            "it must be at least linger.ms + request.timeout.ms, so that one attempt fits in",
        )
    }
}

const MIN_BATCH_BYTES: usize = 128;
const _: () = assert!(MIN_BATCH_BYTES > HEADER_LEN);
