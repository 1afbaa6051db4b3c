"""Data sets from files: tables, arrays, sparse matrices, MNIST's files and folders of pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from mlefast.data._arrays import find_idx_images, is_idx, read_idx_images, read_npy, read_npz, read_svmlight
from mlefast.data._dataset import DataError, Dataset, DataWarning, Labels, Layout, make_dataset, wrong_data
from mlefast.data._pictures import PICTURE_SUFFIXES, Corrupt, PictureStream, list_pictures, read_pictures
from mlefast.data._stream import Stream, open_npy
from mlefast.data._table_streams import CsvStream, ParquetStream
from mlefast.data._tables import read_csv, read_parquet

__all__ = [
    "BUILT_IN",
    "DataError",
    "DataWarning",
    "Dataset",
    "Layout",
    "Stream",
    "can_stream",
    "load",
    "open_stream",
    "training_labels",
]

BUILT_IN = ("breast_cancer", "digits", "iris", "wine")
_SVMLIGHT_SUFFIXES = (".svm", ".svmlight", ".libsvm")
_WITH_TARGET = (".csv", ".parquet", ".npz", ".npy")
_STREAMED = (".csv", ".parquet", ".npy")
_BATCH_SIZE, _BATCH_BYTES = 1024, 1 << 24
_ACCEPTED = (
    f"{', '.join(BUILT_IN)}; {', '.join(_WITH_TARGET + _SVMLIGHT_SUFFIXES)} or MNIST's (IDX) files; a folder with a "
    "subfolder of pictures for each class"
)
_ACCEPTED_STREAMS = f"{', '.join(_STREAMED)} files and folders of pictures, which can be read in parts"


def load(
    source: str | os.PathLike[str],
    *,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
    corrupt: Corrupt = "fail",
    like: Layout | None = None,
) -> Dataset:
    """Read a data set.

    ================================  ==================================================================================
    source                            what is read
    ================================  ==================================================================================
    "digits", "iris", "wine",         the data that ship with scikit-learn
    "breast_cancer"
    .csv                              columns of numbers; a line of names is told from the data; labels in `target`,
                                      else in a column named target, label, class or y, else in the last
    .parquet                          as .csv
    .npz                              features in the array X, x, data or images; labels in `target`, else in y, target
                                      or labels
    .npy                              features or images; labels in the file `target` beside it, else in
                                      ``<stem>_labels.npy``, else, of ``X.npy`` or ``X_train.npy``, in ``y.npy`` or
                                      ``y_train.npy``
    .svm, .svmlight, .libsvm          a sparse matrix; indices as written, so a file that counts from 1 has an empty
                                      feature 0
    MNIST's IDX                       the file of images, gzipped or not, or its folder (the training part); the file of
                                      labels is looked for beside it
    a folder                          a subfolder of pictures for each class, or unlabelled pictures; all are brought to
                                      the size of the first or `image_size`, and to grey values if all are grey
    a picture                         one sample without a label
    ================================  ==================================================================================

    Pixels of 8 bits become 0 to 1 in every format.

    Parameters
    ----------
    source : str or path
        One of the names above, a file or a folder. A name wins over a file of that name; write ``./digits`` for that.
    target : str, optional
        The column (without names: its number, from 0), array or ``.npy`` file that holds the labels.
    image_size : (int, int), optional
        Height and width of pictures.
    corrupt : {"fail", "skip"}, default "fail"
        Whether a picture that cannot be read is an error or is left out with a :class:`DataWarning` that names it.
    like : Dataset or LinearModel, optional
        Read the data as a model that was trained on such needs them: the same columns, number of features, and size
        and colour of pictures. Labels may then be absent.

    Returns
    -------
    Dataset
        Dense features are float32, sparse ones a CSR matrix of float32.

    Raises
    ------
    DataError
        If there is nothing at `source`, or nothing that is accepted; the message says what was found.
    """
    path = Path(source)
    _check_options(path, target, image_size, corrupt)
    data = _built_in(str(source)) if source in BUILT_IN else _read(path, target, image_size, corrupt, like)
    _check_like(data, like)
    return data


def open_stream(
    source: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
    corrupt: Corrupt = "fail",
    like: Layout | None = None,
) -> Stream:
    """Open data that are read in parts, anew in every epoch, so that they may be larger than memory.

    ==================  ================================================================================================
    source              what is read at once
    ==================  ================================================================================================
    .parquet            a row group, or 16 MiB of features of a larger one
    .npy                4 MiB of features; the file is mapped into memory, and so is that of the labels
    .csv                4 MiB of the file; opening it reads it once, for its labels
    a folder            pictures, decoded in threads, 4 for each thread before they are asked for
    ==================  ================================================================================================

    In random order, samples are mixed with those of other parts, drawn at random, that together hold 64 MiB of
    features; pictures with all others. What is read is what :func:`load` reads.

    Parameters
    ----------
    source : str or path
        A file or a folder of pictures.
    batch_size : int, optional
        Samples in a batch, across the borders of parts; the last batch of an epoch may be smaller. By default 1024, or
        fewer if they are so large that they would take more than 16 MiB.
    target, image_size, corrupt, like
        As for :func:`load`.

    Returns
    -------
    Stream

    Raises
    ------
    DataError
        If there is nothing at `source`, or nothing that can be read in parts; the message says what was found. What is
        wrong with a sample is found when it is read.
    ValueError
        If `batch_size` is no integer >= 1.

    Examples
    --------
    >>> import numpy as np
    >>> from mlefast.data import open_stream
    >>> stream = open_stream("train.parquet", batch_size=256)  # doctest: +SKIP
    >>> for X, y in stream.epoch(np.random.default_rng(0)):  # doctest: +SKIP
    ...     model.partial_fit(X, y, classes=stream.classes)
    """
    path = Path(source)
    if batch_size is not None and (not isinstance(batch_size, (int, np.integer)) or batch_size < 1):
        raise ValueError(f"batch_size: received {batch_size!r}; accepted: an integer >= 1")
    _check_options(path, target, image_size, corrupt)
    if source not in BUILT_IN and not path.exists():
        raise wrong_data(path, "no such file or folder", _ACCEPTED_STREAMS)
    if not can_stream(source):
        raise wrong_data(path, "data that are only read as a whole", _ACCEPTED_STREAMS)
    stream = _open(path, int(batch_size or _BATCH_SIZE), target, image_size, corrupt, like)
    if batch_size is None:
        stream.batch_size = max(1, min(_BATCH_SIZE, _BATCH_BYTES // (4 * stream.n_features)))
    _check_like(stream, like)
    return stream


def can_stream(source: str | os.PathLike[str]) -> bool:
    """Whether :func:`open_stream` takes a source that is there."""
    path = Path(source)
    if source in BUILT_IN:
        return False
    return path.suffix.lower() in _STREAMED if path.is_file() else path.is_dir() and find_idx_images(path) is None


def training_labels(data: Dataset | Stream) -> Labels:
    """Return the labels of data that a classifier can be trained on: of a stream, each one once.

    Parameters
    ----------
    data : Dataset or Stream

    Returns
    -------
    ndarray of int64 or str, shape (N,) or (C,)

    Raises
    ------
    DataError
        If there are no labels, or only one class.
    """
    labels = data.classes if isinstance(data, Stream) else data.y
    if labels is None:
        raise wrong_data(data.name, "no labels", "data with a label for each sample")
    first = labels[0]
    if (labels == first).all():
        raise wrong_data(data.name, f"the single class {first}", "at least two classes")
    return labels


def _open(
    path: Path,
    batch_size: int,
    target: str | None,
    image_size: tuple[int, int] | None,
    corrupt: Corrupt,
    like: Layout | None,
) -> Stream:
    suffix = path.suffix.lower()
    if path.is_dir():
        return PictureStream(path, batch_size, image_size, like, corrupt)
    if suffix == ".parquet":
        return ParquetStream(path, target, batch_size, like)
    if suffix == ".csv":
        return CsvStream(path, target, batch_size, like)
    return open_npy(path, target, batch_size)


def _check_like(data: Dataset | Stream, like: Layout | None) -> None:
    if like is not None and data.n_features != like.n_features:
        raise wrong_data(data.name, f"{data.n_features} features", f"{like.n_features}, as in training")


def _check_options(path: Path, target: str | None, image_size: tuple[int, int] | None, corrupt: str) -> None:
    """Refuse options that would be ignored."""
    if corrupt not in ("fail", "skip"):
        raise ValueError(f"corrupt: received {corrupt!r}; accepted: 'fail' or 'skip'")
    suffix = path.suffix.lower()
    if target is not None and suffix not in _WITH_TARGET:
        raise wrong_data(path, f"the target {target!r} asked for", f"a target in {', '.join(_WITH_TARGET)} files only")
    if image_size is not None and not path.is_dir() and suffix not in PICTURE_SUFFIXES:
        raise wrong_data(path, f"the image size {image_size} asked for", "an image size for pictures only")


def _built_in(name: str) -> Dataset:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    image_shape = bunch.images.shape[1:] if "images" in bunch else None
    labels = bunch.target_names[bunch.target]
    return make_dataset(name, bunch.data, labels, feature_names=tuple(bunch.feature_names), image_shape=image_shape)


def _read(
    path: Path, target: str | None, image_size: tuple[int, int] | None, corrupt: Corrupt, like: Layout | None
) -> Dataset:
    suffix = path.suffix.lower()
    if not path.exists():
        raise wrong_data(path, "no such file or folder", _ACCEPTED)
    if path.is_dir():
        images = find_idx_images(path)
        return (
            read_idx_images(images) if images else read_pictures(path, *list_pictures(path), image_size, like, corrupt)
        )
    if suffix in PICTURE_SUFFIXES:
        return read_pictures(path, [path], None, image_size, like, corrupt)
    if suffix == ".csv":
        return read_csv(path, target, like)
    if suffix == ".parquet":
        return read_parquet(path, target, like)
    if suffix == ".npz":
        return read_npz(path, target)
    if suffix == ".npy":
        return read_npy(path, target)
    if suffix in _SVMLIGHT_SUFFIXES:
        return read_svmlight(path, like)
    if is_idx(path):
        return read_idx_images(path)
    raise wrong_data(path, f"a file named {path.name}", _ACCEPTED)
