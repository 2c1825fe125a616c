"""A group member of its own process on confluent-kafka; speaks as group.py expects.

Usage: group_member.py BOOTSTRAP GROUP TOPIC ASSIGNOR SESSION_MS. SIGTERM leaves the group.
"""

import signal
import sys

from confluent_kafka import Consumer

running = True


def stop(_signal, _frame):
    """Ends the loop below."""
    global running
    running = False


def say(event):
    """A callback that reports partitions in kcat's words."""
    def report(_consumer, partitions):
        listed = ", ".join(f"{p.topic} [{p.partition}]" for p in partitions)
        print(f"{event}: {listed}", file=sys.stderr, flush=True)
    return report


def protocol_of(assignor, session_ms):
    """The settings of a member: an assignor of the broker is of the consumer protocol, whose session
    the broker decides; any other is of the classic one."""
    if assignor in ("uniform", "range-of-broker"):
        return {"group.protocol": "consumer", "group.remote.assignor": assignor.removesuffix("-of-broker")}
    return {
        "partition.assignment.strategy": assignor,
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": 500,
    }


def main():
    """Consumes until told to stop."""
    bootstrap, group, topic, assignor, session_ms = sys.argv[1:]
    signal.signal(signal.SIGTERM, stop)
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        **protocol_of(assignor, int(session_ms)),
        "auto.commit.interval.ms": 1000,
        "check.crcs": True,
    })
    consumer.subscribe([topic], on_assign=say("assigned"), on_revoke=say("revoked"), on_lost=say("revoked"))
    while running:
        for message in consumer.consume(500, timeout=0.2):
            if message.error():
                print(f"error: {message.error()}", file=sys.stderr, flush=True)
                continue
            line = b"%d %d %s\n" % (message.partition(), message.offset(), message.value())
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    consumer.close()


main()
