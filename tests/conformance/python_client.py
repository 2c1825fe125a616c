"""PyPI's confluent-kafka, unmodified, put through every feature."""

import logging
import sys
import time

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

import consumer_protocol  # noqa: F401 (its features are registered)
import group
from harness import (
    CODECS,
    MIB,
    PUSH_TELEMETRY,
    REPLICAS,
    eventually,
    feature,
    feature_per_codec,
    main,
    offered,
    subscribe_to_metrics,
    until,
)
from history import Streams, check, dense, same

SECONDS = 30  # for one admin call


def refused(code, function):
    """The call fails with this error code."""
    try:
        function()
    except KafkaException as error:
        got = error.args[0].code()
        check(got == code, f"error {got} ({error.args[0].str()}) where {code} is due")
        return
    check(False, f"accepted where error {code} is due")


class Sender:
    """A producer that collects what became of every record.

    One request in flight unless the config says more: a retry (a new partition's leader is not
    ready at once) would else overtake, and order is checked.
    """

    def __init__(self, run, **config):
        self.errors, self.offsets = [], {}
        config = {name.replace("_", "."): value for name, value in config.items()}
        self.producer = Producer({
            "bootstrap.servers": run.bootstrap, "linger.ms": 5, "log_level": 2,
            "message.timeout.ms": 60_000, "max.in.flight": 1, "enable.idempotence": REPLICAS > 1, **config})

    def _delivered(self, error, message):
        if error:
            self.errors.append(error)
        else:
            self.offsets.setdefault(message.partition(), []).append(message.offset())

    def send(self, topic, value, **options):
        """Queues a record, waiting while the queue is full."""
        while True:
            try:
                self.producer.produce(topic, value, on_delivery=self._delivered, **options)
                return
            except BufferError:
                self.producer.poll(0.1)

    def flush(self):
        """Waits for all; fails on any error."""
        left = self.producer.flush(90)
        check(left == 0, f"{left} records without an answer")
        check(not self.errors, f"{len(self.errors)} records failed, first: {self.errors[:1]}")


def produce(run, topic, values, partition=0, **config):
    """Sends values to one partition and waits for their acknowledgement."""
    sender = Sender(run, **config)
    for value in values:
        sender.send(topic, value, partition=partition)
    sender.flush()
    return sender


def consumer_of(run, **config):
    """A consumer outside any group, unless the config names one."""
    config = {name.replace("_", "."): value for name, value in config.items()}
    return Consumer({
        "bootstrap.servers": run.bootstrap, "group.id": run.name("reader"), "log_level": 2,
        "enable.auto.commit": False, "check.crcs": True, "auto.offset.reset": "earliest", **config})


def read(run, topic, count, partitions=(0,), start=OFFSET_BEGINNING, each=None, **config):
    """Reads exactly `count` records of the partitions and looks whether more come."""
    consumer = consumer_of(run, **config)
    consumer.assign([TopicPartition(topic, partition, start) for partition in partitions])
    got = []
    each = each or got.append
    left = count
    for _ in until(120, f"reading {count} records"):
        for message in consumer.consume(10_000, timeout=1.0 if left else 0.3):
            check(message.error() is None, f"read error {message.error()}")
            each(message)
            left -= 1
        if left <= 0:
            break
    for message in consumer.consume(1, timeout=0.3):
        check(message.error() is None, f"read error {message.error()}")
        each(message)
    consumer.close()
    return got


def values_of(messages):
    """Values as bytes."""
    return [message.value() for message in messages]


@feature("metadata")
def metadata(run):
    topic = run.create("metadata", partitions=3)
    cluster = run.admin.list_topics(topic, timeout=SECONDS)
    host, port = run.bootstrap.rsplit(":", 1)
    brokers = {(broker.host, broker.port) for broker in cluster.brokers.values()}
    check((host, int(port)) in brokers, f"{run.bootstrap} is not among {brokers}")
    found = cluster.topics[topic].partitions
    check(sorted(found) == [0, 1, 2], f"partitions {sorted(found)}")
    for partition in found.values():
        check(partition.leader in partition.isrs == partition.replicas, f"replicas {partition.replicas}")
    described = run.admin.describe_cluster(request_timeout=SECONDS).result(SECONDS)
    check(described.cluster_id, "no cluster id")
    check(described.controller.id in cluster.brokers, f"controller {described.controller}")


@feature("unknown topic")
def unknown_topic(run):
    topic = run.name("unknown")
    consumer = consumer_of(run, allow_auto_create_topics=False)
    error = consumer.list_topics(topic, timeout=SECONDS).topics[topic].error
    check(error and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, f"metadata said {error}")
    check(topic not in consumer.list_topics(timeout=SECONDS).topics, "asking created the topic")
    consumer.close()


@feature("topic created by first record")
def auto_create(run):
    topic = run.name("auto")
    produce(run, topic, [b"first"], partition=-1)
    same([b"first"], values_of(read(run, topic, 1)))


@feature_per_codec
def codec(run, name):
    topic = run.create(name)
    sent = run.payloads()
    sender = produce(run, topic, sent, compression_type=name)
    got = read(run, topic, len(sent))
    same(sent, values_of(got))
    dense([message.offset() for message in got])
    dense(sorted(sender.offsets[0]))


@feature("keys")
def keys(run):
    topic = run.create("keys", partitions=4)
    pairs = [(b"key %d" % (i % 20), b"value %d" % i) for i in range(400)]
    pairs += [(b"", b"empty key"), (bytes(range(256)), b"binary key")]
    sender, sent, got, homes = Sender(run), Streams(), Streams(), {}
    for key, value in pairs:
        sender.send(topic, value, key=key)
        sent.add(key, value)
    sender.flush()
    for message in read(run, topic, len(pairs), partitions=range(4)):
        got.add(message.key(), message.value())
        home = homes.setdefault(message.key(), message.partition())
        check(home == message.partition(), f"key {message.key()} in two partitions")
    got.check_same(sent)


@feature("null keys and values")
def nulls(run):
    topic = run.create("nulls")
    pairs = [(b"k", b"v"), (None, b"v"), (b"k", None), (None, None), (b"", b"")]
    sender = Sender(run)
    for key, value in pairs:
        sender.send(topic, value, key=key, partition=0)
    sender.flush()
    same(pairs, [(m.key(), m.value()) for m in read(run, topic, len(pairs))])


def read_to_end(run, topic, **config):
    """All that is in a topic's one partition now."""
    consumer = consumer_of(run, enable_partition_eof=True, **config)
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    got = []
    for _ in until(60, "reading to the end"):
        for message in consumer.consume(10_000, timeout=1.0):
            if message.error() is None:
                got.append(message)
                continue
            check(message.error().code() == KafkaError._PARTITION_EOF, f"read error {message.error()}")
            consumer.close()
            return got


@feature("compacted topic")
def compacted(run):
    # Kafka's smallest segments
    config = {"cleanup.policy": "compact", "segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01"}
    topic = run.create("compacted", config=config)
    last, sent = {}, 0
    for name in CODECS:
        sender = Sender(run, compression_type=name)
        for _ in range(2_000):
            key = b"key %d" % run.random.randrange(40)
            value = run.random.randbytes(1_000) if run.random.random() < 0.9 else None
            sender.send(topic, value, key=key, partition=0)
            last[key] = value
            sent += 1
        sender.flush()
    got = read_to_end(run, topic)
    for _ in until(60, "compaction"):
        time.sleep(1)
        before, got = got, read_to_end(run, topic)
        # what is compared below must not be compacted further meanwhile
        if len(got) == len(before) and len(got) < sent / 3:
            break
    offsets = [message.offset() for message in got]
    check(offsets == sorted(set(offsets)), "offsets do not go up")
    found = {}
    for message in got:
        found[message.key()] = message.value()
    for key, value in last.items():
        # a tombstone goes after a while
        check(found.get(key) == value, f"another value of {key}")
    # an offset that was compacted away leads to the next record
    missing = next(offset for offset in range(offsets[-1]) if offset not in offsets)
    due = next(offset for offset in offsets if offset > missing)
    consumer = consumer_of(run)
    consumer.assign([TopicPartition(topic, 0, missing)])
    first = consumer.poll(30)
    # a tombstone, whose length is 0, is false
    check(first is not None, f"{missing} led to no record")
    check(first.error() is None and first.offset() == due, f"{missing} led to {first.error()} {first.offset()}, {due} is due")
    consumer.close()
    sender = Sender(run)
    sender.send(topic, b"without a key", partition=0)
    sender.producer.flush(90)
    check([error.code() for error in sender.errors] == [KafkaError.INVALID_RECORD], f"no key: {sender.errors}")


@feature("headers")
def headers(run):
    topic = run.create("headers")
    sent = [
        [("plain", b"1"), ("twice", b"x"), ("twice", b"y"), ("empty", b""), ("null", None)],
        [("naïve — 記録", bytes(range(256)))],
        [(f"h{i}", b"v" * i) for i in range(100)],
        None,
    ]
    sender = Sender(run)
    for entries in sent:
        sender.send(topic, b"v", headers=entries, partition=0)
    sender.flush()
    same(sent, [message.headers() for message in read(run, topic, len(sent))], "header list")


@feature("timestamps")
def timestamps(run):
    keep = {"retention.ms": "-1"}  # the first of these are decades old
    topic = run.create("create-time", config=keep)
    now = int(time.time() * 1000)
    sent = [1, 1_000_000_000_000, now, now - 5, now + 60_000, now - 86_400_000]
    sender = Sender(run)
    for timestamp in sent:
        sender.send(topic, b"v", timestamp=timestamp, partition=0)
    sender.flush()
    got = [message.timestamp() for message in read(run, topic, len(sent))]
    same([(TIMESTAMP_CREATE_TIME, timestamp) for timestamp in sent], got, "timestamp")
    topic = run.create("append-time", config={**keep, "message.timestamp.type": "LogAppendTime"})
    sender = Sender(run)
    for timestamp in sent:
        sender.send(topic, b"v", timestamp=timestamp, partition=0)
    sender.flush()
    for kind, timestamp in [message.timestamp() for message in read(run, topic, len(sent))]:
        check(kind == TIMESTAMP_LOG_APPEND_TIME, f"timestamp type {kind}")
        check(timestamp > 1_600_000_000_000 and timestamp not in sent[:2], f"append time {timestamp}")


@feature("1 MiB records")
def large(run):
    topic = run.create("large", config={"max.message.bytes": str(2 * MIB)})
    sent = [run.random.randbytes(MIB) for _ in range(20)]
    produce(run, topic, sent, message_max_bytes=4 * MIB)
    same(sent, values_of(read(run, topic, len(sent))))
    # A record beyond the fetch limit must come all the same (KIP-74).
    same(sent, values_of(read(run, topic, len(sent), max_partition_fetch_bytes=100_000)))


@feature("larger records refused")
def too_large(run):
    topic = run.create("too-large", config={"max.message.bytes": str(MIB)})
    sender = Sender(run, message_max_bytes=4 * MIB, linger_ms=0)
    for value in [b"before", run.random.randbytes(MIB + 100), b"after"]:
        sender.send(topic, value, partition=0)
        sender.producer.flush(SECONDS)
    codes = [error.code() for error in sender.errors]
    check(codes == [KafkaError.MSG_SIZE_TOO_LARGE], f"errors {sender.errors}")
    same([b"before", b"after"], values_of(read(run, topic, 2)))


@feature("many records in order")
def many(run):
    partitions = 4
    topic = run.create("many", partitions=partitions)
    sent, got, offsets = Streams(), Streams(), {}
    sender = Sender(run, enable_idempotence=True, max_in_flight=5, linger_ms=20,
                    queue_buffering_max_messages=200_000)
    started = time.monotonic()
    for i in range(run.records):
        partition, value = i % partitions, b"%09d %s" % (i, b"payload." * 10)
        sent.add(partition, value)
        sender.send(topic, value, partition=partition)
        if i % 1000 == 0:
            sender.producer.poll(0)
    sender.flush()
    produced = time.monotonic()

    def each(message):
        offsets.setdefault(message.partition(), []).append(message.offset())
        got.add(message.partition(), message.value())

    read(run, topic, run.records, partitions=range(partitions), each=each)
    for partition in range(partitions):
        dense(offsets[partition], what=f"partition {partition}")
        dense(sorted(sender.offsets[partition]), what=f"acknowledgements of partition {partition}")
    got.check_same(sent)
    took = time.monotonic() - produced
    return f"{run.records} records, sent in {produced - started:.1f} s, read in {took:.1f} s"


@feature("offsets by timestamp")
def by_timestamp(run):
    topic = run.create("by-timestamp", config={"retention.ms": "-1"})
    base = 1_700_000_000_000
    times = [base + 10 * (i // 3) for i in range(3_000)]
    sender = Sender(run)
    for i, timestamp in enumerate(times):
        sender.send(topic, b"%d" % i, timestamp=timestamp, partition=0)
        if i % 500 == 499:
            sender.flush()  # several batches
    consumer = consumer_of(run)

    def found(timestamp):
        [at] = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=SECONDS)
        check(at.error is None, f"error {at.error}")
        return at.offset

    for asked in [0, base, base + 1, base + 10, base + 4_995, times[-1]]:
        due = next(i for i, timestamp in enumerate(times) if timestamp >= asked)
        check(found(asked) == due, f"time {asked} is at {due}, answered {found(asked)}")
    check(found(times[-1] + 1) == -1, "a time after the last record")
    marks = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
    check(marks == (0, len(times)), f"watermarks {marks}")
    consumer.close()
    partition = TopicPartition(topic, 0)
    for spec, due in [(OffsetSpec.earliest(), 0), (OffsetSpec.latest(), len(times)),
                      (OffsetSpec.for_timestamp(base + 15), 6)]:
        answer = run.admin.list_offsets({partition: spec})[partition].result(SECONDS)
        check(answer.offset == due, f"{spec}: {answer.offset} where {due} is due")


@feature("offset of max timestamp")
def max_timestamp(run):
    topic = run.create("max-timestamp", config={"retention.ms": "-1"})
    base, partition = 1_700_000_000_000, TopicPartition(topic, 0)
    for i, timestamp in enumerate([base, base + 500, base + 20]):
        sender = Sender(run)
        sender.send(topic, b"%d" % i, timestamp=timestamp, partition=0)
        sender.flush()
    request = {partition: OffsetSpec.max_timestamp()}
    answer = run.admin.list_offsets(request)[partition].result(SECONDS)
    check((answer.offset, answer.timestamp) == (1, base + 500), f"{answer.offset}, {answer.timestamp}")


@feature("read from an offset")
def from_offset(run):
    topic = run.create("offset")
    values = [b"%d" % i for i in range(1_000)]
    produce(run, topic, values)
    for start in [0, 1, 499, 998, 999]:
        same(values[start:], values_of(read(run, topic, 1_000 - start, start=start)))
    # Beyond the end: auto.offset.reset decides.
    same(values, values_of(read(run, topic, 1_000, start=5_000)))
    consumer = consumer_of(run, auto_offset_reset="error")
    consumer.assign([TopicPartition(topic, 0, 5_000)])
    message = consumer.poll(SECONDS)
    code = message.error().code() if message is not None and message.error() else None
    check(code == KafkaError._AUTO_OFFSET_RESET, f"out of range answered {code}")
    consumer.close()


def group_of_three(run, assignor):
    topic = run.create(f"group-{assignor}", partitions=group.PARTITIONS)
    group_id = run.name("members")
    command = [sys.executable, "-B", group.script("group_member.py"), run.bootstrap, group_id,
               topic, assignor, str(group.SESSION_MS)]
    return group.survives_a_kill(
        lambda: group.Member(command),
        lambda partition, values: produce(run, topic, values, partition=partition),
        lambda: run.committed(group_id, topic))


@feature("group of three, one killed")
def group_eager(run):
    return group_of_three(run, "range")


@feature("group of three, cooperative")
def group_cooperative(run):
    return group_of_three(run, "cooperative-sticky")


@feature("resume from committed offsets")
def resume(run):
    topic = run.create("resume", partitions=2)
    group_id = run.name("resume")
    for partition in range(2):
        produce(run, topic, [b"%d-%d" % (partition, i) for i in range(300)], partition=partition)
    seen = {0: [], 1: []}
    for count in [100, 50, 450]:
        consumer = consumer_of(run, group_id=group_id)
        consumer.subscribe([topic])
        for _ in until(60, f"reading {count} records"):
            message = consumer.poll(1.0)
            if message is None:
                continue
            check(message.error() is None, f"read error {message.error()}")
            seen[message.partition()].append(message.value())
            count -= 1
            if count == 0:
                break
        ends = {p: len(values) for p, values in seen.items() if values}
        offsets = [TopicPartition(topic, p, end, metadata="note") for p, end in ends.items()]
        consumer.commit(offsets=offsets, asynchronous=False)
        known = consumer.committed([TopicPartition(topic, p) for p in ends], timeout=SECONDS)
        check({p.partition: p.offset for p in known} == ends, f"committed {known}, read {ends}")
        check({p.metadata for p in known} == {"note"}, "the commit's metadata is lost")
        consumer.close()
        check(run.committed(group_id, topic) == ends, "another client sees other offsets")
    for partition, values in seen.items():
        same([b"%d-%d" % (partition, i) for i in range(300)], values)


@feature("acks 0, 1, all")
def acks(run):
    for level in ["0", "1", "all"]:
        topic = run.create(f"acks-{level}")
        values = [b"%d" % i for i in range(2_000)]
        produce(run, topic, values[:1], acks="all")  # from here on the leader is ready
        produce(run, topic, values[1:], acks=level, max_in_flight=100, linger_ms=0,
                enable_idempotence=False)
        same(values, values_of(read(run, topic, len(values))))


@feature("idempotent producer")
def idempotent(run):
    topic = run.create("idempotent", partitions=3)
    values = [b"%d" % i for i in range(30_000)]
    sender = Sender(run, enable_idempotence=True, max_in_flight=5, linger_ms=1)
    for i, value in enumerate(values):
        sender.send(topic, value, partition=i % 3)
    sender.flush()
    for partition in range(3):
        got = read(run, topic, len(values) // 3, partitions=[partition])
        same(values[partition::3], values_of(got))


def transactional(run, name, **config):
    """A transactional producer that is ready to begin."""
    config = {name.replace("_", "."): value for name, value in config.items()}
    producer = Producer({
        "bootstrap.servers": run.bootstrap, "linger.ms": 5, "log_level": 2,
        "transactional.id": name, "message.timeout.ms": 60_000, **config})
    producer.init_transactions(SECONDS)
    return producer


@feature("transactions")
def transactions(run):
    """Committed ones are read, aborted ones are not, by those who ask for that."""
    topic = run.create("transactions", partitions=3)
    producer = transactional(run, run.name("txn"))
    committed, everything = [], []
    for number in range(12):
        producer.begin_transaction()
        values = [b"%d-%d" % (number, index) for index in range(30)]
        for index, value in enumerate(values):
            producer.produce(topic, value, partition=index % 3)
        if number % 3 == 1:
            check(producer.flush(SECONDS) == 0, "records without an answer")
            producer.abort_transaction(SECONDS)
        else:
            producer.commit_transaction(SECONDS)
            committed += values
        everything += values
    partitions = range(3)
    got = read(run, topic, len(committed), partitions, isolation_level="read_committed")
    same(sorted(committed), sorted(values_of(got)))
    for partition in partitions:
        own = [value for index, value in enumerate(committed) if index % 3 == partition]
        same(own, values_of(m for m in got if m.partition() == partition))
    got = read(run, topic, len(everything), partitions, isolation_level="read_uncommitted")
    same(sorted(everything), sorted(values_of(got)))


@feature("transactions: a second instance")
def fencing(run):
    """The second producer of a transactional id fences the first, and its transaction is gone."""
    topic, name = run.create("fencing"), run.name("txn")
    first = transactional(run, name)
    first.begin_transaction()
    first.produce(topic, b"lost")
    check(first.flush(SECONDS) == 0, "a record without an answer")
    second = transactional(run, name)
    try:
        first.commit_transaction(SECONDS)
        check(False, "the first producer could commit")
    except KafkaException as error:
        check(error.args[0].code() == KafkaError._FENCED, f"{error} where fencing is due")
    second.begin_transaction()
    second.produce(topic, b"kept")
    second.commit_transaction(SECONDS)
    same([b"kept"], values_of(read(run, topic, 1, isolation_level="read_committed")))


@feature("transactions: consume, transform, produce")
def transform(run):
    """Offsets and results count together, or not at all."""
    source, sink, name = run.create("source"), run.create("sink"), run.name("group")
    count = 200
    produce(run, source, [b"%d" % n for n in range(count)])
    producer = transactional(run, run.name("txn"))
    done, attempt = 0, 0
    while done < count:
        consumer = consumer_of(run, group_id=name, isolation_level="read_committed")
        consumer.subscribe([source])
        batch = []
        for _ in until(60, "a batch"):
            batch += consumer.consume(25 - len(batch), timeout=1.0)
            if len(batch) == 25:
                break
        producer.begin_transaction()
        for message in batch:
            producer.produce(sink, b"of " + message.value())
        offsets = [TopicPartition(source, 0, batch[-1].offset() + 1)]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), SECONDS)
        attempt += 1
        if attempt % 3 == 0:
            producer.abort_transaction(SECONDS)
        else:
            producer.commit_transaction(SECONDS)
            done += len(batch)
        consumer.close()
    same([b"of %d" % n for n in range(count)],
         values_of(read(run, sink, count, isolation_level="read_committed")))


@feature("transactions: an open one")
def open_transaction(run):
    """What is not decided is not read, and is the last stable offset."""
    topic = run.create("stable")
    produce(run, topic, [b"plain"])
    producer = transactional(run, run.name("txn"))
    producer.begin_transaction()
    producer.produce(topic, b"open")
    check(producer.flush(SECONDS) == 0, "a record without an answer")
    produce(run, topic, [b"behind"])
    same([b"plain"], values_of(read(run, topic, 1, isolation_level="read_committed")))
    consumer = consumer_of(run, isolation_level="read_committed")
    same((0, 1), consumer.get_watermark_offsets(TopicPartition(topic, 0), SECONDS))
    consumer.close()
    producer.commit_transaction(SECONDS)
    same([b"plain", b"open", b"behind"],
         values_of(read(run, topic, 3, isolation_level="read_committed")))


@feature("long poll")
def long_poll(run):
    topic = run.create("long-poll")
    consumer = consumer_of(run, fetch_wait_max_ms=20_000, fetch_min_bytes=1)
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    check(consumer.poll(1.0) is None, "a record in an empty topic")
    produce(run, topic, [b"news"])
    # Far below the fetch's own wait: the append must end it.
    message = consumer.poll(10.0)
    check(message is not None and message.value() == b"news", "the waiting fetch missed the append")
    consumer.close()


@feature("many topics in one consumer")
def many_topics(run):
    prefix = run.name("wide")
    new = [NewTopic(f"{prefix}-{i}", num_partitions=3, replication_factor=REPLICAS) for i in range(30)]
    for future in run.admin.create_topics(new).values():
        future.result(SECONDS)
    sender = Sender(run)
    sent = [(f"{prefix}-{i}", p, b"%d-%d" % (i, p)) for i in range(30) for p in range(3)]
    for topic, partition, value in sent:
        sender.send(topic, value, partition=partition)
    sender.flush()
    consumer = consumer_of(run)
    consumer.subscribe([f"^{prefix}-.*"])
    got = []
    for _ in until(60, "reading all topics"):
        got += [(m.topic(), m.partition(), m.value()) for m in consumer.consume(100, timeout=0.5)]
        if len(got) >= len(sent):
            break
    consumer.close()
    same(sorted(sent), sorted(got))


@feature("admin: topics")
def admin_topics(run):
    admin, topic = run.admin, run.create("admin", partitions=2)
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=SECONDS)[topic].result(SECONDS)
    check(len(described.partitions) == 2 and not described.is_internal, f"{described}")

    def making(name, partitions=1, replicas=1, config=None, **options):
        new = NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=config or {})
        return lambda: admin.create_topics([new], **options)[name].result(SECONDS)

    refused(KafkaError.TOPIC_ALREADY_EXISTS, making(topic))
    refused(KafkaError.TOPIC_EXCEPTION, making("no/slashes"))
    refused(KafkaError.INVALID_PARTITIONS, making(run.name("none"), partitions=0))
    refused(KafkaError.INVALID_REPLICATION_FACTOR, making(run.name("many"), replicas=5))
    refused(KafkaError.INVALID_CONFIG, making(run.name("odd"), config={"retention.ms": "soon"}))
    only_checked = run.name("checked")
    making(only_checked, validate_only=True)()
    check(only_checked not in admin.list_topics(timeout=SECONDS).topics, "validate_only created")

    grow = lambda count: admin.create_partitions([NewPartitions(topic, count)])[topic].result(SECONDS)
    grow(5)
    count = lambda: len(admin.list_topics(topic, timeout=SECONDS).topics[topic].partitions)
    eventually(count, 5, "partitions")
    produce(run, topic, [b"in the new one"], partition=4)
    same([b"in the new one"], values_of(read(run, topic, 1, partitions=[4])))
    refused(KafkaError.INVALID_PARTITIONS, lambda: grow(3))

    delete = lambda: admin.delete_topics([topic], operation_timeout=SECONDS)[topic].result(SECONDS)
    delete()
    eventually(lambda: topic in admin.list_topics(timeout=SECONDS).topics, False, "listed after its deletion")
    refused(KafkaError.UNKNOWN_TOPIC_OR_PART, delete)
    making(topic)()
    check(read(run, topic, 0) == [], "a topic made again holds the old records")


@feature("admin: configs")
def admin_configs(run):
    admin = run.admin
    topic = run.create("configs", config={"retention.ms": "1234567", "cleanup.policy": "compact"})
    resource = lambda: ConfigResource(ResourceType.TOPIC, topic)

    def value(name):
        entries = list(admin.describe_configs([resource()]).values())[0].result(SECONDS)
        return entries[name].value

    def alter(name, new, operation=AlterConfigOpType.SET):
        entry = ConfigEntry(name, new, incremental_operation=operation)
        request = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        return list(admin.incremental_alter_configs([request]).values())[0].result(SECONDS)

    shows = lambda name, due: eventually(lambda: value(name), due, name)
    shows("retention.ms", "1234567")
    shows("cleanup.policy", "compact")
    alter("retention.ms", "7654321")
    shows("retention.ms", "7654321")
    alter("cleanup.policy", "delete", AlterConfigOpType.APPEND)
    shows("cleanup.policy", "compact,delete")
    alter("retention.ms", None, AlterConfigOpType.DELETE)
    shows("retention.ms", "604800000")  # its default again
    refused(KafkaError.INVALID_CONFIG, lambda: alter("retention.ms", "soon"))
    refused(KafkaError.INVALID_CONFIG, lambda: alter("no.such.setting", "1"))
    broker_id = str(next(iter(admin.list_topics(timeout=SECONDS).brokers)))
    entries = list(admin.describe_configs([ConfigResource(ResourceType.BROKER, broker_id)]).values())
    check("log.retention.ms" in entries[0].result(SECONDS), "the broker's settings")


@feature("admin: delete records")
def delete_records(run):
    topic = run.create("delete-records")
    values = [b"%d" % i for i in range(100)]
    produce(run, topic, values)
    admin, cut = run.admin, lambda offset: TopicPartition(topic, 0, offset)
    deleted = list(admin.delete_records([cut(40)]).values())[0].result(SECONDS)
    check(deleted.low_watermark == 40, f"low watermark {deleted.low_watermark}")
    consumer = consumer_of(run)
    marks = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=SECONDS)
    check(marks == (40, 100), f"watermarks {marks}")
    consumer.close()
    same(values[40:], values_of(read(run, topic, 60)))
    refused(KafkaError.OFFSET_OUT_OF_RANGE,
            lambda: list(admin.delete_records([cut(101)]).values())[0].result(SECONDS))


@feature("admin: groups")
def admin_groups(run):
    topic, group_id, admin = run.create("groups", partitions=2), run.name("group"), run.admin
    produce(run, topic, [b"%d" % i for i in range(10)])
    consumer = consumer_of(run, group_id=group_id, client_id="the-member")
    consumer.subscribe([topic])
    for _ in until(60, "joining"):
        message = consumer.poll(0.5)
        if message is not None and message.value() == b"9":
            break
    consumer.commit(asynchronous=False)
    listed = {found.group_id: found for found in all_groups(admin)}
    check(group_id in listed, f"{group_id} is not listed")
    described = admin.describe_consumer_groups([group_id])[group_id].result(SECONDS)
    check(described.state == ConsumerGroupState.STABLE, f"state {described.state}")
    [member] = described.members
    check(member.client_id == "the-member", f"member {member.client_id}")
    owned = sorted(p.partition for p in member.assignment.topic_partitions)
    check(owned == [0, 1], f"the member owns {owned}")
    delete = lambda name: admin.delete_consumer_groups([name])[name].result(SECONDS)
    refused(KafkaError.NON_EMPTY_GROUP, lambda: delete(group_id))
    consumer.close()
    state = lambda: admin.describe_consumer_groups([group_id])[group_id].result(SECONDS).state
    eventually(state, ConsumerGroupState.EMPTY, "state after the leave")
    moved = [ConsumerGroupTopicPartitions(group_id, [TopicPartition(topic, 0, 4)])]
    admin.alter_consumer_group_offsets(moved)[group_id].result(SECONDS)
    check(run.committed(group_id, topic).get(0) == 4, "the altered offset")
    delete(group_id)
    check(group_id not in {found.group_id for found in all_groups(admin)}, "deleted, but listed")
    refused(KafkaError.GROUP_ID_NOT_FOUND, lambda: delete(run.name("unknown")))


def all_groups(admin):
    """All consumer groups."""
    result = admin.list_consumer_groups(request_timeout=SECONDS).result(SECONDS)
    check(not result.errors, f"errors {result.errors}")
    return result.valid


class Lines(logging.Handler):
    """Keeps what a client logs."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@feature("telemetry")
def telemetry(run):
    offered(run, PUSH_TELEMETRY)
    name = run.name("metrics")
    subscribe_to_metrics(run, name)
    topic, told, logger = run.create("telemetry"), Lines(), logging.Logger("telemetry")
    logger.addHandler(told)
    producer = Producer({"bootstrap.servers": run.bootstrap, "debug": "telemetry"}, logger=logger)
    producer.produce(topic, b"v")
    for _ in until(30, "a push of metrics"):
        producer.poll(0.1)
        if any("PushTelemetryRequest succeeded" in line for line in told.lines):
            break
    subscribe_to_metrics(run, name, wanted=False)


if __name__ == "__main__":
    main()
