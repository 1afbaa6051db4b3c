"""Training, evaluation and prediction on data that are read in parts; pictures from files to probabilities."""

from __future__ import annotations

import csv
import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from mlefast import data, model_file
from mlefast.cli.evaluation import evaluate
from mlefast.cli.fitting import FitOptions, StandardizedStream, _moments, fit
from mlefast.data import _stream
from PIL import Image
from sklearn.preprocessing import StandardScaler

LINEAR = ("--solver", "adamw", "--learning-rate", "0.02", "--max-iter", "20", "--tol", "0", "--batch-size", "32")
NETWORK = ("--model", "mlp", "--hidden", "16", *LINEAR)


@pytest.fixture(params=[".parquet", ".npy", ".csv"])
def files(request, tmp_path):
    """Training and test data of three classes, in files that are read in parts."""
    random = np.random.default_rng(0)
    paths = []
    for part, n_samples in (("train", 900), ("test", 300)):
        y = np.sort(np.arange(n_samples) % 3)
        X = 100 + 5 * random.standard_normal((n_samples, 8)) + 12 * np.eye(3, 8)[y]
        path = tmp_path / f"X_{part}{request.param}"
        labels = np.array(["ant", "bee", "cow"])[y]
        if request.param == ".npy":
            np.save(path, X.astype(np.float32))
            np.save(tmp_path / f"y_{part}.npy", labels)
        else:
            frame = pd.DataFrame(X.astype(np.float32), columns=[f"f{i}" for i in range(8)]).assign(target=labels)
            frame.to_csv(path, index=False) if request.param == ".csv" else frame.to_parquet(path, row_group_size=100)
        paths.append(path)
    return paths


@pytest.mark.parametrize("options", [LINEAR, NETWORK], ids=["linear", "network"])
def test_stream_and_memory_agree(run, files, tmp_path, options):
    train, test = files
    record = {}
    for name, how in (("stream", ("--stream",)), ("memory", ())):
        result = run("train", train, "--test", test, *how, *options, "--json", "--save", tmp_path / f"{name}.npz")
        assert (result.status, result.err) == (0, "")
        record[name] = json.loads(result.out)
    streamed, whole = record["stream"], record["memory"]
    assert streamed["test"]["accuracy"] > 0.9
    for part, n_samples in (("train", 900), ("test", 300)):
        assert streamed[part]["samples"] == whole[part]["samples"] == n_samples
        assert streamed[part]["nll"] == pytest.approx(whole[part]["nll"], abs=0.05)
    assert streamed["classes"] == ["ant", "bee", "cow"]
    first, second = (model_file.load(tmp_path / f"{name}.npz") for name in record)
    assert first.feature_names == second.feature_names
    # What train has said of the model is what evaluate says of the file.
    evaluated = json.loads(run("evaluate", tmp_path / "stream.npz", test, "--json").out)
    assert evaluated["nll"] == pytest.approx(streamed["test"]["nll"], rel=1e-12)
    assert run("predict", tmp_path / "stream.npz", test).out.split()[1:] == first.predict(data.load(test).X).tolist()


def test_the_same_seed_gives_the_same_model(run, files, tmp_path):
    contents = []
    for seed in (1, 1, 2):
        path = tmp_path / "m.npz"
        assert run("train", files[0], "--stream", *LINEAR, "--seed", seed, "--save", path, "--quiet").status == 0
        contents.append(model_file.load(path).coef)
    np.testing.assert_array_equal(contents[0], contents[1])
    assert not np.array_equal(contents[0], contents[2])


def test_moments_are_exact_far_from_zero(tmp_path):
    random = np.random.default_rng(0)
    X = (random.standard_normal((5000, 3)) * [1e-2, 1.0, 1e4] + [100.0, 1e6, -1e5]).astype(np.float32)
    X = np.hstack([X, np.full((5000, 1), 7, np.float32)])
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", np.arange(5000) % 2)
    stream = data.open_stream(tmp_path / "X.npy", batch_size=64)
    mean, scale = _moments(stream)
    exact = StandardScaler().fit(X.astype(np.float64))
    np.testing.assert_allclose(mean, exact.mean_, rtol=1e-7)
    np.testing.assert_allclose(scale, exact.scale_, rtol=1e-6)
    assert scale[3] == 1
    standardized = np.concatenate([batch for batch, _ in StandardizedStream(stream, mean, scale)])
    assert standardized.dtype == np.float32
    np.testing.assert_allclose(standardized.mean(axis=0, dtype=np.float64), 0, atol=0.1)
    np.testing.assert_allclose(standardized.std(axis=0, dtype=np.float64)[[0, 2, 3]], [1, 1, 0], atol=1e-3)


def test_standardisation_is_folded_in(tmp_path):
    """The model of unscaled features says what the estimator says of scaled ones."""
    random = np.random.default_rng(0)
    y = np.arange(400) % 3
    X = (1000 + random.standard_normal((400, 3)) + np.eye(3)[y]).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    options = FitOptions("adamw", "l2", 1.0, 30, 0.0, 32, 0.02, True, 0)
    stream = data.open_stream(tmp_path / "X.npy", batch_size=32)
    fitted = fit(stream, options, lambda epoch, value: None)
    mean, scale = _moments(stream)
    scaled = StandardizedStream(stream, mean, scale)
    batches = np.concatenate([batch for batch, _ in scaled])
    expected = batches @ fitted.weights.T
    logits = fitted.model.logits(X)
    for values in (expected, logits):
        values -= values[:, :1]
    shift = (logits - expected).mean(axis=0)  # the intercepts
    np.testing.assert_allclose(logits, expected + shift, atol=2e-4)
    assert np.mean(fitted.model.predict(X) == y) > 0.6


def test_memory_of_a_training(monkeypatch, tmp_path):
    """Ten times the data take no more memory."""
    monkeypatch.setattr(_stream, "MIXED_BYTES", 1 << 20)
    monkeypatch.setattr(_stream, "_BLOCK_BYTES", 1 << 16)
    options = FitOptions("adamw", "l2", 1.0, 1, 0.0, 128, None, True, 0)
    peaks = []
    for n_samples in (128, 2000, 20_000):  # the first one imports what is needed
        np.save(tmp_path / "X.npy", np.zeros((n_samples, 400), np.float16))
        np.save(tmp_path / "y.npy", np.arange(n_samples) % 2)
        tracemalloc.start()
        stream = data.open_stream(tmp_path / "X.npy", batch_size=128)
        fitted = fit(stream, options, lambda epoch, value: None)
        assert evaluate(fitted.model, stream).samples == n_samples
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.3 * peaks[1] + 32 * 18_000
    assert peaks[2] < 0.25 * 20_000 * 400 * 4


def test_wrong_streams(one_line_error, tmp_path):
    path = tmp_path / "X.npy"
    np.save(path, np.zeros((6, 2)))
    assert "no labels" in one_line_error("train", path, "--stream")
    np.save(tmp_path / "y.npy", np.ones(6, int))
    assert "single class 1" in one_line_error("train", path, "--stream")
    np.save(tmp_path / "y.npy", np.arange(6) % 2)
    np.savez(tmp_path / "test.npz", X=np.zeros((2, 2)), y=[0, 7])
    assert "the label 7" in one_line_error("train", path, "--stream", "--test", tmp_path / "test.npz")
    values = np.zeros((6, 2))
    values[4, 1] = np.nan
    np.save(path, values)
    assert "nan in sample 4, feature 1" in one_line_error("train", path, "--stream", "--save", tmp_path / "m.npz")
    assert not (tmp_path / "m.npz").exists()


def draw(kind, random):
    """A picture of a disc, of stripes or of a gradient, somewhere, in some colour, with noise."""
    rows, columns = np.mgrid[:256, :256] / 256
    row, column = random.uniform(0.3, 0.7, 2)
    shape = {
        "disc": ((rows - row) ** 2 + (columns - column) ** 2 < random.uniform(0.02, 0.06)).astype(float),
        "stripes": (np.sin((rows + 0.2 * columns) * random.uniform(40, 60)) > 0).astype(float),
        "gradient": 0.5 * (columns + random.uniform(0.0, 0.2)) + 0.2 * rows,
    }[kind]
    colour = random.uniform(0.5, 1.0, 3)
    noisy = 0.15 + 0.7 * shape[..., None] * colour + 0.05 * random.standard_normal((256, 256, 3))
    return Image.fromarray((255 * np.clip(noisy, 0, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(7)
    for part, number in (("train", 30), ("test", 8)):
        for kind in ("disc", "stripes", "gradient"):
            (folder / part / kind).mkdir(parents=True)
            for i in range(number):
                draw(kind, random).save(folder / part / kind / f"{i:02}.jpg", quality=90)
    return folder


@pytest.mark.parametrize("how", [(), ("--stream",)], ids=["memory", "stream"])
@pytest.mark.parametrize("options", [LINEAR, NETWORK], ids=["linear", "network"])
def test_from_pictures_to_probabilities(run, pictures, tmp_path, how, options):
    model, train, test = tmp_path / "m.npz", pictures / "train", pictures / "test"
    result = run("train", train, "--test", test, "--image-size", 24, *how, *options, "--save", model, "--json")
    assert (result.status, result.err) == (0, "")
    record = json.loads(result.out)
    assert (record["train"]["samples"], record["test"]["samples"]) == (90, 24)
    assert record["classes"] == ["disc", "gradient", "stripes"]
    assert record["test"]["accuracy"] > 0.85
    assert model_file.load(model).image_shape == (24, 24, 3)
    rows = list(csv.DictReader(run("predict", model, test, "--proba").out.splitlines()))
    assert [row["file"] for row in rows] == sorted(str(path) for path in test.glob("*/*.jpg"))
    right = 0
    for row in rows:
        p = {label: float(row[f"P({label})"]) for label in record["classes"]}
        assert sum(p.values()) == pytest.approx(1)
        assert row["prediction"] == max(p, key=p.get)
        right += row["prediction"] == row["file"].split("/")[-2]
    assert right / 24 == pytest.approx(record["test"]["accuracy"])


def test_pictures_are_not_resized_without_need(run, pictures, tmp_path):
    """256 x 256 pixels in three colours are 196608 features."""
    options = ("--solver", "sgd", "--max-iter", 3, "--tol", 0, "--batch-size", 10)
    record = json.loads(run("train", pictures / "train", "--stream", *options, "--json").out)
    assert record["n_features"] == 256 * 256 * 3
    assert record["train"]["accuracy"] > 0.5


@pytest.mark.parametrize("how", [("--test-size", 0), ("--stream",)], ids=["memory", "stream"])
def test_corrupt_pictures(process, tmp_path, how):
    random = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    for label in ("dark", "light"):
        (folder / label).mkdir(parents=True)
        for i in range(6):
            pixels = random.integers(0, 100, (9, 9)) + 140 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    for name in ("dark/3.png", "light/0.png"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2] if name == "dark/3.png" else b"")
    model = tmp_path / "m.npz"
    command = ("train", folder, *how, "--solver", "adamw", "--max-iter", 3, "--save", model, "--json")
    failed = process(*command)
    assert (failed.status, failed.out) == (2, "")
    assert failed.err.count("\n") == 1
    assert "light/0.png" in failed.err or "dark/3.png" in failed.err
    assert not model.exists()
    skipped = process(*command, "--corrupt", "skip")
    assert skipped.status == 0
    assert json.loads(skipped.out)["train"]["samples"] == 10
    lines = sorted(skipped.err.splitlines())
    assert len(lines) == 2
    for line, name in zip(lines, ("dark/3.png", "light/0.png"), strict=True):
        assert line.startswith(f"mlefast: warning: {folder}/{name}: found a file that cannot be read")
        assert line.endswith("it is left out")
    predicted = process("predict", model, folder, "--corrupt", "skip")
    assert predicted.status == 0
    assert len(predicted.out.splitlines()) == 11
    assert "dark/3.png" not in predicted.out
    assert process("evaluate", model, folder).status == 2
