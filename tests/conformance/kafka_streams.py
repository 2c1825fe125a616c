"""Kafka Streams (Java), unmodified: a word count with exactly-once processing, also when it is
killed in the middle.

JAVA begins the command line of a Java program, as a JSON list.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter

import confluent_kafka as ck

from harness import feature, main
from history import check, same

SECONDS = 120
WORDS = ["ring", "core", "log", "mill", "page", "sector", "epoch", "offset"]


class Application:
    """One instance of the word count."""

    def __init__(self, run, name, source, target):
        self.folder = tempfile.mkdtemp(prefix="streams-")
        java = json.loads(os.environ["JAVA"])
        self.command = [*java, "WordCount", run.bootstrap, name, source, target, self.folder]
        self.process = None

    def start(self):
        log = open(os.path.join(self.folder, "log"), "ab")
        self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def end(self):
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def lines_of(run, count):
    """Lines of a few words each."""
    return [" ".join(run.random.choices(WORDS, k=1 + i % 5)) for i in range(count)]


def produce(run, topic, lines):
    producer = ck.Producer({"bootstrap.servers": run.bootstrap, "linger.ms": 5})
    for line in lines:
        producer.produce(topic, line.encode())
    check(producer.flush(30) == 0, "records are left unsent")


def counts(run, topic, due):
    """The updates of every word as a reader of committed records sees them, until they reach `due`."""
    consumer = ck.Consumer({
        "bootstrap.servers": run.bootstrap, "group.id": run.name("reader"),
        "auto.offset.reset": "earliest", "isolation.level": "read_committed",
    })
    consumer.subscribe([topic])
    updates, deadline = {}, time.time() + SECONDS
    while {word: seen[-1] for word, seen in updates.items()} != due:
        check(time.time() < deadline, f"{ {w: s[-1] for w, s in updates.items()} } instead of {due}")
        message = consumer.poll(0.2)
        if message is None or message.error():
            continue
        count = int.from_bytes(message.value(), "big")
        updates.setdefault(message.key().decode(), []).append(count)
    consumer.close()
    return updates


def word_count(run, kills):
    source, target = run.create("lines", partitions=2), run.create("counts", partitions=2)
    lines = lines_of(run, 3_000)
    application = Application(run, run.name("word-count"), source, target)
    application.start()
    try:
        parts = kills + 1
        for part in range(parts):
            produce(run, source, lines[part::parts])
            if part < kills:
                time.sleep(4 + run.random.random() * 4)
                application.kill()
                application.start()
        due = dict(Counter(word for line in lines for word in line.split(" ")))
        for word, seen in counts(run, target, due).items():
            # counted twice, a number would be skipped; after an abort, come again
            same(sorted(set(seen)), seen, f"count of {word}")
    finally:
        application.end()


@feature("word count, exactly once")
def counted(run):
    word_count(run, kills=0)


@feature("word count, exactly once, killed")
def killed(run):
    word_count(run, kills=2)


if __name__ == "__main__":
    main()
