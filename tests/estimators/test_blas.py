"""Small products are computed by one thread of the BLAS, large ones by all, and nothing stays changed."""

from __future__ import annotations

import mlefast.estimators.blas
import numpy as np
import pytest
import threadpoolctl
from mlefast import SoftmaxClassifier


def blas_threads():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
@pytest.mark.parametrize("worth", [1, 10**12])
def test_threads_of_the_blas_while_fitting(monkeypatch, solver, worth):
    monkeypatch.setattr(mlefast.estimators.blas, "_WORTH_A_THREAD", worth)
    r = np.random.default_rng(0)
    X, y = r.standard_normal((100, 5)), r.integers(0, 3, 100)
    seen = []
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        before = blas_threads()
        model = SoftmaxClassifier(
            solver=solver, max_iter=3, tol=0, callback=lambda iteration, value: seen.append(blas_threads())
        )
        if solver == "lbfgs":
            with pytest.warns(match="max_iter"):
                model.fit(X, y)
        else:
            model.fit(X, y)
        assert seen
        assert all(threads == (before if worth == 1 else [1] * len(before)) for threads in seen)
        assert blas_threads() == before
