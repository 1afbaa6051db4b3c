"""Classifiers fitted by maximum likelihood, in scikit-learn's manner."""

from __future__ import annotations

from mlefast.estimators.inference import MaximumLikelihoodResult
from mlefast.estimators.mlp_classifier import MLPClassifier
from mlefast.estimators.softmax_classifier import SoftmaxClassifier
from mlefast.estimators.temperature_calibrator import TemperatureCalibrator

__all__ = ["MLPClassifier", "MaximumLikelihoodResult", "SoftmaxClassifier", "TemperatureCalibrator"]
