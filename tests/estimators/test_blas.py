"""While a fit runs the BLAS has one thread, mlefast's share its products, and nothing stays changed."""

from __future__ import annotations

import mlefast
import numpy as np
import pytest
import scipy.sparse
import threadpoolctl
from mlefast import MLPClassifier, SoftmaxClassifier
from mlefast.estimators.blas import product
from sklearn.datasets import load_digits


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg", "sgd"])
def test_threads_of_the_blas_while_fitting(solver):
    r = np.random.default_rng(0)
    X, y = r.standard_normal((100, 5)), r.integers(0, 3, 100)
    seen = []
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        model = SoftmaxClassifier(
            solver=solver, max_iter=3, tol=0, callback=lambda iteration, value: seen.append(blas_threads())
        )
        model.fit(X, y)
        assert seen
        assert all(threads == [1] * len(before) for threads in seen)
        assert blas_threads() == before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        SoftmaxClassifier(max_iter=5),
        SoftmaxClassifier(solver="newton-cg", max_iter=2),
        SoftmaxClassifier(solver="sgd", max_iter=1, tol=0, batch_size=512, random_state=0),
        MLPClassifier((256,), max_iter=1, tol=0, batch_size=512, random_state=0),
    ],
)
def test_same_bits_with_any_number_of_threads(estimator):
    X, y = load_digits(return_X_y=True)
    X = np.repeat((X / 16).astype(np.float32), 12, axis=1)  # enough work for more than one thread
    fitted = []
    for ours, theirs in ((1, 1), (2, 1), (3, 2)):
        mlefast.set_num_threads(ours)
        try:
            with threadpoolctl.threadpool_limits(limits=theirs, user_api="blas"):
                estimator.fit(X, y)
        finally:
            mlefast.set_num_threads(None)
        fitted.append(estimator.coefs_[0] if isinstance(estimator, MLPClassifier) else estimator.coef_)
    np.testing.assert_array_equal(fitted[0], fitted[1])
    np.testing.assert_array_equal(fitted[0], fitted[2])


def test_products_of_anything():
    r = np.random.default_rng(0)
    a, b = r.standard_normal((6, 5)), r.standard_normal((5, 4))
    for left in (a, np.asfortranarray(a), np.repeat(a, 2, axis=1)[:, ::2], scipy.sparse.csr_matrix(a)):
        out = np.ones((6, 4))
        np.testing.assert_allclose(product(left, b, out, add=True), a @ b + 1)
        np.testing.assert_allclose(product(left, b, out), a @ b)
