"""Tables: CSV and Parquet, through pandas."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast.data._dataset import Dataset, Layout, make_dataset, reading, wrong_data

_TARGET_NAMES = ("target", "label", "class", "y")


def read_csv(path: Path, target: str | None, like: Layout | None) -> Dataset:
    """Read comma-separated values, with or without a line of names."""
    with reading(path, "comma-separated values"):
        import pandas as pd

        first, second = _first_lines(path)
        named = _has_header(first, second, target)
        # A first column without a name is the index that pandas writes; no other column is to become an index.
        index_column = 0 if named and first[0] == "" else False
        frame = pd.read_csv(path, header=0 if named else None, index_col=index_column, low_memory=False)
    return _from_frame(path, frame, named, target, like)


def read_parquet(path: Path, target: str | None, like: Layout | None) -> Dataset:
    """Read an Apache Parquet file."""
    with reading(path, "a whole Parquet file"):
        import pyarrow.parquet

        frame = pyarrow.parquet.read_table(path).to_pandas()
    return _from_frame(path, frame, True, target, like)


def csv_columns(path: Path, target: str | None) -> tuple[tuple[str | None, ...], bool]:
    """Return the names of a CSV file's columns, and whether they are written in it.

    Without names, columns are called by their numbers. None is the index that pandas writes.
    """
    with reading(path, "comma-separated values"):
        import pandas as pd

        first, second = _first_lines(path)
        if not _has_header(first, second, target):
            return tuple(str(i) for i in range(len(first))), False
        names = [str(name) for name in pd.read_csv(path, nrows=0, index_col=False).columns]
        return (None if first[0] == "" else names[0], *names[1:]), True


def choose_columns(
    path: Path, names: Sequence[str], named: bool, target: str | None, like: Layout | None
) -> tuple[tuple[str, ...], str | None]:
    """Decide which columns are features and which one holds the labels."""
    label = _label_column(path, names, named, target, like)
    wanted = like.feature_names if named and like is not None and like.feature_names else None
    features = tuple(wanted or (name for name in names if name != label))
    absent = [name for name in features if name not in names]
    if absent:
        raise wrong_data(path, f"no columns {_shorten(absent)}", "the columns that the model was trained on")
    if not features:
        raise wrong_data(path, f"only the column {_shorten(names)}", "features and labels, separated by commas")
    return features, label


def feature_values(path: Path, frame: Any, features: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return columns of a data frame as features; what is missing is NaN."""
    from pandas.api.types import is_numeric_dtype

    words = [name for name in features if not is_numeric_dtype(frame[name])]
    if words and len(frame):
        raise wrong_data(path, f"columns that are not numeric: {_shorten(words)}", "numbers as features")
    values: npt.NDArray[np.float64] = frame[list(features)].to_numpy(dtype=np.float64, na_value=np.nan)
    return values


def label_values(column: Any) -> Any:
    """Return a column as labels; what is missing is NaN or the empty string."""
    from pandas.api.types import is_numeric_dtype

    missing = column.isna()
    if is_numeric_dtype(column):
        return column.to_numpy(dtype=np.float64, na_value=np.nan) if missing.any() else column.to_numpy()
    values = column.astype(str).to_numpy(dtype=str)
    return np.where(missing, "", values)  # no label, as the empty string


def _from_frame(path: Path, frame: Any, named: bool, target: str | None, like: Layout | None) -> Dataset:
    frame.columns = [str(column) for column in frame.columns]
    features, label = choose_columns(path, list(frame.columns), named, target, like)
    return make_dataset(
        path,
        feature_values(path, frame, features),
        None if label is None else label_values(frame[label]),
        feature_names=features if named else None,
    )


def _label_column(path: Path, names: Sequence[str], named: bool, target: str | None, like: Layout | None) -> str | None:
    """Decide which column holds the labels; only data for a trained model may have none."""
    if target is not None:
        if target not in names:
            raise wrong_data(path, f"the columns {_shorten(names)}", f"one named {target!r}, the target")
        return target
    if like is None:
        return _well_known(names) or names[-1]
    if named and like.feature_names:
        others = [name for name in names if name not in like.feature_names]
        return _well_known(others) or (others[0] if len(others) == 1 else None)
    return _well_known(names) or (names[-1] if len(names) == like.n_features + 1 else None)


def _well_known(names: Sequence[str]) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(names)}
    return next((by_lower_case[name] for name in _TARGET_NAMES if name in by_lower_case), None)


def _first_lines(path: Path) -> tuple[list[str], list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = (line for line in csv.reader(file) if line)
        return next(lines, [""]), next(lines, [])


def _has_header(first: list[str], second: list[str], target: str | None) -> bool:
    """Tell names from data, by the target's name, by a word above a number, or by numbers as pandas gives them."""
    names_of_targets = {"target", "label", "class"}  # not "y", which may be a label
    if target is not None and not _is_number(target):
        names_of_targets.add(target.lower())
    if any(name.lower() in names_of_targets for name in first):
        return True
    if len(first) > 3 and first[:-1] == [str(i) for i in range(len(first) - 1)]:
        return True
    if not second:
        return not any(_is_number(name) for name in first)
    words = (name and not _is_number(name) for name in first)  # what is left empty is a missing number
    return any(word and _is_number(below) for word, below in zip(words, second, strict=False))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
