"""Data that are read in parts, again in every epoch, and never held as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlefast.data._arrays import map_npy
from mlefast.data._dataset import Dataset, Labels, as_labels, images_to_rows, make_dataset

MIXED_BYTES = 1 << 26  # features among which samples are shuffled; what a stream holds is a small multiple of it
_BLOCK_BYTES = MIXED_BYTES // 16  # so that what is mixed comes from 16 places of a file
_LABELS_AT_ONCE = 1 << 20


class Stream(ABC):
    """Samples in batches, read anew in every epoch.

    Iterating gives the batches ``(X, y)`` as they are stored.

    Attributes
    ----------
    name : str
        Where the samples come from.
    batch_size : int
        Samples in a batch; the last one may be smaller.
    n_features : int
        Number of features, F.
    feature_names : tuple of str or None
        Names of the F features.
    image_shape : tuple of int or None
        Shape of a sample before it was flattened: (height, width) or (height, width, channels).
    """

    name: str
    batch_size: int
    n_features: int
    feature_names: tuple[str, ...] | None = None
    image_shape: tuple[int, ...] | None = None

    @property
    @abstractmethod
    def classes(self) -> Labels | None:
        """All labels, sorted; None if there are none. The first access may read the labels of the whole source."""

    @property
    @abstractmethod
    def n_samples(self) -> int | None:
        """Number of samples; None as long as it is not known."""

    def epoch(self, random: np.random.Generator | None = None) -> Iterator[tuple[npt.NDArray[np.float32], Labels]]:
        """Yield every sample once, in batches.

        Parameters
        ----------
        random : Generator, optional
            Decides the order, by its state at this call, from which it takes the same number of bits in any case; None:
            as the samples are stored.

        Yields
        ------
        X : ndarray of float32, shape (n, F)
            It belongs to the caller, who may write into it.
        y : ndarray of int64 or str, shape (n,)
            None if the source has no labels.

        Raises
        ------
        DataError
            At the first part that cannot be used.
        """
        return ((batch.X, batch.y) for batch in self.batches(random))  # type: ignore[misc]  # y: as documented

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.float32], Labels]]:
        return self.epoch()

    def batches(self, random: np.random.Generator | None = None) -> Iterator[Dataset]:
        """Yield the batches of :meth:`epoch` with the names of their samples."""
        own = None if random is None else np.random.default_rng(random.integers(2**63, size=2))
        return self._batches(own)

    @abstractmethod
    def _batches(self, random: np.random.Generator | None) -> Iterator[Dataset]:
        """Yield the batches of an epoch whose order a generator of its own decides."""


class BlockStream(Stream):
    """Samples that lie in blocks, each of which can be read alone.

    Blocks come in random order. As many as fill 64 MiB are mixed: a file that is sorted by class still gives batches
    of several classes if it has several blocks.
    """

    @property
    @abstractmethod
    def n_blocks(self) -> int:
        """Number of blocks."""

    @abstractmethod
    def read_block(self, block: int) -> Iterator[Dataset]:
        """Read a block, in parts if it is large."""

    def _batches(self, random: np.random.Generator | None) -> Iterator[Dataset]:
        blocks = range(self.n_blocks) if random is None else random.permutation(self.n_blocks)
        parts: Iterator[Dataset] = (part for block in blocks for part in self.read_block(int(block)))
        if random is not None:
            parts = _mixed(parts, max(self.batch_size, MIXED_BYTES // (4 * self.n_features)), random)
        return _cut(parts, self.batch_size)


@dataclass(eq=False)
class ArrayStream(BlockStream):
    """Rows of an array in a file, of which only those that are asked for are read."""

    name: str
    batch_size: int
    features: npt.NDArray[np.generic]
    labels: npt.NDArray[np.generic] | None

    def __post_init__(self) -> None:
        """Find out the layout."""
        rows, self.image_shape = images_to_rows(self.features[:1])
        self.n_features = int(rows.shape[1])
        self._rows_in_block = max(1, _BLOCK_BYTES // (4 * self.n_features))

    @cached_property
    def classes(self) -> Labels | None:
        """All labels, sorted."""
        if self.labels is None:
            return None
        parts = (slice(first, first + _LABELS_AT_ONCE) for first in range(0, len(self.labels), _LABELS_AT_ONCE))
        found = [np.unique(self._labels(some)) for some in parts]
        return np.unique(np.concatenate(found))

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.features)

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.features) // self._rows_in_block)

    def read_block(self, block: int) -> Iterator[Dataset]:
        """Read some consecutive rows."""
        some = slice(block * self._rows_in_block, (block + 1) * self._rows_in_block)
        X, _ = images_to_rows(np.array(self.features[some]))
        y = None if self.labels is None else self._labels(some)
        yield make_dataset(self.name, X, y, image_shape=self.image_shape, first_sample=some.start)

    def _labels(self, some: slice) -> Labels:
        assert self.labels is not None
        labels = np.array(self.labels[some])
        return as_labels(labels, len(labels), self.name, some.start)


def open_npy(path: Path, target: str | None, batch_size: int) -> ArrayStream:
    """Open features in a ``.npy`` file and the labels beside it."""
    features, labels = map_npy(path, target)
    return ArrayStream(str(path), batch_size, features, labels)


def _mixed(parts: Iterable[Dataset], n_samples: int, random: np.random.Generator) -> Iterator[Dataset]:
    """Shuffle the samples of consecutive parts, as many parts as give that many samples."""
    held: list[Dataset] = []
    for part in parts:
        held.append(part)
        if sum(each.n_samples for each in held) >= n_samples:
            yield _shuffled(held, random)
    if held:
        yield _shuffled(held, random)


def _shuffled(parts: list[Dataset], random: np.random.Generator) -> Dataset:
    """Shuffle the samples of all parts, and empty the list on the way: nothing is there twice for long."""
    n_samples = sum(part.n_samples for part in parts)
    places = random.permutation(n_samples)
    first = parts[0]
    X = np.empty((n_samples, first.n_features), np.float32)
    y = None if first.y is None else np.empty(n_samples, np.result_type(*(part.y for part in parts)))
    start = 0
    while parts:
        part = parts.pop(0)
        some = places[start : start + part.n_samples]
        X[some] = part.X
        if y is not None:
            y[some] = part.y
        start += part.n_samples
    return replace(first, X=X, y=y)


def _cut(parts: Iterable[Dataset], batch_size: int) -> Iterator[Dataset]:
    """Cut parts into batches of one size, across their borders; the last one may be smaller."""
    rest: Dataset | None = None
    for part in parts:
        taken = 0
        if rest is not None:
            taken = min(batch_size - rest.n_samples, part.n_samples)
            rest = _joined(rest, _slice(part, slice(0, taken)))
            if rest.n_samples < batch_size:
                continue
            yield rest
        end = part.n_samples - (part.n_samples - taken) % batch_size
        for first in range(taken, end, batch_size):
            yield _slice(part, slice(first, first + batch_size))
        rest = _slice(part, slice(end, None)) if end < part.n_samples else None
        del part  # or it would be there beside the next one
    if rest is not None:
        yield rest


def _joined(first: Dataset, second: Dataset) -> Dataset:
    y = None if first.y is None or second.y is None else np.concatenate([first.y, second.y])
    return replace(first, X=np.concatenate([first.X, second.X]), y=y)


def _slice(data: Dataset, some: slice) -> Dataset:
    # Copies, so that a batch that somebody keeps does not keep all that was read with it.
    return replace(data, X=data.X[some].copy(), y=None if data.y is None else data.y[some].copy())
