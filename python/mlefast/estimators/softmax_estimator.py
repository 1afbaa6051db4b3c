"""What the classifiers of this package share: how a fit is run, and what is made of logits."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight

from mlefast.estimators.checkpoint import Checkpoint, data_fingerprint
from mlefast.estimators.descent import INTERRUPTED, Descent, Fit, Stopping, Trainable, Watcher
from mlefast.estimators.machines import Machine, machine_of, moved, to_host
from mlefast.estimators.objective import FloatArray, IntArray
from mlefast.estimators.optimizers import Optimizer
from mlefast.estimators.progress import progress
from mlefast.estimators.samples import Batch, Samples, Source, StreamSamples, as_stream, epoch_of
from mlefast.estimators.schedules import SCHEDULES, Schedule, make_schedule
from mlefast.estimators.validation import (
    check_parameter,
    class_codes,
    is_count,
    is_real,
    labelled_of,
    one_of,
    weight_of_samples,
)
from mlefast.losses import cross_entropy
from mlefast.softmax import log_softmax, softmax

Callback = Callable[[int, float], None]
Self = TypeVar("Self", bound="SoftmaxEstimator")

BY_EPOCHS = ("sgd", "adamw")  # the solvers that take a step for each batch
# What a fit may be resumed with other values of.
_FREE = {"max_iter", "tol", "n_iter_no_change", "verbose", "callback", "checkpoint", "resume", "warm_start"}


class SoftmaxEstimator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """A classifier that is fitted to samples in memory, to a stream of batches, or to one batch after the other."""

    classes_: npt.NDArray[Any]
    loss_curve_: list[float]
    validation_scores_: list[float] | None

    # Parameters that both have.
    solver: str
    max_iter: int
    tol: float
    batch_size: int | str
    learning_rate: str | Schedule
    n_iter_no_change: int
    random_state: Any
    early_stopping: bool
    validation_fraction: float
    class_weight: dict[Any, float] | str | None
    warm_start: bool
    verbose: int
    callback: Callback | None
    checkpoint: Any
    resume: bool

    @abstractmethod
    def _check_parameters(self) -> None: ...

    @abstractmethod
    def _is_fitted(self) -> bool: ...

    @abstractmethod
    def _has_shape_of_solution(self) -> bool:
        """Whether what is about to be fitted has as many parameters as the last solution."""

    @abstractmethod
    def _logits(self, X: Any) -> FloatArray:
        """Logits (samples, classes)."""

    @abstractmethod
    def _new_model(self, dtype: Any, machine: Machine, random: np.random.Generator, *, go_on: bool) -> Trainable:
        """Make what descent trains on a machine, from the last solution if it is to go on."""

    @abstractmethod
    def _new_optimizer(self, model: Any, data: Source, n_samples: float | None) -> Optimizer: ...

    @abstractmethod
    def _model_logits(self, model: Any, X: Any) -> FloatArray: ...

    @abstractmethod
    def _keep(self, model: Any, n_iter: int) -> None:
        """Take a model's parameters as the solution."""

    def fit(self: Self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit the model to samples.

        Parameters
        ----------
        X : array_like or sparse matrix of float32 or float64, shape (n_samples, n_features)
            Features; computed in their own precision, other dtypes in float64. Arrays that are mapped into memory are
            not copied. A CuPy array is fitted on its GPU, with products by cuBLAS.
        y : array_like, shape (n_samples,)
            Labels: numbers or strings, or a CuPy array of numbers.
        sample_weight : array_like, shape (n_samples,), optional
            A factor for each sample.

        Returns
        -------
        self

        Raises
        ------
        FloatingPointError
            If descent on mini-batches diverges; the message names the epoch, the step and what to try.
        CheckpointError
            If `checkpoint` holds a fit and `resume` is False, or one of other data or options.

        Notes
        -----
        Ctrl-C ends a fit with a warning and keeps the model as it is then, or the best one if there is early stopping.
        """
        self._check_parameters()
        X, y = self._validated(X, y, reset=True)
        before = self.classes_ if self._is_fitted() else None
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y: received only one class, {self.classes_.tolist()[0]!r}; accepted: labels of at least 2 classes"
            )
        data = self._samples(X, codes.astype(np.int64), sample_weight)
        go_on = self._goes_on(before)
        checkpoint = self._open_checkpoint(lambda: data_fingerprint(*data))
        random = self._generator(checkpoint)
        validation = None
        if self.early_stopping:
            data, validation = self._set_aside(data, random)
        self.loss_curve_ = []
        self.validation_scores_ = None
        self._finish(*self._minimise(data, validation, random, checkpoint, go_on=go_on))
        return self

    def fit_stream(self: Self, stream: Any, *, classes: Any = None, validation: tuple[Any, Any] | None = None) -> Self:
        """Fit the model to a stream of batches, which need never be in memory together.

        Parameters
        ----------
        stream : iterable
            Yields ``(X, y)`` or ``(X, y, sample_weight)`` each time it is iterated over: a list, an object of yours, or
            :func:`mlefast.data.open_stream`, which shuffles files. Every batch is shuffled and cut into mini-batches
            of `batch_size`. One epoch is one pass over it; an attribute ``n_samples`` spares a pass that counts.
        classes : array_like, optional
            All labels that will come; by default the stream's attribute ``classes``.
        validation : (array_like, array_like), optional
            Features and labels for `early_stopping`, which needs them.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If the stream cannot be read more than once, as a generator cannot.
        FloatingPointError, CheckpointError
            As :meth:`fit`.
        """
        self._check_parameters()
        check_parameter(self, "solver", self.solver in BY_EPOCHS, f"{one_of(BY_EPOCHS)} for fit_stream")
        check_parameter(self, "class_weight", self.class_weight != "balanced", "a dict or None for fit_stream")
        if self.early_stopping != (validation is not None):
            raise ValueError(
                f"validation: received {'None' if validation is None else 'samples'} with "
                f"early_stopping={self.early_stopping}; accepted: both or neither"
            )
        stream = as_stream(stream)
        classes = getattr(stream, "classes", None) if classes is None else classes
        if classes is None:
            raise ValueError("classes: received None and a stream without `classes`; accepted: all labels")
        before = self.classes_ if self._is_fitted() else None
        self.classes_ = _known_classes(classes)
        first = next(iter(epoch_of(stream, None)), None)
        if first is None:
            raise ValueError("stream: received no batch; accepted: batches (X, y)")
        X, _ = self._validated(*first[:2], reset=True)
        go_on = self._goes_on(before)
        machine = machine_of(X)
        source = StreamSamples(stream, partial(self._batch, dtype=X.dtype, machine=machine))
        checkpoint = self._open_checkpoint(
            lambda: f"{type(stream).__name__} {getattr(stream, 'name', '')} {X.shape[1]} {self.classes_.tolist()}"
        )
        held_out = None
        if validation is not None:
            held_out = Samples(*self._batch(validation, dtype=X.dtype, machine=machine))
        self.loss_curve_ = []
        self.validation_scores_ = None
        random = self._generator(checkpoint)
        n_samples = getattr(stream, "n_samples", None)
        self._finish(*self._descend(source, n_samples, X, held_out, random, checkpoint, go_on=go_on))
        return self

    def partial_fit(self: Self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Continue with one epoch over these samples; the optimiser's memory lasts from call to call.

        Parameters
        ----------
        X, y, sample_weight
            As for :meth:`fit`. A prior counts once for the samples of each call.
        classes : array_like, optional
            All labels that will ever come; needed in the first call.

        Returns
        -------
        self

        Raises
        ------
        FloatingPointError
            As for :meth:`fit`.
        """
        self._check_parameters()
        check_parameter(self, "early_stopping", not self.early_stopping, "False for partial_fit, which sets none aside")
        check_parameter(self, "checkpoint", self.checkpoint is None, "None for partial_fit, which is for you to save")
        first = not self._is_fitted()
        X, y = self._validated(X, y, reset=first)
        if first and classes is None:
            raise ValueError("classes: received None in the first call of partial_fit; accepted: all labels")
        known = _known_classes(classes) if classes is not None else self.classes_
        if not first and not np.array_equal(known, self.classes_):
            raise ValueError(f"classes: received {known}; accepted: those of the first call, {self.classes_}")
        codes = class_codes(y, known)
        self.classes_ = known
        data = self._samples(X, codes, sample_weight)
        if not hasattr(self, "_descent"):
            random = self._generator(None)
            model = self._new_model(X.dtype, machine_of(X), random, go_on=not first)
            self._descent = self._new_descent(model, data, data.total_weight, random)
            if first:
                self.loss_curve_ = []
                self.validation_scores_ = None
            self._descent.progress.loss_curve = self.loss_curve_
        descent = self._descent
        parameters = descent.model.parameters
        machine = machine_of(parameters)
        X = X.astype(parameters.dtype, copy=False)
        data = Samples(*(moved(part, machine) for part in data._replace(X=X)))
        self._renew_prior(descent, data.total_weight)
        with self._watching() as watch, machine.one_thread():
            value = descent.epoch(data)
            watch(len(self.loss_curve_), value)
        self._keep(descent.model, len(self.loss_curve_))
        return self

    def decision_function(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Logits: shape (n_samples, n_classes), or (n_samples,) for two classes, the second against the first."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable label of each sample, shape (n_samples,)."""
        winners = to_host(self._logits(X).argmax(axis=1))
        labels: npt.NDArray[Any] = self.classes_[winners]
        return labels

    def predict_proba(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Probabilities of the classes, shape (n_samples, n_classes), in the order of `classes_`."""
        logits = self._logits(X)
        probabilities: npt.NDArray[np.floating[Any]] = softmax(logits, out=logits)
        return probabilities

    def predict_log_proba(self, X: Any) -> npt.NDArray[np.floating[Any]]:
        """Logarithms of the probabilities, shape (n_samples, n_classes), exact where a probability rounds to 0 or 1."""
        logits = self._logits(X)
        logs: npt.NDArray[np.floating[Any]] = log_softmax(logits, out=logits)
        return logs

    def log_likelihood(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the log-likelihood of labelled samples, in nats: the (weighted) sum of log P(y | x)."""
        logits = self._logits(X)
        codes = class_codes(np.asarray(to_host(y)), self.classes_)
        machine = machine_of(logits)
        losses = to_host(cross_entropy(logits, machine.asarray(codes), reduction="none"))
        if sample_weight is not None:
            losses = losses * _check_sample_weight(to_host(sample_weight), codes, dtype=np.float64)
        return -float(np.sum(losses, dtype=np.float64))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the (weighted) share of samples whose most probable label is theirs."""
        return float(super().score(X, to_host(y), sample_weight=to_host(sample_weight)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _goes_on(self, before: npt.NDArray[Any] | None) -> bool:
        same_classes = before is not None and np.array_equal(before, self.classes_)
        return self.warm_start and same_classes and self._has_shape_of_solution()

    def _validated(self, X: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        return labelled_of(self, X, y, reset=reset)

    def _batch(self, received: Any, *, dtype: Any, machine: Machine) -> Batch:
        """Check and encode what a stream yields."""
        if not isinstance(received, (tuple, list)) or len(received) not in (2, 3):
            raise TypeError(
                f"stream: received a {type(received).__name__}; accepted: batches (X, y) or (X, y, sample_weight)"
            )
        X, y = self._validated(*received[:2], reset=False)
        codes = class_codes(y, self.classes_)
        weight = received[2] if len(received) == 3 else None
        return self._on(machine, X.astype(dtype, copy=False), codes, weight)

    def _on(self, machine: Machine, X: Any, codes: IntArray, sample_weight: Any) -> Batch:
        weight = weight_of_samples(codes, self.classes_, sample_weight, self.class_weight, dtype=X.dtype)
        return Batch(moved(X, machine), machine.asarray(codes), None if weight is None else machine.asarray(weight))

    def _samples(self, X: Any, codes: IntArray, sample_weight: Any) -> Samples:
        data = Samples(*self._on(machine_of(X), X, codes, sample_weight))
        if not data.total_weight > 0:
            raise ValueError(f"sample_weight: received weights that sum to {data.total_weight}; accepted: a sum > 0")
        return data

    def _set_aside(self, data: Samples, random: np.random.Generator) -> tuple[Samples, Samples]:
        labels = to_host(data.y)
        try:
            parts = train_test_split(
                np.arange(len(labels)),
                test_size=self.validation_fraction,
                stratify=labels,
                random_state=int(random.integers(2**31)),
            )
        except ValueError as error:
            raise ValueError(
                f"validation_fraction: received {self.validation_fraction} with {len(labels)} samples of "
                f"{len(self.classes_)} classes; accepted: a share that has samples of each class ({error})"
            ) from error
        train, test = (data.take(np.sort(part)) for part in parts)
        if not (train.total_weight > 0 and test.total_weight > 0):
            raise ValueError("sample_weight: received weights of which early stopping leaves none; accepted: more > 0")
        return train, test

    def _minimise(
        self,
        data: Samples,
        validation: Samples | None,
        random: np.random.Generator,
        checkpoint: Checkpoint | None,
        *,
        go_on: bool,
    ) -> tuple[Any, Fit]:
        return self._descend(data, data.total_weight, data.X, validation, random, checkpoint, go_on=go_on)

    def _descend(
        self,
        data: Source,
        n_samples: float | None,
        like: Any,
        validation: Samples | None,
        random: np.random.Generator,
        checkpoint: Checkpoint | None,
        *,
        go_on: bool,
    ) -> tuple[Any, Fit]:
        machine = machine_of(like)
        model = self._new_model(like.dtype, machine, random, go_on=go_on)
        descent = self._new_descent(model, data, n_samples, random)
        self.loss_curve_ = descent.progress.loss_curve
        if validation is not None:
            self.validation_scores_ = descent.progress.scores
        stopping = Stopping(self.max_iter, self.tol, self.n_iter_no_change, self.learning_rate == "adaptive")
        score = None if validation is None else partial(self._score, model, validation)
        with self._watching() as watch, machine.one_thread():
            return model, descent.run(data, stopping, watch, score=score, checkpoint=checkpoint)

    def _new_descent(
        self, model: Any, data: Source, n_samples: float | None, random: np.random.Generator
    ) -> Descent[Any]:
        return Descent(
            model,
            self._new_optimizer(model, data, n_samples),
            name="adamw" if self.solver == "adamw" else "sgd",
            batch_size=128 if self.batch_size == "auto" else int(self.batch_size),
            random=random,
            shuffle=getattr(self, "shuffle", True),
            schedule=make_schedule(self.learning_rate, self.max_iter),
        )

    def _renew_prior(self, descent: Descent[Any], total_weight: float) -> None:
        """Adapt the prior of another call of partial_fit to its samples."""

    def _score(self, model: Any, data: Samples) -> float:
        hits = self._model_logits(model, data.X).argmax(axis=1) == data.y
        return float(np.average(to_host(hits), weights=to_host(data.weight)))

    @property
    def _unit(self) -> str:
        return "epoch" if self.solver in BY_EPOCHS else "iteration"

    @contextmanager
    def _watching(self) -> Iterator[Watcher]:
        with progress(self.solver, self._unit, self.max_iter, every=int(self.verbose)) as show:

            def watch(iteration: int, value: float) -> None:
                show(iteration, value)
                if self.callback is not None:
                    self.callback(iteration, value)

            yield watch

    def _finish(self, model: Any, fit: Fit) -> None:
        self.loss_curve_ = fit.loss_curve
        n_iter = len(fit.loss_curve)
        done = f"{n_iter} {self._unit}s"
        if fit.message == INTERRUPTED:
            kept = "the best model so far" if self.early_stopping else "the model as it is now"
            text = f"interrupted after {done}; {kept} is kept"
        else:
            text = (
                f"solver={self.solver!r} did not converge in {done} ({fit.message}): "
                f"increase max_iter{', set tol=0' if self.solver in BY_EPOCHS else ''} or scale the features"
            )
        if not fit.converged:
            warnings.warn(text, ConvergenceWarning, stacklevel=3)
        self._keep(model, n_iter)
        if hasattr(self, "_descent"):
            del self._descent

    def _open_checkpoint(self, describe_data: Callable[[], str]) -> Checkpoint | None:
        if self.checkpoint is None:
            return None
        parameters = {name: value for name, value in self.get_params(deep=False).items() if name not in _FREE}
        if callable(self.learning_rate):
            parameters["learning_rate"] = "callable"
        if self.learning_rate == "cosine":
            parameters["max_iter"] = self.max_iter
        if not isinstance(self.random_state, (int, type(None))):
            del parameters["random_state"]
        fingerprint = {"estimator": type(self).__name__, **parameters, "data": describe_data()}
        return Checkpoint(self.checkpoint, resume=self.resume, fingerprint=fingerprint)

    def _generator(self, checkpoint: Checkpoint | None) -> np.random.Generator:
        seeds = check_random_state(self.random_state).randint(2**31, size=4).tolist()
        if checkpoint is not None:  # without a random_state, a resumed fit needs the numbers of the first one
            seeds = checkpoint.common.setdefault("seeds", seeds)
        return np.random.default_rng(seeds)

    def _check_common_parameters(self) -> None:
        check = partial(check_parameter, self)
        check("max_iter", is_count(self.max_iter), "an integer >= 1")
        check("tol", is_real(self.tol) and self.tol >= 0, "a number >= 0")
        check("batch_size", self.batch_size == "auto" or is_count(self.batch_size), "'auto' or an integer >= 1")
        named = callable(self.learning_rate) or self.learning_rate in SCHEDULES
        check("learning_rate", named, f"{one_of(SCHEDULES)} or a callable")
        check("n_iter_no_change", is_count(self.n_iter_no_change), "an integer >= 1")
        share: Any = self.validation_fraction
        check("validation_fraction", is_real(share) and 0 < share < 1, "a number in (0, 1)")
        check("callback", self.callback is None or callable(self.callback), "a callable or None")
        check("resume", not self.resume or self.checkpoint is not None, "False without a checkpoint")


def _known_classes(classes: Any) -> npt.NDArray[Any]:
    known = np.unique(classes)
    if len(known) < 2:
        raise ValueError(f"classes: received {known}; accepted: at least 2 labels")
    return known
