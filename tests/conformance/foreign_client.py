"""A client of another language, unmodified, driven through a small program of its own.

FOREIGN names the program as a JSON list; it is called with `BOOTSTRAP COMMAND TOPIC ...`:

- `produce TOPIC CODEC`: records from stdin; writes `{"partition", "offset"}` for each, in order
- `consume TOPIC COUNT START PARTITION,...`: writes that many records, and those that follow at once
- `group TOPIC GROUP COUNT`: joins the group, writes at least that many records, commits them, leaves
- `offset TOPIC TIME`: writes the offset of the first record of partition 0 that is not older, -1 if none
- `transact TOPIC ID commit|abort`: as `produce`, in one transaction that ends so
- `committed TOPIC COUNT START PARTITION,...`: as `consume`, of what was committed
- `pipe TOPIC TO GROUP ID COUNT`: carries so many records to another topic, exactly once
- `consumer-group TOPIC GROUP COUNT`: as `group`, by the protocol of KIP-848
- `static-group TOPIC GROUP COUNT`: as `group`, by a member whose instance id is "instance"
- `alter TOPIC NAME VALUE`, `config TOPIC NAME` (writes the value): one config of a topic
- `create TOPIC PARTITIONS`, `delete TOPIC`, `list TOPIC` (writes the number of its partitions, 0 if none)

Records are lines of JSON: `partition`, `offset`, `timestamp`, `key`, `value` (base64 or null) and
`headers` (pairs of a name and base64). A record to be sent may leave out what is not set.
FOREIGN_CODECS names the codecs that the client has, with commas between; all if it is not set.
FOREIGN_FEATURES names what it has beyond the rest: `transactions`, `pipe`, `consumer protocol`,
`static member`, `configs`; or, with `no admin`, that it cannot make topics.
FOREIGN_EMPTY is `null` for a client that takes values without bytes for null.
"""

import base64
import json
import os
import subprocess
import time

from harness import CODECS, MIB, eventually, feature, main
from history import Streams, check, dense, same

SECONDS = 90


def call(run, command, *arguments, lines=(), fails=False):
    """Runs the program; returns the JSON lines that it wrote."""
    program = [*json.loads(os.environ["FOREIGN"]), run.bootstrap, command, *map(str, arguments)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run(program, input=text, capture_output=True, timeout=SECONDS, text=True)
    words = done.stderr.strip()[-500:]
    if fails:
        check(done.returncode != 0, f"{command} did not fail")
        return words
    check(done.returncode == 0, f"{command} exited {done.returncode}: {words}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def text_of(value):
    """Bytes or null as the program takes them."""
    return None if value is None else base64.b64encode(value).decode()


def bytes_of(text):
    """The way back."""
    return None if text is None else base64.b64decode(text)


def record(value, key=None, **more):
    """A record to be sent, to partition 0 unless it says otherwise."""
    return {"partition": 0, "key": text_of(key), "value": text_of(value), **more}


def produce(run, topic, records, codec="none"):
    """Sends records; returns their offsets."""
    answers = call(run, "produce", topic, codec, lines=records)
    check(len(answers) == len(records), f"{len(answers)} answers to {len(records)} records")
    return [answer["offset"] for answer in answers]


def read(run, topic, count, partitions=(0,), start=0):
    """Reads so many records."""
    return call(run, "consume", topic, count, start, ",".join(map(str, partitions)))


def values_of(records):
    """Their values as bytes."""
    values = [bytes_of(record["value"]) for record in records]
    if os.environ.get("FOREIGN_EMPTY") == "null":
        return [b"" if value is None else value for value in values]
    return values


FEATURES_OF_CLIENT = os.environ.get("FOREIGN_FEATURES", "").split(",")


def extra(needs, name):
    """A feature that not every client has."""
    return feature(name) if needs in FEATURES_OF_CLIENT else lambda function: function


def unless(lacks, name):
    """A feature that all have but those that say so."""
    return feature(name) if lacks not in FEATURES_OF_CLIENT else lambda function: function


@feature("metadata")
def metadata(run):
    topic = run.create("metadata", partitions=3)
    eventually(lambda: call(run, "list", topic), [3], "partitions")


def codec(run, name):
    topic, sent = run.create(name), run.payloads()
    dense(produce(run, topic, [record(value) for value in sent], name))
    got = read(run, topic, len(sent))
    same(sent, values_of(got))
    dense([each["offset"] for each in got])


for each_codec in os.environ.get("FOREIGN_CODECS", ",".join(CODECS)).split(","):
    feature(f"codec {each_codec}")(lambda run, name=each_codec: codec(run, name))


@feature("keys")
def keys(run):
    topic, sent, got, homes = run.create("keys", partitions=4), Streams(), Streams(), {}
    pairs = [(b"key %d" % (i % 20), b"value %d" % i) for i in range(400)]
    for key, value in pairs:
        sent.add(key, value)
    records = [{"key": text_of(key), "value": text_of(value)} for key, value in pairs]
    call(run, "produce", topic, "none", lines=records)
    for each in read(run, topic, len(pairs), partitions=range(4)):
        key = bytes_of(each["key"])
        got.add(key, bytes_of(each["value"]))
        check(homes.setdefault(key, each["partition"]) == each["partition"], f"key {key} in two partitions")
    got.check_same(sent)


@feature("null keys and values")
def nulls(run):
    topic = run.create("nulls")
    pairs = [(b"k", b"v"), (None, b"v"), (b"k", None)]
    produce(run, topic, [record(value, key) for key, value in pairs])
    got = read(run, topic, len(pairs))
    same(pairs, [(bytes_of(each["key"]), bytes_of(each["value"])) for each in got])


@feature("headers")
def headers(run):
    topic = run.create("headers")
    sent = [[["plain", b"1"], ["other", b""]], [["naïve — 記録", bytes(range(256))]], []]
    encoded = [[[name, text_of(value)] for name, value in entries] for entries in sent]
    produce(run, topic, [record(b"v", headers=entries) for entries in encoded])
    same(encoded, [each["headers"] for each in read(run, topic, len(sent))], "header list")


@feature("timestamps")
def timestamps(run):
    topic = run.create("times", config={"retention.ms": "-1"})
    now = int(time.time() * 1000)
    sent = [1, 1_000_000_000_000, now, now - 5]
    produce(run, topic, [record(b"v", timestamp=timestamp) for timestamp in sent])
    same(sent, [each["timestamp"] for each in read(run, topic, len(sent))], "timestamp")


@feature("idempotent producer")
def idempotence(run):
    topic, sent = run.create("idempotence"), [b"%d" % i for i in range(5_000)]
    dense(produce(run, topic, [record(value) for value in sent]))
    same(sent, values_of(read(run, topic, len(sent))))


@feature("1 MiB records")
def large(run):
    topic = run.create("large", config={"max.message.bytes": str(2 * MIB)})
    sent = [run.random.randbytes(MIB) for _ in range(5)]
    produce(run, topic, [record(value) for value in sent])
    same(sent, values_of(read(run, topic, len(sent))))


@feature("larger records refused")
def too_large(run):
    topic = run.create("too-large", config={"max.message.bytes": str(MIB)})
    call(run, "produce", topic, "none", lines=[record(run.random.randbytes(MIB + 100))], fails=True)
    produce(run, topic, [record(b"after")])
    same([b"after"], values_of(read(run, topic, 1)))


@feature("offsets by timestamp")
def by_timestamp(run):
    topic, base = run.create("by-time", config={"retention.ms": "-1"}), 1_700_000_000_000
    produce(run, topic, [record(b"%d" % i, timestamp=base + 10 * (i // 3)) for i in range(300)])
    for asked, due in [(0, 0), (base + 1, 3), (base + 10, 3), (base + 990, 297)]:
        same([due], call(run, "offset", topic, asked), f"offset of time {asked - base}")


@feature("read from an offset")
def from_offset(run):
    topic, values = run.create("offset"), [b"%d" % i for i in range(1_000)]
    produce(run, topic, [record(value) for value in values])
    for start in [0, 1, 499, 999]:
        same(values[start:], values_of(read(run, topic, 1_000 - start, start=start)))


@feature("resume from committed offsets")
def resume(run):
    topic, group, seen = run.create("resume"), run.name("resume"), []
    values = [b"%d" % i for i in range(300)]
    for part in [values[:100], values[100:200], values[200:]]:
        produce(run, topic, [record(value) for value in part])
        seen += values_of(call(run, "group", topic, group, len(part)))
    same(values, seen)


@extra("consumer protocol", "consumer protocol")
def consumer_protocol(run):
    topic, group, seen = run.create("consumer-protocol"), run.name("consumer-protocol"), []
    values = [b"%d" % i for i in range(200)]
    for part in [values[:100], values[100:]]:
        produce(run, topic, [record(value) for value in part])
        seen += values_of(call(run, "consumer-group", topic, group, len(part)))
    same(values, seen)


@extra("static member", "static member")
def static_member(run):
    topic, group, seen = run.create("static"), run.name("static"), []
    values = [b"%d" % i for i in range(100)]
    for part in [values[:50], values[50:]]:
        produce(run, topic, [record(value) for value in part])
        seen += values_of(call(run, "static-group", topic, group, len(part)))
    same(values, seen)
    # a static member that closes stays in the group until its session ends
    described = run.admin.describe_consumer_groups([group])[group].result(timeout=30)
    same(["instance"], [member.group_instance_id for member in described.members], "instance")


@extra("configs", "admin: configs")
def configs(run):
    topic = run.create("configs")
    call(run, "alter", topic, "retention.ms", "123456")
    eventually(lambda: call(run, "config", topic, "retention.ms"), ["123456"], "retention")
    words = call(run, "alter", topic, "retention.ms", "soon", fails=True)
    check(words, "it failed without a word")


@extra("transactions", "transactions")
def transactions(run):
    topic, identity, all_values, committed = run.create("transactions"), run.name("txn"), [], []
    for n, end in enumerate(["commit", "abort", "commit", "abort", "commit"]):
        values = [b"%d %d" % (n, i) for i in range(50)]
        call(run, "transact", topic, identity, end, lines=[record(value) for value in values])
        all_values += values
        committed += values if end == "commit" else []
    same(all_values, values_of(read(run, topic, len(all_values))))
    got = call(run, "committed", topic, len(committed), 0, "0")
    same(committed, values_of(got), "committed record")


@extra("pipe", "exactly once from topic to topic")
def pipe(run):
    source, target = run.create("pipe-from"), run.create("pipe-to")
    values = [b"%d" % i for i in range(200)]
    produce(run, source, [record(value) for value in values])
    group, identity = run.name("pipe"), run.name("pipe-txn")
    for _ in range(2):
        call(run, "pipe", source, target, group, identity, 100)
    same(values, values_of(call(run, "committed", target, len(values), 0, "0")))


@unless("no admin", "admin: topics")
def admin_topics(run):
    topic = run.name("admin")
    call(run, "create", topic, 2)
    eventually(lambda: call(run, "list", topic), [2], "partitions")
    words = call(run, "create", topic, 2, fails=True)
    check("exist" in words.lower(), words)
    call(run, "delete", topic)
    eventually(lambda: call(run, "list", topic), [0], "partitions after the deletion")


if __name__ == "__main__":
    main()
