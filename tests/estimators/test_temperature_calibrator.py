"""TemperatureCalibrator: any classifier's confidence is corrected, its predictions stay."""

from __future__ import annotations

import numpy as np
import pytest
from mlefast import MLPClassifier
from mlefast.calibration import expected_calibration_error
from mlefast.estimators import TemperatureCalibrator
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.naive_bayes import GaussianNB


@pytest.fixture(scope="module", params=[2, 3])
def data(request):
    X, y = make_classification(
        3000, 20, n_informative=6, n_redundant=10, n_classes=request.param, flip_y=0.1, random_state=0
    )
    y = np.array(["no", "so", "yes"])[y]
    return (X[:1000], y[:1000]), (X[1000:2000], y[1000:2000]), (X[2000:], y[2000:])


@pytest.mark.parametrize(
    "classifier",
    [
        GaussianNB(),
        MLPClassifier((100,), learning_rate_init=0.01, max_iter=100, tol=0, random_state=0),
        RidgeClassifier(),
    ],
    ids=lambda classifier: type(classifier).__name__,
)
def test_corrects_confidence(data, classifier):
    train, held_out, (X, y) = data
    fitted = clone(classifier).fit(*train)
    calibrated = TemperatureCalibrator(fitted).fit(*held_out)
    code = np.searchsorted(fitted.classes_, y)
    after = expected_calibration_error(calibrated.predict_proba(X), code)
    if hasattr(fitted, "predict_proba"):
        assert calibrated.temperature_ > 1.2
        assert after < 0.6 * expected_calibration_error(fitted.predict_proba(X), code)
    assert after < 0.09
    np.testing.assert_array_equal(calibrated.predict(X), fitted.predict(X))
    np.testing.assert_allclose(np.exp(calibrated.predict_log_proba(X)), calibrated.predict_proba(X), rtol=1e-10)
    assert calibrated.score(X, y) == fitted.score(X, y)


def test_temperature_is_scikit_learns(data):
    train, held_out, (X, _) = data
    fitted = LogisticRegression(C=100, max_iter=5000).fit(*train)
    theirs = CalibratedClassifierCV(FrozenEstimator(fitted), method="temperature", ensemble=False).fit(*held_out)
    ours = TemperatureCalibrator(fitted).fit(*held_out)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-4)


def test_refused(data):
    train, held_out, (X, y) = data
    with pytest.raises(NotFittedError):
        TemperatureCalibrator(GaussianNB()).fit(X, y)
    fitted = GaussianNB().fit(*train)
    with pytest.raises(NotFittedError):
        TemperatureCalibrator(fitted).predict(X)
    with pytest.raises(ValueError, match="y: received the label 'perhaps'"):
        TemperatureCalibrator(fitted).fit(X[:2], ["no", "perhaps"])

    class Bare(ClassifierMixin, BaseEstimator):
        def fit(self, X, y):
            return self

        def __sklearn_is_fitted__(self):
            return True

    with pytest.raises(TypeError, match="^estimator: received Bare; accepted: a classifier with predict_log_proba"):
        TemperatureCalibrator(Bare()).fit(*held_out)
