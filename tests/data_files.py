"""Small files of every format, to be read by the tests of data."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pandas as pd
import pytest
from mlefast.data import DataError, load
from PIL import Image
from sklearn.datasets import dump_svmlight_file

RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((30, 6)).astype(np.float32)
INTEGERS = np.arange(30) % 3
STRINGS = np.array(["cat", "dog", "élan"])[INTEGERS]
NAMES = tuple(f"feature {i}" for i in range(6))
IMAGES = RANDOM.integers(0, 256, (12, 5, 4), dtype=np.uint8)
IMAGE_LABELS = np.arange(12, dtype=np.uint8) % 3


def as_frame(labels, target="target"):
    frame = pd.DataFrame(X, columns=list(NAMES))
    frame[target] = labels
    return frame


def write_npz(path, labels):
    np.savez(path, X=X, y=labels)


def write_csv(path, labels):
    as_frame(labels).to_csv(path, index=False)


def write_parquet(path, labels):
    as_frame(labels).to_parquet(path)


def write_svmlight(path, labels):
    dump_svmlight_file(X, labels, str(path), zero_based=True)


def idx_bytes(array):
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, images=IMAGES, labels=IMAGE_LABELS, part="train", zipped=False):
    folder.mkdir(exist_ok=True)
    paths = []
    for name, array in ((f"{part}-images-idx{images.ndim}-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        paths.append(folder / (name + ".gz" * zipped))
        paths[-1].write_bytes(gzip.compress(content) if zipped else content)
    return paths


def write_pictures(folder, images=IMAGES, labels=IMAGE_LABELS, suffix=".png", **options):
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / f"class {label}" / f"{i:03}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, **options)
    return folder


def error_of(*args, **options):
    with pytest.raises(DataError) as caught:
        load(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert "found" in message
    assert "accepted" in message
    return message
