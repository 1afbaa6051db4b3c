"""statsmodels: the statistics of maximum likelihood are those of its MNLogit, on its own data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mlefast import SoftmaxClassifier
from sklearn.datasets import load_iris

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    sm = pytest.importorskip("statsmodels.api", reason="statsmodels is not installed: its comparison runs in CI")


def load(name):
    if name == "iris":  # versicolor and virginica by their sepals: not separable
        X, y = load_iris(return_X_y=True)
        return X[50:, :2], y[50:]
    data = getattr(sm.datasets, name).load_pandas()
    X, y = np.asarray(data.exog, dtype=np.float64), np.asarray(data.endog)
    return X, np.ceil(y).clip(0, 3) if name == "fair" else y


# 7 classes; 2 classes; 6366 samples; real measurements of flowers
@pytest.mark.parametrize("name", ["anes96", "spector", "fair", "iris"])
@pytest.mark.parametrize("intercept", [True, False])
def test_mnlogit(name, intercept):
    X, y = load(name)
    theirs = sm.MNLogit(y, sm.add_constant(X) if intercept else X).fit(method="newton", maxiter=100, tol=1e-12, disp=0)
    model = SoftmaxClassifier(penalty=None, fit_intercept=intercept, tol=1e-6, max_iter=20_000).fit(X, y)
    ours = model.statistics(X, y)
    np.testing.assert_allclose(ours.coef.T, theirs.params, rtol=1e-9)
    np.testing.assert_allclose(ours.covariance, theirs.cov_params(), rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ours.standard_errors.T, theirs.bse, rtol=1e-9)
    np.testing.assert_allclose(ours.z.T, theirs.tvalues, rtol=1e-9)
    np.testing.assert_allclose(ours.p_values.T, theirs.pvalues, rtol=1e-8)
    np.testing.assert_allclose(ours.conf_int(0.9), theirs.conf_int(0.1), rtol=1e-8)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-12)
    assert (ours.aic, ours.bic) == pytest.approx((theirs.aic, theirs.bic), rel=1e-12)
    if intercept:  # without one, statsmodels compares with a model that has one
        assert ours.null_log_likelihood == pytest.approx(theirs.llnull, rel=1e-8)
        assert ours.lr_statistic == pytest.approx(theirs.llr, rel=1e-6)
        assert ours.lr_df == theirs.df_model
        assert ours.lr_p_value == pytest.approx(theirs.llr_pvalue, rel=1e-4)
        assert ours.pseudo_r_squared == pytest.approx(theirs.prsquared, rel=1e-6)
