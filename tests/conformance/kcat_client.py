"""Debian's kcat, unmodified, put through every feature it has.

kcat has no admin commands: topics with more than one partition or with settings are made by
confluent-kafka, whose own run is python_client.py.
"""

import json
import subprocess

import group
from harness import MIB, REPLICAS, feature, feature_per_codec, main
from history import Streams, check, dense, same

# Bytes that no payload holds, between records and between key and value.
RECORD_END = b"\xfe\xffrecord\xff\xfe"
KEY_END = b"\xfe\xffkey\xff\xfe"

# How long an ordinary call may take; the long run has its own limit.
SECONDS = 60
LONG_SECONDS = 240

# Partition, offset, timestamp, lengths of key and value (-1 is null), then headers, key and value.
FRAME = "%p %o %T %K %S %h\n%k%s"


def escaped(delimiter):
    """As kcat's command line takes bytes."""
    return "".join(f"\\x{byte:02x}" for byte in delimiter)


def kcat(run, *arguments, stdin=b"", fails=False, seconds=SECONDS):
    """Runs kcat to its end; returns stdout, or stderr where it is meant to fail."""
    command = ["kcat", "-b", run.bootstrap, *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=seconds)
    words = done.stderr.decode(errors="replace").strip()
    if fails:
        check(done.returncode != 0, f"{' '.join(command)} did not fail: {words}")
        return words
    check(done.returncode == 0, f"{' '.join(command)} exited {done.returncode}: {words}")
    return done.stdout


def produce(run, topic, values, *arguments):
    """Sends values (no keys) and waits for their acknowledgement.

    One request in flight unless the arguments say more: a retry (a new partition's leader is not
    ready at once) would else overtake, and order is checked.
    """
    kcat(run, "-P", "-t", topic, "-D", escaped(RECORD_END), "-X", "max.in.flight=1",
         "-X", f"enable.idempotence={str(REPLICAS > 1).lower()}", *arguments,
         stdin=RECORD_END.join(values))


def consume(run, topic, *arguments):
    """Reads a topic from its beginning (or as the arguments say) to its end."""
    if "-o" not in arguments:
        arguments = ("-o", "beginning", *arguments)
    out = kcat(run, "-C", "-t", topic, "-e", "-q", "-f", FRAME, "-X", "check.crcs=true", *arguments)
    return list(records(out))


def records(out):
    """Parses FRAME: (partition, offset, timestamp, headers, key, value)."""
    at = 0
    while at < len(out):
        end = out.index(b"\n", at)
        partition, offset, timestamp, key_length, value_length, headers = out[at:end].split(b" ", 5)
        at = end + 1
        key, at = field(out, at, int(key_length))
        value, at = field(out, at, int(value_length))
        yield int(partition), int(offset), int(timestamp), headers, key, value


def field(out, at, length):
    """A key or value of that length, None for null."""
    return (None, at) if length < 0 else (out[at:at + length], at + length)


@feature("metadata")
def metadata(run):
    topic = run.create("metadata", partitions=3)
    listing = json.loads(kcat(run, "-L", "-J", "-t", topic))
    host, port = run.bootstrap.rsplit(":", 1)
    names = [broker["name"] for broker in listing["brokers"]]
    check(f"{host}:{port}" in names, f"{run.bootstrap} is not among the brokers {names}")
    [found] = listing["topics"]
    check(found["topic"] == topic, f"asked for {topic}, got {found['topic']}")
    partitions = sorted(partition["partition"] for partition in found["partitions"])
    check(partitions == [0, 1, 2], f"partitions {partitions}")
    leaders = {partition["leader"] for partition in found["partitions"]}
    check(leaders <= {broker["id"] for broker in listing["brokers"]}, f"leaders {leaders}")


@feature("unknown topic")
def unknown_topic(run):
    words = kcat(run, "-C", "-t", run.name("unknown"), "-e", fails=True)
    check("Unknown topic" in words, f"kcat said: {words}")


@feature("topic created by first record")
def auto_create(run):
    topic = run.name("auto")
    produce(run, topic, [b"first"])
    same([b"first"], [value for *_, value in consume(run, topic)])


@feature_per_codec
def codec(run, name):
    topic = run.create(name)
    # kcat sends nothing for an empty line.
    sent = [payload for payload in run.payloads() if payload]
    produce(run, topic, sent, "-z", name, "-p", "0")
    got = consume(run, topic)
    same(sent, [value for *_, value in got])
    dense([offset for _, offset, *_ in got])


@feature("keys")
def keys(run):
    topic = run.create("keys", partitions=4)
    pairs = [(b"key %d" % (i % 20), b"value %d" % i) for i in range(400)]
    pairs += [(b"", b"empty key"), (bytes(range(200)), b"binary key")]
    lines = RECORD_END.join(key + KEY_END + value for key, value in pairs)
    kcat(run, "-P", "-t", topic, "-D", escaped(RECORD_END), "-K", escaped(KEY_END),
         "-X", "max.in.flight=1", stdin=lines)
    sent, read, homes = Streams(), Streams(), {}
    for key, value in pairs:
        sent.add(key, value)
    for partition, _, _, _, key, value in consume(run, topic):
        read.add(key or b"", value)
        check(homes.setdefault(key, partition) == partition, f"key {key} in two partitions")
    read.check_same(sent)


@feature("null keys and values")
def nulls(run):
    topic = run.create("nulls")
    lines = RECORD_END.join([b"k" + KEY_END + b"v", KEY_END + b"v", b"k" + KEY_END])
    kcat(run, "-P", "-t", topic, "-Z", "-D", escaped(RECORD_END), "-K", escaped(KEY_END),
         "-X", "max.in.flight=1", stdin=lines)
    got = [(key, value) for *_, key, value in consume(run, topic)]
    same([(b"k", b"v"), (None, b"v"), (b"k", None)], got)


@feature("headers")
def headers(run):
    topic = run.create("headers")
    produce(run, topic, [b"a", b"b"], "-H", "plain=1", "-H", "twice=x", "-H", "twice=y", "-H", "empty=")
    got = consume(run, topic)
    same([b"plain=1,twice=x,twice=y,empty="] * 2, [record[3] for record in got])
    same([b"a", b"b"], [record[5] for record in got])


@feature("timestamps")
def timestamps(run):
    topic = run.create("timestamps", config={"message.timestamp.type": "LogAppendTime"})
    for i in range(3):
        produce(run, topic, [b"%d" % i])
    times = [record[2] for record in consume(run, topic)]
    check(len(times) == 3 and min(times) > 1_600_000_000_000, f"append times {times}")
    check(times == sorted(times), f"append times go back: {times}")


@feature("1 MiB records")
def large(run):
    topic = run.create("large", config={"max.message.bytes": str(2 * MIB)})
    sent = [run.random.randbytes(MIB) for _ in range(5)]
    produce(run, topic, sent, "-X", f"message.max.bytes={4 * MIB}")
    # A record beyond the fetch limit must come all the same (KIP-74).
    got = consume(run, topic, "-X", "max.partition.fetch.bytes=100000")
    same(sent, [value for *_, value in got])


@feature("larger records refused")
def too_large(run):
    topic = run.create("too-large", config={"max.message.bytes": str(MIB)})
    words = kcat(run, "-P", "-t", topic, "-D", escaped(RECORD_END), "-X", f"message.max.bytes={4 * MIB}",
                 stdin=run.random.randbytes(MIB + 100), fails=True)
    check("Message size too large" in words, f"kcat said: {words}")
    produce(run, topic, [b"small"])
    same([b"small"], [value for *_, value in consume(run, topic)])


@feature("many records in order")
def many(run):
    topic = run.create("many", partitions=4)
    path = run.path("many.txt")
    sent = Streams()
    with open(path, "wb") as file:
        for i in range(run.records):
            key, value = b"key-%02d" % (i % 16), b"%09d %s" % (i, b"payload." * 10)
            sent.add(key, value)
            file.write(b"%s\t%s\n" % (key, value))
    kcat(run, "-P", "-t", topic, "-K", "\t", "-z", "lz4", "-l", path,
         "-X", "enable.idempotence=true", seconds=LONG_SECONDS)
    read, offsets = Streams(), {}
    out = kcat(run, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o %k\t%s\n",
               "-X", "check.crcs=true", seconds=LONG_SECONDS)
    for line in out.splitlines():
        where, value = line.split(b"\t", 1)
        partition, offset, key = where.split(b" ")
        offsets.setdefault(int(partition), []).append(int(offset))
        read.add(key, value)
    for partition, seen in offsets.items():
        dense(seen, what=f"partition {partition}")
    read.check_same(sent)
    return f"{run.records} records, partitions {sorted(offsets)}"


@feature("offsets by timestamp")
def by_timestamp(run):
    topic = run.create("by-timestamp", config={"message.timestamp.type": "LogAppendTime"})
    for i in range(5):
        produce(run, topic, [b"%d-%d" % (i, j) for j in range(10)])
    times = [record[2] for record in consume(run, topic)]
    for timestamp in sorted(set(times)):
        first = times.index(timestamp)
        words = kcat(run, "-Q", "-t", f"{topic}:0:{timestamp}").decode()
        check(words.split()[-1] == str(first), f"time {timestamp} is at offset {first}, kcat said: {words}")
    after = kcat(run, "-Q", "-t", f"{topic}:0:{max(times) + 1}").decode()
    check(after.split()[-1] == "-1", f"after the last record kcat said: {after}")
    check(len(consume(run, topic, "-o", f"s@{times[20]}")) == 50 - times.index(times[20]),
          "consuming from a timestamp began elsewhere")


@feature("read from an offset")
def from_offset(run):
    topic = run.create("offset")
    produce(run, topic, [b"%d" % i for i in range(100)], "-p", "0")
    offsets = lambda *arguments: [record[1] for record in consume(run, topic, *arguments)]
    check(offsets("-p", "0", "-o", "40") == list(range(40, 100)), "from 40")
    check(offsets("-p", "0", "-o", "-5") == list(range(95, 100)), "the last 5")
    check(offsets("-p", "0", "-o", "end") == [], "from the end")


def group_of_three(run, assignor):
    topic = run.create(f"group-{assignor}", partitions=group.PARTITIONS)
    group_id = run.name("members")
    command = ["kcat", "-b", run.bootstrap, "-u", "-f", "%p %o %s\n",
               "-X", f"session.timeout.ms={group.SESSION_MS}", "-X", "heartbeat.interval.ms=500",
               "-X", "auto.commit.interval.ms=1000", "-X", "auto.offset.reset=earliest",
               "-X", f"partition.assignment.strategy={assignor}", "-G", group_id, topic]
    return group.survives_a_kill(
        lambda: group.Member(command),
        lambda partition, values: produce(run, topic, values, "-p", str(partition)),
        lambda: run.committed(group_id, topic))


@feature("group of three, one killed")
def group_eager(run):
    return group_of_three(run, "range")


@feature("resume from committed offsets")
def resume(run):
    topic = run.create("resume")
    group_id = run.name("resume")
    values = [b"%d" % i for i in range(300)]
    produce(run, topic, values, "-p", "0")
    got = []
    for count in [100, 50, 150]:
        out = kcat(run, "-q", "-f", "%s\n", "-c", str(count), "-X", "auto.offset.reset=earliest",
                   "-G", group_id, topic)
        part = out.split()
        check(len(part) == count, f"asked for {count}, got {len(part)}")
        got += part
        done = run.committed(group_id, topic)
        check(done == {0: len(got)}, f"read {len(got)}, committed {done}")
    same(values, got)


@feature("acks 0, 1, all")
def acks(run):
    for level in ["0", "1", "all"]:
        topic = run.create(f"acks-{level}")
        values = [b"%d" % i for i in range(1_000)]
        produce(run, topic, values[:1])  # from here on the leader is ready
        produce(run, topic, values[1:], "-p", "0", "-X", f"acks={level}", "-X", "max.in.flight=100", "-X", "enable.idempotence=false")
        # With acks=0 the answer does not wait for the append: read until all are there.
        out = kcat(run, "-C", "-t", topic, "-o", "beginning", "-c", "1000", "-q", "-f", "%s\n")
        same(values, out.split())


@feature("idempotent producer")
def idempotent(run):
    topic = run.create("idempotent", partitions=2)
    values = [b"%d" % i for i in range(20_000)]
    for partition in ["0", "1"]:
        produce(run, topic, values, "-p", partition,
                "-X", "enable.idempotence=true", "-X", "max.in.flight=5")
    for partition in ["0", "1"]:
        same(values, [value for *_, value in consume(run, topic, "-p", partition)])


if __name__ == "__main__":
    main()
