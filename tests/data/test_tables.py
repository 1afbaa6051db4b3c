"""CSV and Parquet."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from data_files import (
    INTEGERS,
    NAMES,
    STRINGS,
    X,
    as_frame,
    error_of,
    write_csv,
)
from mlefast.data import DataError, load


def test_csv_target_by_name_or_by_rule(tmp_path):
    path = tmp_path / "x.csv"
    frame = pd.DataFrame({"y": [0, 1, 0], "a": [1.0, 2, 3], "Label": ["p", "q", "p"], "b": [5, 6, 7]})
    frame.to_csv(path, index=False)
    with pytest.raises(DataError, match="not numeric: 'Label'"):
        load(path, target="b")
    np.testing.assert_array_equal(load(path).y, ["p", "q", "p"])  # "label" goes before "y"
    frame.drop(columns="Label").to_csv(path, index=False)
    np.testing.assert_array_equal(load(path).y, [0, 1, 0])
    np.testing.assert_array_equal(load(path, target="b").y, [5, 6, 7])
    assert load(path, target="b").feature_names == ("y", "a")
    frame[["a", "b"]].to_csv(path, index=False)
    np.testing.assert_array_equal(load(path).y, [5, 6, 7])
    assert "'absent'" in error_of(path, target="absent")


def test_csv_without_a_header(tmp_path):
    path = tmp_path / "x.csv"
    as_frame(STRINGS).to_csv(path, index=False, header=False)
    data = load(path)
    np.testing.assert_array_equal(data.y, STRINGS)
    np.testing.assert_array_equal(data.X, X)
    assert data.feature_names is None
    as_frame(INTEGERS)[["target", *NAMES]].to_csv(path, index=False, header=False)
    np.testing.assert_array_equal(load(path, target="0").y, INTEGERS)


@pytest.mark.parametrize(
    ("text", "samples", "names"),
    [
        ("0,1,2,species\n1,2,3,a\n4,5,6,b\n", 2, ("0", "1", "2")),  # names as pandas numbers them
        ("400,402,label\n1,2,a\n3,4,b\n", 2, ("400", "402")),
        ("1,2,y\n3,4,n\n", 2, None),  # y is a label here
        ("1,2,a\n3,4,b\n", 2, None),
        ("u,v,w\n1,2,3\n", 1, ("u", "v")),
        ("1,2,a\n,2,b\n", None, None),  # no header, but a missing number
        (",2,a\n1,2,b\n", None, None),
        ("\ufeffu,v,w\n1,2,3\n", 1, ("u", "v")),  # a byte order mark
        (",u,v,w\n0,1,2,3\n1,4,5,6\n", 2, ("u", "v")),  # the index that pandas writes
        ("u,v,w\n1,2,True\n3,4,False\n", 2, ("u", "v")),
    ],
)
def test_csv_header_is_detected(tmp_path, text, samples, names):
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    if samples is None:
        assert "nan in sample" in error_of(tmp_path / "x.csv")
        return
    data = load(tmp_path / "x.csv")
    assert (data.n_samples, data.feature_names) == (samples, names)


def test_csv_header_is_detected_by_the_target(tmp_path):
    (tmp_path / "x.csv").write_text("400,402,kind\n1,2,a\n3,4,b\n")
    data = load(tmp_path / "x.csv", target="kind")
    assert data.feature_names == ("400", "402")
    np.testing.assert_array_equal(data.y, ["a", "b"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cannot be read"),
        ("a,b,target\n", "0 samples"),
        ("a\n1\n2\n", "only the column"),
        ("a;b;target\n1;2;3\n", "only the column"),
        ("a,b,c,target\n1,x,u,0\n2,y,v,1\n", "not numeric: 'b', 'c'"),
        ("a,b,target\n1,,0\n2,3,1\n", "nan in sample 0, feature 'b'"),
        ("a,b,target\n1,2,\n2,3,1\n", "no label for sample 0"),
        ("a,b,target\n1,2,x\n2,3,\n", "no label for sample 1"),
        ("a,b,target\n1,2,0\n2,3,1,4,5\n", "cannot be read"),
        ("a,b,target\n1,2,0\n2,3\n", "no label for sample 1"),
        ('a,b,target\n1,2,"0\n2,3,1\n', "cannot be read"),
    ],
)
def test_csv_wrong_content(tmp_path, text, found):
    (tmp_path / "x.csv").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = error_of(tmp_path / "x.csv")
    assert found in message


def test_csv_of_another_encoding(tmp_path):
    (tmp_path / "x.csv").write_bytes("a,b,target\n1,2,élan\n".encode("latin-1"))
    assert "utf-8" in error_of(tmp_path / "x.csv")


def test_table_like_a_model(tmp_path):
    train_path, path = tmp_path / "train.csv", tmp_path / "x.csv"
    write_csv(train_path, STRINGS)
    train = load(train_path)
    shuffled = as_frame(STRINGS, "answer")[["answer", *NAMES[::-1]]]
    shuffled.to_csv(path, index=False)
    data = load(path, like=train)  # columns by name, in the model's order; the one that is left holds the labels
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, STRINGS)
    shuffled.drop(columns="answer").to_csv(path, index=False)
    assert load(path, like=train).y is None
    np.testing.assert_array_equal(load(path, like=train).X, X)
    shuffled.assign(identity=range(30), time=0.5).to_csv(path, index=False)
    assert load(path, like=train).y is None  # several are left, of unknown meaning
    np.testing.assert_array_equal(load(path, like=train, target="answer").y, STRINGS)
    shuffled.drop(columns=["feature 1"]).to_csv(path, index=False)
    assert "'feature 1'" in error_of(path, like=train)


def test_table_without_names_like_a_model(tmp_path):
    path = tmp_path / "x.csv"
    as_frame(STRINGS).to_csv(path, index=False, header=False)
    train = load(path)
    np.testing.assert_array_equal(load(path, like=train).y, STRINGS)
    pd.DataFrame(X).to_csv(path, index=False, header=False)
    data = load(path, like=train)
    assert data.y is None
    np.testing.assert_array_equal(data.X, X)
    pd.DataFrame(X[:, :4]).to_csv(path, index=False, header=False)
    assert "4 features" in error_of(path, like=train)


def test_parquet_kinds_of_columns(tmp_path):
    path = tmp_path / "x.parquet"
    frame = pd.DataFrame({"a": pd.array([1, 2, 3], dtype="Int64"), "b": [True, False, True]})
    frame["target"] = pd.Categorical(["u", "v", "u"])
    frame.to_parquet(path)
    data = load(path)
    np.testing.assert_array_equal(data.X, [[1, 1], [2, 0], [3, 1]])
    np.testing.assert_array_equal(data.y, ["u", "v", "u"])
    frame["a"] = pd.array([1, None, 3], dtype="Int64")
    frame.to_parquet(path)
    assert "nan in sample 1, feature 'a'" in error_of(path)
