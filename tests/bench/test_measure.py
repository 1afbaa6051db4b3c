"""Samples: whose turn it is, what is timed and what is not, what happens to the slow and to those that fail."""

from __future__ import annotations

import gc
import time
from itertools import pairwise

import pytest
from mlefast.bench.measure import Contestant, measure, rest


class Stage:
    """Contestants that only move a clock forward, and a log of everything that happens."""

    def __init__(self):
        self.now, self.log = 0, []

    def clock(self):
        return self.now

    def contestant(self, name, nanoseconds, *, begin=None, restore=None, fails_at=None):
        calls = []

        def call(at):
            calls.append(at)
            if len(calls) == fails_at:
                raise RuntimeError(f"{name}\nis tired")
            self.log.append(name)
            self.now += nanoseconds

        def log(what, cost):
            def note(*_):
                self.log.append(what)
                self.now += cost

            return note

        contestant = Contestant(
            name, call, log(begin, 1_000_000) if begin else None, log(restore, 1_000_000) if restore else None
        )
        contestant.calls = calls
        return contestant

    def measure(self, contestants, **options):
        options = {"sets": 1, "warm": False, "rounds": 4, "seconds": 10.0, **options}
        return measure(contestants, clock=self.clock, settle=lambda: self.log.append("rest"), **options)


MS = 1_000_000


def test_contestants_alternate():
    stage = Stage()
    samples = stage.measure([stage.contestant(name, 10 * MS) for name in "ABC"])
    first, rounds = stage.log[:7], stage.log[7:]
    assert first == ["A", "A", "B", "B", "C", "C", "rest"]
    assert rounds == ["rest", "A", "rest", "B", "rest", "C"] * 4
    for each in samples:
        assert each.seconds == [0.01] * 4
        assert each.rounds == [0, 1, 2, 3]
        assert each.calls == 1


def test_warm_samples_follow_untimed_calls():
    stage = Stage()
    stage.measure([stage.contestant(name, 10 * MS) for name in "AB"], warm=True)
    assert stage.log[5:] == ["rest", *5 * "A", "rest", *5 * "B"] * 4


def test_short_calls_are_repeated():
    stage = Stage()
    (samples,) = stage.measure([stage.contestant("A", 1000)], rounds=3)
    assert samples.calls == 200
    assert samples.seconds == [1e-6] * 3


def test_calls_go_round_the_sets():
    stage = Stage()
    a, b = stage.contestant("A", 10 * MS), stage.contestant("B", 10 * MS)
    stage.measure([a, b], sets=3, rounds=6)
    order = [at for pair in zip(a.calls[2:], b.calls[2:]) for at in pair]
    assert all((later - earlier) % 3 == 1 for earlier, later in pairwise(order))
    assert set(order) == {0, 1, 2}


def test_begin_and_restore_are_not_timed():
    stage = Stage()
    (samples,) = stage.measure([stage.contestant("A", 20_000, begin="begin", restore="restore")], rounds=2)
    assert samples.seconds == pytest.approx([20e-6] * 2)
    assert samples.calls == 10
    sample = stage.log[-22:]
    assert sample[0] == "restore"
    assert sample == ["restore", "A"] * 11
    assert stage.log[-24:-22] == ["rest", "begin"]


def test_slow_ones_take_part_less_often_but_throughout():
    stage = Stage()
    slowest = stage.contestant("C", 2000 * MS)
    slowest.least = 4
    fast, slow, slowest = stage.measure(
        [stage.contestant("A", MS), stage.contestant("B", 200 * MS), slowest],
        rounds=30,
        seconds=6.0,
    )
    assert fast.rounds == list(range(30))
    assert slow.rounds == list(range(0, 30, 3))
    assert slowest.rounds == [0, 9, 18, 27]


def test_those_that_fail_say_why_and_end_nothing():
    stage = Stage()
    early, fine, late = stage.measure(
        [
            stage.contestant("A", 10 * MS, fails_at=1),
            stage.contestant("B", 10 * MS),
            stage.contestant("C", 10 * MS, fails_at=4),
        ]
    )
    assert early.error == "RuntimeError: A is tired"
    assert early.seconds == []
    assert fine.error is None
    assert len(fine.seconds) == 4
    assert late.error == "RuntimeError: C is tired"
    assert late.rounds == [0]


def test_memory_is_watched_in_the_second_call_only():
    stage = Stage()
    seen = []

    def extra_peak(call):
        call()
        seen.append(len(stage.log))
        return 123

    (samples,) = stage.measure([stage.contestant("A", 10 * MS)], extra_peak=extra_peak)
    assert samples.extra_bytes == 123
    assert seen == [2]


def test_no_garbage_is_collected_meanwhile():
    states = []
    contestant = Contestant("A", lambda i: states.append(gc.isenabled()))
    measure([contestant], sets=1, warm=False, rounds=3, seconds=1.0, settle=lambda: None)
    assert not any(states[-3:])
    assert gc.isenabled()


def test_rest_ends():
    start = time.monotonic()
    rest()
    assert time.monotonic() - start < 30
