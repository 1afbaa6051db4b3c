"""NumPy's arrays and archives, svmlight files and MNIST's IDX files."""

from __future__ import annotations

import gzip
import math
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast.data._dataset import Dataset, Layout, images_to_rows, make_dataset, reading, wrong_data

_FEATURE_ARRAYS = ("X", "x", "data", "images")
_LABEL_ARRAYS = ("y", "target", "labels")

# http://yann.lecun.com/exdb/mnist: two zero bytes, the type, the number of dimensions, then the sizes; big-endian.
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_IDX_IN_NAME = re.compile(r"[-_.]idx\d?", re.IGNORECASE)


def read_npz(path: Path, target: str | None) -> Dataset:
    """Read an archive of arrays: features in X, x, data or images, labels in `target` or y, target or labels."""
    with reading(path, "an archive of arrays without objects, as np.savez writes it"):
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise wrong_data(path, "a single array", "an archive of arrays, as np.savez writes it")
        with archive:
            names = archive.files
            features = next((name for name in _FEATURE_ARRAYS if name in names), None)
            if features is None:
                raise wrong_data(path, f"the arrays {names}", f"features in {' or '.join(_FEATURE_ARRAYS)}")
            if target is not None and target not in names:
                raise wrong_data(path, f"the arrays {names}", f"one named {target!r}, the target")
            labels = target or next((name for name in _LABEL_ARRAYS if name in names), None)
            images = archive[features]
            y = archive[labels] if labels else None
    if images.ndim < 2:
        raise wrong_data(path, f"{features} of shape {images.shape}", "shape (samples, features) or images")
    X, image_shape = images_to_rows(images)
    return make_dataset(path, X, y, image_shape=image_shape)


def read_npy(path: Path, target: str | None) -> Dataset:
    """Read an array of features and, from the file beside it, the labels; see :func:`map_npy`."""
    features, labels = map_npy(path, target)
    X, image_shape = images_to_rows(np.array(features))
    return make_dataset(path, X, None if labels is None else np.array(labels), image_shape=image_shape)


def map_npy(path: Path, target: str | None) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Map an array of features and its labels into memory without reading them.

    The labels of ``<stem>.npy`` are in `target`, a file beside it, else in ``<stem>_labels.npy``, else, if the stem
    begins with X or x, in the file that has y there: ``y.npy`` of ``X.npy``, ``y_train.npy`` of ``X_train.npy``.
    """
    features = _map_array(path)
    if features.ndim < 2:
        raise wrong_data(path, f"an array of shape {features.shape}", "shape (samples, features) or images")
    if 0 in features.shape:
        raise wrong_data(path, f"an array of shape {features.shape}", "at least one sample and feature")
    names = [f"{path.stem}_labels.npy"]
    if path.stem[0] in "Xx":
        names.append(f"y{path.stem[1:]}.npy")
    candidates = [path.with_name(name) for name in ([target] if target is not None else names)]
    labels_path = next((each for each in candidates if each.is_file()), None)
    if labels_path is None:
        if target is not None:
            raise wrong_data(path, f"no file {candidates[0]}", "a file beside it that holds the labels, as the target")
        return features, None
    labels = _map_array(labels_path)
    if labels.shape not in ((len(features),), (len(features), 1)):
        raise wrong_data(
            str(labels_path), f"labels of shape {labels.shape}", f"one for each of {len(features)} samples"
        )
    return features, labels.reshape(-1)


def _map_array(path: Path) -> npt.NDArray[Any]:
    with reading(path, "an array without objects, as np.save writes it"):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise wrong_data(path, "an archive of arrays", "a single array, as np.save writes it")
        return array


def read_svmlight(path: Path, like: Layout | None) -> Dataset:
    """Read lines of ``label index:value ...`` as a sparse matrix.

    Indices are taken as they are written: a file that counts from 1 has an empty feature 0. Guessing would shift the
    features of a test file that happens not to use the first one.
    """
    from sklearn.datasets import load_svmlight_file

    n_features = None if like is None else like.n_features
    with reading(path, "lines of 'label index:value ...' with growing indices"):
        X, y = load_svmlight_file(str(path), n_features=n_features, dtype=np.float32, zero_based=True)
    return make_dataset(path, X, y)


def is_idx(path: Path) -> bool:
    """Tell an IDX file by its name."""
    return bool(_IDX_IN_NAME.search(path.name))


def find_idx_images(folder: Path) -> Path | None:
    """Find the file of images in a folder; of several the one for training."""
    images = sorted(p for p in folder.iterdir() if p.is_file() and is_idx(p) and "images" in p.name)
    if len(images) > 1:
        training = [p for p in images if "train" in p.name]
        if len(training) != 1:
            names = ", ".join(p.name for p in images)
            raise wrong_data(folder, f"several files of images: {names}", "one of them as the source")
        return training[0]
    return images[0] if images else None


def read_idx_images(path: Path) -> Dataset:
    """Read a file of images and, if it is there, the file of labels beside it."""
    images = read_idx(path)
    if images.ndim < 2:
        raise wrong_data(path, f"{images.ndim} dimension, as a file of labels has", "the file of images")
    labels_path = _labels_beside(path)
    y = None if labels_path is None else read_idx(labels_path)
    if y is not None and y.shape != (len(images),):
        raise wrong_data(str(labels_path), f"labels of shape {y.shape}", f"one for each of {len(images)} images")
    X, image_shape = images_to_rows(images)
    return make_dataset(path, X, y, image_shape=image_shape)


def read_idx(path: Path) -> npt.NDArray[Any]:
    """Read one array from an IDX file, gzipped or not."""
    with reading(path, "a whole IDX file, gzipped or not"):
        raw = path.read_bytes()
        if raw.startswith(_GZIP_MAGIC):
            raw = gzip.decompress(raw)
    dtype = _IDX_DTYPES.get(raw[2]) if len(raw) >= 4 and raw[:2] == b"\0\0" else None
    header = 4 + 4 * raw[3] if dtype else 0
    if dtype is None or not 4 < header <= len(raw):
        raise wrong_data(path, f"the first bytes {raw[:4].hex(' ')}", "an IDX file, as MNIST's are")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    length = header + math.prod(shape) * np.dtype(dtype).itemsize
    if len(raw) != length:
        raise wrong_data(path, f"{len(raw)} bytes", f"{length} bytes for the shape {shape} that its header states")
    array = np.frombuffer(raw, dtype, offset=header) if length > header else np.empty(0, dtype)
    return array.reshape(shape).astype(np.dtype(dtype).newbyteorder("="), copy=False)


def _labels_beside(images: Path) -> Path | None:
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = [images.with_name(name), images.with_name(name + ".gz")]
    return next((path for path in candidates if path != images and path.is_file()), None)
