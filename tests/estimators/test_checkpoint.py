"""Fits that are interrupted and resumed: the same bits, whatever happened to the file, and refusal of what differs."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast import MLPClassifier, SoftmaxClassifier
from mlefast.estimators.checkpoint import CheckpointError, EvaluationLog
from sklearn.datasets import load_digits

X, Y = load_digits(return_X_y=True)
X = (X / 16).astype(np.float32)

FITS = {
    "lbfgs": (SoftmaxClassifier, {"max_iter": 30}),
    "lbfgs l1": (SoftmaxClassifier, {"penalty": "l1", "max_iter": 30}),
    "newton-cg": (SoftmaxClassifier, {"solver": "newton-cg", "max_iter": 6, "tol": 0}),
    "sgd": (SoftmaxClassifier, {"solver": "sgd", "max_iter": 8, "tol": 0, "learning_rate": "cosine"}),
    "sgd plateau": (
        SoftmaxClassifier,
        {"solver": "sgd", "max_iter": 30, "tol": 3e-2, "n_iter_no_change": 2, "learning_rate": "adaptive"},
    ),
    "adamw": (SoftmaxClassifier, {"solver": "adamw", "max_iter": 8, "tol": 0, "early_stopping": True}),
    "mlp adamw": (
        MLPClassifier,
        {"hidden_layer_sizes": (20,), "dropout": 0.3, "max_iter": 8, "tol": 0, "early_stopping": True},
    ),
    "mlp sgd": (MLPClassifier, {"hidden_layer_sizes": (20, 10), "solver": "sgd", "max_iter": 8, "tol": 0}),
}


class Killed(BaseException):
    """What ends a process without asking."""


def kill_at(iteration):
    def callback(i, value):
        if i == iteration:
            raise Killed

    return callback


def parameters(model):
    parts = (
        (model.coef_, model.intercept_) if isinstance(model, SoftmaxClassifier) else model.coefs_ + model.intercepts_
    )
    return np.concatenate([np.ravel(part) for part in parts])


def same(model, expected):
    np.testing.assert_array_equal(parameters(model), parameters(expected))
    assert model.loss_curve_ == expected.loss_curve_
    assert model.n_iter_ == expected.n_iter_
    assert model.validation_scores_ == expected.validation_scores_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FITS)
def test_resumed_fit_has_the_same_bits(tmp_path, name):
    make, options = FITS[name]
    whole = make(random_state=0, **options).fit(X, Y)
    n_iter = whole.n_iter_
    assert n_iter >= 5
    for stop in (1, 2, n_iter - 1):
        fit = make(random_state=0, **options, checkpoint=tmp_path, resume=True, callback=kill_at(stop))
        with pytest.raises(Killed):
            fit.fit(X, Y)
    seen = []
    resumed = make(
        random_state=0, **options, checkpoint=tmp_path, resume=True, callback=lambda i, value: seen.append(i)
    ).fit(X, Y)
    same(resumed, whole)
    assert seen == list(range(n_iter, n_iter + 1))  # not what was done before
    same(make(random_state=0, **options, checkpoint=tmp_path, resume=True).fit(X, Y), whole)  # nothing is left to do
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint.npz", "evaluations.bin"}


@pytest.mark.parametrize("stop", [1, 2])
def test_newton_cg_knows_what_it_gained(tmp_path, stop):
    """The gradient is small already, and it goes on because the last iteration gained much."""
    options = {"solver": "newton-cg", "tol": 5e-2}
    whole = SoftmaxClassifier(**options).fit(X, Y)
    assert whole.n_iter_ > stop
    with pytest.raises(Killed):
        SoftmaxClassifier(**options, checkpoint=tmp_path, callback=kill_at(stop)).fit(X, Y)
    same(SoftmaxClassifier(**options, checkpoint=tmp_path, resume=True).fit(X, Y), whole)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ["lbfgs", "newton-cg", "sgd plateau", "mlp sgd"])
def test_more_iterations_go_on(tmp_path, name):
    make, options = FITS[name]
    few = {**options, "max_iter": 3}
    make(random_state=0, **few, checkpoint=tmp_path).fit(X, Y)
    same(
        make(random_state=0, **options, checkpoint=tmp_path, resume=True).fit(X, Y),
        make(random_state=0, **options).fit(X, Y),
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("cut", [1, 1000, 20000])
def test_evaluations_that_were_being_written_are_made_again(tmp_path, cut):
    whole = SoftmaxClassifier(max_iter=10).fit(X, Y)
    SoftmaxClassifier(max_iter=10, checkpoint=tmp_path).fit(X, Y)
    log = tmp_path / "evaluations.bin"
    log.write_bytes(log.read_bytes()[:-cut])
    same(SoftmaxClassifier(max_iter=10, checkpoint=tmp_path, resume=True).fit(X, Y), whole)
    content = bytearray(log.read_bytes())
    content[-100] ^= 1  # a bit of the last gradient
    log.write_bytes(content)
    same(SoftmaxClassifier(max_iter=10, checkpoint=tmp_path, resume=True).fit(X, Y), whole)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_is_never_overwritten(tmp_path):
    options = {"solver": "sgd", "max_iter": 2, "tol": 0, "checkpoint": tmp_path}
    SoftmaxClassifier(**options).fit(X, Y)
    before = (tmp_path / "checkpoint.npz").read_bytes()
    with pytest.raises(CheckpointError, match=r"holds the state of a fit; accepted: resume=True"):
        SoftmaxClassifier(**options).fit(X, Y)
    with pytest.raises(CheckpointError, match=r"is of a fit with C=1.0, received 2.0; accepted"):
        SoftmaxClassifier(C=2.0, **options, resume=True).fit(X, Y)
    with pytest.raises(CheckpointError, match="is of a fit with data="):
        SoftmaxClassifier(**options, resume=True).fit(X[::-1], Y[::-1])
    with pytest.raises(CheckpointError, match=r"is of a fit with (?s:.*)received"):
        MLPClassifier(solver="sgd", max_iter=2, checkpoint=tmp_path, resume=True).fit(X, Y)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\3\4 and so on")
    with pytest.raises(CheckpointError, match=r"cannot read .*checkpoint\.npz"):
        SoftmaxClassifier(checkpoint=tmp_path, resume=True).fit(X, Y)


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot make"):
        SoftmaxClassifier(checkpoint=tmp_path / "file" / "here").fit(X, Y)


def test_resume_needs_a_checkpoint():
    with pytest.raises(ValueError, match="resume: received True"):
        SoftmaxClassifier(resume=True).fit(X, Y)
    with pytest.raises(ValueError, match="checkpoint: received .* for partial_fit"):
        SoftmaxClassifier(checkpoint="somewhere").partial_fit(X, Y, classes=np.arange(10))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_without_a_random_state_the_first_fits_numbers_are_used(tmp_path):
    options = {"hidden_layer_sizes": (5,), "max_iter": 4, "tol": 0, "checkpoint": tmp_path}
    with pytest.raises(Killed):
        MLPClassifier(**options, callback=kill_at(2)).fit(X, Y)
    copy = tmp_path / "again"
    copy.mkdir()
    (copy / "checkpoint.npz").write_bytes((tmp_path / "checkpoint.npz").read_bytes())
    one = MLPClassifier(**options, resume=True).fit(X, Y)
    other = MLPClassifier(**{**options, "checkpoint": copy}, resume=True).fit(X, Y)
    same(one, other)


@pytest.mark.parametrize("damage", ["cut", "gradient"])
def test_a_log_goes_on_where_it_is_whole(tmp_path, damage):
    """What was being written when the process ended is overwritten: other records begin where it began."""
    path, r = tmp_path / "log", np.random.default_rng(0)
    points = [(r.standard_normal(5), float(i), r.standard_normal(5), 0.5) for i in range(3)]
    log = EvaluationLog(path, 5, keep=False)
    for point in points:
        log.append(*point)
    log.close()
    whole = path.read_bytes()
    record = len(whole) // 3
    if damage == "cut":
        path.write_bytes(whole[:-7])
    else:
        path.write_bytes(whole[: 2 * record + record - 3] + b"???")

    def replayed(log):
        known = 0
        while known < 3 and (found := log.replay(points[known][0])) is not None:
            assert found[0] == points[known][1]
            np.testing.assert_array_equal(found[1], points[known][2])
            known += 1
        return known

    log = EvaluationLog(path, 5, keep=True)
    assert replayed(log) == 2
    log.append(*points[2])
    log.close()
    assert path.read_bytes() == whole
    log = EvaluationLog(path, 5, keep=True)
    assert replayed(log) == 3
    log.close()
