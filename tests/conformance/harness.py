"""Runs a client's features one after the other and writes the report that xtask reads.

A feature is a function that takes a `Run` and raises if the broker breaks its promise. The report
has a line per feature: name, pass or fail, seconds, detail, with tabs between. The process exits 0
when every feature was tried; whether they passed stands in the report.
"""

import argparse
import os
import random
import socket
import struct
import time
import traceback

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from history import Broken

FEATURES = []

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]

MIB = 1024 * 1024

# Copies of each topic: a cluster of several nodes is to have them in several places. Where leaders
# move, a producer that is not idempotent sends what was not answered twice, so all are then.
REPLICAS = int(os.environ.get("TOPIC_REPLICATION", "1"))


def feature(name):
    """Registers the function under the feature's name in the table, the same for every client."""
    def register(function):
        FEATURES.append((name, function))
        return function
    return register


def feature_per_codec(function):
    """Registers the function once per codec; it takes the run and the codec's name."""
    for codec in CODECS:
        FEATURES.append((f"codec {codec}", lambda run, codec=codec: function(run, codec)))
    return function


class Run:
    """One client's run: where the broker is, and names nobody used before."""

    def __init__(self, options):
        self.bootstrap = options.bootstrap
        self.records = options.records
        self.scratch = options.scratch
        self.random = random.Random(options.seed)
        self.tag = f"{int(time.time()):x}-{os.getpid():x}"
        self.used = 0
        # One for the whole run: its calls end with it.
        self.admin = AdminClient({"bootstrap.servers": options.bootstrap, "log_level": 2, "reconnect.backoff.ms": 1000})

    def name(self, what):
        """A fresh topic or group name."""
        self.used += 1
        return f"conformance-{self.tag}-{self.used}-{what}"

    def create(self, what, partitions=1, config=None):
        """A new topic, made by confluent-kafka: not every client has admin commands."""
        topic = self.name(what)
        new = NewTopic(topic, num_partitions=partitions, replication_factor=REPLICAS, config=config or {})
        self.admin.create_topics([new])[topic].result(timeout=30)
        return topic

    def committed(self, group_id, topic):
        """A group's committed offsets, by partition.

        librdkafka's admin client (2.16) ends its process when a coordinator that it knows has moved
        and says NOT_COORDINATOR; where that can happen, a consumer asks.
        """
        if REPLICAS == 1:
            request = ConsumerGroupTopicPartitions(group_id)
            known = self.admin.list_consumer_group_offsets([request])[group_id].result(30).topic_partitions
        else:
            consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": group_id, "log_level": 2})
            partitions = self.admin.list_topics(topic, timeout=30).topics[topic].partitions
            known = consumer.committed([TopicPartition(topic, partition) for partition in partitions], timeout=30)
            consumer.close()
        return {p.partition: p.offset for p in known if p.topic == topic and p.offset >= 0}

    def path(self, name):
        """A file below the run's scratch folder."""
        os.makedirs(self.scratch, exist_ok=True)
        return os.path.join(self.scratch, name)

    def payloads(self):
        """Values that trip a careless codec: empty, single, binary, text that compresses well,
        noise that does not compress at all."""
        noise = [self.random.randbytes(size) for size in [1, 7, 100, 1_000, 70_000]]
        text = [b"EWR,IAH,1400,517,2,830,11,UA,N14228\n" * count for count in [1, 10, 3_000]]
        every_byte = [bytes(range(256)), b"\x00" * 5_000]
        small = [b"record %d" % index for index in range(500)]
        return [b"", b"x", "naïve — 記録".encode(), *every_byte, *text, *noise, *small]


def reachable(bootstrap):
    """Whether anyone listens there."""
    host, port = bootstrap.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
        return True
    except OSError:
        return False


class NotOffered(Exception):
    """The broker does not say that it has what a feature needs: the feature has no line."""


def ask(bootstrap, key, version, body):
    """Sends a request with the header of before KIP-482; returns the answer after its
    correlation id. For what no client of the run can ask."""
    host, port = bootstrap.rsplit(":", 1)
    frame = struct.pack(">hhih", key, version, 1, -1) + body
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(frame)) + frame)
        answer = connection.makefile("rb")
        size, _ = struct.unpack(">ii", answer.read(8))
        return answer.read(size - 4)


def offered(run, key):
    """Raises unless the broker advertises the API."""
    _, count = struct.unpack_from(">hi", answer := ask(run.bootstrap, 18, 0, b""))
    keys = [struct.unpack_from(">h", answer, 6 + 6 * row)[0] for row in range(count)]
    if key not in keys:
        raise NotOffered(f"the broker does not advertise API {key}")


PUSH_TELEMETRY = 72


def subscribe_to_metrics(run, name, wanted=True):
    """All metrics of all clients, each second (KIP-714), or no more; by IncrementalAlterConfigs."""
    def text(value):
        return struct.pack(">h", len(value)) + value.encode()
    body = struct.pack(">ib", 1, 16) + text(name) + struct.pack(">i", 2)
    for config, value in [("metrics", "*"), ("interval.ms", "1000")]:
        body += text(config) + (b"\0" + text(value) if wanted else b"\1\xff\xff")
    answer = ask(run.bootstrap, 44, 0, body + b"\0")
    code = struct.unpack_from(">h", answer, 8)[0]
    if code != 0:
        raise Broken(f"the subscription was refused: {code}")


def until(seconds, what):
    """Yields until the caller breaks out; raises when the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
    raise TimeoutError(f"{what} took more than {seconds} s")


def eventually(function, due, what):
    """The function comes to return what is due: a cluster's metadata may lag behind the answer to
    the request that changed it."""
    got = None
    try:
        for _ in until(10, what):
            got = function()
            if got == due:
                return
            time.sleep(0.05)
    except TimeoutError:
        raise Broken(f"{what}: {got} where {due} is due") from None


def one_line(text):
    """Fit for a field of the report."""
    return " ".join(str(text).split())


def main():
    """Parses the command line, runs the features, writes the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of the broker")
    parser.add_argument("--records", type=int, default=1_000_000, help="of the long ordered run")
    parser.add_argument("--only", default="", help="features whose name contains this")
    parser.add_argument("--seed", type=int, default=1, help="of the payloads")
    parser.add_argument("--scratch", required=True, help="folder for files of the run")
    parser.add_argument("--report", required=True, help="file to write")
    options = parser.parse_args()
    run = Run(options)
    with open(options.report, "w", encoding="utf-8", buffering=1) as report:
        for name, function in FEATURES:
            if options.only in name:
                report.write(tried(run, name, function))


def tried(run, name, function):
    """Runs one feature; returns its line of the report, if it has one."""
    started = time.monotonic()
    state, detail = "pass", ""
    try:
        # A broker that has died fails the rest at once, not each at its own deadline.
        if not reachable(run.bootstrap):
            raise ConnectionError(f"nobody listens on {run.bootstrap}")
        detail = function(run) or ""
    except NotOffered as reason:
        print(f"none  {name}  {reason}", flush=True)
        return ""
    except Exception as error:  # whatever broke, the next feature still has its turn
        state, detail = "fail", f"{type(error).__name__}: {error}"
        traceback.print_exc()
    seconds = f"{time.monotonic() - started:.1f}"
    print(f"{state}  {name}  {seconds} s  {one_line(detail)}", flush=True)
    return "\t".join([name, state, seconds, one_line(detail)]) + "\n"
