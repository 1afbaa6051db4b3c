"""Data sets from files: tables, arrays, sparse matrices, MNIST's files and folders of pictures."""

from __future__ import annotations

import os
from pathlib import Path

from mlefast.data._arrays import find_idx_images, is_idx, read_idx_images, read_npz, read_svmlight
from mlefast.data._dataset import DataError, Dataset, Labels, Layout, make_dataset, wrong_data
from mlefast.data._pictures import PICTURE_SUFFIXES, read_picture_folder, read_pictures
from mlefast.data._tables import read_csv, read_parquet

__all__ = ["BUILT_IN", "DataError", "Dataset", "Layout", "load", "training_labels"]

BUILT_IN = ("breast_cancer", "digits", "iris", "wine")
_SVMLIGHT_SUFFIXES = (".svm", ".svmlight", ".libsvm")
_WITH_TARGET = (".csv", ".parquet", ".npz")
_ACCEPTED = (
    f"{', '.join(BUILT_IN)}; {', '.join(_WITH_TARGET + _SVMLIGHT_SUFFIXES)} or MNIST's (IDX) files; a folder with a "
    "subfolder of pictures for each class"
)


def load(
    source: str | os.PathLike[str],
    *,
    target: str | None = None,
    image_size: tuple[int, int] | None = None,
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
        The column (without names: its number, from 0) or array that holds the labels.
    image_size : (int, int), optional
        Height and width of pictures.
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
    _check_options(path, target, image_size)
    data = _built_in(str(source)) if source in BUILT_IN else _read(path, target, image_size, like)
    if like is not None and data.n_features != like.n_features:
        raise wrong_data(data.name, f"{data.n_features} features", f"{like.n_features}, as in training")
    return data


def training_labels(data: Dataset) -> Labels:
    """Return the labels of data that a classifier can be trained on.

    Parameters
    ----------
    data : Dataset

    Returns
    -------
    ndarray of int64 or str, shape (N,)

    Raises
    ------
    DataError
        If there are no labels, or only one class.
    """
    if data.y is None:
        raise wrong_data(data.name, "no labels", "data with a label for each sample")
    first = data.y[0]
    if (data.y == first).all():
        raise wrong_data(data.name, f"the single class {first}", "at least two classes")
    return data.y


def _check_options(path: Path, target: str | None, image_size: tuple[int, int] | None) -> None:
    """Refuse options that would be ignored."""
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


def _read(path: Path, target: str | None, image_size: tuple[int, int] | None, like: Layout | None) -> Dataset:
    suffix = path.suffix.lower()
    if not path.exists():
        raise wrong_data(path, "no such file or folder", _ACCEPTED)
    if path.is_dir():
        images = find_idx_images(path)
        return read_idx_images(images) if images else read_picture_folder(path, image_size, like)
    if suffix in PICTURE_SUFFIXES:
        return read_pictures(path, [path], None, image_size, like)
    if suffix == ".csv":
        return read_csv(path, target, like)
    if suffix == ".parquet":
        return read_parquet(path, target, like)
    if suffix == ".npz":
        return read_npz(path, target)
    if suffix in _SVMLIGHT_SUFFIXES:
        return read_svmlight(path, like)
    if is_idx(path):
        return read_idx_images(path)
    raise wrong_data(path, f"a file named {path.name}", _ACCEPTED)
