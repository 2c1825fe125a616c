"""A consumer group whose members are processes: started, killed without warning, stopped.

A member writes `PARTITION OFFSET VALUE` lines to stdout and `assigned:` / `revoked:` lines with
`topic [partition]` entries to stderr, as `kcat -G` does.
"""

import os
import re
import signal
import subprocess
import threading

from harness import until
from history import check, every_one, one_value_per_offset

PARTITIONS = 6
PER_PARTITION = 400
SESSION_MS = 6_000  # the least that Kafka allows by default (group.min.session.timeout.ms)
SETTLE_SECONDS = 60


class Member:
    """A member's process and what it said so far."""

    def __init__(self, command):
        self.assigned = set()
        self.deliveries = []
        self.chatter = []
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.readers = [
            threading.Thread(target=self._follow, args=(self.process.stdout, self._on_record), daemon=True),
            threading.Thread(target=self._follow, args=(self.process.stderr, self._on_event), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def _follow(self, pipe, handle):
        for line in pipe:
            # A killed member's last line may be cut short.
            if line.endswith(b"\n"):
                handle(line[:-1])

    def _on_record(self, line):
        partition, offset, value = line.split(b" ", 2)
        self.deliveries.append((int(partition), int(offset), value))

    def _on_event(self, line):
        text = line.decode(errors="replace")
        self.chatter.append(text)
        partitions = {int(number) for number in re.findall(r"\[(\d+)\]", text.split("assigned:")[-1].split("revoked:")[-1])}
        # Eager assignors revoke everything first, cooperative ones name the change: both add up.
        if "assigned:" in text:
            self.assigned = self.assigned | partitions
        elif "revoked:" in text:
            self.assigned = self.assigned - partitions

    def kill(self):
        """As a machine that loses power: no goodbye to the group."""
        self.process.kill()
        self._ended()

    def stop(self):
        """A clean leave, with a last commit."""
        self.process.send_signal(signal.SIGTERM)
        self._ended()

    def _ended(self):
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
        for reader in self.readers:
            reader.join(timeout=10)


def settled(members):
    """Whether the members share all partitions evenly, each owned once."""
    owned = [partition for member in members for partition in member.assigned]
    shares = {len(member.assigned) for member in members}
    return sorted(owned) == list(range(PARTITIONS)) and len(shares) == 1


def wait_for(condition, what, members):
    """Waits on the members' readers; the failure says what each member owned and said last."""
    pause = threading.Event()
    try:
        for _ in until(SETTLE_SECONDS, what):
            if condition():
                return
            pause.wait(0.05)
    except TimeoutError as error:
        state = "; ".join(
            f"{sorted(member.assigned)} with {len(member.deliveries)} records, last said {member.chatter[-1:]}"
            for member in members)
        raise TimeoutError(f"{error}: {state}") from None


def survives_a_kill(start, produce, committed):
    """Three members share the partitions; one is killed; the other two take over and read
    everything that is produced before and after.

    `start()` starts a member, `produce(partition, values)` returns when all are acknowledged,
    `committed()` returns the group's `{partition: offset}`.
    """
    sent = []

    def produce_round(number):
        for partition in range(PARTITIONS):
            values = [b"%d-%d-%d" % (number, partition, i) for i in range(PER_PARTITION)]
            produce(partition, values)
            sent.extend(values)

    members = [start() for _ in range(3)]
    try:
        wait_for(lambda: settled(members), "the first assignment", members)
        produce_round(1)
        deliveries = lambda: [d for member in members for d in member.deliveries]
        complete = lambda: {value for _, _, value in deliveries()} >= set(sent)
        wait_for(complete, "reading the first round", members)
        victim, *rest = members
        victim.kill()
        produce_round(2)
        wait_for(lambda: settled(rest), "the rebalance after a kill", rest)
        produce_round(3)
        wait_for(complete, "reading the last round", members)
        for member in rest:
            member.stop()
            check(member.process.returncode == 0, f"a member left with {member.process.returncode}: {member.chatter[-3:]}")
    finally:
        for member in members:
            member.process.kill()
    every_one(sent, [value for _, _, value in deliveries()])
    one_value_per_offset(deliveries())
    ends = {partition: 3 * PER_PARTITION for partition in range(PARTITIONS)}
    check(committed() == ends, f"committed {committed()}, read {ends}")
    again = len(deliveries()) - len(sent)
    return f"{len(sent)} records, {again} read again after the kill"


def script(name):
    """A script beside this one."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
