"""Statistics of maximum likelihood: their definitions, the cases that have none, and how they are shown."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
from mlefast import SoftmaxClassifier
from mlefast.estimators import MaximumLikelihoodResult
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError


@pytest.fixture(scope="module")
def data():
    """Three classes that overlap, features of different sizes."""
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = random.standard_normal((300, 3)) * [1, 10, 0.1] + y[:, None] * [0.5, -3, 0.0]
    return X, np.array(["a", "b", "c"])[y]


def fit(X, y, weight=None, **options):
    return SoftmaxClassifier(penalty=None, tol=1e-8, max_iter=5000, **options).fit(X, y, weight)


@pytest.fixture(scope="module")
def result(data):
    return fit(*data).statistics(*data)


def log_likelihood(flat, X, code, intercept=True):
    Z = np.hstack([np.ones((len(X), 1)), X]) if intercept else X
    logits = np.hstack([np.zeros((len(X), 1)), Z @ flat.reshape(-1, Z.shape[1]).T])
    return float((logits[np.arange(len(X)), code] - np.logaddexp.reduce(logits, axis=1)).sum())


@pytest.mark.parametrize("intercept", [True, False])
def test_covariance_is_the_inverse_of_the_negative_hessian(data, intercept):
    X, y = data
    X = X / [1, 10, 0.1]  # so that one step size suits all
    code = np.unique(y, return_inverse=True)[1]
    result = fit(X, y, fit_intercept=intercept).statistics(X, y)
    at, step = result.coef.ravel(), 1e-3
    unit = step * np.eye(len(at))
    hessian = np.array(
        [
            [
                sum(
                    i * j * log_likelihood(at + i * unit[a] + j * unit[b], X, code, intercept)
                    for i in (-1, 1)
                    for j in (-1, 1)
                )
                / (4 * step**2)
                for b in range(len(at))
            ]
            for a in range(len(at))
        ]
    )
    np.testing.assert_allclose(np.linalg.inv(-hessian), result.covariance, rtol=1e-4, atol=1e-7)
    assert result.log_likelihood == pytest.approx(log_likelihood(at, X, code, intercept), rel=1e-12)
    for direction in unit:  # it is the maximum
        assert log_likelihood(at + direction, X, code, intercept) < result.log_likelihood
        assert log_likelihood(at - direction, X, code, intercept) < result.log_likelihood


def test_definitions(result):
    errors = np.sqrt(np.diag(result.covariance)).reshape(2, 4)
    np.testing.assert_allclose(result.standard_errors, errors)
    np.testing.assert_allclose(result.z, result.coef / errors)
    np.testing.assert_allclose(result.p_values, 2 * scipy.stats.norm.sf(np.abs(result.z)), rtol=1e-10)
    interval = result.conf_int(0.9)
    np.testing.assert_allclose(interval.mean(axis=-1), result.coef)
    np.testing.assert_allclose(np.diff(interval)[..., 0], 2 * scipy.stats.norm.isf(0.05) * errors)
    assert result.names == ("intercept", "x0", "x1", "x2")
    assert result.classes == ("a", "b", "c")
    assert (result.n_parameters, result.lr_df, result.n_samples) == (8, 6, 300)
    assert result.null_log_likelihood == pytest.approx(-300 * np.log(3))
    assert result.aic == pytest.approx(16 - 2 * result.log_likelihood)
    assert result.bic == pytest.approx(8 * np.log(300) - 2 * result.log_likelihood)
    ratio = 2 * (result.log_likelihood + 300 * np.log(3))
    assert result.lr_statistic == pytest.approx(ratio)
    assert result.lr_p_value == pytest.approx(scipy.stats.chi2.sf(ratio, 6), rel=1e-8)
    assert result.pseudo_r_squared == pytest.approx(1 + result.log_likelihood / (300 * np.log(3)))


def test_coverage():
    """Of the 95 % intervals for true coefficients, 95 % hold them."""
    random = np.random.default_rng(1)
    truth = np.array([[0.3, -0.5, 1.0], [-0.2, 0.8, 0.0]])
    held = []
    for _ in range(120):
        X = random.standard_normal((400, 2))
        logits = np.hstack([np.zeros((400, 1)), truth[:, 0] + X @ truth[:, 1:].T])
        y = np.argmax(logits + random.gumbel(size=logits.shape), axis=1)
        interval = fit(X, y).statistics(X, y).conf_int()
        held.append((interval[..., 0] < truth) & (truth < interval[..., 1]))
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_a_loose_fit_is_polished(data):
    X, y = data
    loose = SoftmaxClassifier(penalty=None, tol=1e-3, max_iter=1000).fit(X, y)
    tight = fit(X, y)
    assert np.abs(loose.coef_ - tight.coef_).max() > 1e-6
    np.testing.assert_allclose(
        loose.statistics(X, y).covariance, tight.statistics(X, y).covariance, rtol=1e-8, atol=1e-12
    )


def test_weights_are_counts(data):
    X, y = data
    count = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = fit(X, y, count.astype(float)).statistics(X, y, count)
    repeated = fit(np.repeat(X, count, 0), np.repeat(y, count)).statistics(np.repeat(X, count, 0), np.repeat(y, count))
    np.testing.assert_allclose(weighted.covariance, repeated.covariance, rtol=1e-8, atol=1e-14)
    for name in ("log_likelihood", "null_log_likelihood", "bic", "n_samples"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-10)


def test_sparse_and_float32_features(data):
    X, y = data
    X = X / [1, 10, 0.1]
    X = np.where(np.abs(X) < 0.3, 0, X).astype(np.float32)
    want = fit(X.astype(np.float64), y).statistics(X.astype(np.float64), y)
    sparse = scipy.sparse.csr_array(X)
    for each in (X, sparse):
        got = SoftmaxClassifier(penalty=None, tol=1e-5, max_iter=3000).fit(X, y).statistics(each, y)
        np.testing.assert_allclose(got.covariance, want.covariance, rtol=1e-8, atol=1e-13)


def test_two_classes_and_an_order_of_labels(data):
    X, y = data
    some = y != "b"
    result = fit(X[some], y[some]).statistics(X[some], y[some])
    assert result.coef.shape == (1, 4)
    other = np.where(y == "a", "z", y)  # the base is the first label in order
    mirrored = fit(X[some], other[some]).statistics(X[some], other[some])
    assert mirrored.classes == ("c", "z")
    np.testing.assert_allclose(mirrored.coef, -result.coef, rtol=1e-8)
    np.testing.assert_allclose(mirrored.standard_errors, result.standard_errors, rtol=1e-8)


def test_summary(data, result):
    text = str(result.summary(0.9))
    assert "90 % from" in text
    assert "McFadden's pseudo-R²" in text
    assert f"{result.aic:.6g}" in text
    assert text.count("intercept") == 2
    lines = text.splitlines()
    for label, k in (("b", 0), ("c", 1)):
        row = lines[lines.index(f"class {label}") + 3].split()
        assert row[0] == "x0"
        assert [float(cell) for cell in row[1:3]] == pytest.approx(
            [result.coef[k, 1], result.standard_errors[k, 1]], rel=1e-4
        )
    assert all(line == line.rstrip() for line in lines)
    frame = pytest.importorskip("pandas", reason="pandas is not installed") and result.summary().to_frame()
    assert frame.shape == (8, 6)
    assert frame.loc[("c", "x1"), "std_err"] == result.standard_errors[1, 2]
    assert frame.loc[("b", "intercept"), "lower"] == result.conf_int()[0, 0, 0]
    assert isinstance(result, MaximumLikelihoodResult)


def test_names_of_features():
    frame = load_iris(as_frame=True)
    X, y = frame.data.iloc[50:, :2], frame.target[50:]
    assert fit(X, y).statistics(X, y).names == ("intercept", "sepal length (cm)", "sepal width (cm)")


def test_models_that_are_not_maximum_likelihood(data):
    X, y = data
    with pytest.raises(ValueError, match="^penalty: received 'l2' with C=1; accepted: None"):
        SoftmaxClassifier().fit(X, y).statistics(X, y)
    with pytest.raises(ValueError, match="^class_weight: received 'balanced'"):
        fit(X, y, class_weight="balanced").statistics(X, y)
    with pytest.raises(NotFittedError):
        SoftmaxClassifier(penalty=None).statistics(X, y)
    with pytest.raises(ValueError, match="^level: received 1.5"):
        fit(X, y).statistics(X, y).conf_int(1.5)


def test_samples_of_another_fit(data):
    X, y = data
    model = fit(X, y)
    with pytest.raises(ValueError, match="standard errors from the fitted coefficients; accepted: the samples"):
        model.statistics(X[::-1], y)
    with pytest.raises(ValueError, match="no sample of class 'c'"):
        model.statistics(X[y != "c"], y[y != "c"])
    with pytest.raises(ValueError, match="received the label 'd'"):
        model.statistics(X[:10], ["d"] * 10)
    with pytest.raises(ValueError, match="received 6 samples for 8 parameters"):
        model.statistics(X[:6], y[:6])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("max_iter", [20, 2000])
def test_separable_classes(max_iter):
    X, y = load_iris(return_X_y=True)
    options = {"penalty": None, "max_iter": max_iter}
    with pytest.raises(ValueError, match="classes that a linear function of the features can separate"):
        SoftmaxClassifier(**options).fit(X, y).statistics(X, y)  # setosa alone is apart
    with pytest.raises(ValueError, match="classes that a linear function of the features can separate"):
        SoftmaxClassifier(**options).fit(X[:100], y[:100]).statistics(X[:100], y[:100])
    # Quasi-separation: on one side of 0 both labels, on the other one only.
    x = np.array([[-1.0], [-1], [-2], [0], [0], [0], [0], [1], [2], [3]])
    label = np.array([0, 0, 0, 0, 1, 0, 1, 1, 1, 1])
    with pytest.raises(ValueError, match="can separate"):
        SoftmaxClassifier(**options).fit(x, label).statistics(x, label)


def test_dependent_features(data):
    X, y = data
    model = fit(doubled := np.hstack([X, X[:, :1] - X[:, 1:2]]), y)
    with pytest.raises(ValueError, match="5 features and intercept of which only 4 are linearly independent"):
        model.statistics(doubled, y)
    model = fit(constant := np.hstack([X, np.ones((300, 1))]), y)
    with pytest.raises(ValueError, match="only 4 are linearly independent"):
        model.statistics(constant, y)
    assert fit(constant, y, fit_intercept=False).statistics(constant, y).names == ("x0", "x1", "x2", "x3")
