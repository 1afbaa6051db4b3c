"""Minimisers of a :class:`~mlefast.estimators.objective.LinearObjective`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize

from mlefast.estimators.objective import FloatArray, IntArray, LinearObjective

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


class SGD:
    r"""Stochastic gradient descent with momentum over shuffled mini-batches; may be continued, epoch by epoch.

    With velocity :math:`v` and gradient :math:`g` of a batch: :math:`v \leftarrow \mu v - \eta g`; the step is
    :math:`v`, or :math:`\mu v - \eta g` with Nesterov's momentum (I. Sutskever et al., ICML 2013).
    """

    def __init__(
        self,
        objective: LinearObjective,
        start: FloatArray,
        *,
        batch_size: int,
        learning_rate: float,
        momentum: float,
        nesterov: bool,
        random: np.random.RandomState,
    ) -> None:
        self.objective = objective
        self.parameters = start.astype(objective.dtype, order="C")
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.nesterov = nesterov
        self.random = random
        self._velocity = np.zeros_like(self.parameters)
        self._gradient = np.empty_like(self.parameters)

    def epoch(self, data: Samples) -> float:
        """Visit every sample once, in random order; return the penalised objective as it was met on the way."""
        n_samples = len(data.y)
        batch_size = min(self.batch_size, n_samples)
        order = self.random.permutation(n_samples)
        dense = isinstance(data.X, np.ndarray)
        X_buffer = np.empty((batch_size, data.X.shape[1]), data.X.dtype) if dense else None
        mean_weight = data.total_weight / n_samples  # batches are divided by it, so that light ones stay light
        loss = 0.0
        for first in range(0, n_samples, batch_size):
            chosen = order[first : first + batch_size]
            if X_buffer is not None:  # mode="clip" writes straight into the buffer
                X = np.take(data.X, chosen, axis=0, out=X_buffer[: len(chosen)], mode="clip")
            else:
                X = data.X[chosen]
            weight = None if data.weight is None else data.weight[chosen]
            batch_loss = self.objective.loss_and_gradient(
                self.parameters, X, data.y[chosen], weight, len(chosen) * mean_weight, self._gradient
            )
            loss += batch_loss * len(chosen)
            self._step()
        return loss / n_samples + self.objective.penalty(self.parameters)

    def _step(self) -> None:
        self._velocity *= self.momentum
        self._gradient *= self.learning_rate
        self._velocity -= self._gradient
        if self.nesterov:
            self.parameters -= self._gradient
            np.multiply(self._velocity, self.momentum, out=self._gradient)
            self.parameters += self._gradient
        else:
            self.parameters += self._velocity

    def run(self, data: Samples, *, max_iter: int, tol: float, n_iter_no_change: int, watch: Watcher) -> Fit:
        """Epochs until the objective has not fallen by ``tol`` for ``n_iter_no_change`` of them; ``tol=0`` runs all."""
        best, since_best = np.inf, 0
        for n_iter in range(1, max_iter + 1):
            value = self.epoch(data)
            watch(n_iter, value)
            if not np.isfinite(value):
                raise FloatingPointError(
                    f"solver='sgd' diverged in epoch {n_iter} (the objective is {value}); use a smaller "
                    f"learning_rate_init than {self.learning_rate:.3g}, or scale the features"
                )
            since_best = 0 if value < best - tol else since_best + 1
            best = min(best, value)
            if tol > 0 and since_best >= n_iter_no_change:
                return Fit(self.parameters, n_iter, True, f"no improvement by {tol} for {n_iter_no_change} epochs")
        return Fit(self.parameters, max_iter, tol == 0, f"max_iter={max_iter} epochs")


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
