"""``mlefast predict``."""

from __future__ import annotations

import csv

import mlefast as mf
import numpy as np
import pandas as pd
import pytest
from mlefast import data, model_file
from PIL import Image


@pytest.fixture
def model(run, small, tmp_path):
    path = tmp_path / "model.npz"
    assert run("train", small, "--quiet", "--save", path).status == 0
    return path


def test_csv_on_standard_output(process, model, small):
    result = process("predict", model, small)
    assert (result.status, result.err) == (0, "")
    expected = model_file.load(model).predict(data.load(small).X)
    assert result.out.splitlines() == ["prediction", *expected]


def test_probabilities(run, model, small):
    rows = list(csv.reader(run("predict", model, small, "--proba").out.splitlines()))
    assert rows[0] == ["prediction", "P(ant)", "P(bee)", "P(cow)"]
    values = np.array([row[1:] for row in rows[1:]], dtype=float)
    np.testing.assert_array_equal(values, model_file.load(model).predict_proba(data.load(small).X))
    assert [row[0] for row in rows[1:]] == np.array(["ant", "bee", "cow"])[values.argmax(axis=1)].tolist()


def test_files(run, model, small, tmp_path):
    expected = model_file.load(model).predict_proba(data.load(small).X)
    labels = np.array(["ant", "bee", "cow"])[expected.argmax(axis=1)]
    for suffix in (".csv", ".parquet", ".npz"):
        assert run("predict", model, small, "--proba", "-o", tmp_path / f"out{suffix}") == (0, "", "")
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["prediction"], labels)
        np.testing.assert_array_equal(archive["probabilities"], expected)
        np.testing.assert_array_equal(archive["classes"], ["ant", "bee", "cow"])
    rows = list(csv.reader((tmp_path / "out.csv").read_text().splitlines()))
    frame = pd.read_parquet(tmp_path / "out.parquet")
    assert rows[0] == frame.columns.tolist() == ["prediction", "P(ant)", "P(bee)", "P(cow)"]
    assert [row[0] for row in rows[1:]] == frame["prediction"].tolist() == labels.tolist()
    np.testing.assert_array_equal(np.array([row[1:] for row in rows[1:]], dtype=float), expected)
    np.testing.assert_array_equal(frame.iloc[:, 1:], expected)
    assert run("predict", model, small, "--output", tmp_path / "out.npz").status == 0
    with np.load(tmp_path / "out.npz") as archive:
        assert archive.files == ["prediction"]


def test_pictures(run, tmp_path):
    names = []
    for i, shade in enumerate((20, 30, 220, 230)):
        names.append(tmp_path / "pictures" / ("dark" if shade < 100 else "light") / f"{i}.png")
        names[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), shade + i, np.uint8)).save(names[-1])
    model = tmp_path / "model.npz"
    run("train", tmp_path / "pictures", "--test-size", 0, "--quiet", "--save", model)
    expected = [(str(name), name.parent.name) for name in names]
    for suffix in (".csv", ".parquet", ".npz"):
        out = tmp_path / f"out{suffix}"
        assert run("predict", model, tmp_path / "pictures", "-o", out) == (0, "", "")
        if suffix == ".npz":
            with np.load(out) as archive:
                columns = [archive["files"].tolist(), archive["prediction"].tolist()]
        else:
            frame = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
            columns = [frame["file"].tolist(), frame["prediction"].tolist()]
        assert list(zip(*columns, strict=True)) == expected


def test_two_classes(run, tmp_path):
    model = tmp_path / "m.npz"
    run("train", "breast_cancer", "--quiet", "--save", model)
    rows = list(csv.DictReader(run("predict", model, "breast_cancer", "--proba").out.splitlines()))
    samples = data.load("breast_cancer")
    assert np.mean([row["prediction"] == label for row, label in zip(rows, samples.y, strict=True)]) > 0.97
    for row in rows:
        assert float(row["P(benign)"]) + float(row["P(malignant)"]) == pytest.approx(1)


def test_score(process, model, small):
    result = process("predict", model, small, "--score")
    assert result.status == 0
    assert result.out.startswith("prediction\n")  # what is on standard output stays a CSV file
    loaded, samples = model_file.load(model), data.load(small)
    nll = mf.cross_entropy(loaded.logits(samples.X), np.searchsorted(loaded.classes, samples.y))
    assert f"{np.mean(loaded.predict(samples.X) == samples.y):.4f}" in result.err
    assert f"{nll:.6f}" in result.err
    assert "KL" in result.err


def test_without_labels(run, one_line_error, model, small, tmp_path):
    path = tmp_path / "unlabelled.npz"
    with np.load(small) as archive:
        np.savez(path, X=archive["X"])
    assert run("predict", model, path).out == run("predict", model, small).out
    message = one_line_error("predict", model, path, "--score", "--output", tmp_path / "out.csv")
    assert "no labels" in message
    assert not (tmp_path / "out.csv").exists()


def test_table_with_the_models_columns(run, tmp_path):
    frame = pd.DataFrame({"a": [0.0, 1, 0, 1] * 5, "b": [1.0, 1, 0, 0] * 5, "kind": ["u", "v"] * 10})
    frame.to_csv(tmp_path / "train.csv", index=False)
    frame[["b", "a"]].to_csv(tmp_path / "new.csv", index=False)
    run("train", tmp_path / "train.csv", "--target", "kind", "--quiet", "--save", tmp_path / "m.npz")
    assert run("predict", tmp_path / "m.npz", tmp_path / "new.csv").out.split()[1:] == ["u", "v"] * 10


@pytest.mark.parametrize("samples", [10, 200_000])  # output that fits into the buffer, and output that does not
def test_the_reader_goes_away(model, tmp_path, start, samples):
    np.savez(tmp_path / "data.npz", X=np.zeros((samples, 4)))
    with start("predict", model, tmp_path / "data.npz", "--proba") as child:
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


def test_wrong_models(one_line_error, small, tmp_path, model):
    assert "No such file" in one_line_error("predict", tmp_path / "absent.npz", small)
    assert ".safetensors" in one_line_error("predict", tmp_path / "m.pkl", small)
    assert "small.npz" in one_line_error("predict", small, small)
    assert "64 features" in one_line_error("predict", model, "digits")


def test_unwritable_output(one_line_error, small, tmp_path, model):
    before = sorted(tmp_path.iterdir())
    assert "No such file" in one_line_error("predict", model, small, "-o", tmp_path / "absent" / "out.csv")
    assert ".parquet" in one_line_error("predict", model, small, "-o", tmp_path / "out.txt")
    assert "also read" in one_line_error("predict", model, small, "-o", small)
    assert "also read" in one_line_error("predict", model, small, "-o", model)
    assert sorted(tmp_path.iterdir()) == before


def test_failure_while_writing_keeps_the_old_file(one_line_error, monkeypatch, small, tmp_path, model):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "out.npz").write_text("old")
    monkeypatch.setattr(np, "savez", fail)
    assert "No space left" in one_line_error("predict", model, small, "-o", tmp_path / "out.npz")
    assert (tmp_path / "out.npz").read_text() == "old"
    assert not list(tmp_path.glob("*.tmp"))
    assert not list(tmp_path.glob(".*"))


def test_without_pyarrow(one_line_error, monkeypatch, small, tmp_path, model):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert 'pip install "mlefast[data]"' in one_line_error("predict", model, small, "-o", tmp_path / "out.parquet")
