"""The group protocol of KIP-848 by confluent-kafka: `group.protocol=consumer`."""

import sys
import time

from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    Producer,
)

import group
from harness import eventually, feature, until
from history import check

SECONDS = 30


class Watched:
    """A member that notes what it is given and what is taken from it."""

    def __init__(self, run, group_id, topics, **config):
        config = {name.replace("_", "."): value for name, value in config.items()}
        self.owned, self.revoked, self.got = set(), [], []
        self.consumer = Consumer({
            "bootstrap.servers": run.bootstrap, "group.id": group_id, "group.protocol": "consumer",
            "log_level": 2, "auto.offset.reset": "earliest", "enable.auto.commit": False,
            "topic.metadata.refresh.interval.ms": 1000, **config})
        self.consumer.subscribe(topics, on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)

    def _given(self, _consumer, partitions):
        self.owned |= {(p.topic, p.partition) for p in partitions}

    def _taken(self, _consumer, partitions):
        gone = {(p.topic, p.partition) for p in partitions}
        self.owned -= gone
        self.revoked.append(gone)

    def poll(self):
        """Takes what is there."""
        for message in self.consumer.consume(500, timeout=0.05):
            if message.error() is None:
                self.got.append(message)

    def close(self):
        """Leaves the group."""
        self.consumer.close()


def produce(run, topic, partition, values):
    """Sends values to a partition and waits for their acknowledgement."""
    producer = Producer({"bootstrap.servers": run.bootstrap, "log_level": 2, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, partition=partition)
    check(producer.flush(90) == 0, "records without an answer")


def settle(members, due, what, shares=None):
    """Polls until the members own what is due together, each partition once, and each its share."""
    for _ in until(60, what):
        for member in members:
            member.poll()
        owned = [place for member in members for place in member.owned]
        if sorted(owned) == sorted(due) and shares in (None, [len(member.owned) for member in members]):
            return


def places(topic, partitions):
    """All partitions of a topic."""
    return [(topic, partition) for partition in range(partitions)]


@feature("group of three, consumer protocol")
def group_of_three(run):
    topic = run.create("group-848", partitions=group.PARTITIONS)
    group_id = run.name("members-848")
    command = [sys.executable, "-B", group.script("group_member.py"), run.bootstrap, group_id,
               topic, "uniform", "0"]
    return group.survives_a_kill(
        lambda: group.Member(command),
        lambda partition, values: produce(run, topic, partition, values),
        lambda: run.committed(group_id, topic))


@feature("consumer protocol: few partitions move")
def few_move(run):
    topic, group_id = run.create("few-move", partitions=6), run.name("few-move")
    first, second = (Watched(run, group_id, [topic]) for _ in range(2))
    settle([first, second], places(topic, 6), "two members", [3, 3])
    for member in (first, second):
        member.revoked.clear()
    third = Watched(run, group_id, [topic])
    settle([first, second, third], places(topic, 6), "three members", [2, 2, 2])
    moved = first.revoked + second.revoked
    check(sum(map(len, moved)) == 2, f"{moved} moved where two partitions are due")
    third.close()
    settle([first, second], places(topic, 6), "two members again", [3, 3])
    check(len(first.revoked + second.revoked) == len(moved), "a leave took partitions from others")
    first.close()
    second.close()


@feature("consumer protocol: pattern of topics")
def pattern(run):
    topic, group_id = run.create("pattern-a", partitions=2), run.name("pattern")
    member = Watched(run, group_id, [f"^conformance-{run.tag}-\\d+-pattern-.*"])
    settle([member], places(topic, 2), "the first topic")
    later = run.create("pattern-b", partitions=1)
    settle([member], places(topic, 2) + places(later, 1), "the later topic")
    member.close()


@feature("consumer protocol: static member")
def static_member(run):
    topic, group_id = run.create("static-848", partitions=4), run.name("static-848")
    names = ["one", "two"]
    members = [Watched(run, group_id, [topic], group_instance_id=name) for name in names]
    settle(members, places(topic, 4), "both members", [2, 2])
    owned, before = members[0].owned.copy(), len(members[1].revoked)
    members[0].close()
    again = Watched(run, group_id, [topic], group_instance_id="one")
    for _ in until(60, "the member's return"):
        again.poll()
        members[1].poll()
        if again.owned:
            break
    check(again.owned == owned, f"{again.owned} where {owned} was its own")
    check(len(members[1].revoked) == before, "the other member paused")
    for member in (again, members[1]):
        member.close()


@feature("consumer protocol: admin")
def admin(run):
    topic, group_id = run.create("admin-848", partitions=2), run.name("admin-848")
    member = Watched(run, group_id, [topic], client_id="the-member")
    settle([member], places(topic, 2), "the member's share")
    listed = run.admin.list_consumer_groups(types={ConsumerGroupType.CONSUMER}, request_timeout=SECONDS)
    found = {one.group_id: one for one in listed.result(SECONDS).valid}
    check(group_id in found and found[group_id].type == ConsumerGroupType.CONSUMER, "not listed")
    classic = run.admin.list_consumer_groups(types={ConsumerGroupType.CLASSIC}, request_timeout=SECONDS)
    check(group_id not in {one.group_id for one in classic.result(SECONDS).valid}, "listed as classic")
    described = run.admin.describe_consumer_groups([group_id])[group_id].result(SECONDS)
    check(described.state == ConsumerGroupState.STABLE, f"state {described.state}")
    check(described.partition_assignor == "uniform", f"assignor {described.partition_assignor}")
    [one] = described.members
    check(one.client_id == "the-member", f"member {one.client_id}")
    check(len(one.assignment.topic_partitions) == 2, f"{one.assignment.topic_partitions}")
    delete = lambda: run.admin.delete_consumer_groups([group_id])[group_id].result(SECONDS)
    try:
        delete()
        check(False, "a group with members was deleted")
    except KafkaException as error:
        check(error.args[0].code() == KafkaError.NON_EMPTY_GROUP, f"{error}")
    member.close()
    state = lambda: run.admin.describe_consumer_groups([group_id])[group_id].result(SECONDS).state
    eventually(state, ConsumerGroupState.EMPTY, "state after the leave")
    time.sleep(0.1)
    delete()
    left = run.admin.list_consumer_groups(request_timeout=SECONDS).result(SECONDS).valid
    check(group_id not in {one.group_id for one in left}, "deleted, but listed")
