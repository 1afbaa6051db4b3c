"""Tables in parts: the row groups of Parquet files, pieces of CSV files that end with a record."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mlefast.data._dataset import Dataset, Labels, Layout, as_labels, make_dataset, reading, wrong_data
from mlefast.data._stream import MIXED_BYTES, BlockStream
from mlefast.data._tables import choose_columns, csv_columns, feature_values, label_values

_PART_BYTES = MIXED_BYTES // 4  # features that are read at once from a row group
_BLANK = b" \t\r\n" + codecs.BOM_UTF8
_PIECE_BYTES = 1 << 22  # of a CSV file, which is three times as large in memory


class ParquetStream(BlockStream):
    """A Parquet file, read by row groups; see :func:`mlefast.data.open_stream`."""

    def __init__(self, path: Path, target: str | None, batch_size: int, like: Layout | None) -> None:
        self.name = str(path)
        self.batch_size = batch_size
        self._path = path
        with reading(path, "a whole Parquet file"):
            import pyarrow.parquet

            self._file = pyarrow.parquet.ParquetFile(path, memory_map=True)
        names = [str(name) for name in self._file.schema_arrow.names]
        self.feature_names, self._label = choose_columns(path, names, True, target, like)
        self.n_features = len(self.feature_names)
        if self.n_samples == 0:
            raise wrong_data(path, f"0 samples of {self.n_features} features", "at least one of each")
        groups = [self._file.metadata.row_group(i).num_rows for i in range(self.n_blocks)]
        self._first_samples = np.concatenate([[0], np.cumsum(groups)])

    @cached_property
    def classes(self) -> Labels | None:
        """All labels, sorted."""
        if self._label is None:
            return None
        found = []
        for group in range(self.n_blocks):
            for first, frame in self._frames(group, [self._label], 1 << 20):
                labels = label_values(frame[self._label])
                found.append(np.unique(as_labels(labels, len(labels), self.name, first)))
        return np.unique(np.concatenate(found))

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return int(self._file.metadata.num_rows)

    @property
    def n_blocks(self) -> int:
        """Number of row groups."""
        return int(self._file.metadata.num_row_groups)

    def read_block(self, block: int) -> Iterator[Dataset]:
        """Read a row group."""
        assert self.feature_names is not None
        labels = [] if self._label is None else [self._label]
        for first, frame in self._frames(block, [*self.feature_names, *labels], _PART_BYTES // (4 * self.n_features)):
            yield make_dataset(
                self.name,
                feature_values(self._path, frame, self.feature_names),
                None if self._label is None else label_values(frame[self._label]),
                feature_names=self.feature_names,
                first_sample=first,
            )

    def _frames(self, group: int, columns: list[str], n_rows: int) -> Iterator[tuple[int, Any]]:
        """Yield consecutive rows of a group as data frames, and the number of the first row in the file."""
        first = int(self._first_samples[group])
        with reading(self._path, "a whole Parquet file"):
            for rows in self._file.iter_batches(max(1, n_rows), row_groups=[group], columns=columns):
                frame = rows.to_pandas()
                frame.columns = [str(column) for column in frame.columns]
                yield first, frame
                first += len(frame)


class _Pieces(NamedTuple):
    """Where the pieces of a CSV file begin and end, their first samples, and what the texts of its labels stand for."""

    borders: list[int]
    first_samples: list[int]
    labels: dict[str, Any]
    classes: Labels | None


class CsvStream(BlockStream):
    """A CSV file, read in pieces of about 4 MiB; see :func:`mlefast.data.open_stream`."""

    def __init__(self, path: Path, target: str | None, batch_size: int, like: Layout | None) -> None:
        self.name = str(path)
        self.batch_size = batch_size
        self._path = path
        self._columns, self._named = csv_columns(path, target)
        names = [name for name in self._columns if name is not None]
        self._features, self._label = choose_columns(path, names, self._named, target, like)
        self.feature_names = self._features if self._named else None
        self.n_features = len(self._features)

    @property
    def classes(self) -> Labels | None:
        """All labels, sorted; the first access reads the file once."""
        return self._pieces.classes

    @property
    def n_samples(self) -> int:
        """Number of samples; the first access reads the file once."""
        return self._pieces.first_samples[-1]

    @property
    def n_blocks(self) -> int:
        """Number of pieces."""
        return len(self._pieces.borders) - 1

    def read_block(self, block: int) -> Iterator[Dataset]:
        """Read a piece."""
        pieces = self._pieces
        frame = self._read(pieces.borders[block], pieces.borders[block + 1])
        first = pieces.first_samples[block]
        if len(frame) == 0:  # blank lines
            return
        if frame.shape[1] != len(self._columns):
            found = f"{frame.shape[1]} columns from sample {first} on"
            raise wrong_data(self._path, found, f"{len(self._columns)}, as in its first line")
        frame.columns = list(self._columns)
        y = None
        if pieces.classes is not None:
            labels = frame[self._label].map(pieces.labels)
            if labels.isna().any():
                changed = f"another label in sample {first + int(labels.isna().argmax())} than when it was opened"
                raise wrong_data(self._path, changed, "a file that stays as it is")
            y = labels.to_numpy(dtype=pieces.classes.dtype)
        X = feature_values(self._path, frame, self._features)
        yield make_dataset(self.name, X, y, feature_names=self.feature_names, first_sample=first)

    @cached_property
    def _pieces(self) -> _Pieces:
        """Cut the file into pieces, and read the labels: what they are depends on all of them."""
        with reading(self._path, "comma-separated values"):
            borders = _record_borders(self._path, self._named)
        first_samples, texts = [0], dict[str, None]()
        for start, stop in pairwise(borders):
            column = self._read(start, stop, only=self._label or self._features[0]).squeeze(axis=1)
            if self._label is not None:
                missing = column.isna()
                if missing.any():
                    where = first_samples[-1] + int(missing.argmax())
                    raise wrong_data(self.name, f"no label for sample {where}", "a label for each sample")
                texts.update(dict.fromkeys(column.unique()))
            first_samples.append(first_samples[-1] + len(column))
        if first_samples[-1] == 0:
            raise wrong_data(self.name, f"0 samples of {self.n_features} features", "at least one of each")
        if self._label is None:
            return _Pieces(borders, first_samples, {}, None)
        labels = as_labels(_inferred(texts), len(texts), self.name)
        return _Pieces(borders, first_samples, dict(zip(texts, labels.tolist(), strict=True)), np.unique(labels))

    def _read(self, start: int, stop: int, only: str | None = None) -> Any:
        """Read records as a data frame: all columns, or one; labels as text."""
        import pandas as pd

        as_text = only or self._label
        with reading(self._path, "comma-separated values"):
            with self._path.open("rb") as file:
                file.seek(start)
                piece = io.BytesIO(file.read(stop - start))
            with contextlib.suppress(pd.errors.EmptyDataError):  # blank lines
                return pd.read_csv(
                    piece,
                    header=None,
                    index_col=False,
                    usecols=None if only is None else [self._columns.index(only)],
                    dtype={} if as_text is None else {self._columns.index(as_text): str},
                    low_memory=False,
                )
        return pd.DataFrame({0: []})


def _inferred(texts: Iterable[str]) -> Any:
    """Turn texts of labels into what they are if they are read as a column."""
    import pandas as pd

    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([text] for text in texts)
    file.seek(0)
    return label_values(pd.read_csv(file, header=None, index_col=False, low_memory=False)[0])


def _record_borders(path: Path, named: bool) -> list[int]:
    """Find the ends of records, about as many bytes apart as a piece is to have, from the first one after the names."""
    position, last, quotes = 0, -1 if named else 0, 0
    borders = [] if named else [0]
    with path.open("rb") as file:
        for line in file:
            position += len(line)
            quotes += line.count(b'"')
            if quotes % 2 or (last < 0 and not line.strip(_BLANK)):  # within a text, or before the names
                continue
            if last < 0 or position - last >= _PIECE_BYTES:
                borders.append(position)
                last = position
    if not borders or borders[-1] < position:
        borders.append(position)
    return borders
