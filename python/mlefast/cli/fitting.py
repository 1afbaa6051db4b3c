"""From data to a model: the split, the standardisation, the fit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlefast.data import Dataset, training_labels
from mlefast.data._dataset import wrong_data
from mlefast.model_file import LinearModel

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FitOptions:
    """What a fit depends on, beside the data; as the parameters of ``SoftmaxClassifier``, where "auto" is None here."""

    solver: Literal["lbfgs", "sgd"]
    penalty: Literal["l2", "none"]
    C: float
    max_iter: int
    tol: float
    batch_size: int | None
    learning_rate: float | None
    standardize: bool
    seed: int


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model and how it came about.

    Attributes
    ----------
    model : LinearModel
        It takes features as they are in the data.
    weights : ndarray of float64, shape (C, F)
        Its weights per standard deviation of each feature (per unit, if the data were not standardised), a row for
        each class, centred so that they sum to 0 over the classes.
    loss_curve : list of float
        The objective in nats per sample after each iteration.
    seconds : float
        Duration of the fit.
    converged : bool
        Whether it ended before the largest number of iterations.
    """

    model: LinearModel
    weights: FloatArray
    loss_curve: list[float]
    seconds: float
    converged: bool


def split(data: Dataset, test_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """Set a share of each class aside for testing.

    Raises
    ------
    DataError
        If a class is too small for both parts.
    """
    from sklearn.model_selection import train_test_split

    y = training_labels(data)
    try:
        parts = train_test_split(np.arange(len(y)), test_size=test_size, random_state=seed, stratify=y)
    except ValueError as error:
        labels, counts = np.unique(y, return_counts=True)
        rarest = f"{counts.min()} of class {labels[counts.argmin()]}"
        raise wrong_data(
            data.name,
            f"{len(y)} samples of {len(labels)} classes, {rarest}: too few for a test part of {test_size:g}",
            "another --test-size (0: none), or a file with --test",
        ) from error
    train, test = (replace(data, X=data.X[part], y=y[part]) for part in map(np.sort, parts))
    return train, test


def fit(data: Dataset, options: FitOptions, callback: Callable[[int, float], None]) -> Fit:
    """Fit a model.

    Parameters
    ----------
    data : Dataset
    options : FitOptions
    callback : callable
        Called as ``callback(iteration, objective)``.

    Raises
    ------
    DataError
        If the data have no labels or a single class.
    FloatingPointError
        If stochastic gradient descent diverges.
    """
    from sklearn.exceptions import ConvergenceWarning

    from mlefast.estimators import SoftmaxClassifier

    y = training_labels(data)
    X, mean, scale = _standardized(data.X) if options.standardize else (data.X, 0.0, 1.0)
    estimator = SoftmaxClassifier(
        None if options.penalty == "none" else options.penalty,
        C=options.C,
        solver=options.solver,
        max_iter=options.max_iter,
        tol=options.tol,
        batch_size=options.batch_size or "auto",
        learning_rate_init=options.learning_rate or "auto",
        random_state=options.seed,
        callback=callback,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        start = time.perf_counter()
        estimator.fit(X, y)
        seconds = time.perf_counter() - start

    # The standardisation is folded in: w (x - mean) / scale + b = (w / scale) x + (b - (w / scale) mean)
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    coef = weights / scale
    intercept = np.asarray(estimator.intercept_, dtype=np.float64) - np.sum(coef * mean, axis=1)
    model = LinearModel(coef, intercept, estimator.classes_, data.feature_names, data.image_shape)
    if len(weights) == 1:
        weights = np.vstack([np.zeros_like(weights), weights])
    return Fit(model, weights - weights.mean(axis=0), list(estimator.loss_curve_), seconds, not caught)


def _standardized(X: Any) -> tuple[Any, FloatArray | float, FloatArray]:
    """Scale features to a standard deviation of 1 and, if they are dense, shift them to a mean of 0.

    Shifting would fill a sparse matrix. A constant feature is shifted only; its weight stays 0.
    """
    from sklearn.preprocessing import StandardScaler

    dense = isinstance(X, np.ndarray)
    scaler = StandardScaler(with_mean=dense)
    standardized = scaler.fit_transform(X)
    return standardized, scaler.mean_ if dense else 0.0, scaler.scale_
