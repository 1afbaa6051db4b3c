"""How samples are taken: contestants alternate, A B C A B C, so that the machine's moods strike all of them alike.

A round gives every contestant its turn, in the same order. Slow ones take part in every second, third, … round only,
as few times as keeps to the time that the case may take, but spread over the whole run. Short calls are repeated within
a sample until it is long against the clock's resolution. First calls (compilation, thread pools, page tables) are not
timed.

OpenMP's threads spin for some milliseconds after a loop, and each library brings an OpenMP of its own: whoever comes
next would find the processors taken. So each sample waits until this process has come to rest.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

_SAMPLE_NS = 200_000  # the least time of a sample that may have several calls
_MOST_CALLS = 1000
_WARMING_CALLS = 4
_WAKING_NS = 5_000_000  # samples shorter than this would show how long sleeping threads take to wake
_REST_SECONDS, _MOST_RESTS = 0.001, 60


def rest() -> None:
    """Wait until no thread of this process is at work, or for 60 ms."""
    for _ in range(_MOST_RESTS):
        before = time.process_time_ns()
        time.sleep(_REST_SECONDS)
        if time.process_time_ns() - before < 0.2e9 * _REST_SECONDS:
            return


@dataclass(eq=False)
class Contestant:
    """Something to be timed.

    Attributes
    ----------
    name : str
    call : callable
        Does the job on the i-th set of arrays and returns its result when it is done.
    begin : callable, optional
        Run before each sample, untimed.
    restore : callable, optional
        Run before each call on a set of arrays, untimed: puts back what a call overwrites.
    least : int, default 5
        The fewest samples, however slow it is.
    """

    name: str
    call: Callable[[int], Any]
    begin: Callable[[], None] | None = None
    restore: Callable[[int], None] | None = None
    least: int = 5


@dataclass(eq=False)
class Samples:
    """Seconds per call of each sample and the rounds they were taken in; or why there are none."""

    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    calls: int = 1
    extra_bytes: int | None = None
    error: str | None = None


def measure(
    contestants: Sequence[Contestant],
    *,
    sets: int,
    warm: bool,
    rounds: int,
    seconds: float,
    clock: Callable[[], int] = time.perf_counter_ns,
    settle: Callable[[], None] = rest,
    extra_peak: Callable[[Callable[[], Any]], int | None] | None = None,
) -> list[Samples]:
    """Time contestants by turns.

    Parameters
    ----------
    contestants : sequence of Contestant
    sets : int
        How many sets of arrays there are; each call takes the next one.
    warm : bool
        Whether each sample is preceded by untimed calls, which bring the arrays into the caches. One is not enough: the
        contestant before may have written past the caches, and shared ones keep what is used more than once. (On a
        Xeon, the second call after a streamed copy took 1.5 times as long as the fifth.) Short samples of cold arrays
        are preceded by one call, for the sake of their threads; the next set of arrays is then timed.
    rounds : int
        The most samples of each contestant.
    seconds : float
        The time for all of them, which slow contestants exceed if their fewest samples take longer.
    clock : callable
        Nanoseconds; with a device, of the moment when all work given to it is done.
    settle : callable
        Run before each sample.
    extra_peak : callable, optional
        Calls a function and returns how many bytes it needed beyond those in use before it.

    Returns
    -------
    list of Samples
        One for each contestant; one whose call raises has an error in place of samples.
    """
    turn = _Turns(sets, clock)
    results = [_first_calls(turn, each, extra_peak) for each in contestants]
    start = clock()
    settle()
    resting = (clock() - start) / 1e9
    share = seconds / max(1, sum(result.error is None for result, _ in results))
    running = [
        (
            each,
            result,
            _period((untimed + result.calls) * duration + resting, rounds, share, min(each.least, rounds)),
            untimed,
        )
        for each, (result, duration) in zip(contestants, results)
        for untimed in [_WARMING_CALLS if warm else int(result.calls * duration * 1e9 < _WAKING_NS)]
    ]
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for number in range(rounds):
            for contestant, result, period, untimed in running:
                if number % period == 0 and result.error is None:
                    settle()
                    _sample(turn, contestant, result, number, untimed)
    finally:
        if collecting:
            gc.enable()
    return [result for result, _ in results]


class _Turns:
    """The set of arrays whose turn it is, and the clock."""

    def __init__(self, sets: int, clock: Callable[[], int]) -> None:
        self.sets, self.clock, self.count = sets, clock, 0

    def next(self) -> int:
        self.count += 1
        return self.count % self.sets


def _first_calls(
    turn: _Turns, contestant: Contestant, extra_peak: Callable[[Callable[[], Any]], int | None] | None
) -> tuple[Samples, float]:
    """Call twice, the second time watching the memory; choose the number of calls in a sample."""
    result = Samples()
    durations = []
    try:
        if contestant.begin:
            contestant.begin()
        for attempt in range(2):
            at = turn.next()
            if contestant.restore:
                contestant.restore(at)
            start = turn.clock()
            if attempt == 1 and extra_peak is not None:
                result.extra_bytes = extra_peak(lambda at=at: contestant.call(at))  # type: ignore[misc]
            else:
                contestant.call(at)
            durations.append(turn.clock() - start)
        if durations[1] < _SAMPLE_NS:  # the memory's watching took most of it
            _, durations[1] = _timed(turn, contestant, 1)
            _, durations[1] = _timed(turn, contestant, 1)
    except Exception as error:  # a peer that fails must not end the run: the report says why
        result.error = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return result, 0.0
    shortest = max(1, durations[1])
    result.calls = min(_MOST_CALLS, math.ceil(_SAMPLE_NS / shortest))
    return result, shortest / 1e9


def _period(duration: float, rounds: int, share: float, least: int) -> int:
    """Every how many rounds a contestant takes part, so that `rounds / period` samples last no longer than `share`."""
    wanted = math.ceil(rounds * duration / share) if share > 0 else rounds
    longest = (rounds - 1) // (least - 1) if least > 1 else rounds  # the first round and `least - 1` more
    return max(1, min(wanted, longest))


def _sample(turn: _Turns, contestant: Contestant, result: Samples, number: int, untimed: int) -> None:
    try:
        if contestant.begin:
            contestant.begin()
        _timed(turn, contestant, untimed)
        calls, nanoseconds = _timed(turn, contestant, result.calls)
    except Exception as error:
        result.error = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return
    result.seconds.append(nanoseconds / calls / 1e9)
    result.rounds.append(number)


def _timed(turn: _Turns, contestant: Contestant, calls: int) -> tuple[int, int]:
    """Nanoseconds of some calls; what lies between them is timed only if it is nothing but the next call."""
    call, restore, clock = contestant.call, contestant.restore, turn.clock
    if restore is None:
        order = [turn.next() for _ in range(calls)]
        start = clock()
        for at in order:
            call(at)
        return calls, clock() - start
    total = 0
    for _ in range(calls):
        at = turn.next()
        restore(at)
        start = clock()
        call(at)
        total += clock() - start
    return calls, total
