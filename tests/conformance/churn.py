"""Fifty consumers on a hundred partitions, half of which come and go while records flow: under each
group protocol, no record may be skipped and no partition may have two owners; how long the members
that stay are kept from records they go on owning is measured.
"""

import os
import random
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from harness import feature, main, until
from history import check

PARTITIONS = 100
MEMBERS = 50
STAYING = 25
CHURN_SECONDS = int(os.environ.get("CHURN_SECONDS", "40"))
CHANGE_EVERY = 0.8  # seconds between a leave and a join
PER_SECOND = 1_000  # records, over all partitions
SETTLE_SECONDS = 120
ROLLING = 10  # members that are replaced one by one
ROLL_EVERY = 2.0  # seconds

CONSUMER = {"group.protocol": "consumer"}
CLASSIC = {"session.timeout.ms": 10_000, "heartbeat.interval.ms": 500}
COOPERATIVE = {**CLASSIC, "partition.assignment.strategy": "cooperative-sticky"}
EAGER = {**CLASSIC, "partition.assignment.strategy": "range"}


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
        given = [p.partition for p in partitions]
        if self.eager:
            # What comes back later was another's meanwhile.
            self.last = {partition: last for partition, last in self.last.items() if partition in given}
        self.world.given(self, given)

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


class Group:
    """The members of one group, and the records that they read."""

    def __init__(self, run, kind):
        self.run, self.kind = run, kind
        self.topic = run.create(f"churn-{kind}", partitions=PARTITIONS)
        self.group_id = run.name(f"churn-{kind}")
        self.world, self.stream = World(), Stream(run, self.topic)
        self.everybody = []

    def start(self, config, stays=False):
        """A new member."""
        name = f"{self.kind}-{len(self.everybody)}"
        member = Member(self.world, self.run, self.group_id, self.topic, name, config, stays)
        self.everybody.append(member)
        member.start()
        return member

    def settle(self, members):
        """Waits until so many members share all partitions."""
        owner = self.world.owner
        for _ in until(SETTLE_SECONDS, f"an assignment to {members} members"):
            if len(owner) == PARTITIONS and len(set(owner.copy().values())) == members:
                return
            time.sleep(0.1)

    def end(self):
        """Reads what is left, lets all members leave, and checks what was seen."""
        self.stream.ending.set()
        self.stream.join(90)
        for _ in until(SETTLE_SECONDS, "reading all records"):
            if self.world.read >= self.stream.sent:
                break
            time.sleep(0.2)
        for member in self.everybody:
            member.leaving.set()
        for member in self.everybody:
            member.join(60)
        seen(self.world, self.stream, self.everybody)
        return f"{len(self.stream.sent)} records, none skipped, {self.world.again} read again, no partition with two owners"


def seen(world, stream, everybody):
    """Checks what the members saw."""
    check(not stream.failed, f"{len(stream.failed)} records were not taken")
    failures = [f"{member.name}: {member.failure}" for member in everybody if member.failure]
    check(not failures, f"{len(failures)} members failed: {failures[:3]}")
    check(not world.doubles, f"{len(world.doubles)} partitions had two owners: {world.doubles[:3]}")
    skipped = stream.sent - world.read
    check(not skipped, f"{len(skipped)} records skipped: {sorted(skipped)[:3]}")


def churn(run, kind, config):
    """Members come and go; returns what was seen."""
    group, chance = Group(run, kind), random.Random(848)
    for _ in range(STAYING):
        group.start(config, stays=True)
    going = [group.start(config) for _ in range(MEMBERS - STAYING)]
    group.settle(MEMBERS)
    group.stream.start()
    time.sleep(3)
    group.world.pauses.clear()
    ends, changes = time.monotonic() + CHURN_SECONDS, 0
    while time.monotonic() < ends:
        going.pop(chance.randrange(len(going))).leaving.set()
        going.append(group.start(config))
        changes += 1
        time.sleep(CHANGE_EVERY)
    pauses = sorted(group.world.pauses)
    told = group.end()
    at = lambda share: pauses[min(len(pauses) - 1, int(share * len(pauses)))] * 1000
    return (f"{changes} members replaced, {told}; between records of a partition that a staying member keeps: median "
            f"{at(0.5):.0f} ms, 99 % {at(0.99):.0f} ms, 99.9 % {at(0.999):.0f} ms, most {at(1):.0f} ms")


def roll(run, kind, classic):
    """One by one, members of the classic protocol are replaced by those of the consumer protocol, and
    these by members of the classic one."""
    group, members = Group(run, kind), []
    for _ in range(ROLLING):
        members.append(group.start(classic))
    group.settle(ROLLING)
    group.stream.start()
    for config in [CONSUMER, classic]:
        for at, old in enumerate(members):
            old.leaving.set()
            old.join(60)
            members[at] = group.start(config)
            time.sleep(ROLL_EVERY)
        group.settle(ROLLING)
    return f"{ROLLING} members to the consumer protocol and back, {group.end()}"


@feature("churn, consumer protocol")
def consumer_protocol(run):
    return churn(run, "consumer", CONSUMER)


@feature("churn, classic cooperative")
def classic_cooperative(run):
    return churn(run, "cooperative", COOPERATIVE)


@feature("churn, classic eager")
def classic_eager(run):
    return churn(run, "eager", EAGER)


@feature("rolling upgrade and back, cooperative")
def roll_cooperative(run):
    return roll(run, "roll-cooperative", COOPERATIVE)


@feature("rolling upgrade and back, eager")
def roll_eager(run):
    return roll(run, "roll-eager", EAGER)


if __name__ == "__main__":
    main()
