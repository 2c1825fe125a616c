//! What an application may set, with Kafka's names and defaults where Kafka has them.
//!
//! Each config is a plain struct to fill; [`ProducerConfig::check`] and [`ConsumerConfig::check`],
//! called when a client is made, refuse settings that contradict each other.

pub(crate) mod properties;

use std::time::Duration;

use ringmill_wire::batch::{Compression, HEADER_LEN};
use ringmill_wire::fetch::IsolationLevel;
use thiserror::Error;

use crate::assignor::Assignor;
use crate::partitioner::Partitioning;

pub use properties::PropertyError;

/// Settings that contradict each other or are out of range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name} is {value}, {remedy}")]
pub struct ConfigError {
    /// Kafka's name of the setting.
    pub name: &'static str,
    /// What it was set to.
    pub value: String,
    /// What it must be.
    pub remedy: &'static str,
}

fn require(
    holds: bool,
    name: &'static str,
    value: impl std::fmt::Debug,
    remedy: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError {
        name,
        value: format!("{value:?}"),
        remedy,
    })
}

/// How a client reaches its cluster.
///
/// # Examples
/// ```
/// use std::time::Duration;
///
/// use ringmill_client::ClientConfig;
///
/// let client = ClientConfig {
///     client_id: "gate-7".into(),
///     request_timeout: Duration::from_secs(10),
///     ..ClientConfig::new(["a:9092", "b:9092"])
/// };
/// # let _ = client;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// `HOST:PORT` of a few brokers, from which the others are learnt (`bootstrap.servers`).
    pub bootstrap: Vec<String>,
    /// The name in the brokers' logs and metrics (`client.id`); at most 32,767 bytes.
    pub client_id: String,
    /// The longest wait for a TCP connection and its handshake
    /// (`socket.connection.setup.timeout.ms`).
    pub connect_timeout: Duration,
    /// The longest wait for a response (`request.timeout.ms`); after it the connection is given up,
    /// since answers come in order.
    pub request_timeout: Duration,
    /// First wait between attempts of one request (`retry.backoff.ms`).
    pub retry_backoff: Duration,
    /// Longest such wait (`retry.backoff.max.ms`).
    pub retry_backoff_max: Duration,
    /// First wait between connection attempts (`reconnect.backoff.ms`).
    pub reconnect_backoff: Duration,
    /// Longest such wait (`reconnect.backoff.max.ms`).
    pub reconnect_backoff_max: Duration,
    /// Metadata is refreshed at this age even if nothing failed (`metadata.max.age.ms`).
    pub metadata_max_age: Duration,
    /// How long administrative and look-up calls keep trying (`default.api.timeout.ms`).
    pub api_timeout: Duration,
    /// The largest response taken, in bytes (librdkafka's `receive.message.max.bytes`).
    pub max_response_bytes: usize,
}

impl ClientConfig {
    /// Sets what Kafka calls `name`, where there is neither producer nor consumer.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::ClientConfig;
    ///
    /// let mut client = ClientConfig::default();
    /// client.set("retry.backoff.ms", "50").unwrap();
    /// assert_eq!(client.retry_backoff.as_millis(), 50);
    /// ```
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        properties::set(self, &mut (), &[], name, value)
    }

    /// The defaults, with brokers to start from.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::ClientConfig;
    ///
    /// assert_eq!(ClientConfig::new(["a:9092"]).bootstrap, ["a:9092"]);
    /// ```
    pub fn new<S: Into<String>>(bootstrap: impl IntoIterator<Item = S>) -> Self {
        Self {
            bootstrap: bootstrap.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bootstrap: vec!["127.0.0.1:9092".into()],
            client_id: "ringmill".into(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            reconnect_backoff: Duration::from_millis(50),
            reconnect_backoff_max: Duration::from_secs(1),
            metadata_max_age: Duration::from_secs(300),
            api_timeout: Duration::from_secs(60),
            max_response_bytes: 100 << 20,
        }
    }
}

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
const MAX_BATCH_BYTES: usize = 1 << 30;

/// Where a consumer starts in a partition for which there is no position (`auto.offset.reset`).
///
/// # Examples
/// ```
/// use ringmill_client::{ConsumerConfig, OffsetReset};
///
/// // a new group begins with what there is
/// let config = ConsumerConfig { offset_reset: OffsetReset::Earliest, ..Default::default() };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// At the first record there is.
    Earliest,
    /// After the last record there is.
    #[default]
    Latest,
    /// Nowhere: the poll fails, the application decides.
    Fail,
}

/// Which protocol the members of a group and its coordinator speak (`group.protocol`).
///
/// # Examples
/// ```
/// use ringmill_client::{Consumer, GroupProtocol};
///
/// let builder = Consumer::builder().set("group.id", "billing");
/// assert!(builder.group_protocol(GroupProtocol::Consumer).check().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members assign the partitions; every rebalance involves them all.
    #[default]
    Classic,
    /// The coordinator assigns; who is not concerned reads on (KIP-848, Kafka 4.0).
    Consumer,
}

/// How a consumer fetches, and how it belongs to its group.
///
/// # Examples
/// ```
/// use ringmill_client::{ConsumerConfig, GroupProtocol, OffsetReset};
///
/// let config = ConsumerConfig {
///     group_id: Some("billing".into()),
///     group_protocol: GroupProtocol::Consumer,
///     offset_reset: OffsetReset::Earliest,
///     auto_commit: None,
///     ..ConsumerConfig::default()
/// };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerConfig {
    /// The group to join and to keep offsets for (`group.id`); without one, partitions are only
    /// assigned by hand and nothing can be committed.
    pub group_id: Option<String>,
    /// Makes the member keep its partitions over a restart (`group.instance.id`, KIP-345).
    pub group_instance_id: Option<String>,
    /// Which protocol the group speaks (`group.protocol`).
    pub group_protocol: GroupProtocol,
    /// The coordinator's strategy by its name, `uniform` or `range`; its first if none is named
    /// (`group.remote.assignor`, for [`GroupProtocol::Consumer`]).
    pub remote_assignor: Option<String>,
    /// How the group's leader spreads partitions, by preference
    /// (`partition.assignment.strategy`, for [`GroupProtocol::Classic`]). All members must share one.
    pub assignors: Vec<Assignor>,
    /// Where to start without a position.
    pub offset_reset: OffsetReset,
    /// Commit positions by itself at this interval, in [`crate::Consumer::poll`], and when
    /// partitions are given up (`enable.auto.commit` with `auto.commit.interval.ms`).
    pub auto_commit: Option<Duration>,
    /// The group takes a member for dead after this long without a heartbeat
    /// (`session.timeout.ms`, for [`GroupProtocol::Classic`]; else the coordinator decides).
    pub session_timeout: Duration,
    /// Between heartbeats (`heartbeat.interval.ms`, for [`GroupProtocol::Classic`]; else the
    /// coordinator decides).
    pub heartbeat_interval: Duration,
    /// The application takes longer between polls: the member leaves its group
    /// (`max.poll.interval.ms`); also how long a rebalance waits for it.
    pub max_poll_interval: Duration,
    /// The broker waits until this many bytes are there (`fetch.min.bytes`) …
    pub fetch_min_bytes: usize,
    /// … or for this long (`fetch.max.wait.ms`).
    pub fetch_max_wait: Duration,
    /// Most bytes of one response (`fetch.max.bytes`).
    pub fetch_max_bytes: usize,
    /// Most bytes of one partition in a response (`max.partition.fetch.bytes`).
    pub partition_fetch_bytes: usize,
    /// Fetched bytes that may wait for the application, in all (librdkafka's
    /// `queued.max.messages.kbytes`); past it, nothing more is fetched.
    pub prefetch_bytes: usize,
    /// Check each batch's CRC before its records are seen (`check.crcs`).
    pub check_crc: bool,
    /// Most bytes that one compressed batch may grow to.
    pub max_batch_bytes: usize,
    /// Most records that one poll of an application gives (`max.poll.records`).
    pub max_poll_records: usize,
    /// Whether records of transactions that are open or were aborted are seen (`isolation.level`).
    pub isolation: IsolationLevel,
    /// Where this consumer stands (`client.rack`): records are fetched from a replica that the leader
    /// names for that place (KIP-392).
    pub rack: Option<String>,
}

impl Default for ConsumerConfig {
    fn default() -> Self {
        Self {
            group_id: None,
            group_instance_id: None,
            group_protocol: GroupProtocol::Classic,
            remote_assignor: None,
            assignors: vec![Assignor::Range, Assignor::CooperativeSticky],
            offset_reset: OffsetReset::Latest,
            auto_commit: Some(Duration::from_secs(5)),
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            max_poll_interval: Duration::from_secs(300),
            fetch_min_bytes: 1,
            fetch_max_wait: Duration::from_millis(500),
            fetch_max_bytes: 50 << 20,
            partition_fetch_bytes: 1 << 20,
            prefetch_bytes: 16 << 20,
            check_crc: true,
            max_batch_bytes: 128 << 20,
            max_poll_records: 500,
            isolation: IsolationLevel::ReadUncommitted,
            rack: None,
        }
    }
}

impl ConsumerConfig {
    /// Sets what Kafka calls `name`, of the consumer or of its client.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, ConsumerConfig};
    ///
    /// let (mut client, mut config) = (ClientConfig::default(), ConsumerConfig::default());
    /// config.set(&mut client, "group.id", "billing").unwrap();
    /// config.set(&mut client, "client.id", "gate-7").unwrap();
    /// ```
    pub fn set(
        &mut self,
        client: &mut ClientConfig,
        name: &str,
        value: &str,
    ) -> Result<(), PropertyError> {
        properties::set(client, self, properties::CONSUMER, name, value)
    }

    /// What is for one protocol alone is refused with the other, as by Java's consumer.
    fn check_protocol(&self) -> Result<(), ConfigError> {
        if self.group_protocol == GroupProtocol::Classic {
            return require(
                self.remote_assignor.is_none(),
                "group.remote.assignor",
                &self.remote_assignor,
                "but only group.protocol=consumer has the coordinator assign",
            );
        }
        let default = Self::default();
        require(
            self.assignors == default.assignors,
            "partition.assignment.strategy",
            &self.assignors,
            "but with group.protocol=consumer the coordinator assigns: set group.remote.assignor",
        )?;
        require(
            self.session_timeout == default.session_timeout,
            "session.timeout.ms",
            self.session_timeout,
            "but with group.protocol=consumer it is the group's: alter consumer.session.timeout.ms",
        )?;
        require(
            self.heartbeat_interval == default.heartbeat_interval,
            "heartbeat.interval.ms",
            self.heartbeat_interval,
            "but with group.protocol=consumer it is the group's: alter consumer.heartbeat.interval.ms",
        )
    }

    /// Refuses settings that cannot be kept.
    ///
    /// # Examples
    /// ```
    /// use ringmill_client::{ClientConfig, ConsumerConfig};
    ///
    /// let wrong = ConsumerConfig { max_poll_records: 0, ..ConsumerConfig::default() };
    /// assert_eq!(wrong.check(&ClientConfig::default()).unwrap_err().name, "max.poll.records");
    /// ```
    pub fn check(&self, client: &ClientConfig) -> Result<(), ConfigError> {
        self.check_protocol()?;
        require(
            !self.assignors.is_empty(),
            "partition.assignment.strategy",
            &self.assignors,
            "it must name at least one strategy",
        )?;
        require(
            self.heartbeat_interval * 2 <= self.session_timeout,
            "heartbeat.interval.ms",
            self.heartbeat_interval,
            "it must be at most half of session.timeout.ms",
        )?;
        let is_classic = self.group_protocol == GroupProtocol::Classic;
        require(
            !is_classic || self.session_timeout <= self.max_poll_interval,
            "max.poll.interval.ms",
            self.max_poll_interval,
            "it must be at least session.timeout.ms",
        )?;
        require(
            self.fetch_max_wait < client.request_timeout,
            "fetch.max.wait.ms",
            self.fetch_max_wait,
            "it must be less than request.timeout.ms",
        )?;
        require(
            self.max_poll_records >= 1,
            "max.poll.records",
            self.max_poll_records,
            "it must be at least 1",
        )?;
        let sizes = [
            self.fetch_min_bytes,
            self.partition_fetch_bytes,
            self.fetch_max_bytes,
        ];
        require(
            sizes
                .iter()
                .all(|bytes| (1..=MAX_BATCH_BYTES).contains(bytes)),
            "fetch.min.bytes, max.partition.fetch.bytes, fetch.max.bytes",
            sizes,
            "each must be 1 byte to 1 GiB",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_agree_with_each_other() {
        let client = ClientConfig::default();
        assert_eq!(ProducerConfig::default().check(&client), Ok(()));
        assert_eq!(ConsumerConfig::default().check(&client), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        let client = ClientConfig::default();
        let refused = |change: fn(&mut ProducerConfig)| {
            let mut config = ProducerConfig::default();
            change(&mut config);
            config.check(&client).unwrap_err().name
        };
        assert_eq!(refused(|c| c.acks = Acks::Leader), "acks");
        assert_eq!(
            refused(|c| c.max_in_flight = 6),
            "max.in.flight.requests.per.connection"
        );
        assert_eq!(refused(|c| c.batch_bytes = 2 << 20), "batch.size");
        assert_eq!(refused(|c| c.buffer_bytes = 1000), "buffer.memory");
        assert_eq!(
            refused(|c| c.delivery_timeout = Duration::from_secs(30)),
            "delivery.timeout.ms"
        );
        let mut consumer = ConsumerConfig {
            heartbeat_interval: Duration::from_secs(30),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "heartbeat.interval.ms");
        consumer = ConsumerConfig {
            remote_assignor: Some("range".into()),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "group.remote.assignor");
        consumer.group_protocol = GroupProtocol::Consumer;
        assert_eq!(consumer.check(&client), Ok(()));
        consumer.session_timeout = Duration::from_secs(10);
        let error = consumer.check(&client).unwrap_err();
        assert_eq!(error.name, "session.timeout.ms");
        consumer = ConsumerConfig {
            fetch_max_wait: Duration::from_secs(40),
            ..ConsumerConfig::default()
        };
        let error = consumer.check(&client).unwrap_err().to_string();
        assert_eq!(
            error,
            "fetch.max.wait.ms is 40s, it must be less than request.timeout.ms"
        );
    }
}
