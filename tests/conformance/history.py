"""What must hold between the records that were sent and those that were read: pure checks.

Each raises `Broken` with the first difference in words. A record is any tuple of plain values;
an offset list belongs to one partition. history_test.py shows each of them fail.
"""

import hashlib
from collections import Counter


class Broken(AssertionError):
    """A broken promise of the broker's, in one line."""


def check(holds, message):
    """Raises `Broken(message)` unless the condition holds."""
    if not holds:
        raise Broken(message)


def shown(value):
    """A value short enough for one line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:90]}… ({len(text)} characters)"


def same(sent, got, what="record"):
    """The same values in the same order, byte for byte."""
    for index, (expected, actual) in enumerate(zip(sent, got)):
        check(expected == actual,
              f"{what} {index} differs: sent {shown(expected)}, read {shown(actual)}")
    check(len(got) >= len(sent), f"{len(sent) - len(got)} of {len(sent)} {what}s are missing")
    check(len(got) <= len(sent), f"{len(got) - len(sent)} {what}s more than the {len(sent)} sent")


def dense(offsets, start=0, what="partition"):
    """Offsets without gap, repetition or step back."""
    for index, offset in enumerate(offsets):
        check(offset == start + index, f"{what}: offset {offset} where {start + index} is due")


def every_one(sent, got):
    """Each value sent was read at least once, and nothing else was read."""
    sent, got = Counter(sent), Counter(got)
    lost = sent.keys() - got.keys()
    check(not lost, f"{len(lost)} of {len(sent)} values lost, one is {shown(next(iter(lost), None))}")
    alien = got.keys() - sent.keys()
    check(not alien, f"{len(alien)} values never sent, one is {shown(next(iter(alien), None))}")


def one_value_per_offset(deliveries):
    """`(partition, offset, value)` as read by anyone at any time: no offset ever holds two values,
    and what was read of a partition leaves out no offset."""
    seen = {}
    for partition, offset, value in deliveries:
        known = seen.setdefault((partition, offset), value)
        check(known == value, f"partition {partition} offset {offset} held {shown(known)} and {shown(value)}")
    for partition in {partition for partition, _ in seen}:
        dense(sorted(o for p, o in seen if p == partition), what=f"partition {partition}")


class Streams:
    """Running checksums over many records: order and bytes of each stream, in constant memory."""

    def __init__(self):
        self._digests = {}
        self._counts = Counter()

    def add(self, stream, *fields):
        """Adds a record's fields (bytes) to the end of a stream."""
        digest = self._digests.setdefault(stream, hashlib.sha256())
        for field in fields:
            digest.update(len(field).to_bytes(8, "big"))
            digest.update(field)
        self._counts[stream] += 1

    def check_same(self, sent):
        """The same streams, each with the same records in the same order."""
        check(self._digests.keys() == sent._digests.keys(),
              f"streams {shown(sorted(self._digests))} read, {shown(sorted(sent._digests))} sent")
        for stream, digest in self._digests.items():
            count, expected = self._counts[stream], sent._counts[stream]
            check(count == expected, f"stream {stream!r}: {count} records read, {expected} sent")
            check(digest.digest() == sent._digests[stream].digest(),
                  f"stream {stream!r}: {count} records, but order or bytes differ from those sent")
