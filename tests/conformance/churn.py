"""Fifty consumers on a hundred partitions, half of which come and go while records flow: under each
group protocol, no record may be skipped and no partition may have two owners; how long the members
that stay are kept from records they go on owning is measured.
"""

import random
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from harness import feature, main, until
from history import check

PARTITIONS = 100
MEMBERS = 50
STAYING = 25
CHURN_SECONDS = 40
CHANGE_EVERY = 0.8  # seconds between a leave and a join
PER_SECOND = 1_000  # records, over all partitions
SETTLE_SECONDS = 120


class World:
    """Who owns what, and what was read."""

    def __init__(self):
        self.lock = threading.Lock()
        self.owner = {}
        self.doubles = []
        self.read = set()
        self.again = 0
        self.pauses = []

    def given(self, member, partitions):
        with self.lock:
            for partition in partitions:
                other = self.owner.get(partition)
                if other not in (None, member.name):
                    self.doubles.append(f"{partition} to {member.name} while {other} has it")
                self.owner[partition] = member.name

    def taken(self, member, partitions):
        with self.lock:
            for partition in partitions:
                if self.owner.get(partition) == member.name:
                    del self.owner[partition]

    def got(self, places):
        with self.lock:
            before = len(self.read)
            self.read.update(places)
            self.again += len(places) - (len(self.read) - before)


class Member(threading.Thread):
    """A consumer that commits what it has handed on before it lets a partition go."""

    def __init__(self, world, run, group_id, topic, name, config, stays):
        super().__init__(daemon=True)
        self.world, self.topic, self.name, self.stays = world, topic, name, stays
        self.leaving = threading.Event()
        self.last, self.ends = {}, {}
        self.failure = None
        self.consumer = Consumer({
            "bootstrap.servers": run.bootstrap, "group.id": group_id, "client.id": name, "log_level": 0,
            "auto.offset.reset": "earliest", "enable.auto.commit": False, "fetch.wait.max.ms": 100, **config})
        self.eager = config.get("partition.assignment.strategy") == "range"

    def run(self):
        try:
            self.consumer.subscribe([self.topic], on_assign=self._given, on_revoke=self._taken, on_lost=self._lost)
            while not self.leaving.is_set():
                self._take(self.consumer.consume(200, timeout=0.1))
            self.consumer.close()
        except Exception as error:
            self.failure = error

    def _take(self, messages):
        places, now = [], time.monotonic()
        for message in messages:
            if message.error() is not None:
                continue
            partition = message.partition()
            places.append((partition, message.offset()))
            self.ends[partition] = message
            if self.stays and partition in self.last:
                self.world.pauses.append(now - self.last[partition])
            self.last[partition] = now
        self.world.got(places)

    def _given(self, _consumer, partitions):
        self.world.given(self, [p.partition for p in partitions])

    def _taken(self, consumer, partitions):
        gone = [p.partition for p in partitions]
        for partition in gone:
            message = self.ends.pop(partition, None)
            if message is not None:
                try:
                    consumer.commit(message=message, asynchronous=False)
                except KafkaException as error:
                    # A rebalance has overtaken the commit: what is after the last one comes again.
                    late = (KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS,
                            KafkaError.STALE_MEMBER_EPOCH, KafkaError.UNKNOWN_MEMBER_ID)
                    if error.args[0].code() not in late:
                        self.failure = error
            if not self.eager:
                self.last.pop(partition, None)
        self.world.taken(self, gone)

    def _lost(self, _consumer, partitions):
        gone = [p.partition for p in partitions]
        for partition in gone:
            self.ends.pop(partition, None)
            self.last.pop(partition, None)
        self.world.taken(self, gone)


class Stream(threading.Thread):
    """Records to all partitions in turn, at a steady rate."""

    def __init__(self, run, topic):
        super().__init__(daemon=True)
        self.topic, self.ending = topic, threading.Event()
        self.producer = Producer({"bootstrap.servers": run.bootstrap, "linger.ms": 5, "enable.idempotence": True})
        self.sent, self.failed = set(), []

    def _delivered(self, error, message):
        if error:
            self.failed.append(error)
        else:
            self.sent.add((message.partition(), message.offset()))

    def run(self):
        number, started = 0, time.monotonic()
        while not self.ending.is_set():
            due = int((time.monotonic() - started) * PER_SECOND)
            while number < due:
                self.producer.produce(self.topic, b"%d" % number, partition=number % PARTITIONS,
                                      on_delivery=self._delivered)
                number += 1
            self.producer.poll(0.02)
        self.producer.flush(60)


def churn(run, kind, config):
    """Members come and go; returns what was seen."""
    topic, group_id = run.create(f"churn-{kind}", partitions=PARTITIONS), run.name(f"churn-{kind}")
    world, chance = World(), random.Random(848)
    stream, counter = Stream(run, topic), iter(range(1_000_000))
    everybody = []

    def start(stays):
        member = Member(world, run, group_id, topic, f"{kind}-{next(counter)}", config, stays)
        everybody.append(member)
        member.start()
        return member

    staying = [start(True) for _ in range(STAYING)]
    going = [start(False) for _ in range(MEMBERS - STAYING)]
    for _ in until(SETTLE_SECONDS, "the first assignment"):
        if len(world.owner) == PARTITIONS and len(set(world.owner.values())) == MEMBERS:
            break
        time.sleep(0.1)
    stream.start()
    time.sleep(3)
    world.pauses.clear()
    ends, changes = time.monotonic() + CHURN_SECONDS, 0
    while time.monotonic() < ends:
        leaver = going.pop(chance.randrange(len(going)))
        leaver.leaving.set()
        going.append(start(False))
        changes += 1
        time.sleep(CHANGE_EVERY)
    pauses = sorted(world.pauses)
    stream.ending.set()
    stream.join(90)
    for _ in until(SETTLE_SECONDS, "reading all records"):
        if world.read >= stream.sent:
            break
        time.sleep(0.2)
    for member in staying + going:
        member.leaving.set()
    for member in everybody:
        member.join(60)
    check(not stream.failed, f"{len(stream.failed)} records were not taken")
    failures = [f"{member.name}: {member.failure}" for member in everybody if member.failure]
    check(not failures, f"{len(failures)} members failed: {failures[:3]}")
    check(not world.doubles, f"{len(world.doubles)} partitions had two owners: {world.doubles[:3]}")
    skipped = stream.sent - world.read
    check(not skipped, f"{len(skipped)} records skipped: {sorted(skipped)[:3]}")
    at = lambda share: pauses[min(len(pauses) - 1, int(share * len(pauses)))] * 1000
    return (f"{changes} members replaced, {len(stream.sent)} records, none skipped, {world.again} read again, no "
            f"partition with two owners; between records of a partition that a staying member keeps: median "
            f"{at(0.5):.0f} ms, 99 % {at(0.99):.0f} ms, 99.9 % {at(0.999):.0f} ms, most {at(1):.0f} ms")


@feature("churn, consumer protocol")
def consumer_protocol(run):
    return churn(run, "consumer", {"group.protocol": "consumer"})


@feature("churn, classic cooperative")
def classic_cooperative(run):
    return churn(run, "cooperative", {
        "partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 500})


@feature("churn, classic eager")
def classic_eager(run):
    return churn(run, "eager", {
        "partition.assignment.strategy": "range", "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 500})


if __name__ == "__main__":
    main()
