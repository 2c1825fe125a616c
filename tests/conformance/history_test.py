"""Every check finds the fault it is for, and lets a whole history pass."""

import unittest

from history import Broken, Streams, dense, every_one, one_value_per_offset, same


class Checks(unittest.TestCase):
    def broken(self, function, *arguments):
        with self.assertRaises(Broken):
            function(*arguments)

    def test_same_finds_lost_doubled_reordered_and_altered_records(self):
        same([b"a", b"b"], [b"a", b"b"])
        self.broken(same, [b"a", b"b"], [b"a"])
        self.broken(same, [b"a", b"b"], [b"b"])
        self.broken(same, [b"a", b"b"], [b"a", b"b", b"b"])
        self.broken(same, [b"a", b"b"], [b"b", b"a"])
        self.broken(same, [b"a", b"b"], [b"a", b"B"])
        self.broken(same, [(None, b"")], [(b"", b"")])

    def test_dense_finds_gaps_repetitions_and_steps_back(self):
        dense([0, 1, 2])
        dense([5, 6], 5)
        self.broken(dense, [0, 2])
        self.broken(dense, [0, 0])
        self.broken(dense, [1, 0])
        self.broken(dense, [1, 2])

    def test_every_one_finds_lost_and_alien_values(self):
        every_one([1, 2], [2, 1, 1])
        self.broken(every_one, [1, 2], [1, 1])
        self.broken(every_one, [1, 2], [1, 2, 3])

    def test_one_value_per_offset_finds_divergence_and_gaps(self):
        one_value_per_offset([(0, 0, b"a"), (0, 1, b"b"), (0, 0, b"a")])
        self.broken(one_value_per_offset, [(0, 0, b"a"), (0, 0, b"b")])
        self.broken(one_value_per_offset, [(0, 0, b"a"), (0, 2, b"b")])
        self.broken(one_value_per_offset, [(1, 1, b"a")])

    def streams(self, *records):
        streams = Streams()
        for stream, value in records:
            streams.add(stream, value)
        return streams

    def test_streams_find_lost_doubled_reordered_and_altered_records(self):
        sent = self.streams((0, b"a"), (1, b"x"), (0, b"b"))
        self.streams((0, b"a"), (0, b"b"), (1, b"x")).check_same(sent)
        for bad in [
            [(0, b"a"), (1, b"x")],
            [(0, b"a"), (0, b"b")],
            [(0, b"b"), (0, b"a"), (1, b"x")],
            [(0, b"a"), (0, b"b"), (0, b"b"), (1, b"x")],
            [(0, b"a"), (0, b"B"), (1, b"x")],
            [(0, b"ab"), (0, b""), (1, b"x")],
        ]:
            self.broken(self.streams(*bad).check_same, sent)


if __name__ == "__main__":
    unittest.main()
