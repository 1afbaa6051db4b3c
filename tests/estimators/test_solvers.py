"""The solvers of SoftmaxClassifier that see all samples: curvature, solutions of every prior, pieces, coordinates."""

from __future__ import annotations

import mlefast as mf
import numpy as np
import pytest
import scipy.sparse
from mlefast import SoftmaxClassifier
from mlefast.estimators import objective as objective_module
from mlefast.estimators import solvers
from mlefast.estimators.objective import LinearObjective
from mlefast.estimators.samples import Samples
from mlefast.estimators.solvers import Preconditioner, Problem
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import scale


def random_problem(n_classes, *, sparse=False, weighted=True, fit_intercept=True, dtype=np.float64, l2=0.1):
    random = np.random.default_rng(0)
    X = random.normal(size=(50, 6)).astype(dtype)
    if sparse:
        X = scipy.sparse.csr_matrix(X * (random.random(X.shape) < 0.4))
    weight = random.random(50).astype(dtype) if weighted else None
    data = Samples(X, random.integers(0, n_classes, 50), weight)
    model = LinearObjective(6, n_classes, fit_intercept=fit_intercept, l2=l2, dtype=dtype)
    return Problem(model, data), random.normal(size=model.size)


VARIANTS = [{}, {"sparse": True}, {"weighted": False}, {"fit_intercept": False}]


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_gradient_and_hessian_are_derivatives(n_classes, options):
    problem, at = random_problem(n_classes, **options)
    direction = np.random.default_rng(1).normal(size=at.size)
    step = 1e-5
    (above, slope_above), (below, slope_below) = (problem.smooth(at + s * direction) for s in (step, -step))
    _, gradient = problem.smooth(at)
    assert gradient @ direction == pytest.approx((above - below) / (2 * step), rel=1e-8)
    product = problem.hessian(at)(direction)
    np.testing.assert_allclose(product, (slope_above - slope_below) / (2 * step), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_pieces_add_up(monkeypatch, n_classes, options):
    problem, at = random_problem(n_classes, **options)
    whole = problem.smooth(at), problem.hessian(at)(at)
    monkeypatch.setattr(objective_module, "_LOGITS", 7 * n_classes)
    monkeypatch.setattr(objective_module, "_PROBABILITIES", 0)
    pieces = problem.smooth(at), problem.hessian(at)(at)
    assert pieces[0][0] == pytest.approx(whole[0][0], rel=1e-14)
    np.testing.assert_allclose(pieces[0][1], whole[0][1], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(pieces[1], whole[1], rtol=1e-12, atol=1e-15)


def test_pieces_bound_the_memory(monkeypatch):
    """Logits of all samples would be 64 MB here."""
    monkeypatch.setattr(objective_module, "_LOGITS", 2**16)
    model = LinearObjective(2, 1000, fit_intercept=True, l2=0.0, dtype=np.float32)
    data = Samples(np.zeros((16000, 2), np.float32), np.zeros(16000, np.int64), None)
    Problem(model, data).smooth(np.zeros(model.size))
    assert model._logits.nbytes <= 2**18


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("n_classes", [2, 5])
def test_coordinates_go_there_and_back(n_classes, options):
    problem, at = random_problem(n_classes, **options)
    to = Preconditioner(problem)
    np.testing.assert_allclose(to.to_parameters(to.from_parameters(at)), at, rtol=1e-10)
    _, gradient = problem.smooth(at)
    u, direction = to.from_parameters(at), np.random.default_rng(1).normal(size=at.size)
    # The slope along a direction is the same in both.
    assert to.gradient(gradient) @ direction == pytest.approx(gradient @ to.to_parameters(direction), rel=1e-10)
    assert u.shape == at.shape


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_coordinates_do_not_move_the_solution(monkeypatch, solver):
    X, y = load_digits(return_X_y=True)
    options = {"solver": solver, "max_iter": 2000, "tol": 1e-7}
    ours = SoftmaxClassifier(**options).fit(X / 16, y)
    monkeypatch.setattr(solvers.Preconditioner, "pays", lambda problem: False)
    plain = SoftmaxClassifier(**options).fit(X / 16, y)
    np.testing.assert_allclose(ours.coef_, plain.coef_, atol=2e-3)
    assert ours.loss_curve_[-1] == pytest.approx(plain.loss_curve_[-1], rel=1e-8)
    if solver == "lbfgs":
        assert ours.n_iter_ < plain.n_iter_ / 2


def test_dependent_and_constant_features_are_no_obstacle():
    X, y = load_iris(return_X_y=True)
    X = np.hstack([X, X, np.ones((150, 2)), np.zeros((150, 1))])
    ours = SoftmaxClassifier(None, max_iter=500).fit(X, y)
    assert ours.score(X, y) > 0.97


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("load", [load_iris, load_breast_cancer, load_digits])
def test_reaches_scikit_learns_solution(load, C, solver):
    X, y = load(return_X_y=True)
    X = scale(X)
    ours = SoftmaxClassifier(C=C, solver=solver, max_iter=500, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=C, solver="newton-cg", max_iter=500, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-3)

    def objective(model):  # scikit-learn's own log-probabilities are infinite here and there
        logits = model.decision_function(X)
        logits = np.stack([np.zeros(len(y)), logits], axis=1) if logits.ndim == 1 else logits
        return C * mf.cross_entropy(logits, y, reduction="sum") + 0.5 * (model.coef_**2).sum()

    assert objective(ours) <= objective(theirs) * (1 + 1e-7)


@pytest.mark.parametrize(("penalty", "ratio"), [("l1", 1.0), ("elasticnet", 0.3), ("elasticnet", 0.0)])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_kinks_meet_the_conditions_of_a_minimum(penalty, ratio, n_classes):
    """Where a weight is 0 the loss's slope is at most the prior's; elsewhere they cancel (Karush, Kuhn, Tucker)."""
    X, y = load_iris(return_X_y=True)
    X, y = scale(X)[y < n_classes], y[y < n_classes]
    model = SoftmaxClassifier(penalty, l1_ratio=ratio, C=0.03, max_iter=5000, tol=1e-9).fit(X, y)
    p = model.predict_proba(X)
    errors = (p - np.eye(n_classes)[y]) * 0.03
    slope = (errors.T @ X)[1 - (n_classes > 2) :] + (1 - ratio) * model.coef_
    zero = model.coef_ == 0
    assert np.all(np.abs(slope[zero]) <= ratio + 1e-4)
    np.testing.assert_allclose(slope[~zero], -ratio * np.sign(model.coef_[~zero]), atol=1e-4)
    np.testing.assert_allclose(errors.sum(axis=0), 0, atol=1e-4)
    if ratio == 1:
        assert zero.any()


def test_lasso_is_as_good_as_liblinears():
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    ours = SoftmaxClassifier("l1", C=0.1, max_iter=5000, tol=1e-7, fit_intercept=False).fit(X, y)
    theirs = LogisticRegression(
        l1_ratio=1, C=0.1, solver="liblinear", tol=1e-8, max_iter=5000, fit_intercept=False
    ).fit(X, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_array_equal(ours.coef_ == 0, np.abs(theirs.coef_) < 1e-10)


@pytest.mark.parametrize("solver", ["sgd", "adamw"])
def test_mini_batches_come_close_to_a_lasso(solver):
    X, y = load_breast_cancer(return_X_y=True)
    X = scale(X)
    best = SoftmaxClassifier("l1", C=0.1, max_iter=5000, tol=1e-7).fit(X, y)
    rate = {"sgd": "auto", "adamw": 0.01}[solver]
    model = SoftmaxClassifier(
        "l1", C=0.1, solver=solver, learning_rate_init=rate, learning_rate="cosine", max_iter=300, tol=0, random_state=0
    ).fit(X, y)
    assert model.loss_curve_[-1] == pytest.approx(best.loss_curve_[-1], rel=0.05)
    zero, tiny = best.coef_ == 0, np.abs(model.coef_) < 0.05
    assert np.mean(tiny[zero]) >= 0.5
    if solver == "adamw":  # the noise of plain gradients is larger than the threshold
        assert np.mean((model.coef_ == 0) == zero) >= 0.7


def test_newton_takes_no_kinks():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(
        ValueError, match=r"penalty: received 'l1' \(str\); accepted: 'l2' or None for solver='newton-cg'"
    ):
        SoftmaxClassifier("l1", solver="newton-cg").fit(X, y)
    with pytest.raises(ValueError, match="l1_ratio: received 2"):
        SoftmaxClassifier("elasticnet", l1_ratio=2).fit(X, y)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_float32_ends_at_its_noise(solver):
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    single = SoftmaxClassifier(solver=solver, max_iter=500, tol=1e-10).fit(X, y)  # no warning
    double = SoftmaxClassifier(solver=solver, max_iter=500, tol=1e-8).fit(X.astype(np.float64), y)
    assert single.loss_curve_[-1] == pytest.approx(double.loss_curve_[-1], rel=1e-6)


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_interrupted_fit_keeps_the_last_iteration(solver):
    X, y = load_digits(return_X_y=True)

    def interrupt(iteration, value):
        if iteration == 3:
            raise KeyboardInterrupt

    model = SoftmaxClassifier(solver=solver, callback=interrupt)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 iterations; the model as it is now is kept"):
        model.fit(X / 16, y)
    assert model.n_iter_ == len(model.loss_curve_) == 3
    losses = -model.predict_log_proba(X / 16)[np.arange(len(y)), y]
    assert losses.mean() + 0.5 * (model.coef_**2).sum() / len(y) == pytest.approx(model.loss_curve_[-1], rel=1e-12)
