"""From data to a model: the split, the standardisation, the fit."""

from __future__ import annotations

import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mlefast.data import Dataset, DataWarning, Stream, training_labels
from mlefast.data._dataset import wrong_data
from mlefast.model_file import LinearModel, NetworkModel, TrainedModel

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class FitOptions:
    """What a fit depends on, beside the data; as the parameters of the estimators, where "auto" is None here."""

    solver: Literal["lbfgs", "newton-cg", "sgd", "adamw"]
    penalty: Literal["l2", "l1", "elasticnet", "none"]
    C: float
    max_iter: int
    tol: float
    batch_size: int | None
    learning_rate: float | None
    standardize: bool
    seed: int
    model: Literal["linear", "mlp"] = "linear"
    hidden: tuple[int, ...] = (100,)
    activation: Literal["relu", "gelu", "tanh", "identity"] = "relu"
    dropout: float = 0.0
    weight_decay: float = 1e-4
    early_stopping: bool = False
    l1_ratio: float = 0.5
    schedule: Literal["constant", "cosine", "invscaling", "adaptive"] = "constant"

    @property
    def unit(self) -> str:
        """What an iteration of the solver is called."""
        return "epoch" if self.solver in ("sgd", "adamw") else "iteration"


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted model and how it came about.

    Attributes
    ----------
    model : LinearModel or NetworkModel
        It takes features as they are in the data.
    weights : ndarray of float64, shape (C, F), or None
        Its weights per standard deviation of each feature (per unit, if the data were not standardised), a row for
        each class, centred so that they sum to 0 over the classes; None for a network.
    loss_curve : list of float
        The objective in nats per sample after each iteration.
    seconds : float
        Duration of the fit.
    converged : bool
        Whether it ended before the largest number of iterations.
    interrupted : bool
        Whether Ctrl-C has ended it.
    validation_curve : list of float or None
        Accuracy on the samples that early stopping has set aside, after each epoch.
    """

    model: TrainedModel
    weights: FloatArray | None
    loss_curve: list[float]
    seconds: float
    converged: bool
    interrupted: bool = False
    validation_curve: list[float] | None = None


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


def fit(
    data: Dataset | Stream,
    options: FitOptions,
    callback: Callable[[int, float], None],
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> Fit:
    """Fit a model.

    Parameters
    ----------
    data : Dataset or Stream
    options : FitOptions
    callback : callable
        Called as ``callback(iteration, objective)``.
    checkpoint : Path, optional
        A folder in which the state of the fit is saved after every iteration.
    resume : bool, default False
        Whether to go on from there.

    Raises
    ------
    DataError
        If the data have no labels or a single class.
    FloatingPointError
        If descent on mini-batches diverges.
    CheckpointError
        If the checkpoint is of another fit, damaged, or there without `resume`.
    """
    from sklearn.exceptions import ConvergenceWarning

    y = training_labels(data)
    estimator = _estimator(options, callback, checkpoint, resume)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.simplefilter("always", DataWarning)
        start = time.perf_counter()
        if isinstance(data, Stream):
            mean, scale = _moments(data) if options.standardize else (0.0, np.ones(data.n_features))
            estimator.fit_stream(StandardizedStream(data, mean, scale))
        else:
            X, mean, scale = _standardized(data.X) if options.standardize else (data.X, 0.0, np.ones(data.n_features))
            estimator.fit(X, y)
        seconds = time.perf_counter() - start
    endings = [str(each.message) for each in caught if issubclass(each.category, ConvergenceWarning)]
    for each in caught:
        if issubclass(each.category, DataWarning):
            warnings.warn(each.message, stacklevel=2)
    interrupted = any("interrupted" in ending for ending in endings)
    how: Any = (list(estimator.loss_curve_), seconds, not endings, interrupted, estimator.validation_scores_)
    if options.model == "mlp":
        return Fit(_unscaled_network(estimator, mean, scale, data), None, *how)

    # The standardisation is folded in: w (x - mean) / scale + b = (w / scale) x + (b - (w / scale) mean)
    weights = np.asarray(estimator.coef_, dtype=np.float64)
    coef = weights / scale
    intercept = np.asarray(estimator.intercept_, dtype=np.float64) - np.sum(coef * mean, axis=1)
    model = LinearModel(coef, intercept, estimator.classes_, data.feature_names, data.image_shape)
    if len(weights) == 1:
        weights = np.vstack([np.zeros_like(weights), weights])
    return Fit(model, weights - weights.mean(axis=0), *how)


@dataclass(frozen=True, eq=False)
class StandardizedStream:
    """A stream whose features are shifted and scaled on their way.

    Attributes
    ----------
    stream : Stream
    mean, scale : ndarray of float64, shape (F,), or float
    """

    stream: Stream
    mean: FloatArray | float
    scale: FloatArray

    @property
    def name(self) -> str:
        """That of the stream, and what tells its moments apart: a fit of others is not to be resumed with these."""
        return f"{self.stream.name}, moments {zlib.crc32(np.append(self.mean, self.scale).tobytes()):08x}"

    @property
    def classes(self) -> Any:
        """Those of the stream."""
        return self.stream.classes

    @property
    def n_samples(self) -> int | None:
        """That of the stream."""
        return self.stream.n_samples

    def epoch(self, random: np.random.Generator | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of the stream, standardised."""
        shift = np.asarray(self.mean, dtype=np.float32)
        scale = np.asarray(self.scale, dtype=np.float32)
        for X, y in self.stream.epoch(random):
            X -= shift
            X /= scale
            yield X, y

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return self.epoch()


def _estimator(
    options: FitOptions, callback: Callable[[int, float], None], checkpoint: Path | None, resume: bool
) -> Any:
    from mlefast.estimators import MLPClassifier, SoftmaxClassifier

    common: dict[str, Any] = {
        "solver": options.solver,
        "max_iter": options.max_iter,
        "tol": options.tol,
        "batch_size": options.batch_size or "auto",
        "learning_rate": options.schedule,
        "early_stopping": options.early_stopping,
        "random_state": options.seed,
        "callback": callback,
        "checkpoint": checkpoint,
        "resume": resume,
    }
    if options.model == "mlp":
        return MLPClassifier(
            options.hidden,
            options.activation,
            dropout=options.dropout,
            alpha=options.weight_decay,
            learning_rate_init=options.learning_rate or (0.001 if options.solver == "adamw" else 0.01),
            **common,
        )
    return SoftmaxClassifier(
        None if options.penalty == "none" else options.penalty,
        C=options.C,
        l1_ratio=options.l1_ratio,
        learning_rate_init=options.learning_rate or "auto",
        **common,
    )


def _unscaled_network(estimator: Any, mean: Any, scale: Any, data: Dataset | Stream) -> NetworkModel:
    """Fold the standardisation into the first layer, as into a linear model."""
    first, *others = (np.asarray(coef, dtype=np.float64) for coef in estimator.coefs_)
    shift, *intercepts = (np.asarray(intercept, dtype=np.float64) for intercept in estimator.intercepts_)
    unscaled = first / np.reshape(scale, (-1, 1))
    return NetworkModel(
        (unscaled, *others),
        (shift - np.sum(unscaled * np.reshape(mean, (-1, 1)), axis=0), *intercepts),
        estimator.activation,
        estimator.classes_,
        data.feature_names,
        data.image_shape,
    )


def _standardized(X: Any) -> tuple[Any, FloatArray | float, FloatArray]:
    """Scale features to a standard deviation of 1 and, if they are dense, shift them to a mean of 0.

    Shifting would fill a sparse matrix. A constant feature is shifted only; its weight stays 0.
    """
    from sklearn.preprocessing import StandardScaler

    dense = isinstance(X, np.ndarray)
    scaler = StandardScaler(with_mean=dense)
    standardized = scaler.fit_transform(X)
    return standardized, scaler.mean_ if dense else 0.0, scaler.scale_


def _moments(stream: Stream) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of each feature, from sums in float64, as float32 holds them."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for X, _ in stream:
        scaler.partial_fit(X.astype(np.float64))
    mean, scale = (values.astype(np.float32).astype(np.float64) for values in (scaler.mean_, scaler.scale_))
    return mean, scale
