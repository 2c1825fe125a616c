"""PyPI's kafka-python, unmodified: a client of its own, without librdkafka."""

import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError

from harness import MIB, REPLICAS, eventually, feature, feature_per_codec, main, until
from history import Broken, Streams, check, dense, same

SECONDS = 30


def producer_of(run, **config):
    """A producer; idempotent unless the config says otherwise."""
    return KafkaProducer(bootstrap_servers=run.bootstrap, **{"acks": "all", "linger_ms": 5, **config})


def produce(run, topic, values, **config):
    """Sends values to partition 0; returns their offsets."""
    producer = producer_of(run, **config)
    sent = [producer.send(topic, value, partition=0) for value in values]
    producer.flush(60)
    offsets = [future.get(timeout=SECONDS).offset for future in sent]
    producer.close()
    return offsets


def consumer_of(run, **config):
    """A consumer outside any group, unless the config names one."""
    return KafkaConsumer(bootstrap_servers=run.bootstrap, **{
        "auto_offset_reset": "earliest", "enable_auto_commit": False, "check_crcs": True, **config})


def read(run, topic, count, partitions=(0,), start=None, **config):
    """Reads `count` records of the partitions and looks whether more come."""
    consumer = consumer_of(run, **config)
    parts = [TopicPartition(topic, partition) for partition in partitions]
    consumer.assign(parts)
    for part in parts:
        consumer.seek(part, start or 0)
    got = polled(consumer, count)
    consumer.close()
    return got


def polled(consumer, count):
    """So many records of a consumer, and those that follow at once."""
    got = []
    for _ in until(60, f"reading {count} records"):
        enough = len(got) >= count
        for records in consumer.poll(300 if enough else 1000).values():
            got.extend(records)
        if enough:
            return got
    return got


def refused(kind, function):
    """The call fails with this error."""
    try:
        function()
    except KafkaError as error:
        check(isinstance(error, kind), f"{error!r} where {kind.__name__} is due")
        return
    raise Broken(f"accepted where {kind.__name__} is due")


@feature("metadata")
def metadata(run):
    topic = run.create("metadata", partitions=3)
    consumer = consumer_of(run)
    eventually(lambda: consumer.partitions_for_topic(topic), {0, 1, 2}, "partitions")
    check(topic in consumer.topics(), "it is not listed")
    consumer.close()


@feature_per_codec
def codec(run, name):
    topic, sent = run.create(name), run.payloads()
    dense(produce(run, topic, sent, compression_type=None if name == "none" else name))
    got = read(run, topic, len(sent))
    same(sent, [record.value for record in got])
    dense([record.offset for record in got])


@feature("keys")
def keys(run):
    topic = run.create("keys", partitions=4)
    pairs = [(b"key %d" % (i % 20), b"value %d" % i) for i in range(400)]
    pairs += [(bytes(range(256)), b"binary key")]
    producer, sent, got, homes = producer_of(run), Streams(), Streams(), {}
    for key, value in pairs:
        producer.send(topic, value, key=key)
        sent.add(key, value)
    producer.flush(SECONDS)
    for record in read(run, topic, len(pairs), partitions=range(4)):
        got.add(record.key, record.value)
        check(homes.setdefault(record.key, record.partition) == record.partition, "a key in two partitions")
    got.check_same(sent)
    producer.close()


@feature("null keys and values")
def nulls(run):
    topic, producer = run.create("nulls"), producer_of(run)
    pairs = [(b"k", b"v"), (None, b"v"), (b"k", None), (b"", b"")]
    for key, value in pairs:
        producer.send(topic, value, key=key, partition=0)
    producer.flush(SECONDS)
    same(pairs, [(r.key, r.value) for r in read(run, topic, len(pairs))])
    producer.close()


@feature("headers")
def headers(run):
    topic, producer = run.create("headers"), producer_of(run)
    sent = [[("plain", b"1"), ("twice", b"x"), ("twice", b"y"), ("empty", b"")],
            [("naïve — 記録", bytes(range(256)))], []]
    for entries in sent:
        producer.send(topic, b"v", headers=entries, partition=0)
    producer.flush(SECONDS)
    same(sent, [list(record.headers) for record in read(run, topic, len(sent))], "header list")
    producer.close()


@feature("timestamps")
def timestamps(run):
    topic, producer = run.create("times", config={"retention.ms": "-1"}), producer_of(run)
    now = int(time.time() * 1000)
    sent = [1, 1_000_000_000_000, now, now - 5]
    for timestamp in sent:
        producer.send(topic, b"v", timestamp_ms=timestamp, partition=0)
    producer.flush(SECONDS)
    same(sent, [record.timestamp for record in read(run, topic, len(sent))], "timestamp")
    producer.close()


@feature("idempotent producer")
def idempotence(run):
    topic = run.create("idempotence")
    sent = [b"%d" % i for i in range(5_000)]
    dense(produce(run, topic, sent, enable_idempotence=True))
    same(sent, [record.value for record in read(run, topic, len(sent))])


@feature("1 MiB records")
def large(run):
    topic = run.create("large", config={"max.message.bytes": str(2 * MIB)})
    sent = [run.random.randbytes(MIB) for _ in range(10)]
    produce(run, topic, sent, max_request_size=4 * MIB)
    same(sent, [record.value for record in read(run, topic, len(sent))])


@feature("larger records refused")
def too_large(run):
    topic = run.create("too-large", config={"max.message.bytes": str(MIB)})
    refused(MessageSizeTooLargeError, lambda: produce(
        run, topic, [run.random.randbytes(MIB + 100)], max_request_size=4 * MIB))
    produce(run, topic, [b"after"])
    same([b"after"], [record.value for record in read(run, topic, 1)])


@feature("offsets by timestamp")
def by_timestamp(run):
    topic, producer = run.create("by-time", config={"retention.ms": "-1"}), producer_of(run)
    base = 1_700_000_000_000
    for i in range(300):
        producer.send(topic, b"%d" % i, timestamp_ms=base + 10 * (i // 3), partition=0)
    producer.flush(SECONDS)
    producer.close()
    consumer, part = consumer_of(run), TopicPartition(topic, 0)
    found = lambda time: consumer.offsets_for_times({part: time})[part]
    for asked, due in [(0, 0), (base + 1, 3), (base + 10, 3), (base + 990, 297)]:
        check(found(asked).offset == due, f"time {asked} is at {due}, answered {found(asked)}")
    check(found(base + 991) is None, "a time after the last record")
    same([{part: 0}, {part: 300}], [consumer.beginning_offsets([part]), consumer.end_offsets([part])], "end")
    consumer.close()


@feature("read from an offset")
def from_offset(run):
    topic, values = run.create("offset"), [b"%d" % i for i in range(1_000)]
    produce(run, topic, values)
    for start in [0, 1, 499, 999]:
        same(values[start:], [record.value for record in read(run, topic, 1_000 - start, start=start)])


@feature("resume from committed offsets")
def resume(run):
    topic, group = run.create("resume"), run.name("resume")
    values = [b"%d" % i for i in range(300)]
    produce(run, topic, values)
    seen = []
    for count in [100, 100, 100]:
        consumer = consumer_of(run, group_id=group, max_poll_records=50)
        consumer.subscribe([topic])
        got = []
        for _ in until(60, "reading a part"):
            for records in consumer.poll(500).values():
                got.extend(record.value for record in records)
            if len(got) >= count:
                break
        consumer.commit()
        consumer.close()
        seen += got
    same(values, seen)


@feature("admin: topics")
def admin_topics(run):
    admin, topic = KafkaAdminClient(bootstrap_servers=run.bootstrap), run.name("admin")
    admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=REPLICAS)])
    check(topic in admin.list_topics(), "it is not listed")
    refused(TopicAlreadyExistsError, lambda: admin.create_topics(
        [NewTopic(topic, num_partitions=2, replication_factor=REPLICAS)]))
    admin.delete_topics([topic])
    eventually(lambda: topic in admin.list_topics(), False, "listed after its deletion")
    admin.close()


if __name__ == "__main__":
    main()
