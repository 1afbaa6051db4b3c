"""``mlefast train``."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import re
import struct

import mlefast as mf
import numpy as np
import pytest
import scipy.sparse
from mlefast import data, model_file
from mlefast.cli.fitting import FitOptions, fit, split
from sklearn.datasets import dump_svmlight_file, load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

OPTIONS = {
    "solver": "lbfgs",
    "penalty": "l2",
    "C": 1.0,
    "max_iter": 500,
    "tol": 1e-6,
    "batch_size": None,
    "learning_rate": None,
    "standardize": True,
    "seed": 0,
}


def size_of_png(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", content[16:24])


def rows_of(table):
    """The cells of a printed table, by the first one of each row."""
    rows = [[cell.strip() for cell in line.strip("│┃").split("│")] for line in table.splitlines() if "│" in line]
    return {first: cells for first, *cells in rows}


def test_the_main_job(tmp_path, process):
    plot, model = tmp_path / "digits.png", tmp_path / "digits.npz"
    result = process("train", "digits", "--plot", plot, "--save", model)
    assert (result.status, result.err) == (0, "")
    assert "mlefast train digits" in result.out
    rows = rows_of(result.out)
    assert rows["samples"] == ["1347 train, 450 test"]
    assert rows["features"] == ["64 (8 x 8 image)"]
    assert rows["classes"] == ["10"]
    assert re.fullmatch(r"lbfgs, \d+ iterations in [\d.e-]+ s, converged", rows["fit"][0])
    assert int(rows["samples per second"][0].replace(",", "")) > 0
    assert rows["instruction set"] == [mf.show_config()["isa"]]
    assert rows["threads"] == [str(mf.show_config()["num_threads"])]
    train, test = (float(cell) for cell in rows["accuracy"])
    assert train > 0.99
    assert test > 0.94
    for nll, kl, entropy in zip(
        rows["negative log-likelihood (nats per sample)"],
        rows["= KL(labels || model)"],
        rows["+ entropy of the labels"],
        strict=True,
    ):
        assert float(nll) == pytest.approx(float(kl) + float(entropy), abs=2e-6)
        assert 0 < float(nll) < 0.3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.npz", "digits.png"]
    width, height = size_of_png(plot)
    assert 1000 < width < 4000
    assert 600 < height < 3000

    # The saved model takes the features as they are and says what an estimator fitted to scaled ones says.
    parts = split(data.load("digits"), 0.25, 0)
    scaler = StandardScaler().fit(parts[0].X)
    estimator = mf.SoftmaxClassifier(max_iter=200).fit(scaler.transform(parts[0].X), parts[0].y)
    loaded = model_file.load(model)
    expected = estimator.predict_proba(scaler.transform(parts[1].X))
    np.testing.assert_allclose(loaded.predict_proba(parts[1].X), expected, atol=1e-5)
    assert np.mean(loaded.predict(parts[1].X) == parts[1].y) == pytest.approx(test, abs=1e-4)
    assert loaded.metadata["test"]["accuracy"] == pytest.approx(test, abs=1e-4)
    assert loaded.image_shape == (8, 8)


def test_json(run, small, tmp_path):
    threads = mf.get_num_threads()
    result = run(
        "train", small, "--json", "--save", tmp_path / "m.npz", "--threads", threads + 1, "--solver", "sgd", "-C", 0.5
    )
    assert (result.status, result.err) == (0, "")
    record = json.loads(result.out)
    assert record["data"] == str(small)
    assert record["classes"] == ["ant", "bee", "cow"]
    assert record["n_features"] == 4
    assert record["threads"] == threads + 1
    assert record["isa"] == mf.show_config()["isa"]
    assert record["options"]["C"] == 0.5
    assert record["model"] == str(tmp_path / "m.npz")
    assert "plot" not in record
    assert len(record["loss_curve"]) == record["iterations"]
    assert record["samples_per_second"] == pytest.approx(45 * record["iterations"] / record["seconds"])
    assert (record["train"]["samples"], record["test"]["samples"]) == (45, 15)
    for part in ("train", "test"):
        assert record[part]["nll"] == pytest.approx(record[part]["kl"] + record[part]["entropy"])
    assert mf.get_num_threads() == threads  # --threads does not outlast the command


def test_quiet(run, small, tmp_path):
    result = run("train", small, "--quiet", "--save", tmp_path / "m.npz", "--plot", tmp_path / "p.svg")
    assert result == (0, "", "")
    assert (tmp_path / "p.svg").read_text().rstrip().endswith("</svg>")
    assert model_file.load(tmp_path / "m.npz").classes.tolist() == ["ant", "bee", "cow"]


def test_test_data_of_its_own(run, small, tmp_path):
    record = json.loads(run("train", small, "--test", small, "--json").out)
    assert record["train"] == record["test"]
    assert record["train"]["samples"] == 60
    record = json.loads(run("train", small, "--test-size", 0, "--json").out)
    assert record["train"]["samples"] == 60
    assert "test" not in record
    assert run("train", small, "--test-size", 0, "--plot", tmp_path / "p.png").status == 0


def test_seed_decides_the_split(run, small):
    first, again, other = (json.loads(run("train", small, "--json", "--seed", s).out)["test"] for s in (1, 1, 2))
    assert first == again != other


def test_split_keeps_shares_and_parts_apart():
    digits = data.load("digits")
    train, test = split(digits, 0.3, 5)
    assert test.n_samples == 540
    np.testing.assert_allclose(np.bincount(train.y) / 1257, np.bincount(digits.y) / 1797, atol=1e-3)
    together = np.vstack([train.X, test.X])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(digits.X, axis=0))


@pytest.mark.parametrize("penalty", ["l2", "none"])
@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
@pytest.mark.parametrize("as_features", [np.asarray, scipy.sparse.csr_matrix], ids=["dense", "sparse"])
def test_standardisation_is_folded_in(name, as_features, penalty):
    samples = data.load(name)
    X = np.hstack([samples.X, np.full((samples.n_samples, 1), 7, np.float32)])  # a constant feature
    samples = data.Dataset(as_features(X), samples.y, None, None, name)
    fitted = fit(samples, FitOptions(**{**OPTIONS, "penalty": penalty, "max_iter": 60}), lambda iteration, value: None)
    scaler = StandardScaler(with_mean=as_features is np.asarray).fit(samples.X)
    scaled = scaler.transform(samples.X)
    parameters = {"penalty": None if penalty == "none" else penalty, "max_iter": 60, "tol": 1e-6}
    with contextlib.nullcontext() if fitted.converged else pytest.warns(ConvergenceWarning):
        estimator = mf.SoftmaxClassifier(**parameters).fit(scaled, samples.y)
    np.testing.assert_allclose(fitted.model.predict_proba(samples.X), estimator.predict_proba(scaled), atol=2e-4)
    np.testing.assert_allclose(fitted.weights.sum(axis=0), 0, atol=1e-12)
    shown = fitted.weights[1:] - fitted.weights[:1]
    weights = estimator.coef_ if len(estimator.coef_) == 1 else estimator.coef_[1:] - estimator.coef_[:1]
    np.testing.assert_allclose(shown, weights, rtol=1e-6, atol=1e-9)
    if as_features is np.asarray:
        np.testing.assert_array_equal(fitted.model.coef[:, -1], 0)


def test_without_standardisation():
    samples = data.load("iris")
    fitted = fit(samples, FitOptions(**{**OPTIONS, "standardize": False}), lambda iteration, value: None)
    estimator = mf.SoftmaxClassifier(max_iter=500, tol=1e-6).fit(samples.X, samples.y)
    np.testing.assert_array_equal(fitted.model.coef, estimator.coef_)
    np.testing.assert_array_equal(fitted.model.intercept, estimator.intercept_)


def test_options_reach_the_estimator(monkeypatch, run, small, tmp_path):
    made = []
    real = mf.SoftmaxClassifier.__init__

    @functools.wraps(real)
    def record(self, *args, **kwargs):
        made.append((args, kwargs))
        real(self, *args, **kwargs)

    monkeypatch.setattr("mlefast.estimators.SoftmaxClassifier.__init__", record)
    options = (
        "--solver sgd --penalty elasticnet --l1-ratio 0.25 --C 3 --max-iter 7 --tol 0 --batch-size 5 "
        "--learning-rate 0.01 --schedule cosine --early-stopping --seed 4 --resume"
    )
    assert run("train", small, *options.split(), "--checkpoint", tmp_path / "state").status == 0
    (args, kwargs), *_ = made
    kwargs.pop("callback")
    assert args == ("elasticnet",)
    assert kwargs == {
        "C": 3.0,
        "solver": "sgd",
        "max_iter": 7,
        "tol": 0.0,
        "batch_size": 5,
        "learning_rate_init": 0.01,
        "random_state": 4,
        "l1_ratio": 0.25,
        "learning_rate": "cosine",
        "early_stopping": True,
        "checkpoint": tmp_path / "state",
        "resume": True,
    }


def test_not_converged_is_said(run, small):
    assert "not converged" in run("train", small, "--max-iter", 2).out


def test_nothing_to_learn(run, tmp_path):
    np.savez(tmp_path / "constant.npz", X=np.ones((40, 3)), y=np.arange(40) % 2)
    result = run("train", tmp_path / "constant.npz", "--plot", tmp_path / "p.png")
    assert (result.status, result.err) == (0, "")
    rows = rows_of(result.out)
    assert "lbfgs, 0 iterations" in rows["fit"][0]
    assert rows["negative log-likelihood (nats per sample)"] == rows["+ entropy of the labels"] == ["0.693147"] * 2
    assert rows["= KL(labels || model)"] == ["0.000000"] * 2


def test_names_that_look_like_markup(run, tmp_path, small):
    path = tmp_path / "[red]" / "[" / "red]:smile:$x$.npz"
    path.parent.mkdir(parents=True)
    with np.load(small) as archive:
        labels = np.array(["[bold]", "$\\frac$", ":smile:"])[np.unique(archive["y"], return_inverse=True)[1]]
        np.savez(path, X=archive["X"], y=labels)
    result = run("train", path, "--plot", tmp_path / "p.png")
    assert (result.status, result.err) == (0, "")
    assert ":smile:$x$" in result.out.replace("\n", "")
    size_of_png(tmp_path / "p.png")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".svm"])
def test_train_and_predict_from_files(run, tmp_path, suffix):
    digits = load_digits()
    path, model = tmp_path / f"digits{suffix}", tmp_path / "m.safetensors"
    if suffix == ".svm":
        dump_svmlight_file(digits.data, digits.target, str(path))
    else:
        frame = load_digits(as_frame=True).frame
        frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    record = json.loads(run("train", path, "--save", model, "--json").out)
    assert record["test"]["accuracy"] > 0.94
    result = run("predict", model, path)
    predicted = [row["prediction"] for row in csv.DictReader(result.out.splitlines())]
    assert np.mean(np.array(predicted, dtype=int) == digits.target) > 0.97


def test_pictures_of_a_given_size(run, tmp_path):
    from PIL import Image

    for label in ("dark", "light"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(8):
            value = 40 + i + 120 * (label == "light")
            Image.new("L", (9, 7), value).save(tmp_path / "pictures" / label / f"{i}.png")
    result = run("train", tmp_path / "pictures", "--image-size", "6x4", "--save", tmp_path / "m.npz")
    assert rows_of(result.out)["features"] == ["24 (4 x 6 image)"]
    assert rows_of(result.out)["accuracy"] == ["1.0000", "1.0000"]
    result = run("predict", tmp_path / "m.npz", tmp_path / "pictures" / "light" / "3.png")
    assert result.out == f"file,prediction\n{tmp_path}/pictures/light/3.png,light\n"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("extra", "shown"), [((), True), (("--quiet",), False), (("--json",), False)])
def test_progress_bar_on_a_terminal(small, start, extra, shown):
    ours, theirs = os.openpty()
    with start("train", small, *extra, stderr=theirs) as child:
        os.close(theirs)
        text = read_terminal(ours)
        child.communicate(timeout=300)
    assert child.returncode == 0
    assert ("iterations" in text) == shown
    assert ("objective" in text) == shown
    if not shown:
        assert text == ""


def read_terminal(descriptor):
    """Everything that is written to a pseudo-terminal until its last writer closes it, which Linux reports as EIO."""
    chunks = []
    try:
        while chunk := os.read(descriptor, 4096):
            chunks.append(chunk)
    except OSError:
        pass
    os.close(descriptor)
    return b"".join(chunks).decode()


def test_wrong_data_leaves_nothing_behind(one_line_error, tmp_path):
    np.savez(tmp_path / "nan.npz", X=np.array([[1.0, np.nan]] * 8), y=np.arange(8) % 2)
    message = one_line_error("train", tmp_path / "nan.npz", "--save", tmp_path / "m.npz", "--plot", tmp_path / "p.png")
    assert "nan in sample 0, feature 1" in message
    assert [p.name for p in tmp_path.iterdir()] == ["nan.npz"]


def test_data_that_cannot_be_trained_on(one_line_error, tmp_path):
    X = np.random.default_rng(0).standard_normal((9, 2))
    np.savez(tmp_path / "one.npz", X=X, y=np.ones(9))
    assert "single class 1" in one_line_error("train", tmp_path / "one.npz")
    np.savez(tmp_path / "none.npz", X=X)
    assert "no labels" in one_line_error("train", tmp_path / "none.npz")
    np.savez(tmp_path / "rare.npz", X=X, y=[0, 0, 0, 0, 1, 1, 1, 1, 2])
    assert "1 of class 2" in one_line_error("train", tmp_path / "rare.npz")
    np.savez(tmp_path / "many.npz", X=X, y=np.arange(9))
    assert "--test-size" in one_line_error("train", tmp_path / "many.npz")
    assert "no such file" in one_line_error("train", tmp_path / "absent.npz")


def test_wrong_test_data_are_found_before_the_fit(one_line_error, monkeypatch, tmp_path, small):
    monkeypatch.setattr("mlefast.estimators.SoftmaxClassifier.fit", lambda *args: pytest.fail("was fitted"))
    np.savez(tmp_path / "label.npz", X=np.zeros((2, 4)), y=["ant", "dog"])
    assert "the label dog" in one_line_error("train", small, "--test", tmp_path / "label.npz")
    np.savez(tmp_path / "width.npz", X=np.zeros((2, 5)), y=["ant", "bee"])
    assert "5 features" in one_line_error("train", small, "--test", tmp_path / "width.npz")
    np.savez(tmp_path / "unlabelled.npz", X=np.zeros((2, 4)))
    assert "no labels" in one_line_error("train", small, "--test", tmp_path / "unlabelled.npz")


def test_unwritable_targets_are_found_before_the_fit(one_line_error, monkeypatch, tmp_path, small):
    monkeypatch.setattr("mlefast.estimators.SoftmaxClassifier.fit", lambda *args: pytest.fail("was fitted"))
    assert "No such file" in one_line_error("train", small, "--save", tmp_path / "absent" / "m.npz")
    assert ".safetensors" in one_line_error("train", small, "--save", tmp_path / "m.pkl")
    assert "No such file" in one_line_error("train", small, "--plot", tmp_path / "absent" / "p.png")
    assert ".png" in one_line_error("train", small, "--plot", tmp_path / "p.doc")
    (tmp_path / "folder.png").mkdir()
    assert "no regular file" in one_line_error("train", small, "--plot", tmp_path / "folder.png")
    assert "also read" in one_line_error("train", small, "--save", small)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.png", "small.npz"]


def test_failure_while_drawing_keeps_the_old_file(one_line_error, monkeypatch, tmp_path, small):
    from matplotlib.figure import Figure

    def fail(self, file, **options):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    (tmp_path / "p.png").write_text("old")
    assert "No space left" in one_line_error("train", small, "--quiet", "--plot", tmp_path / "p.png")
    assert (tmp_path / "p.png").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.png", "small.npz"]


def test_divergence(one_line_error, small):
    options = ("--no-standardize", "--solver", "sgd", "--learning-rate", "1e300", "--penalty", "none")
    assert "learning" in one_line_error("train", small, *options)


@pytest.mark.parametrize(
    "options",
    [
        ("--solver", "newton"),
        ("--penalty", "l0"),
        ("--penalty", "l1", "--solver", "newton-cg"),
        ("--l1-ratio", "0.5"),
        ("--penalty", "elasticnet", "--l1-ratio", "1.1"),
        ("--schedule", "cosine"),
        ("--schedule", "linear", "--solver", "sgd"),
        ("--early-stopping",),
        ("--batch-size", "10"),
        ("--learning-rate", "0.1"),
        ("--resume",),
        ("--stream",),
        ("--corrupt", "ask"),
        ("-C", "0"),
        ("-C", "-1"),
        ("-C", "nan"),
        ("-C", "inf"),
        ("--C", "strong"),
        ("--max-iter", "0"),
        ("--max-iter", "1.5"),
        ("--tol", "-1"),
        ("--tol", "nan"),
        ("--batch-size", "0"),
        ("--learning-rate", "0"),
        ("--learning-rate", "inf"),
        ("--threads", "0"),
        ("--threads", "40000"),
        ("--test-size", "1"),
        ("--test-size", "-0.1"),
        ("--seed", "-1"),
        ("--image-size", "0"),
        ("--image-size", "4x"),
        ("--image-size", "28"),
        ("--target", "label"),
        ("--unknown",),
        ("surplus",),
    ],
    ids=" ".join,
)
def test_wrong_options(one_line_error, options):
    one_line_error("train", "digits", *options)


def test_a_network(tmp_path, process):
    plot, model = tmp_path / "digits.png", tmp_path / "digits.safetensors"
    options = "--model mlp --hidden 48,24 --activation gelu --dropout 0.1 --max-iter 60 --tol 0 --learning-rate 0.003"
    result = process("train", "digits", "--plot", plot, "--save", model, *options.split())
    assert (result.status, result.err) == (0, "")
    rows = rows_of(result.out)
    assert rows["network"] == ["64 - 48 - 24 - 10 units, gelu, 4,546 parameters"]
    assert re.fullmatch(r"adamw, 60 epochs in [\d.e-]+ s, converged", rows["fit"][0])
    assert float(rows["accuracy"][1]) > 0.95
    assert 0 < float(rows["expected calibration error"][1]) < 0.1
    assert size_of_png(plot)

    # The saved model takes the features as they are and says what an estimator fitted to scaled ones says.
    parts = split(data.load("digits"), 0.25, 0)
    scaler = StandardScaler().fit(parts[0].X)
    estimator = mf.MLPClassifier(
        (48, 24), "gelu", dropout=0.1, max_iter=60, tol=0, learning_rate_init=0.003, random_state=0
    ).fit(scaler.transform(parts[0].X), parts[0].y)
    loaded = model_file.load(model)
    expected = estimator.predict_proba(scaler.transform(parts[1].X))
    np.testing.assert_allclose(loaded.predict_proba(parts[1].X), expected, atol=1e-4)
    assert loaded.metadata["options"]["hidden"] == [48, 24]
    assert loaded.metadata["test"]["calibration_error"] == pytest.approx(
        float(rows["expected calibration error"][1]), abs=1e-4
    )
    predicted = process("predict", model, "digits", "--score")
    assert predicted.status == 0
    assert predicted.out.count("\n") == 1798
    assert "expected calibration error" in predicted.err


@pytest.mark.parametrize("name", ["small", "sparse"])
def test_network_of_any_data(run, tmp_path, small, name):
    path = small
    if name == "sparse":
        with np.load(small) as archive:
            path = tmp_path / "small.svm"
            dump_svmlight_file(np.maximum(archive["X"], 0), np.unique(archive["y"], return_inverse=True)[1], str(path))
    options = "--model mlp --hidden 8 --early-stopping --solver sgd --learning-rate 0.1 --weight-decay 0.01 --json"
    record = json.loads(run("train", path, "--save", tmp_path / "m.npz", *options.split()).out)
    assert record["train"]["accuracy"] > 0.5  # by chance 0.33
    assert (record["options"]["solver"], record["options"]["early_stopping"]) == ("sgd", True)
    result = run("predict", tmp_path / "m.npz", path, "--proba")
    assert result.status == 0
    assert len(result.out.splitlines()) == 61


def test_options_reach_the_network(monkeypatch, run, small):
    made = []
    real = mf.MLPClassifier.__init__

    @functools.wraps(real)
    def record(self, *args, **kwargs):
        made.append((args, kwargs))
        real(self, *args, **kwargs)

    monkeypatch.setattr("mlefast.estimators.MLPClassifier.__init__", record)
    options = (
        "--model mlp --solver sgd --hidden 7,6 --activation tanh --dropout 0.5 --weight-decay 0.1 --max-iter 7 --tol 0 "
        "--batch-size 5 --learning-rate 0.01 --schedule adaptive --seed 4 --early-stopping"
    )
    assert run("train", small, *options.split()).status == 0
    (args, kwargs), *_ = made
    kwargs.pop("callback")
    assert args == ((7, 6), "tanh")
    assert kwargs == {
        "solver": "sgd",
        "dropout": 0.5,
        "alpha": 0.1,
        "early_stopping": True,
        "learning_rate_init": 0.01,
        "max_iter": 7,
        "tol": 0.0,
        "batch_size": 5,
        "random_state": 4,
        "learning_rate": "adaptive",
        "checkpoint": None,
        "resume": False,
    }


def test_adamw_of_a_linear_model(run, small):
    record = json.loads(run("train", small, "--solver", "adamw", "--learning-rate", "0.05", "--json").out)
    assert record["options"]["solver"] == "adamw"
    exact = json.loads(run("train", small, "--json").out)
    assert record["loss_curve"][-1] == pytest.approx(exact["loss_curve"][-1], rel=0.1)


@pytest.mark.parametrize(
    "options",
    [("--model", "mlp"), ("--solver", "sgd"), ("--solver", "lbfgs", "--tol", 0), ("--solver", "newton-cg", "--tol", 0)],
)
def test_interrupted_model_is_kept(monkeypatch, run, small, tmp_path, options):
    from mlefast.cli import report

    @contextlib.contextmanager
    def progress(*args, **options):
        def interrupt(epoch, objective):
            if epoch == 3:
                raise KeyboardInterrupt

        yield interrupt

    monkeypatch.setattr(report, "progress", progress)
    result = run("train", small, *options, "--save", tmp_path / "m.npz")
    assert result.status == 130
    assert "interrupted" in result.out
    assert "converged" not in result.out
    assert result.err == "mlefast: interrupted\n"
    assert model_file.load(tmp_path / "m.npz").n_features == 4


def test_diverging_network(one_line_error, small):
    options = ("--no-standardize", "--model", "mlp", "--solver", "sgd", "--learning-rate", "1e38")
    assert "learning" in one_line_error("train", small, *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--hidden 30", "--hidden: is for --model mlp"),
        ("--dropout 0.1", "--dropout: is for --model mlp"),
        ("--early-stopping", "--early-stopping: is for --solver sgd and adamw"),
        ("--solver newton-cg --penalty l1", "newton-cg takes no penalty l1"),
        ("--l1-ratio 0.5", "--l1-ratio: is for --penalty elasticnet"),
        ("--resume", "--resume: is for --checkpoint"),
        ("--stream --solver lbfgs", "lbfgs needs all data at once"),
        ("--stream --early-stopping", "which --stream does not"),
        ("--stream --test-size 0.1", "use --test"),
        ("--stream", "only read as a whole"),
        ("--model mlp -C 2", "-C: is for --model linear"),
        ("--model mlp --penalty none", "--penalty: is for --model linear"),
        ("--model mlp --solver lbfgs", "lbfgs is for --model linear"),
        ("--model mlp --hidden 3,0", "'3,0' is no list of units"),
        ("--model mlp --hidden 3,,4", "'3,,4' is no list of units"),
        ("--model mlp --dropout 1", "1.0 is not a number from 0 and below 1"),
        ("--model mlp --weight-decay -1", "-1.0 is not a finite number from 0"),
        ("--model tree", "tree"),
    ],
)
def test_wrong_options_of_models(one_line_error, options, message):
    assert message in one_line_error("train", "digits", *options.split())
