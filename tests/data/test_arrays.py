"""NumPy archives, svmlight and IDX files."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.sparse
from data_files import (
    IMAGE_LABELS,
    IMAGES,
    INTEGERS,
    STRINGS,
    X,
    error_of,
    idx_bytes,
    write_mnist,
    write_svmlight,
)
from mlefast.data import DataError, load, training_labels


@pytest.mark.parametrize("suffix", [".svm", ".svmlight", ".libsvm"])
def test_svmlight_round_trip(tmp_path, suffix):
    write_svmlight(tmp_path / f"data{suffix}", INTEGERS)
    data = load(tmp_path / f"data{suffix}")
    assert scipy.sparse.issparse(data.X)
    assert data.X.format == "csr"
    assert data.X.dtype == np.float32
    np.testing.assert_allclose(data.X.toarray(), X, rtol=1e-6)
    np.testing.assert_array_equal(data.y, INTEGERS)


def test_svmlight_indices_do_not_shift_between_files(tmp_path):
    (tmp_path / "train.svm").write_text("1 0:1 2:3\n2 1:1\n")
    (tmp_path / "test.svm").write_text("1 1:5\n")  # read alone, its indices could count from 1
    train = load(tmp_path / "train.svm")
    test = load(tmp_path / "test.svm", like=train)
    np.testing.assert_array_equal(test.X.toarray(), [[0, 5, 0]])


def test_svmlight_wider_than_in_training(tmp_path):
    (tmp_path / "train.svm").write_text("1 0:1 2:3\n2 1:1\n")
    (tmp_path / "test.svm").write_text("1 7:5\n")
    train = load(tmp_path / "train.svm")
    assert "test.svm" in error_of(tmp_path / "test.svm", like=train)


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("by_folder", [False, True], ids=["file", "folder"])
def test_mnist(tmp_path, zipped, by_folder):
    images, _ = write_mnist(tmp_path / "mnist", zipped=zipped)
    data = load(tmp_path / "mnist" if by_folder else images)
    np.testing.assert_allclose(data.X, IMAGES.reshape(12, 20) / 255, rtol=1e-6)
    np.testing.assert_array_equal(data.y, IMAGE_LABELS)
    assert data.image_shape == (5, 4)
    assert data.y.dtype == np.int64


def test_mnist_labels_zipped_beside_plain_images(tmp_path):
    images, _ = write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    np.testing.assert_array_equal(load(images).y, IMAGE_LABELS)


def test_mnist_without_labels(tmp_path):
    images, labels = write_mnist(tmp_path)
    labels.unlink()
    assert load(images).y is None


def test_mnist_folder_means_the_training_part(tmp_path):
    write_mnist(tmp_path, IMAGES[:6], IMAGE_LABELS[:6], part="t10k")
    write_mnist(tmp_path)
    assert load(tmp_path).n_samples == 12
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "other-images-idx3-ubyte")
    assert "several" in error_of(tmp_path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
def test_idx_dtypes(tmp_path, dtype):
    values = np.arange(24).reshape(4, 6).astype(dtype)
    path = tmp_path / "x-images-idx2-ubyte"
    path.write_bytes(idx_bytes(values))
    data = load(path)
    np.testing.assert_array_equal(data.X, values)
    assert data.image_shape is None


@pytest.mark.parametrize("damage", ["empty", "magic", "dtype", "header", "short", "long", "gzip", "labels as images"])
def test_idx_damaged(tmp_path, damage):
    images, labels = write_mnist(tmp_path)
    content = images.read_bytes()
    images.write_bytes(
        {
            "empty": b"",
            "magic": b"\1" + content[1:],
            "dtype": content[:2] + b"\7" + content[3:],
            "header": content[:10],
            "short": content[:-1],
            "long": content + b"\0",
            "gzip": gzip.compress(content)[:-12],
            "labels as images": labels.read_bytes(),
        }[damage]
    )
    assert images.name in error_of(images)


def test_idx_wrong_number_of_labels(tmp_path):
    images, _ = write_mnist(tmp_path, labels=IMAGE_LABELS[:-1])
    message = error_of(images)
    assert "train-labels" in message
    assert "12 images" in message


def test_npz_images_are_flattened_and_scaled_if_8_bits(tmp_path):
    np.savez(tmp_path / "bytes.npz", images=IMAGES, labels=IMAGE_LABELS)
    np.savez(tmp_path / "floats.npz", data=IMAGES.astype(np.float64), target=IMAGE_LABELS)
    np.testing.assert_allclose(load(tmp_path / "bytes.npz").X, IMAGES.reshape(12, 20) / 255, rtol=1e-6)
    np.testing.assert_array_equal(load(tmp_path / "floats.npz").X, IMAGES.reshape(12, 20))
    assert load(tmp_path / "floats.npz").image_shape == (5, 4)


def test_npz_choice_of_target_and_column_of_labels(tmp_path):
    np.savez(tmp_path / "x.npz", x=X, y=np.zeros(30), other=INTEGERS[:, None])
    np.testing.assert_array_equal(load(tmp_path / "x.npz", target="other").y, INTEGERS)
    assert "absent" in error_of(tmp_path / "x.npz", target="absent")


def test_npz_without_labels(tmp_path):
    np.savez(tmp_path / "x.npz", X=X)
    data = load(tmp_path / "x.npz")
    assert data.y is None
    with pytest.raises(DataError, match="no labels"):
        training_labels(data)


def test_npz_labels_as_bytes(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=np.char.encode(STRINGS, "utf-8"))
    np.testing.assert_array_equal(load(tmp_path / "x.npz").y, STRINGS)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [
        ({"features": X}, "features"),
        ({"X": X[0]}, "(6,)"),
        ({"X": X[:0]}, "0 samples"),
        ({"X": X[:, :0]}, "0 features"),
        ({"X": STRINGS[:, None]}, "dtype <U"),
        ({"X": X * 1j}, "complex"),
        ({"X": np.array([[1, "a"]], dtype=object)}, "Object arrays"),
        ({"X": X, "y": np.array([None] * 30)}, "Object arrays"),
        ({"X": X, "y": INTEGERS[:-1]}, "(29,)"),
        ({"X": X, "y": np.eye(30)}, "(30, 30)"),
        ({"X": X, "y": INTEGERS + 0.5}, "0.5"),
        ({"X": X, "y": np.where(INTEGERS == 2, np.nan, INTEGERS)}, "no label for sample 2"),
        ({"X": X, "y": np.where(STRINGS == "dog", "", STRINGS)}, "no label for sample 1"),
        ({"X": X, "y": INTEGERS * 1j}, "complex"),
        ({"X": X, "y": INTEGERS * 1e300}, "1e+300"),
        ({"X": X, "y": np.full(30, 2**63, np.uint64)}, str(2**63)),
    ],
)
def test_npz_wrong_content(tmp_path, arrays, found):
    np.savez(tmp_path / "x.npz", **arrays)
    message = error_of(tmp_path / "x.npz")
    assert str(tmp_path / "x.npz") in message
    assert found in message


def test_npz_that_is_a_single_array(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    assert "single array" in error_of(tmp_path / "x.npz")


def test_not_finite_at_the_start_of_a_sparse_row(tmp_path):
    (tmp_path / "x.svm").write_text("1 0:1 3:1\n0 2:nan\n")
    assert "nan in sample 1, feature 2" in error_of(tmp_path / "x.svm")
