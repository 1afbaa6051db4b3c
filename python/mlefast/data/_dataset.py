"""A data set, and the checks that every reader ends with."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlefast._files import BROKEN_FILE, one_line

Features = Any  # ndarray (N, F) of float32, or a SciPy CSR matrix of it
Labels = npt.NDArray[Any]


class DataError(ValueError):
    """Data that cannot be used; the message names the source, what was found and what is accepted."""


class DataWarning(UserWarning):
    """Data of which a part is left out; the message names that part and why."""


def wrong_data(source: str | Path, found: str, accepted: str) -> DataError:
    """Every error about data says the same three things."""
    return DataError(f"{source}: found {found}; accepted: {accepted}")


class Layout(Protocol):
    """What data must look like for a model that was trained on such: a :class:`Dataset` or a ``LinearModel``."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """Names of the features, if they have any."""

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """Height, width (and channels) of a sample that is an image."""

    @property
    def n_features(self) -> int:
        """Number of features."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their labels.

    Attributes
    ----------
    X : ndarray of float32, shape (N, F), or CSR matrix of float32
        Features, all finite.
    y : ndarray of int64 or str, shape (N,), or None
        Labels, if the source has any.
    feature_names : tuple of str or None
        Names of the F features.
    image_shape : tuple of int or None
        Shape of a sample before it was flattened: (height, width) or (height, width, channels).
    name : str
        Where it came from.
    sample_names : tuple of str or None
        Names of the N samples: the files of pictures.
    """

    X: Features
    y: Labels | None
    feature_names: tuple[str, ...] | None
    image_shape: tuple[int, ...] | None
    name: str
    sample_names: tuple[str, ...] | None = None

    @property
    def n_samples(self) -> int:
        """Number of samples, N."""
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.X.shape[1])


def make_dataset(
    name: str | Path,
    X: Any,
    y: Any = None,
    *,
    feature_names: tuple[str, ...] | None = None,
    image_shape: tuple[int, ...] | None = None,
    sample_names: tuple[str, ...] | None = None,
    first_sample: int = 0,
) -> Dataset:
    """Check and convert what a reader found.

    Parameters
    ----------
    name : str or Path
        The source, for messages.
    X : ndarray or CSR matrix, shape (N, F)
    y : array_like, shape (N,), optional
    feature_names : tuple of str, optional
    image_shape : tuple of int, optional
    sample_names : tuple of str, optional
    first_sample : int, default 0
        The number of the first sample in the source, for messages.

    Raises
    ------
    DataError
        If there is no sample or feature, if a feature is no finite number, or if labels are missing, do not fit the
        samples or are neither whole numbers nor strings.
    """
    if 0 in X.shape:
        raise wrong_data(name, f"{X.shape[0]} samples of {X.shape[1]} features", "at least one of each")
    X = _as_features(X, name, feature_names, first_sample)
    labels = None if y is None else as_labels(np.asarray(y), X.shape[0], name, first_sample)
    return Dataset(X, labels, feature_names, image_shape, str(name), sample_names)


def images_to_rows(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[int, ...] | None]:
    """Flatten images (N, height, width, ...) to rows; 8-bit pixels become 0 to 1, whichever file they came from."""
    if images.ndim == 2:
        return images, None
    rows = images.reshape(len(images), -1)
    if rows.dtype == np.uint8:
        rows = rows * np.float32(1 / 255)
    return rows, images.shape[1:]


@contextmanager
def reading(path: Path, accepted: str) -> Iterator[None]:
    """Turn what libraries raise at a file that they cannot read into one line that names it and what is accepted."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError(
            f'{path}: reading it needs {error.name}, which is not installed; pip install "mlefast[data]"'
        ) from error
    except BROKEN_FILE as error:
        raise wrong_data(path, f"a file that cannot be read ({one_line(error)})", accepted) from error


def _as_features(X: Any, name: str | Path, feature_names: tuple[str, ...] | None, first_sample: int) -> Features:
    if X.dtype.kind not in "biuf":
        raise wrong_data(name, f"features of dtype {X.dtype}", "numbers")
    with warnings.catch_warnings(), np.errstate(over="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # a number too large for float32 is reported below
        if not isinstance(X, np.ndarray):
            converted = X.astype(np.float32, copy=False)
            positions = converted.data
        else:
            converted = positions = np.ascontiguousarray(X, dtype=np.float32)
    bad = ~np.isfinite(positions)
    if bad.any():
        raise wrong_data(name, _first_bad(X, bad, feature_names, first_sample), "finite numbers in float32")
    return converted


def _first_bad(X: Any, bad: npt.NDArray[np.bool_], feature_names: tuple[str, ...] | None, first_sample: int) -> str:
    where = int(np.flatnonzero(bad)[0])
    if isinstance(X, np.ndarray):
        row, column = (int(i) for i in np.unravel_index(where, X.shape))
        value = X[row, column]
    else:
        row, column = int(np.searchsorted(X.indptr, where, side="right")) - 1, int(X.indices[where])
        value = X.data[where]
    feature = repr(feature_names[column]) if feature_names else str(column)
    return f"{float(value)!r} in sample {first_sample + row}, feature {feature} ({int(bad.sum())} such values)"


def as_labels(y: npt.NDArray[Any], n_samples: int, name: str | Path, first_sample: int = 0) -> Labels:
    """Check and convert labels; see :func:`make_dataset`."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.shape != (n_samples,):
        raise wrong_data(name, f"labels of shape {y.shape} for {n_samples} samples", f"shape ({n_samples},)")
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "biufU":
        raise wrong_data(name, f"labels of dtype {y.dtype}", "whole numbers or strings")
    missing = y == "" if y.dtype.kind == "U" else ~np.isfinite(y)
    if missing.any():
        where = first_sample + int(missing.argmax())
        raise wrong_data(name, f"no label for sample {where} ({missing.sum()} such samples)", "a label for each sample")
    if y.dtype.kind == "U":
        return y
    with np.errstate(invalid="ignore"):  # what 64 bits cannot hold is reported below
        whole = y.astype(np.int64)
    others = y[whole != y]
    if others.size:
        accepted = "whole numbers of 64 bits or strings (is it another column or array that holds the labels?)"
        raise wrong_data(name, f"the label {others[0].item()!r}", accepted)
    return whole
