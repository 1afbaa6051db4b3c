"""Reading data: every format gives back what was written, and every kind of bad data one clear error."""

from __future__ import annotations

import builtins
import contextlib
import warnings

import numpy as np
import pandas as pd
import pytest
from data_files import (
    IMAGES,
    INTEGERS,
    NAMES,
    STRINGS,
    X,
    error_of,
    write_csv,
    write_mnist,
    write_npz,
    write_parquet,
    write_svmlight,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlefast.data import BUILT_IN, DataError, load, training_labels
from PIL import Image
from sklearn.datasets import load_digits, load_iris


@pytest.mark.parametrize("labels", [INTEGERS, STRINGS], ids=["integers", "strings"])
@pytest.mark.parametrize(
    ("suffix", "write"), [(".npz", write_npz), (".csv", write_csv), (".parquet", write_parquet)], ids=lambda x: str(x)
)
def test_round_trip(tmp_path, suffix, write, labels):
    path = tmp_path / f"data{suffix}"
    write(path, labels)
    data = load(path)
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, labels)
    assert data.X.dtype == np.float32
    assert data.y.dtype.kind == ("i" if labels is INTEGERS else "U")
    assert data.feature_names == (None if suffix == ".npz" else NAMES)
    assert (data.n_samples, data.n_features, data.image_shape, data.name) == (30, 6, None, str(path))


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in(name):
    data = load(name)
    assert len(data.feature_names) == data.n_features
    assert len(training_labels(data)) == data.n_samples
    assert data.name == name


def test_built_in_content():
    digits, iris = load("digits"), load("iris")
    np.testing.assert_array_equal(digits.X, load_digits().data)
    np.testing.assert_array_equal(digits.y, load_digits().target)
    assert digits.image_shape == (8, 8)
    np.testing.assert_array_equal(iris.y, load_iris().target_names[load_iris().target])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet", ".svm"])
def test_not_finite(tmp_path, suffix, bad):
    path = tmp_path / f"x{suffix}"
    values = X.astype(np.float64)
    values[4, 2] = values[9, 5] = bad
    if suffix == ".npz":
        np.savez(path, X=values, y=INTEGERS)
    elif suffix == ".svm":
        rows = (" ".join(f"{i}:{value}" for i, value in enumerate(row)) for row in values)
        path.write_text("".join(f"1 {row}\n" for row in rows))
    else:
        frame = pd.DataFrame(values, columns=list(NAMES)).assign(y=INTEGERS)
        (frame.to_csv if suffix == ".csv" else frame.to_parquet)(path, index=False)
    message = error_of(path)
    assert "sample 4" in message
    assert ("'feature 2'" if suffix in (".csv", ".parquet") else "feature 2") in message
    assert "2 such values" in message
    if suffix != ".svm":
        assert repr(bad) in message


def test_single_class(tmp_path):
    np.savez(tmp_path / "x.npz", X=X, y=np.full(30, 7))
    with pytest.raises(DataError, match=r"x\.npz: found the single class 7"):
        training_labels(load(tmp_path / "x.npz"))


def test_unknown_sources(tmp_path):
    (tmp_path / "data.xyz").write_text("1 2 3")
    assert "no such file" in error_of(tmp_path / "absent.csv")
    assert "digits" in error_of("digit")
    assert "data.xyz" in error_of(tmp_path / "data.xyz")


def test_options_that_would_be_ignored(tmp_path):
    write_csv(tmp_path / "x.csv", INTEGERS)
    assert "'target'" in error_of("digits", target="target")
    assert "(8, 8)" in error_of(tmp_path / "x.csv", image_size=(8, 8))


def test_number_of_features_like_a_model(tmp_path):
    write_npz(tmp_path / "x.npz", INTEGERS)
    message = error_of(tmp_path / "x.npz", like=load("digits"))
    assert "6 features" in message
    assert "64" in message


@pytest.mark.parametrize(("suffix", "library"), [(".csv", "pandas"), (".parquet", "pyarrow"), (".png", "PIL")])
def test_missing_library(tmp_path, monkeypatch, suffix, library):
    path = tmp_path / f"x{suffix}"
    path.touch()
    real_import = builtins.__import__

    def without_it(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_it)
    with pytest.raises(DataError, match=r'pip install "mlefast\[data\]"'):
        load(path)


def valid_files(folder):
    writers = {".npz": write_npz, ".csv": write_csv, ".parquet": write_parquet, ".svm": write_svmlight}
    for suffix, write in writers.items():
        write(folder / f"x{suffix}", INTEGERS)
    write_mnist(folder, zipped=True)
    Image.fromarray(IMAGES[0]).save(folder / "x.png")
    return [folder / f"x{suffix}" for suffix in (*writers, ".png")] + [folder / "train-images-idx3-ubyte.gz"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_gives_data_errors_only(tmp_path, data):
    folder = tmp_path / "fuzz"
    if not folder.exists():
        folder.mkdir()
        valid_files(folder)
        for path in sorted(folder.iterdir()):
            path.with_name(path.name + ".whole").write_bytes(path.read_bytes())
    names = ["x.npz", "x.csv", "x.parquet", "x.svm", "x.png", "train-images-idx3-ubyte.gz"]
    path = folder / data.draw(st.sampled_from(names))
    content = bytearray(path.with_name(path.name + ".whole").read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:position]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with warnings.catch_warnings(), contextlib.suppress(DataError):
        warnings.simplefilter("ignore")
        load(path)
