//! The broker's own keys, with their defaults and their documentation.

use super::{Key, Kind};
use crate::groups::consumer::assign::ASSIGNORS;

pub(super) const INT_MAX: i64 = i32::MAX as i64;
/// Kafka writes "as much as you like" as the largest number.
const RATE_MAX: &str = "9223372036854775807";

pub(super) const fn fixed(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        synonym: None,
        dynamic: false,
        doc,
        without_effect: None,
    }
}

const fn live(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        default,
        synonym: None,
        dynamic: true,
        doc,
        without_effect: None,
    }
}

/// The keys that are the broker's alone.
pub(super) const OWN: &[Key] = &[
    fixed(
        "advertised.listeners",
        Kind::Text,
        "",
        "The HOST:PORT that clients are told to connect to; empty for the address of listeners. Set it when clients reach the broker by another name.",
    ),
    live(
        "auto.create.topics.enable",
        Kind::Bool,
        "true",
        "Whether asking for the metadata of a topic that does not exist creates it.",
    ),
    fixed(
        "connections.max.idle.ms",
        Kind::Long(1_000, i64::MAX),
        "600000",
        "A connection without a request for so long is closed, in milliseconds.",
    ),
    fixed(
        "core.spin.us",
        Kind::Int(0, 1_000_000),
        "0",
        "How long a core without work looks for some before it sleeps, at most, in microseconds; 0 sleeps at once. Saves the time of a wake-up, some 50 to 150 us on virtual machines, and costs CPU: a spin that was in vain halves the next.",
    ),
    fixed(
        "cores",
        Kind::Int(0, 1024),
        "0",
        "How many cores the broker uses, each with its own ring and its share of partitions; 0 for all.",
    ),
    live(
        "default.replication.factor",
        Kind::Int(-1, i16::MAX as i64),
        "-1",
        "How many replicas a topic gets that does not say; -1 for three, or as many as there are nodes for.",
    ),
    live(
        "delete.topic.enable",
        Kind::Bool,
        "true",
        "Whether clients may delete topics.",
    ),
    fixed(
        "fetch.max.bytes",
        Kind::Int(1024, INT_MAX),
        "57671680",
        "The most bytes of records in one fetch response, whatever the client asks for.",
    ),
    live(
        "follower.replication.throttled.rate",
        Kind::Long(0, i64::MAX),
        RATE_MAX,
        "How many bytes a second this node fetches for throttled replicas (follower.replication.throttled.replicas), all together.",
    ),
    live(
        "group.consumer.assignors",
        Kind::List(&ASSIGNORS),
        "uniform,range",
        "The assignors that members of the consumer protocol may choose from, the default first.",
    ),
    live(
        "group.consumer.heartbeat.interval.ms",
        Kind::Int(1, INT_MAX),
        "5000",
        "How often members of the consumer protocol send heartbeats, in milliseconds.",
    ),
    live(
        "group.consumer.max.heartbeat.interval.ms",
        Kind::Int(1, INT_MAX),
        "15000",
        "The longest heartbeat interval that a group may be given, in milliseconds.",
    ),
    live(
        "group.consumer.max.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "60000",
        "The longest session timeout that a group of the consumer protocol may be given, in milliseconds.",
    ),
    live(
        "group.consumer.max.size",
        Kind::Int(1, INT_MAX),
        "10000",
        "How many members a group of the consumer protocol may have.",
    ),
    live(
        "group.consumer.migration.policy",
        Kind::Choice(&["disabled", "upgrade", "downgrade", "bidirectional"]),
        "bidirectional",
        "Whether a group with members may change from the classic protocol to the consumer protocol (upgrade), when its first member of that joins, and back (downgrade), when the last one leaves.",
    ),
    live(
        "group.consumer.min.heartbeat.interval.ms",
        Kind::Int(1, INT_MAX),
        "5000",
        "The shortest heartbeat interval that a group may be given, in milliseconds.",
    ),
    live(
        "group.consumer.min.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "45000",
        "The shortest session timeout that a group of the consumer protocol may be given, in milliseconds.",
    ),
    live(
        "group.consumer.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "45000",
        "How long a member of the consumer protocol may stay silent, in milliseconds; then it is out of its group.",
    ),
    live(
        "group.initial.rebalance.delay.ms",
        Kind::Int(0, 600_000),
        "3000",
        "How long the first rebalance of an empty group waits for more members, in milliseconds.",
    ),
    live(
        "group.max.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "1800000",
        "The longest session timeout that a group member may ask for, in milliseconds.",
    ),
    live(
        "group.max.size",
        Kind::Int(1, INT_MAX),
        "10000",
        "How many members a consumer group may have.",
    ),
    live(
        "group.metadata.max.bytes",
        Kind::Int(4096, INT_MAX),
        "16777216",
        "The most bytes that a group's members may store as subscriptions and assignments; at most half of offsets.topic.segment.bytes.",
    ),
    live(
        "group.min.session.timeout.ms",
        Kind::Int(1, INT_MAX),
        "6000",
        "The shortest session timeout that a group member may ask for, in milliseconds.",
    ),
    fixed(
        "groups.max",
        Kind::Int(1, INT_MAX),
        "100000",
        "How many consumer groups the broker keeps.",
    ),
    live(
        "leader.replication.throttled.rate",
        Kind::Long(0, i64::MAX),
        RATE_MAX,
        "How many bytes a second this node gives to followers of throttled replicas (leader.replication.throttled.replicas), all together.",
    ),
    fixed(
        "listeners",
        Kind::Text,
        "127.0.0.1:9092",
        "The ADDRESS:PORT that the broker listens on; port 0 takes a free one.",
    ),
    fixed(
        "log.cleaner.backoff.ms",
        Kind::Long(1, i64::MAX),
        "15000",
        "How long the log cleaner sleeps when no compacted partition is due, in milliseconds.",
    ),
    fixed(
        "log.cleaner.dedupe.buffer.size",
        Kind::Long(1_048_576, i64::MAX),
        "134217728",
        "The memory for the keys of what is compacted at a time, of all cores together, in bytes; 24 for each key. With more keys a partition is compacted in several runs.",
    ),
    fixed(
        "log.cleaner.enable",
        Kind::Bool,
        "true",
        "Whether compacted topics are compacted. Without the log cleaner they, __consumer_offsets among them, grow for ever.",
    ),
    fixed(
        "log.cleaner.io.max.bytes.per.second",
        Kind::Double(1.0, f64::INFINITY),
        "1.7976931348623157E308",
        "How much the log cleaner reads and writes at most, of all cores together, in bytes per second.",
    ),
    fixed(
        "log.cleaner.threads",
        Kind::Int(0, INT_MAX),
        "1",
        "How many threads of the broker compact.",
    )
    .changes_nothing("Each core compacts its own partitions, one at a time."),
    fixed(
        "log.dirs",
        Kind::Text,
        "./ringmill-data",
        "The folder of all data. One folder: a disk array is the file system's business.",
    ),
    fixed(
        "log.retention.check.interval.ms",
        Kind::Long(1, i64::MAX),
        "300000",
        "How often partitions look for segments to delete, in milliseconds.",
    ),
    fixed(
        "max.connections",
        Kind::Int(1, INT_MAX),
        "10000",
        "How many clients may be connected; a further one is closed at once.",
    ),
    fixed(
        "max.incremental.fetch.session.cache.slots",
        Kind::Int(0, INT_MAX),
        "1000",
        "How many incremental fetch sessions are kept (KIP-227); without one, a consumer names all its partitions in every fetch.",
    ),
    fixed(
        "max.inflight.requests.per.connection",
        Kind::Int(1, 65_536),
        "128",
        "How many requests of one connection are worked on at a time; past it, the connection is not read.",
    ),
    fixed(
        "node.id",
        Kind::Int(0, INT_MAX),
        "1",
        "This node's number in the cluster.",
    ),
    live(
        "num.partitions",
        Kind::Int(1, 100_000),
        "1",
        "How many partitions a topic gets that does not say.",
    ),
    live(
        "offset.metadata.max.bytes",
        Kind::Int(0, INT_MAX),
        "4096",
        "The longest text that a consumer may store with a committed offset, in bytes.",
    ),
    fixed(
        "offsets.retention.check.interval.ms",
        Kind::Long(1, i64::MAX),
        "600000",
        "How often expired group offsets are looked for, in milliseconds.",
    ),
    live(
        "offsets.retention.minutes",
        Kind::Int(1, INT_MAX),
        "10080",
        "How long a group's offsets are kept after its last member left, or, for a consumer without a group, after its last commit.",
    ),
    fixed(
        "offsets.topic.num.partitions",
        Kind::Int(1, 1000),
        "16",
        "How many partitions __consumer_offsets is created with. Kafka has 50; fewer let more commits share a flush, and 16 still spread over 16 cores.",
    ),
    fixed(
        "offsets.topic.replication.factor",
        Kind::Int(-1, i16::MAX as i64),
        "-1",
        "How many replicas __consumer_offsets gets; -1 for three, or as many as there are nodes for when it is created.",
    ),
    fixed(
        "offsets.topic.segment.bytes",
        Kind::Int(65_536, INT_MAX),
        "16777216",
        "The size of a segment of __consumer_offsets; small, so that old commits leave the disk soon.",
    ),
    live(
        "partitions.max",
        Kind::Int(1, INT_MAX),
        "100000",
        "How many partitions all topics may have together.",
    ),
    live(
        "producer.id.expiration.ms",
        Kind::Long(1, i64::MAX),
        "86400000",
        "How long a partition remembers an idempotent producer that stays silent, in milliseconds.",
    ),
    fixed(
        "queued.max.request.bytes",
        Kind::Long(1_048_576, i64::MAX),
        "268435456",
        "The most bytes of requests that the broker holds at a time; past it, connections are not read until some are answered.",
    ),
    fixed(
        "queued.max.request.bytes.per.connection",
        Kind::Long(65_536, i64::MAX),
        "67108864",
        "The most bytes of requests that one connection has in work; a single larger request is still taken.",
    ),
    fixed(
        "replica.lag.time.max.ms",
        Kind::Long(1, i64::MAX),
        "10000",
        "A follower that has not had all of its leader's records for so long is not in sync any more, in milliseconds. One that is not heard from leaves sooner, with its session.",
    ),
    fixed(
        "request.read.timeout.ms",
        Kind::Long(100, i64::MAX),
        "30000",
        "How long a request may take to arrive once its first byte is there, in milliseconds; a slower client is closed.",
    ),
    fixed(
        "response.write.timeout.ms",
        Kind::Long(100, i64::MAX),
        "60000",
        "How long a client may take no byte of a response that waits for it, in milliseconds; then it is closed.",
    ),
    fixed(
        "socket.request.max.bytes",
        Kind::Int(1024, INT_MAX),
        "104857600",
        "The largest request, in bytes.",
    ),
    fixed(
        "telemetry.max.bytes",
        Kind::Int(1, INT_MAX),
        "1048576",
        "The largest payload of metrics that a client may push (KIP-714), compressed, in bytes.",
    ),
];
