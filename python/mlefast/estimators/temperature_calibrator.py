"""Temperature scaling as an estimator around a fitted classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from mlefast.calibration import fit_temperature
from mlefast.estimators.machines import to_host
from mlefast.estimators.validation import class_codes
from mlefast.softmax import log_softmax, softmax

FloatArray = npt.NDArray[np.floating[Any]]


class TemperatureCalibrator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A fitted classifier whose confidence is corrected by one number, found by maximum likelihood.

    Parameters
    ----------
    estimator : classifier
        Fitted; it is not fitted again. Its logits are its ``predict_log_proba`` or, if it has none, its
        ``decision_function``.

    Attributes
    ----------
    temperature_ : float
        What logits are divided by; see :func:`mlefast.calibration.fit_temperature`.
    classes_ : ndarray
        The labels of the classifier.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from mlefast import MLPClassifier
    >>> from mlefast.estimators import TemperatureCalibrator
    >>> X, y = load_digits(return_X_y=True)
    >>> network = MLPClassifier(max_iter=100, tol=0, random_state=0).fit(X[:1200], y[:1200])
    >>> calibrated = TemperatureCalibrator(network).fit(X[1200:1500], y[1200:1500])
    >>> calibrated.temperature_ > 1, calibrated.predict_proba(X[1500:]).shape
    (True, (297, 10))
    """

    classes_: npt.NDArray[Any]

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> TemperatureCalibrator:
        """Find the temperature.

        Parameters
        ----------
        X, y : array_like
            Samples that the classifier has not been fitted to.
        sample_weight : array_like, shape (n_samples,), optional
            A factor for each sample.

        Returns
        -------
        TemperatureCalibrator
            Itself.

        Raises
        ------
        TypeError
            If the estimator gives neither probabilities nor a decision function.
        ValueError
            If a label is none of the classifier's, or if no temperature is best; see
            :func:`mlefast.calibration.fit_temperature`.
        """
        check_is_fitted(self.estimator)
        logits = self._logits(X)
        self.classes_ = self.estimator.classes_
        self.temperature_ = fit_temperature(
            logits, class_codes(np.asarray(to_host(y)), self.classes_), sample_weight=to_host(sample_weight)
        )
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each sample, shape (n_samples,)."""
        check_is_fitted(self)
        winners = np.argmax(self._logits(X), axis=1)
        labels: npt.NDArray[Any] = self.classes_[winners]
        return labels

    def predict_proba(self, X: Any) -> FloatArray:
        """Calibrated probabilities of the classes, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        probabilities: FloatArray = softmax(self._logits(X) / self.temperature_)
        return probabilities

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Logarithms of the calibrated probabilities, shape (n_samples, n_classes)."""
        check_is_fitted(self)
        logs: FloatArray = log_softmax(self._logits(X) / self.temperature_)
        return logs

    def _logits(self, X: Any) -> FloatArray:
        if hasattr(self.estimator, "predict_log_proba"):
            logits = np.asarray(to_host(self.estimator.predict_log_proba(X)))
        elif hasattr(self.estimator, "decision_function"):
            logits = np.asarray(to_host(self.estimator.decision_function(X)))
        else:
            raise TypeError(
                f"estimator: received {type(self.estimator).__name__}; accepted: a classifier with predict_log_proba "
                "or decision_function"
            )
        return np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
