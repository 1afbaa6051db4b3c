"""Minimisers: of a :class:`~mlefast.estimators.objective.LinearObjective` as a whole, of any model by mini-batches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import scipy.optimize

from mlefast.estimators.objective import FloatArray, IntArray, LinearObjective
from mlefast.estimators.optimizers import Optimizer

Watcher = Callable[[int, float], None]


class Fit(NamedTuple):
    """How a minimisation ended."""

    parameters: FloatArray
    n_iter: int
    converged: bool
    message: str


class Samples(NamedTuple):
    """The data of a fit: features, class indices, and weights if they are not all 1."""

    X: Any
    y: IntArray
    weight: FloatArray | None

    @property
    def total_weight(self) -> float:
        """The number of samples, or the sum of their weights."""
        return float(len(self.y)) if self.weight is None else float(np.sum(self.weight, dtype=np.float64))


def lbfgs(
    objective: LinearObjective, start: FloatArray, data: Samples, *, max_iter: int, tol: float, watch: Watcher
) -> Fit:
    """Limited-memory BFGS on all samples at once, by SciPy; ``tol`` bounds the gradient's largest entry."""
    total_weight = data.total_weight
    gradient = np.empty(objective.shape)

    def value_and_gradient(flat: FloatArray) -> tuple[float, FloatArray]:
        parameters = flat.reshape(objective.shape)
        loss = objective.loss_and_gradient(parameters, data.X, data.y, data.weight, total_weight, gradient)
        return loss + objective.penalty(parameters), gradient.ravel().copy()  # SciPy keeps what it is given

    n_iter = 0

    def after_iteration(intermediate_result: scipy.optimize.OptimizeResult) -> None:
        nonlocal n_iter
        n_iter += 1
        watch(n_iter, float(intermediate_result.fun))

    result = scipy.optimize.minimize(
        value_and_gradient,
        start.ravel().astype(np.float64),
        method="L-BFGS-B",
        jac=True,
        callback=after_iteration,
        # As in scikit-learn's LogisticRegression: the gradient decides, the objective's own change only at its noise.
        options={"maxiter": max_iter, "maxls": 50, "gtol": tol, "ftol": 64 * np.finfo(np.float64).eps},
    )
    return Fit(result.x.reshape(objective.shape), int(result.nit), bool(result.status == 0), str(result.message))


class Trainable(Protocol):
    """What descent on mini-batches asks of a model."""

    @property
    def parameters(self) -> FloatArray:
        """All that is fitted, C-contiguous."""

    @property
    def gradient(self) -> FloatArray:
        """Where :meth:`loss_and_gradient` writes."""

    @property
    def weights(self) -> FloatArray:
        """The part of the parameters that decays."""

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> float:
        """Return the loss of a batch and write its gradient; the optimizer may add that of a penalty."""

    def penalty(self) -> float:
        """Return the prior's share of the objective."""


Model = TypeVar("Model", bound=Trainable)


class LinearDescent:
    """A linear objective at parameters of its own, in the dtype of the features."""

    def __init__(self, objective: LinearObjective, start: FloatArray) -> None:
        self.objective = objective
        self.parameters = start.astype(objective.dtype, order="C")
        self.gradient = np.empty_like(self.parameters)

    @property
    def weights(self) -> FloatArray:
        """The parameters without the intercepts."""
        return self.parameters[:, : self.objective.n_features]

    def loss_and_gradient(self, X: Any, y: IntArray, sample_weight: FloatArray | None, total_weight: float) -> float:
        """Return the loss of a batch and write the gradient of the penalised objective."""
        return self.objective.loss_and_gradient(self.parameters, X, y, sample_weight, total_weight, self.gradient)

    def penalty(self) -> float:
        """Return the prior's share of the objective."""
        return self.objective.penalty(self.parameters)


class Descent(Generic[Model]):
    """Steps of an optimiser over mini-batches of shuffled samples; may be continued, epoch by epoch.

    Parameters
    ----------
    model : Trainable
    optimizer : Optimizer
    name : str
        What messages call it.
    batch_size : int
    random : RandomState, Generator or None
        The order of the samples; None: as they come.
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        *,
        name: str,
        batch_size: int,
        random: np.random.RandomState | np.random.Generator | None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.name = name
        self.batch_size = batch_size
        self.random = random
        self.epochs = 0

    def epoch(self, data: Samples) -> float:
        """Visit every sample once; return the penalised objective as it was met on the way.

        Raises
        ------
        FloatingPointError
            If the loss or a parameter is no longer finite.
        """
        model, n_samples = self.model, len(data.y)
        mean_weight = data.total_weight / n_samples  # batches are divided by it, so that light ones stay light
        self.epochs += 1
        loss = 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # whatever overflows ends in a loss that says so
            for step, (X, y, weight) in enumerate(self._batches(data), start=1):
                batch_loss = model.loss_and_gradient(X, y, weight, len(y) * mean_weight)
                if not math.isfinite(batch_loss):
                    raise self._diverged(step, f"the loss is {batch_loss}")
                loss += batch_loss * len(y)
                self.optimizer.step(model.parameters, model.gradient)
            if not np.isfinite(model.parameters).all():
                raise self._diverged(step, "a parameter is not finite")
            return loss / n_samples + model.penalty()

    def _batches(self, data: Samples) -> Iterator[tuple[Any, IntArray, FloatArray | None]]:
        n_samples = len(data.y)
        batch_size = min(self.batch_size, n_samples)
        if self.random is None:
            for first in range(0, n_samples, batch_size):
                some = slice(first, first + batch_size)
                yield data.X[some], data.y[some], None if data.weight is None else data.weight[some]
            return
        order = self.random.permutation(n_samples)
        dense = isinstance(data.X, np.ndarray)
        X_buffer = np.empty((batch_size, data.X.shape[1]), data.X.dtype) if dense else None
        for first in range(0, n_samples, batch_size):
            chosen = order[first : first + batch_size]
            if X_buffer is not None:  # mode="clip" writes straight into the buffer
                X = np.take(data.X, chosen, axis=0, out=X_buffer[: len(chosen)], mode="clip")
            else:
                X = data.X[chosen]
            yield X, data.y[chosen], None if data.weight is None else data.weight[chosen]

    def _diverged(self, step: int, how: str) -> FloatingPointError:
        return FloatingPointError(
            f"solver={self.name!r} diverged in epoch {self.epochs}, step {step} ({how}); use a smaller "
            f"learning_rate_init than {self.optimizer.learning_rate:.3g}, or scale the features"
        )

    def run(
        self,
        data: Samples,
        *,
        max_iter: int,
        tol: float,
        n_iter_no_change: int,
        watch: Watcher,
        score: Callable[[], float] | None = None,
        interruptible: bool = False,
    ) -> Fit:
        """Epochs until nothing improves by ``tol`` for ``n_iter_no_change`` of them; ``tol=0`` runs all.

        Parameters
        ----------
        data : Samples
        max_iter : int
            The largest number of epochs.
        tol : float
        n_iter_no_change : int
        watch : callable
            Is told of each epoch's number and objective.
        score : callable, optional
            How good the model is on samples that are set aside. What has to improve is then this, not the objective,
            and the best model is restored at the end.
        interruptible : bool
            Whether Ctrl-C ends the run rather than the program.

        Returns
        -------
        Fit
        """
        best, since_best, n_iter = math.inf, 0, 0
        kept = None if score is None else self.model.parameters.copy()
        ending = (tol == 0, f"max_iter={max_iter} epochs")
        try:
            for epoch in range(1, max_iter + 1):
                value = self.epoch(data)
                watch(epoch, value)
                n_iter = epoch
                if score is not None and kept is not None:
                    value = -score()
                    if value < best:
                        np.copyto(kept, self.model.parameters)
                since_best = 0 if value < best - tol else since_best + 1
                best = min(best, value)
                if tol > 0 and since_best >= n_iter_no_change:
                    ending = (True, f"no improvement by {tol} for {n_iter_no_change} epochs")
                    break
        except KeyboardInterrupt:
            if not interruptible:
                raise
            ending = (False, "interrupted")
        if kept is not None:
            np.copyto(self.model.parameters, kept)
        return Fit(self.model.parameters, n_iter, *ending)


def steady_learning_rate(X: Any, l2: float, momentum: float) -> float:
    r"""The step size at which descent on all samples cannot overshoot.

    A sample's loss has a curvature of at most :math:`\|x\|^2/2` (the largest eigenvalue of
    :math:`\mathrm{diag}(p) - pp^T` is at most 1/2; D. Böhning, 1992), and momentum multiplies a steady step by
    :math:`1/(1-\mu)`.
    """
    values = X if isinstance(X, np.ndarray) else X.data
    squares = float(np.vdot(values, values))
    curvature = 0.5 * (squares / X.shape[0] + 1) + l2
    return float((1 - momentum) / curvature)
