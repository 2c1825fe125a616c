//! The broker's settings: the table of their names, and [`BrokerConfig`], the typed form. The table
//! holds the broker's own keys and, for every topic key that has one, the synonym that sets the
//! default of all topics (`log.retention.ms` for `retention.ms`).
//!
//! Names without a dot are the command line's (`--cores`); dotted ones are Kafka's
//! (`KafkaConfig.java`), but for the few limits that Kafka lacks.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use ringmill_replication::quorum::SnapshotEntries;
use ringmill_wire::features::{self, Supported};

use super::broker_keys::OWN;
use super::nodes::{self, NodesConfig};
use super::topic::finite;
use super::transactions::{self, TransactionConfig};
use super::{ConfigError, Key, Overrides, Reader, Source, Table, TopicConfig, list_items, topic};
use crate::groups::consumer::assign::Assignor;

/// All settings of the broker.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let synonyms = topic::TABLE.keys.iter().filter_map(|key| {
        let name = key.synonym?;
        Some(Key {
            name,
            synonym: None,
            ..*key
        })
    });
    let own = OWN
        .iter()
        .chain(nodes::KEYS)
        .chain(transactions::KEYS)
        .copied();
    let mut keys: Vec<Key> = own.chain(synonyms).collect();
    keys.sort_unstable_by_key(|key| key.name);
    Table {
        scope: "broker",
        keys: Vec::leak(keys),
    }
});

/// The broker's settings, checked and typed, with the values they came from.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `log.dirs`.
    pub data_dir: PathBuf,
    /// `listeners`.
    pub listen: SocketAddr,
    /// `advertised.listeners`, if it differs from what is bound.
    pub advertised: Option<(String, u16)>,
    /// `node.id`.
    pub node_id: i32,
    /// Which boot of its machine this is, as the kernel says; not a setting, but told by whoever
    /// starts the broker.
    pub boot_id: Option<String>,
    /// Which levels of features this node supports; not a setting, but tests make an older build of it.
    pub supported: Supported,
    /// When the metadata's log makes way for a snapshot; not a setting, but tests have it so soon that
    /// nodes need one.
    pub metadata_snapshots: SnapshotEntries,
    /// `cores`; 0 for all.
    pub cores: usize,
    /// `core.spin.us`.
    pub core_spin: Duration,
    /// `connections.max.idle.ms`.
    pub connection_idle: Duration,
    /// `request.read.timeout.ms`.
    pub request_read_timeout: Duration,
    /// `response.write.timeout.ms`.
    pub response_write_timeout: Duration,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_ms: u64,
    /// `log.retention.check.interval.ms`.
    pub retention_check: Duration,
    /// `offsets.retention.check.interval.ms`.
    pub offsets_retention_check: Duration,
    /// `max.connections`.
    pub max_connections: usize,
    /// `socket.request.max.bytes`.
    pub request_max_bytes: usize,
    /// `max.inflight.requests.per.connection`.
    pub max_inflight_requests: usize,
    /// `queued.max.request.bytes.per.connection`.
    pub max_inflight_bytes: u64,
    /// `queued.max.request.bytes`.
    pub max_queued_bytes: u64,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions: usize,
    /// `fetch.max.bytes`.
    pub fetch_max_bytes: u32,
    /// `groups.max`.
    pub max_groups: usize,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// `offsets.topic.replication.factor`; -1 for what the number of nodes allows.
    pub offsets_replication: i32,
    /// `offsets.topic.segment.bytes`.
    pub offsets_segment_bytes: u32,
    /// `telemetry.max.bytes`.
    pub telemetry_max_bytes: i32,
    /// The log cleaner's.
    pub cleaner: CleanerConfig,
    /// Its life among other nodes.
    pub nodes: NodesConfig,
    /// The transactions' limits.
    pub transactions: TransactionConfig,
    /// The keys that a running broker takes anew.
    pub live: LiveConfig,
    set: Overrides,
}

/// The log cleaner's settings, of all cores together.
#[derive(Debug, Clone, PartialEq)]
pub struct CleanerConfig {
    /// `log.cleaner.enable`.
    pub enabled: bool,
    /// `log.cleaner.backoff.ms`.
    pub backoff: Duration,
    /// `log.cleaner.dedupe.buffer.size`.
    pub map_bytes: u64,
    /// `log.cleaner.io.max.bytes.per.second`.
    pub bytes_per_second: f64,
}

/// The part of the broker's settings that IncrementalAlterConfigs changes while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveConfig {
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `delete.topic.enable`.
    pub delete_topics: bool,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `default.replication.factor`; -1 for what the number of nodes allows.
    pub default_replication: i32,
    /// `partitions.max`.
    pub max_partitions: usize,
    /// `producer.id.expiration.ms`.
    pub producer_id_expiration: Duration,
    /// `leader.replication.throttled.rate`, if it is any.
    pub leader_throttle: Option<u64>,
    /// `follower.replication.throttled.rate`, if it is any.
    pub follower_throttle: Option<u64>,
    /// The consumer groups' limits.
    pub groups: GroupConfig,
    /// What a topic gets that sets nothing of its own.
    pub topic_defaults: TopicConfig,
}

/// The limits of consumer groups; times in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u64,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: u64,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: u64,
    /// `group.max.size`.
    pub max_size: usize,
    /// `group.metadata.max.bytes`.
    pub max_metadata_bytes: usize,
    /// `offset.metadata.max.bytes`.
    pub max_offset_metadata_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `group.consumer.assignors`.
    pub consumer_assignors: Vec<Assignor>,
    /// What a group of the consumer protocol goes by that sets nothing of its own.
    pub consumer: ConsumerLimits,
    /// `group.consumer.min.session.timeout.ms` to `group.consumer.max.session.timeout.ms`.
    pub consumer_sessions_ms: RangeInclusive<u64>,
    /// `group.consumer.min.heartbeat.interval.ms` to `group.consumer.max.heartbeat.interval.ms`.
    pub consumer_heartbeats_ms: RangeInclusive<i32>,
    /// `group.consumer.migration.policy`.
    pub consumer_migration: Migration,
}

impl GroupConfig {
    /// Whether a member of the classic protocol may have such a session.
    pub fn takes_session_timeout(&self, ms: u64) -> bool {
        (self.min_session_timeout_ms..=self.max_session_timeout_ms).contains(&ms)
    }
}

/// Which ways a group with members may go between the two protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    upgrades: bool,
    downgrades: bool,
}

impl Migration {
    fn of_name(name: &str) -> Self {
        Self {
            upgrades: matches!(name, "upgrade" | "bidirectional"),
            downgrades: matches!(name, "downgrade" | "bidirectional"),
        }
    }

    /// From the classic protocol to the consumer protocol.
    pub fn upgrades(self) -> bool {
        self.upgrades
    }

    /// And back.
    pub fn downgrades(self) -> bool {
        self.downgrades
    }
}

/// The limits of one group of the consumer protocol (KIP-848).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerLimits {
    /// `group.consumer.session.timeout.ms`, or the group's `consumer.session.timeout.ms`.
    pub session_timeout_ms: u64,
    /// `group.consumer.heartbeat.interval.ms`, or the group's `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// `group.consumer.max.size`.
    pub max_size: usize,
}

impl BrokerConfig {
    /// The settings of `pairs`, names as in [`TABLE`], over the defaults.
    ///
    /// Errors: an unknown name, a value out of type or range, an address that is none.
    pub fn from_pairs<I, K, V>(pairs: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = (K, V)>,
        K: Into<String>,
        V: Into<String>,
    {
        let mut set = Overrides::new();
        for (name, value) in pairs {
            let (name, value) = (name.into(), value.into());
            TABLE.check(&name, &value)?;
            set.insert(name, value);
        }
        Self::resolve(set)
    }

    fn resolve(set: Overrides) -> Result<Self, ConfigError> {
        let read = Reader::new(&TABLE, &set, &|_| None);
        let millis = |name| Duration::from_millis(read.u64(name));
        Ok(Self {
            data_dir: PathBuf::from(read.text("log.dirs")),
            listen: listen_address(&read.text("listeners"))?,
            advertised: advertised_address(&read.text("advertised.listeners"))?,
            node_id: read.i32("node.id"),
            boot_id: None,
            supported: features::supported(),
            metadata_snapshots: SnapshotEntries::default(),
            cores: read.usize("cores"),
            core_spin: Duration::from_micros(read.u64("core.spin.us")),
            connection_idle: millis("connections.max.idle.ms"),
            request_read_timeout: millis("request.read.timeout.ms"),
            response_write_timeout: millis("response.write.timeout.ms"),
            replica_lag_ms: read.u64("replica.lag.time.max.ms"),
            retention_check: millis("log.retention.check.interval.ms"),
            offsets_retention_check: millis("offsets.retention.check.interval.ms"),
            max_connections: read.usize("max.connections"),
            request_max_bytes: read.usize("socket.request.max.bytes"),
            max_inflight_requests: read.usize("max.inflight.requests.per.connection"),
            max_inflight_bytes: read.u64("queued.max.request.bytes.per.connection"),
            max_queued_bytes: read.u64("queued.max.request.bytes"),
            fetch_sessions: read.usize("max.incremental.fetch.session.cache.slots"),
            fetch_max_bytes: read.u32("fetch.max.bytes"),
            max_groups: read.usize("groups.max"),
            offsets_partitions: read.i32("offsets.topic.num.partitions"),
            offsets_replication: read.i32("offsets.topic.replication.factor"),
            offsets_segment_bytes: read.u32("offsets.topic.segment.bytes"),
            telemetry_max_bytes: read.i32("telemetry.max.bytes"),
            cleaner: CleanerConfig {
                enabled: read.bool("log.cleaner.enable"),
                backoff: millis("log.cleaner.backoff.ms"),
                map_bytes: read.u64("log.cleaner.dedupe.buffer.size"),
                bytes_per_second: read.double("log.cleaner.io.max.bytes.per.second"),
            },
            nodes: NodesConfig::resolve(&read)?,
            transactions: TransactionConfig::resolve(&read),
            live: LiveConfig::resolve(&set),
            set,
        })
    }

    /// The live part with `dynamic` overrides on top of what was set at start.
    pub fn live_with(&self, dynamic: &Overrides) -> LiveConfig {
        LiveConfig::resolve(&self.merged(dynamic))
    }

    /// A topic's settings, given the running broker's `dynamic` overrides.
    pub fn topic_config(&self, topic: &Overrides, dynamic: &Overrides) -> TopicConfig {
        TopicConfig::resolve(topic, &|key| self.value(key.synonym?, dynamic))
    }

    /// A broker key's value in force and its source.
    pub fn describe(&self, key: &Key, dynamic: &Overrides) -> (String, Source) {
        if let Some(value) = dynamic.get(key.name) {
            (value.clone(), Source::DynamicBroker)
        } else if let Some(value) = self.set.get(key.name) {
            (value.clone(), Source::StaticBroker)
        } else {
            (key.default.to_owned(), Source::Default)
        }
    }

    /// A topic key's value in force and its source.
    pub fn describe_topic(
        &self,
        key: &Key,
        topic: &Overrides,
        dynamic: &Overrides,
    ) -> (String, Source) {
        if let Some(value) = topic.get(key.name) {
            return (value.clone(), Source::Topic);
        }
        match key.synonym.and_then(|name| TABLE.find(name)) {
            Some(synonym) => self.describe(synonym, dynamic),
            None => (key.default.to_owned(), Source::Default),
        }
    }

    fn value(&self, name: &str, dynamic: &Overrides) -> Option<String> {
        dynamic.get(name).or_else(|| self.set.get(name)).cloned()
    }

    fn merged(&self, dynamic: &Overrides) -> Overrides {
        let mut all = self.set.clone();
        all.extend(dynamic.iter().map(|(k, v)| (k.clone(), v.clone())));
        all
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self::resolve(Overrides::new()).expect("the defaults are right")
    }
}

impl LiveConfig {
    fn resolve(set: &Overrides) -> Self {
        let read = Reader::new(&TABLE, set, &|_| None);
        Self {
            auto_create_topics: read.bool("auto.create.topics.enable"),
            delete_topics: read.bool("delete.topic.enable"),
            num_partitions: read.i32("num.partitions"),
            default_replication: read.i32("default.replication.factor"),
            max_partitions: read.usize("partitions.max"),
            producer_id_expiration: Duration::from_millis(read.u64("producer.id.expiration.ms")),
            leader_throttle: finite(read.u64("leader.replication.throttled.rate")),
            follower_throttle: finite(read.u64("follower.replication.throttled.rate")),
            groups: GroupConfig {
                initial_rebalance_delay_ms: read.u64("group.initial.rebalance.delay.ms"),
                min_session_timeout_ms: read.u64("group.min.session.timeout.ms"),
                max_session_timeout_ms: read.u64("group.max.session.timeout.ms"),
                max_size: read.usize("group.max.size"),
                // a group is one record, which has to fit into a segment
                max_metadata_bytes: read
                    .usize("group.metadata.max.bytes")
                    .min(read.usize("offsets.topic.segment.bytes") / 2),
                max_offset_metadata_bytes: read.usize("offset.metadata.max.bytes"),
                offsets_retention_ms: read.long("offsets.retention.minutes") * 60_000,
                consumer_assignors: list_items(&read.text("group.consumer.assignors"))
                    .filter_map(Assignor::of_name)
                    .collect(),
                consumer: ConsumerLimits {
                    session_timeout_ms: read.u64("group.consumer.session.timeout.ms"),
                    heartbeat_interval_ms: read.i32("group.consumer.heartbeat.interval.ms"),
                    max_size: read.usize("group.consumer.max.size"),
                },
                consumer_migration: Migration::of_name(
                    &read.text("group.consumer.migration.policy"),
                ),
                consumer_sessions_ms: read.u64("group.consumer.min.session.timeout.ms")
                    ..=read.u64("group.consumer.max.session.timeout.ms"),
                consumer_heartbeats_ms: read.i32("group.consumer.min.heartbeat.interval.ms")
                    ..=read.i32("group.consumer.max.heartbeat.interval.ms"),
            },
            topic_defaults: TopicConfig::resolve(&Overrides::new(), &|key| {
                set.get(key.synonym?).cloned()
            }),
        }
    }
}

impl Default for GroupConfig {
    fn default() -> Self {
        LiveConfig::resolve(&Overrides::new()).groups
    }
}

/// Kafka writes a listener as `PLAINTEXT://host:port`; the protocol may be left out.
fn without_protocol(text: &str) -> &str {
    text.trim().trim_start_matches("PLAINTEXT://")
}

fn listen_address(text: &str) -> Result<SocketAddr, ConfigError> {
    let plain = without_protocol(text);
    // Kafka writes "all addresses" as an empty host.
    let full = match plain.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => plain.replacen("localhost:", "127.0.0.1:", 1),
    };
    full.parse().map_err(|_| ConfigError::Invalid {
        name: "listeners".to_owned(),
        value: text.to_owned(),
        reason: "Expected ADDRESS:PORT with a numeric address, such as 0.0.0.0:9092".to_owned(),
    })
}

fn advertised_address(text: &str) -> Result<Option<(String, u16)>, ConfigError> {
    match without_protocol(text) {
        "" => Ok(None),
        _ => host_and_port("advertised.listeners", text).map(Some),
    }
}

/// Where something is reached, by name or number.
pub(super) fn host_and_port(name: &str, text: &str) -> Result<(String, u16), ConfigError> {
    let invalid = || ConfigError::Invalid {
        name: name.to_owned(),
        value: text.to_owned(),
        reason: "Expected HOST:PORT".to_owned(),
    };
    let (host, port) = without_protocol(text)
        .rsplit_once(':')
        .ok_or_else(invalid)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match port.parse() {
        Ok(port) if !host.is_empty() => Ok((host.to_owned(), port)),
        _ => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::topic::Durability;
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_kafkas_protocol_prefix() {
        let config = BrokerConfig::from_pairs([
            ("listeners", "PLAINTEXT://0.0.0.0:9192"),
            ("advertised.listeners", "PLAINTEXT://kafka.example:19092"),
        ])
        .unwrap();
        assert_eq!(config.listen, "0.0.0.0:9192".parse().unwrap());
        assert_eq!(config.advertised, Some(("kafka.example".to_owned(), 19092)));
        assert_eq!(
            listen_address(":9092").unwrap(),
            "0.0.0.0:9092".parse().unwrap()
        );
        assert_eq!(
            listen_address("localhost:1").unwrap(),
            "127.0.0.1:1".parse().unwrap()
        );
        assert_eq!(
            advertised_address("[::1]:9092").unwrap(),
            Some(("::1".to_owned(), 9092))
        );
        for bad in ["nowhere", "1.2.3.4", "host:99999"] {
            assert!(listen_address(bad).is_err(), "{bad}");
            assert!(advertised_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_dynamic_value_beats_the_file_and_reaches_every_topic() {
        let config = BrokerConfig::from_pairs([("log.retention.ms", "5000")]).unwrap();
        let mut dynamic = Overrides::new();
        let key = topic::TABLE.find("retention.ms").unwrap();
        let none = Overrides::new();
        assert_eq!(
            config.describe_topic(key, &none, &dynamic),
            ("5000".to_owned(), Source::StaticBroker)
        );
        dynamic.insert("log.retention.ms".to_owned(), "7000".to_owned());
        dynamic.insert("log.durability".to_owned(), "relaxed".to_owned());
        let topic = config.topic_config(&none, &dynamic);
        assert_eq!(topic.retention, Some(Duration::from_secs(7)));
        assert_eq!(topic.durability, Durability::Relaxed);
        assert_eq!(config.live_with(&dynamic).topic_defaults, topic);
        assert_eq!(
            config.describe_topic(key, &none, &dynamic),
            ("7000".to_owned(), Source::DynamicBroker)
        );
    }

    /// A group that cannot be stored would rebalance for ever.
    #[test]
    fn what_a_group_stores_fits_into_a_segment() {
        let small = BrokerConfig::from_pairs([("offsets.topic.segment.bytes", "65536")]).unwrap();
        assert_eq!(small.live.groups.max_metadata_bytes, 32_768);
        let groups = BrokerConfig::default().live.groups;
        assert_eq!(groups.max_metadata_bytes, 8 << 20);
    }

    #[test]
    fn unknown_names_and_wrong_values_stop_the_start() {
        assert!(BrokerConfig::from_pairs([("retention.ms", "1")]).is_err());
        assert!(BrokerConfig::from_pairs([("cores", "-1")]).is_err());
        assert!(BrokerConfig::from_pairs([("listeners", "x")]).is_err());
    }
}
