"""librdkafka, by confluent-kafka, as a client under test by the matrix of faults: produces until its
standard input ends, and tells what became of each record, a line each.
"""

import sys
import threading
import time

from confluent_kafka import Producer

LOCK = threading.Lock()


def tell(*words):
    with LOCK:
        print(*words, flush=True)


def filler(number, length):
    """As ringmill_tests::history::value fills what is behind the head."""
    mask = (1 << 64) - 1
    state = (number * 0x9E3779B97F4A7C15 & mask) | 1
    out = bytearray()
    for _ in range(length):
        state ^= state << 13 & mask
        state ^= state >> 7
        state ^= state << 17 & mask
        out.append(state & 0xFF)
    return bytes(out)


def main():
    bootstrap, topic, partitions, rate, first = sys.argv[1:]
    partitions, rate, number = int(partitions), int(rate), int(first)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True, "linger.ms": 0,
                         "delivery.timeout.ms": 120_000, "request.timeout.ms": 1_500, "socket.timeout.ms": 3_000, "log_level": 0})
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()

    def on_delivery(record):
        def told(error, message):
            if error:
                tell("failed", record, message.partition(), error.name())
            else:
                tell("acked", record, message.partition(), message.offset())
        return told

    due = time.monotonic()
    while not over.is_set():
        for partition in range(partitions):
            tell("sent", number, partition)
            value = number.to_bytes(8, "big") + bytes(4) + filler(number, 20)
            producer.produce(topic, value, partition=partition, on_delivery=on_delivery(number))
            number += 1
        due = max(due + 1 / rate, time.monotonic() - 1)
        producer.poll(max(0, due - time.monotonic()))
    sys.exit(0 if producer.flush(120) == 0 else 1)


main()
