"""PyPI's aiokafka, unmodified: asyncio, a client of its own."""

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from harness import MIB, REPLICAS, feature, feature_per_codec, main
from history import Broken, Streams, check, dense, same

SECONDS = 60


def story(function):
    """A feature told in asyncio, with a deadline."""
    def run_it(run, *more):
        return asyncio.run(asyncio.wait_for(function(run, *more), SECONDS))
    return run_it


async def produce(run, topic, records, **config):
    """Sends (key, value, headers, timestamp) to partition 0; returns what was answered to each."""
    config = {"acks": "all", "linger_ms": 5, "max_request_size": 4 * MIB, "enable_idempotence": REPLICAS > 1, **config}
    async with AIOKafkaProducer(bootstrap_servers=run.bootstrap, **config) as producer:
        sent = [await producer.send(topic, value, key=key, partition=0, headers=headers, timestamp_ms=timestamp)
                for key, value, headers, timestamp in records]
        return await asyncio.gather(*sent)


def plain(values):
    """Records of values alone."""
    return [(None, value, None, None) for value in values]


async def read(run, topic, count, partitions=(0,), start=0):
    """Reads `count` records of the partitions and looks whether more come."""
    async with AIOKafkaConsumer(bootstrap_servers=run.bootstrap, enable_auto_commit=False) as consumer:
        parts = [TopicPartition(topic, partition) for partition in partitions]
        consumer.assign(parts)
        for part in parts:
            consumer.seek(part, start)
        got = []
        while True:
            enough = len(got) >= count
            batches = await consumer.getmany(timeout_ms=300 if enough else 1000)
            for records in batches.values():
                got.extend(records)
            if enough:
                return got


@feature_per_codec
@story
async def codec(run, name):
    topic, sent = run.create(name), run.payloads()
    answers = await produce(run, topic, plain(sent), compression_type=None if name == "none" else name)
    dense([answer.offset for answer in answers])
    same(sent, [record.value for record in await read(run, topic, len(sent))])


@feature("keys")
@story
async def keys(run):
    topic = run.create("keys", partitions=4)
    pairs = [(b"key %d" % (i % 20), b"value %d" % i) for i in range(400)]
    sent, got = Streams(), Streams()
    async with AIOKafkaProducer(bootstrap_servers=run.bootstrap, acks="all") as producer:
        for key, value in pairs:
            sent.add(key, value)
            await producer.send(topic, value, key=key)
        await producer.flush()
    for record in await read(run, topic, len(pairs), partitions=range(4)):
        got.add(record.key, record.value)
    got.check_same(sent)


@feature("null keys and values")
@story
async def nulls(run):
    topic = run.create("nulls")
    pairs = [(b"k", b"v"), (None, b"v"), (b"k", None), (b"", b"")]
    await produce(run, topic, [(key, value, None, None) for key, value in pairs])
    same(pairs, [(r.key, r.value) for r in await read(run, topic, len(pairs))])


@feature("headers")
@story
async def headers(run):
    topic = run.create("headers")
    sent = [[("plain", b"1"), ("twice", b"x"), ("twice", b"y"), ("empty", b"")],
            [("naïve — 記録", bytes(range(256)))], []]
    await produce(run, topic, [(None, b"v", entries, None) for entries in sent])
    same(sent, [list(record.headers) for record in await read(run, topic, len(sent))], "header list")


@feature("timestamps")
@story
async def timestamps(run):
    topic = run.create("times", config={"retention.ms": "-1"})
    now = int(time.time() * 1000)
    sent = [1, 1_000_000_000_000, now, now - 5]
    await produce(run, topic, [(None, b"v", None, timestamp) for timestamp in sent])
    same(sent, [record.timestamp for record in await read(run, topic, len(sent))], "timestamp")


@feature("idempotent producer")
@story
async def idempotence(run):
    topic, sent = run.create("idempotence"), [b"%d" % i for i in range(5_000)]
    answers = await produce(run, topic, plain(sent), enable_idempotence=True)
    dense([answer.offset for answer in answers])
    same(sent, [record.value for record in await read(run, topic, len(sent))])


@feature("1 MiB records")
@story
async def large(run):
    topic = run.create("large", config={"max.message.bytes": str(2 * MIB)})
    sent = [run.random.randbytes(MIB) for _ in range(10)]
    await produce(run, topic, plain(sent))
    same(sent, [record.value for record in await read(run, topic, len(sent))])


@feature("larger records refused")
@story
async def too_large(run):
    topic = run.create("too-large", config={"max.message.bytes": str(MIB)})
    try:
        await produce(run, topic, plain([run.random.randbytes(MIB + 100)]))
    except MessageSizeTooLargeError:
        await produce(run, topic, plain([b"after"]))
        return same([b"after"], [record.value for record in await read(run, topic, 1)])
    raise Broken("it was accepted")


@feature("offsets by timestamp")
@story
async def by_timestamp(run):
    topic, base = run.create("by-time", config={"retention.ms": "-1"}), 1_700_000_000_000
    await produce(run, topic, [(None, b"%d" % i, None, base + 10 * (i // 3)) for i in range(300)])
    part = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=run.bootstrap) as consumer:
        for asked, due in [(0, 0), (base + 1, 3), (base + 10, 3), (base + 990, 297)]:
            found = (await consumer.offsets_for_times({part: asked}))[part]
            check(found.offset == due, f"time {asked} is at {due}, answered {found}")
        ends = [await consumer.beginning_offsets([part]), await consumer.end_offsets([part])]
        same([{part: 0}, {part: 300}], ends, "end")


@feature("read from an offset")
@story
async def from_offset(run):
    topic, values = run.create("offset"), [b"%d" % i for i in range(1_000)]
    await produce(run, topic, plain(values))
    for start in [0, 1, 499, 999]:
        got = await read(run, topic, 1_000 - start, start=start)
        same(values[start:], [record.value for record in got])


@feature("resume from committed offsets")
@story
async def resume(run):
    topic, group = run.create("resume"), run.name("resume")
    values = [b"%d" % i for i in range(300)]
    await produce(run, topic, plain(values))
    seen = []
    for _ in range(3):
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=run.bootstrap, group_id=group,
                                    auto_offset_reset="earliest", enable_auto_commit=False)
        await consumer.start()
        got = []
        while len(got) < 100:
            for records in (await consumer.getmany(timeout_ms=500, max_records=100 - len(got))).values():
                got.extend(record.value for record in records)
        await consumer.commit()
        await consumer.stop()
        seen += got
    same(values, seen)


@feature("two members share a topic")
@story
async def shared(run):
    topic, group = run.create("shared", partitions=4), run.name("shared")
    start = lambda: AIOKafkaConsumer(topic, bootstrap_servers=run.bootstrap, group_id=group,
                                     auto_offset_reset="earliest", heartbeat_interval_ms=300)
    first, second = start(), start()
    await first.start()
    await second.start()
    shares = lambda: sorted(len(member.assignment()) for member in (first, second))
    while shares() != [2, 2]:
        await asyncio.gather(first.getmany(timeout_ms=200), second.getmany(timeout_ms=200))
    await second.stop()
    while len(first.assignment()) != 4:
        await first.getmany(timeout_ms=200)
    await first.stop()


if __name__ == "__main__":
    main()
