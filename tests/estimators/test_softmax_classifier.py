"""SoftmaxClassifier: scikit-learn's checks, its objective and solutions, both solvers, what is refused."""

from __future__ import annotations

import warnings

import mlefast as mf
import numpy as np
import pytest
import scipy.sparse
from mlefast import SoftmaxClassifier
from sklearn.datasets import load_digits, load_iris, make_classification
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

ONE_BATCH_AT_A_TIME = "stochastic: a repeated sample may fall into another batch than one of weight two"
FAR_FROM_CONVERGED = "unscaled features and weights 1e7 apart: descent on mini-batches is far from done in 1000 epochs"


def expected_failures(estimator):
    if estimator.solver != "sgd":
        return {}
    return {
        "check_sample_weight_equivalence_on_dense_data": ONE_BATCH_AT_A_TIME,
        "check_sample_weight_equivalence_on_sparse_data": ONE_BATCH_AT_A_TIME,
        "check_class_weight_classifiers": FAR_FROM_CONVERGED,
    }


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [SoftmaxClassifier(), SoftmaxClassifier(solver="sgd")], expected_failed_checks=expected_failures
)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return train_test_split(X / 16, y, random_state=0, stratify=y)


def objective(model, X, y, C=1.0, weight=None):
    """C * negative log-likelihood + ||W||^2 / 2, in float64."""
    code = np.searchsorted(model.classes_, y)
    losses = -model.predict_log_proba(X)[np.arange(len(y)), code].astype(np.float64)
    return C * np.sum(losses if weight is None else weight * losses) + 0.5 * np.sum(model.coef_.astype(np.float64) ** 2)


@pytest.mark.parametrize("options", [{}, {"C": 0.01}, {"fit_intercept": False}, {"class_weight": "balanced"}])
def test_reaches_scikit_learns_objective(digits, options):
    X, X_test, y, y_test = digits
    ours = SoftmaxClassifier(max_iter=2000, tol=1e-6, **options).fit(X, y)
    theirs = LogisticRegression(max_iter=2000, tol=1e-6, **options).fit(X, y)
    C = options.get("C", 1.0)
    weight = None
    if "class_weight" in options:
        weight = (len(y) / (10 * np.bincount(y)))[y]
    ours_at, theirs_at = objective(ours, X, y, C, weight), objective(theirs, X, y, C, weight)
    assert ours_at == pytest.approx(theirs_at, rel=1e-6)
    assert abs(ours.score(X_test, y_test) - theirs.score(X_test, y_test)) <= 0.005
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.predict_proba(X_test), theirs.predict_proba(X_test), atol=2e-3)


def test_two_classes_are_binomial_regression(digits):
    X, _, y, _ = digits
    even = np.where(y % 2 == 0, "even", "odd")
    ours = SoftmaxClassifier(max_iter=2000, tol=1e-7).fit(X, even)
    theirs = LogisticRegression(max_iter=2000, tol=1e-7).fit(X, even)
    assert ours.coef_.shape == (1, 64)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-3)
    assert ours.decision_function(X).shape == (len(X),)
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=5e-3)
    assert set(ours.predict(X)) == {"even", "odd"}


def test_float32_is_kept_and_agrees(digits):
    X, X_test, y, _ = digits
    double = SoftmaxClassifier(max_iter=1000, tol=1e-6).fit(X, y)
    single = SoftmaxClassifier(max_iter=1000, tol=1e-5).fit(X.astype(np.float32), y)
    assert single.predict_proba(X_test.astype(np.float32)).dtype == np.float64  # coefficients are kept in full
    assert objective(single, X, y) == pytest.approx(objective(double, X, y), rel=1e-5)


@pytest.mark.parametrize("momentum", [{"momentum": 0.0}, {"nesterovs_momentum": False}, {}])
def test_sgd_comes_close(digits, momentum):
    X, X_test, y, y_test = digits
    best = SoftmaxClassifier(max_iter=1000).fit(X, y)
    model = SoftmaxClassifier(solver="sgd", max_iter=150, tol=0, random_state=0, **momentum).fit(X, y)
    assert model.n_iter_ == len(model.loss_curve_) == 150
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 3
    assert model.score(X_test, y_test) >= best.score(X_test, y_test) - 0.015
    again = SoftmaxClassifier(solver="sgd", max_iter=150, tol=0, random_state=0, **momentum).fit(X, y)
    np.testing.assert_array_equal(model.coef_, again.coef_)


def test_adamw_seeks_the_same_solution(digits):
    """The prior is part of the objective: there is no decay of its own that would move the solution."""
    X, _, y, _ = digits
    for C in (0.01, 1.0):
        best = SoftmaxClassifier(C=C, max_iter=1000).fit(X, y)
        options = {"C": C, "max_iter": 300, "tol": 0, "random_state": 0, "learning_rate_init": 0.003}
        model = SoftmaxClassifier(solver="adamw", **options).fit(X, y)
        assert model.loss_curve_[-1] == pytest.approx(best.loss_curve_[-1], rel=0.03)
        assert objective(model, X, y, C) == pytest.approx(objective(best, X, y, C), rel=0.03)
    parts = SoftmaxClassifier(solver="adamw", **options)
    for _ in range(300):
        parts.partial_fit(X, y, classes=np.arange(10))
    np.testing.assert_array_equal(parts.coef_, model.coef_)


def test_sgd_stops_when_nothing_improves(digits):
    X, _, y, _ = digits
    model = SoftmaxClassifier(solver="sgd", max_iter=2000, tol=1e-2, n_iter_no_change=3, random_state=0).fit(X, y)
    assert 3 < model.n_iter_ < 1000


def test_a_diverging_fit_says_what_to_try(digits):
    X, _, y, _ = digits
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match="diverged in epoch .*learning_rate_init"):
        SoftmaxClassifier(solver="sgd", learning_rate_init=1e300, max_iter=50, random_state=0).fit(X, y)


def test_unfinished_fit_warns(digits):
    X, _, y, _ = digits
    with pytest.warns(ConvergenceWarning, match="did not converge in 3 iterations"):
        SoftmaxClassifier(max_iter=3).fit(X, y)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_warm_start_goes_on(digits):
    X, _, y, _ = digits
    model = SoftmaxClassifier(max_iter=10, warm_start=True).fit(X, y)
    first = model.loss_curve_[-1]
    assert model.fit(X, y).loss_curve_[0] < first
    cold = SoftmaxClassifier(max_iter=10).fit(X, y)
    assert cold.fit(X, y).loss_curve_[0] > first


def test_partial_fit(digits):
    X, X_test, y, y_test = digits
    model = SoftmaxClassifier(random_state=0)
    for _ in range(20):
        for first in range(0, len(X), 300):
            model.partial_fit(X[first : first + 300], y[first : first + 300], classes=np.arange(10))
    assert model.score(X_test, y_test) > 0.9
    with pytest.raises(ValueError, match="classes: received None in the first call"):
        SoftmaxClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match="y: received the label"):
        model.partial_fit(X[:3], [1, 2, 77])
    with pytest.raises(ValueError, match="those of the first call"):
        model.partial_fit(X[:3], [1, 2, 3], classes=[1, 2, 3])


def test_partial_fit_after_fit_starts_from_it(digits):
    X, _, y, _ = digits
    model = SoftmaxClassifier(max_iter=1000, random_state=0).fit(X, y)
    at_optimum = model.score(X, y)
    assert abs(model.partial_fit(X, y).score(X, y) - at_optimum) < 0.02


def test_sparse_input_is_the_same():
    X, y = make_classification(300, 40, n_informative=10, n_classes=4, random_state=0)
    X[np.abs(X) < 1] = 0
    dense = SoftmaxClassifier(max_iter=1000).fit(X, y)
    for convert in (scipy.sparse.csr_array, scipy.sparse.csc_matrix):
        sparse = SoftmaxClassifier(max_iter=1000).fit(convert(X), y)
        np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-6)
        np.testing.assert_allclose(sparse.predict_proba(convert(X)), dense.predict_proba(X), atol=1e-6)
    descent = SoftmaxClassifier(solver="sgd", max_iter=20, tol=0, random_state=0)
    np.testing.assert_allclose(descent.fit(scipy.sparse.csr_array(X), y).coef_, descent.fit(X, y).coef_, atol=1e-9)


def test_weights_multiply(digits):
    X, _, y, _ = digits
    weight = np.random.default_rng(0).integers(1, 4, len(y)).astype(float)
    weighted = SoftmaxClassifier(max_iter=2000, tol=1e-7).fit(X, y, sample_weight=weight)
    repeated = SoftmaxClassifier(max_iter=2000, tol=1e-7).fit(
        np.repeat(X, weight.astype(int), 0), np.repeat(y, weight.astype(int))
    )
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=2e-4)
    assert weighted.log_likelihood(X, y, weight) == pytest.approx(repeated.log_likelihood(X, y, weight), rel=1e-5)


def test_log_likelihood(digits):
    X, _, y, _ = digits
    model = SoftmaxClassifier(max_iter=500).fit(X, y)
    want = model.predict_log_proba(X)[np.arange(len(y)), y].sum()
    assert model.log_likelihood(X, y) == pytest.approx(want, rel=1e-12)
    assert model.log_likelihood(X, y) == pytest.approx(
        -mf.cross_entropy(model.decision_function(X), y, reduction="sum")
    )
    with pytest.raises(ValueError, match="y: received the label 11"):
        model.log_likelihood(X[:1], [11])


def test_without_a_prior_it_is_maximum_likelihood():
    """At the maximum the model's expected features are the observed ones, class by class."""
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    model = SoftmaxClassifier(penalty=None, max_iter=5000, tol=1e-7).fit(X, y)
    expected = model.predict_proba(X).T @ X
    observed = np.array([X[y == k].sum(0) for k in range(3)])
    np.testing.assert_allclose(expected, observed, atol=1e-4)
    same = SoftmaxClassifier(C=np.inf, max_iter=5000, tol=1e-7).fit(X, y)
    np.testing.assert_allclose(same.coef_, model.coef_)


def test_callback_and_loss_curve(digits, capsys):
    X, _, y, _ = digits
    seen = []
    model = SoftmaxClassifier(max_iter=1000, callback=lambda i, value: seen.append((i, value)), verbose=5).fit(X, y)
    assert [i for i, _ in seen] == list(range(1, model.n_iter_ + 1))
    assert [value for _, value in seen] == model.loss_curve_
    assert model.loss_curve_[-1] == pytest.approx(objective(model, X, y) / len(y), rel=1e-9)
    assert capsys.readouterr().out.startswith("iteration 5: objective ")


def test_pipeline_and_grid_search(digits):
    X, X_test, y, y_test = digits
    pipeline = make_pipeline(StandardScaler(), SoftmaxClassifier(max_iter=500))
    search = GridSearchCV(pipeline, {"softmaxclassifier__C": [0.01, 1.0]}, cv=2, n_jobs=2).fit(X[:400], y[:400])
    assert search.score(X_test, y_test) > 0.85


def test_feature_names():
    frame = load_iris(as_frame=True)
    model = SoftmaxClassifier(max_iter=1000).fit(frame.data, frame.target)
    assert list(model.feature_names_in_) == list(frame.data.columns)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.data[frame.data.columns[::-1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "l3"}, "penalty: received 'l3'"),
        ({"C": 0}, "C: received 0"),
        ({"C": np.nan}, "C: received nan"),
        ({"solver": "adam"}, "solver: received 'adam'"),
        ({"max_iter": 0}, "max_iter: received 0"),
        ({"max_iter": 2.5}, "max_iter: received 2.5"),
        ({"tol": -1}, "tol: received -1"),
        ({"batch_size": 0}, "batch_size: received 0"),
        ({"learning_rate_init": -1}, "learning_rate_init: received -1"),
        ({"momentum": 1.0}, "momentum: received 1.0"),
        ({"n_iter_no_change": 0}, "n_iter_no_change: received 0"),
        ({"callback": 3}, "callback: received 3"),
    ],
)
def test_refused_parameters(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        SoftmaxClassifier(**options).fit([[0.0], [1.0]], [0, 1])


def test_refused_data():
    with pytest.raises(ValueError, match="only one class"):
        SoftmaxClassifier().fit([[0.0], [1.0]], [1, 1])
    with pytest.raises(ValueError, match="NaN"):
        SoftmaxClassifier().fit([[np.nan], [1.0]], [0, 1])
    with pytest.raises(ValueError, match="(at least one non-zero|weights that sum to 0)"):
        SoftmaxClassifier().fit([[0.0], [1.0]], [0, 1], sample_weight=[0.0, 0.0])
    with pytest.raises(NotFittedError):
        SoftmaxClassifier().predict([[0.0]])


def test_no_warnings_on_the_way(digits):
    X, X_test, y, _ = digits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftmaxClassifier(max_iter=1000).fit(X, y).predict(X_test)
