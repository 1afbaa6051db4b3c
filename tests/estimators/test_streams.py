"""Fits to streams of batches, and to arrays that are mapped into memory."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from mlefast import MLPClassifier, SoftmaxClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
X, Y = load_digits(return_X_y=True)
X, X_TEST, Y, Y_TEST = train_test_split((X / 16).astype(np.float32), Y, random_state=0, stratify=Y)
ESTIMATORS = [
    SoftmaxClassifier(solver="sgd", max_iter=20, tol=0, random_state=0),
    SoftmaxClassifier(solver="adamw", learning_rate_init=0.01, max_iter=20, tol=0, random_state=0),
    MLPClassifier((30,), learning_rate_init=0.01, max_iter=15, tol=0, random_state=0),
]


class Shuffled:
    """A stream that shuffles all of its samples itself."""

    classes = np.arange(10)
    n_samples = len(Y)

    def __init__(self, size):
        self.size = size

    def epoch(self, random):
        order = np.arange(len(Y)) if random is None else random.permutation(len(Y))
        for start in range(0, len(Y), self.size):
            some = order[start : start + self.size]
            yield X[some], Y[some]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_stream_of_all_samples_is_a_fit(estimator):
    """The same random numbers choose the same batches, and the prior counts the same samples."""
    whole = estimator.fit(X, Y)
    curve, probabilities = whole.loss_curve_, whole.predict_proba(X_TEST)
    streamed = estimator.fit_stream(Shuffled(128))
    np.testing.assert_allclose(streamed.loss_curve_, curve, rtol=1e-5)
    np.testing.assert_allclose(streamed.predict_proba(X_TEST), probabilities, atol=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_list_of_batches(estimator):
    batches = [(X[i : i + 300], Y[i : i + 300]) for i in range(0, len(Y), 300)]
    estimator.fit_stream(batches, classes=np.arange(10))
    assert estimator.score(X_TEST, Y_TEST) > 0.9
    assert estimator.n_iter_ == len(estimator.loss_curve_) == estimator.max_iter
    sparse = [(scipy.sparse.csr_matrix(x), y, np.ones(len(y))) for x, y in batches]
    curve = estimator.loss_curve_
    estimator.fit_stream(sparse, classes=np.arange(10))
    np.testing.assert_allclose(estimator.loss_curve_, curve, rtol=1e-4)


def test_only_a_batch_is_in_memory_at_a_time():
    alive = []

    class Large:
        classes = (0, 1)

        def __iter__(self):
            for seed in range(20):
                random = np.random.default_rng(seed)
                batch = random.normal(size=(1000, 50))
                alive.append(batch.nbytes)
                yield batch, (batch[:, 0] > 0).astype(int)

    import tracemalloc

    tracemalloc.start()
    model = SoftmaxClassifier(solver="sgd", max_iter=2, tol=0).fit_stream(Large())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * 20 * alive[0]
    assert model.n_iter_ == 2


def test_early_stopping_on_samples_of_its_own():
    model = MLPClassifier((30,), early_stopping=True, learning_rate_init=0.01, max_iter=100, random_state=0)
    model.fit_stream(Shuffled(100), validation=(X_TEST, Y_TEST))
    assert model.n_iter_ < 100
    assert model.best_validation_score_ == max(model.validation_scores_) == model.score(X_TEST, Y_TEST)
    with pytest.raises(ValueError, match="validation: received None with early_stopping=True"):
        model.fit_stream(Shuffled(100))


def test_streams_that_are_none():
    model = SoftmaxClassifier(solver="sgd")
    with pytest.raises(TypeError, match="stream: received generator, which cannot be read anew"):
        model.fit_stream(((x, y) for x, y in [(X, Y)]), classes=np.arange(10))
    with pytest.raises(TypeError, match="stream: received int"):
        model.fit_stream(3, classes=np.arange(10))
    with pytest.raises(ValueError, match="classes: received None"):
        model.fit_stream([(X, Y)])
    with pytest.raises(ValueError, match="stream: received no batch"):
        model.fit_stream([], classes=np.arange(10))
    with pytest.raises(ValueError, match=r"y: received the label 9; accepted: \[0"):
        model.fit_stream([(X, Y)], classes=np.arange(9))
    with pytest.raises(ValueError, match="NaN"):
        model.fit_stream([(X, Y), (X * np.nan, Y)], classes=np.arange(10))
    with pytest.raises(TypeError, match=r"stream: received a ndarray; accepted: batches \(X, y\)"):
        model.fit_stream([(X, Y), X], classes=np.arange(10))
    with pytest.raises(ValueError, match="solver: received 'lbfgs'"):
        SoftmaxClassifier().fit_stream([(X, Y)], classes=np.arange(10))
    with pytest.raises(ValueError, match="class_weight: received 'balanced'"):
        SoftmaxClassifier(solver="sgd", class_weight="balanced").fit_stream([(X, Y)], classes=np.arange(10))


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "sgd"])
def test_mapped_arrays_are_not_copied(tmp_path, solver):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    model = SoftmaxClassifier(solver=solver, max_iter=5, tol=0, random_state=0)
    seen = []
    inner = model._minimise
    model._minimise = lambda data, *args, **options: (seen.append(data.X), inner(data, *args, **options))[1]
    model.fit(mapped, Y)
    assert np.shares_memory(seen[0], mapped)
    expected = SoftmaxClassifier(solver=solver, max_iter=5, tol=0, random_state=0).fit(X, Y)
    np.testing.assert_array_equal(model.coef_, expected.coef_)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
        ("invscaling", [1, 0.707107, 0.577350, 0.5]),
        (lambda epoch: 0.5**epoch, [0.5, 0.25, 0.125, 0.0625]),
    ],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_schedules(monkeypatch, estimator, schedule, factors):
    from mlefast.estimators.descent import Descent

    rates = []
    inner = Descent.epoch
    monkeypatch.setattr(
        Descent, "epoch", lambda self, data: (rates.append(self.optimizer.learning_rate), inner(self, data))[1]
    )
    model = type(estimator)(
        **{**estimator.get_params(), "learning_rate": schedule, "learning_rate_init": 0.02, "max_iter": 4}
    )
    model.fit(X, Y)
    np.testing.assert_allclose(rates, 0.02 * np.array(factors), rtol=1e-5)


def test_adaptive_steps_shrink_until_nothing_moves(monkeypatch):
    from mlefast.estimators.descent import Descent

    rates = []
    inner = Descent.epoch
    monkeypatch.setattr(
        Descent, "epoch", lambda self, data: (rates.append(self.optimizer.learning_rate), inner(self, data))[1]
    )
    model = SoftmaxClassifier(
        solver="sgd", learning_rate="adaptive", tol=1e-2, n_iter_no_change=2, max_iter=500, learning_rate_init=0.1
    )
    model.fit(X, Y)
    np.testing.assert_allclose(sorted(set(rates), reverse=True), 0.1 / 5.0 ** np.arange(5))
    assert model.n_iter_ < 500


def test_refused_schedules():
    with pytest.raises(ValueError, match="learning_rate: received 'linear'"):
        SoftmaxClassifier(solver="sgd", learning_rate="linear").fit(X, Y)
    with pytest.raises(ValueError, match="early_stopping: received True"):
        SoftmaxClassifier(early_stopping=True).fit(X, Y)


@pytest.mark.parametrize("estimator", [ESTIMATORS[0], SoftmaxClassifier(), SoftmaxClassifier(solver="newton-cg")])
def test_grid_search_in_processes_and_calibration(estimator):
    search = GridSearchCV(estimator, {"C": [0.1, 1.0]}, cv=2, n_jobs=2).fit(X[:400], Y[:400])
    assert search.best_score_ > 0.8
    calibrated = CalibratedClassifierCV(estimator, cv=2).fit(X[:400], Y[:400])
    assert calibrated.predict_proba(X_TEST).shape == (len(X_TEST), 10)


def worker_threads():
    import mlefast
    from threadpoolctl import threadpool_info

    return mlefast.get_num_threads(), max(pool["num_threads"] for pool in threadpool_info())


def test_workers_do_not_oversubscribe():
    from joblib import Parallel, cpu_count, delayed

    threads = Parallel(n_jobs=2)(delayed(worker_threads)() for _ in range(2))
    assert all(ours <= max(1, cpu_count() // 2) for ours, _ in threads)


def test_ctrl_c_in_an_epoch_keeps_what_there_is():
    class Interrupted:
        classes = np.arange(10)
        n_samples = len(Y)
        epochs = 0

        def epoch(self, random):
            self.epochs += 1
            yield X[:500], Y[:500]
            if self.epochs > 3:
                raise KeyboardInterrupt
            yield X[500:], Y[500:]

    model = SoftmaxClassifier(solver="sgd", learning_rate_init=0.05, max_iter=10, tol=0)
    with pytest.warns(ConvergenceWarning, match="interrupted after 2 epochs; the model as it is now is kept"):
        model.fit_stream(Interrupted())
    assert model.score(X_TEST, Y_TEST) > 0.5
