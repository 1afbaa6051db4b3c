"""Classifiers fitted by maximum likelihood, in scikit-learn's manner."""

from __future__ import annotations

from mlefast.estimators.softmax_classifier import SoftmaxClassifier

__all__ = ["SoftmaxClassifier"]
