"""The kernels of linear models of few outputs, as Python calls them (tests/cpp/test_linear_model.cpp has the rest)."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast import _core, show_config
from mlefast.estimators import SoftmaxClassifier
from mlefast.estimators import objective as objective_module
from mlefast.estimators.objective import LinearObjective, has_own_products

DTYPES = [np.float32, np.float64]


def problem(n, features, classes, dtype, *, fit_intercept=True):
    r = np.random.default_rng(0)
    of = LinearObjective(features, classes, fit_intercept=fit_intercept, l2=0.0, dtype=dtype)
    X = r.standard_normal((n, features)).astype(dtype)
    y, weight = r.integers(0, classes, n), r.random(n).astype(dtype)
    return of, X, y, weight, r.standard_normal(of.size) / np.sqrt(features), r.standard_normal(of.size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("classes", [2, 3, 10, 64])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weighs", [False, True])
def test_objective_is_that_of_a_blas(monkeypatch, dtype, classes, fit_intercept, weighs):
    """Loss, gradient and Hessian in one pass, and by products and losses one after the other."""
    of, X, y, weight, at, direction = problem(2500, 77, classes, dtype, fit_intercept=fit_intercept)
    weight = weight if weighs else None
    total = 2000.0
    results = []
    for own in (True, False):
        monkeypatch.setattr(objective_module, "has_own_products", lambda *_, own=own: own)
        assert of.reads_once(X) == own
        for kind in (np.float64, dtype):
            gradient = np.full(of.size, np.nan, kind)
            loss = of.loss_and_gradient(at, X, y, weight, total, gradient)
            product = of.curvature(at, X, weight, total).times(direction)
            results.append((loss, gradient, product))
    for result in results[1:]:
        for got, want in zip(result, results[0]):
            np.testing.assert_allclose(got, want, atol=64 * np.finfo(dtype).eps * np.abs(want).max())


def test_what_has_own_products():
    X = np.zeros((5, 4), np.float32)
    of = LinearObjective(4, 3, fit_intercept=True, l2=0.0, dtype=np.float32)
    assert of.reads_once(X) == (show_config()["isa"] != "scalar")
    assert not of.reads_once(X.astype(np.float64))
    assert not of.reads_once(np.asfortranarray(np.ones((5, 4), np.float32)))
    assert not has_own_products(10, 65)
    assert not has_own_products(10**5, 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products(dtype):
    r = np.random.default_rng(0)
    for n, features, outputs in ((1, 1, 1), (5, 3, 2), (70, 33, 5), (129, 40, 9), (0, 3, 2)):
        x, coef = r.standard_normal((n, features)).astype(dtype), r.standard_normal((outputs, features)).astype(dtype)
        intercept, z = r.standard_normal(outputs).astype(dtype), np.full((n, outputs), np.nan, dtype)
        tolerance = 8 * np.finfo(dtype).eps * features**0.5
        _core.linear_logits(x, coef, intercept, z)
        np.testing.assert_allclose(z, x @ coef.T + intercept, atol=tolerance * 4)
        sums, gradient = np.full(outputs, np.nan, dtype), np.full((outputs, features), np.nan, dtype)
        _core.linear_gradient(x, z, gradient, sums)
        np.testing.assert_allclose(gradient, z.T @ x, atol=tolerance * (n + 1))
        np.testing.assert_allclose(sums, z.sum(axis=0), atol=tolerance * (n + 1))


def arguments(**other):
    made = {
        "x": np.ones((6, 4), np.float32),
        "coef": np.ones((3, 4), np.float32),
        "intercept": np.ones(3, np.float32),
        "target": np.zeros(6, np.int64),
        "weight": np.ones(6, np.float32),
        "scale": 1.0,
        "coef_gradient": np.zeros((3, 4), np.float32),
        "intercept_gradient": np.zeros(3, np.float32),
    }
    return {**made, **other}


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x", np.ones(6, np.float32)),
        ("x", np.ones((6, 4), np.float16)),
        ("x", np.ones((6, 8), np.float32)[:, ::2]),
        ("coef", np.ones((3, 5), np.float32)),
        ("coef", np.ones((0, 4), np.float32)),
        ("coef", np.ones((3, 4))),
        ("intercept", np.ones(4, np.float32)),
        ("target", np.zeros(6, np.int32)),
        ("target", np.zeros(5, np.int64)),
        ("weight", np.ones(7, np.float32)),
        ("coef_gradient", read_only(np.zeros((3, 4), np.float32))),
        ("intercept_gradient", np.zeros(2, np.float32)),
    ],
)
def test_wrong_arrays_are_refused(name, value):
    given = arguments(**{name: value})
    with pytest.raises(ValueError, match=name):
        _core.linear_loss(*given.values())
    assert not given["coef_gradient"].any()


def test_a_wrong_target_makes_the_loss_nan():
    for wrong in (3, -1, 2**62):
        given = arguments(target=np.array([0, 1, 2, wrong, 0, 0]))
        assert np.isnan(_core.linear_loss(*given.values()))


@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
@pytest.mark.parametrize("classes", [2, 5, 80])
def test_solutions_with_and_without_them(monkeypatch, solver, classes):
    r = np.random.default_rng(0)
    X = r.standard_normal((900, 12))
    y = np.argmax(X @ r.standard_normal((12, classes)) + r.gumbel(size=(900, classes)), axis=1)
    fits = []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(objective_module, "_FEW_OUTPUTS", 0)
        fits.append(SoftmaxClassifier(solver=solver, tol=1e-9, max_iter=1000).fit(X, y).coef_)
    np.testing.assert_allclose(fits[0], fits[1], atol=1e-5)
