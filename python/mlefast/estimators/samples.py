"""Where mini-batches come from: samples in memory, or a stream of batches that is read anew in every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlefast.estimators.machines import machine_of, moved
from mlefast.estimators.objective import FloatArray, IntArray
from mlefast.estimators.sparse import rows_of

Random = np.random.Generator


class Batch(NamedTuple):
    """Some samples: features, class indices, and weights if they are not all 1."""

    X: Any
    y: IntArray
    weight: FloatArray | None


class Source(Protocol):
    """What descent asks of its data."""

    @property
    def mean_weight(self) -> float:
        """What the loss of a batch is divided by, for each of its samples."""

    def batches(self, batch_size: int, random: Random | None) -> Iterator[Batch]:
        """Every sample once, in an order that `random` alone decides; as they are stored without it."""


class Samples(NamedTuple):
    """The data of a fit in memory (or mapped into it): features, class indices, and weights if they are not all 1.

    All lie on one machine.
    """

    X: Any
    y: IntArray
    weight: FloatArray | None

    @property
    def total_weight(self) -> float:
        """The number of samples, or the sum of their weights."""
        return float(len(self.y)) if self.weight is None else float(machine_of(self.weight).total(self.weight))

    @property
    def mean_weight(self) -> float:
        """Batches are divided by it, so that light ones stay light."""
        return self.total_weight / len(self.y)

    def take(self, chosen: IntArray) -> Samples:
        """Copy some of them."""
        chosen = moved(chosen, machine_of(self.X))
        return Samples(self.X[chosen], self.y[chosen], None if self.weight is None else self.weight[chosen])

    def batches(self, batch_size: int, random: Random | None) -> Iterator[Batch]:
        """Views of them as they are stored, or copies in a random order, all in the same memory."""
        n_samples = len(self.y)
        batch_size = min(batch_size, n_samples)
        if random is None:
            for first in range(0, n_samples, batch_size):
                some = slice(first, first + batch_size)
                yield Batch(rows_of(self.X, some), self.y[some], None if self.weight is None else self.weight[some])
            return
        machine = machine_of(self.X)
        order = machine.asarray(random.permutation(n_samples))
        dense = isinstance(self.X, machine.xp.ndarray)
        buffer = machine.empty((batch_size, self.X.shape[1]), self.X.dtype) if dense else None
        for first in range(0, n_samples, batch_size):
            chosen = order[first : first + batch_size]
            if buffer is not None:
                X = buffer[: len(chosen)]
                machine.take_rows(self.X, chosen, X)
            else:
                X = self.X[chosen]
            yield Batch(X, self.y[chosen], None if self.weight is None else self.weight[chosen])


class StreamSamples:
    """The samples of a stream, whose batches are checked, encoded and cut as they come.

    Parameters
    ----------
    stream : iterable
        What :func:`as_stream` accepts. Each batch of one that does not shuffle is shuffled by itself.
    check : callable
        Turns what the stream yields into a :class:`Batch`.
    """

    mean_weight = 1.0

    def __init__(self, stream: Any, check: Callable[[Any], Batch]) -> None:
        self._stream = stream
        self._check = check

    def batches(self, batch_size: int, random: Random | None) -> Iterator[Batch]:
        """Pieces of the stream's batches; the last piece of each may be smaller."""
        within = None if _shuffles(self._stream) else random
        empty = True
        for each in epoch_of(self._stream, random):
            samples = Samples(*self._check(each))
            if len(samples.y):
                empty = False
                yield from samples.batches(batch_size, within)
        if empty:
            raise ValueError(
                "stream: received no samples in an epoch; accepted: a stream that can be read anew each time"
            )

    def scan(self) -> tuple[int, float]:
        """Read everything once: the number of samples, and their mean square norm."""
        n_samples, squares = 0, 0.0
        for X, y, _ in self.batches(2**62, None):
            n_samples += len(y)
            squares += sum_of_squares(X)
        return n_samples, squares / n_samples


def _shuffles(stream: Any) -> bool:
    return hasattr(stream, "epoch")


def epoch_of(stream: Any, random: Random | None) -> Iterable[Any]:
    """Begin to read a stream: its method ``epoch(random)``, which shuffles, if it has one, or the stream itself."""
    received: Iterable[Any] = stream.epoch(random) if _shuffles(stream) else stream
    return received


def as_stream(stream: Any) -> Any:
    """Return a stream that can be read more than once.

    It yields ``(X, y)`` or ``(X, y, sample_weight)`` each time it is iterated over, or from its method
    ``epoch(random)``.

    Raises
    ------
    TypeError
        If it cannot: a generator, say, has nothing left after the first epoch.
    """
    if not _shuffles(stream) and (not isinstance(stream, Iterable) or iter(stream) is stream):
        raise TypeError(
            f"stream: received {type(stream).__name__}, which cannot be read anew in every epoch; accepted: a list of "
            "batches (X, y), an object whose __iter__ begins anew, or mlefast.data.open_stream(...)"
        )
    return stream


def sum_of_squares(X: Any) -> float:
    """Sum the squares of all features, dense or sparse."""
    xp = machine_of(X).xp
    values = X if isinstance(X, xp.ndarray) else X.data
    return float(sum(xp.vdot(part, part) for part in xp.array_split(values, 1 + values.size // 2**24)))
