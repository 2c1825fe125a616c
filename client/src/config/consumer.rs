//! What an application may set of a consumer.

use std::time::Duration;

use ringmill_wire::fetch::IsolationLevel;

use super::{ClientConfig, ConfigError, MAX_BATCH_BYTES, PropertyError, properties, require};
use crate::assignor::Assignor;

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
