"""What a linear softmax model is fitted by: the mean negative log-likelihood and the logarithm of a prior."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mlefast import _core
from mlefast.derivatives import softmax_vjp
from mlefast.estimators.machines import HOST, Machine, machine_of
from mlefast.estimators.sparse import rows_of, transpose_of
from mlefast.losses import cross_entropy_and_grad
from mlefast.softmax import softmax

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

_LOGITS = 2**22  # that exist at a time: 16 MB of float32, far fewer than a large data set has
_FEW_OUTPUTS, _FEW_FEATURES = 64, 8192  # with which our own products are faster than a BLAS's
_PROBABILITIES = 2**26  # that are kept for the products with one Hessian; beyond, they are computed again for each


class LinearObjective:
    r"""Mean negative log-likelihood of labels under a linear softmax model, and the prior on its weights.

    The prior's share is :math:`\lambda_2/2\,\|W\|^2 + \lambda_1 \|W\|_1`. The parameters are one array: weights
    (outputs, features), then intercepts (outputs,), which have no prior. Two classes have one output, the logit of the
    second against the first; more have an output each.

    Buffers are made once for the largest batch and used again: fresh pages cost as much as the kernel that fills them.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        *,
        fit_intercept: bool,
        l2: float,
        l1: float = 0.0,
        dtype: Any,
        machine: Machine = HOST,
    ) -> None:
        self.n_classes = n_classes
        self.n_outputs = 1 if n_classes == 2 else n_classes
        self.n_features = n_features
        self.fit_intercept = fit_intercept
        self.l2 = l2
        self.l1 = l1
        self.dtype = np.dtype(dtype)
        self.machine = machine
        self._logits: FloatArray = machine.empty((0, n_classes), self.dtype)
        self._product = machine.empty((n_features, self.n_outputs), self.dtype)
        self._sparse: tuple[Any, Any] | None = None

    def keep_transpose(self, X: Any) -> None:
        """Copy sparse samples by features, if their logits exist at once, for the gradients of a fit.

        It costs their memory once more and the time of some gradients. Without it a gradient is added up in all of its
        places at a time; with it, in one after the other.
        """
        if not isinstance(X, self.machine.xp.ndarray) and len(list(self._pieces(X.shape[0]))) == 1:
            self._sparse = X, X.T.tocsr()

    @property
    def n_weights(self) -> int:
        """The number of parameters that have a prior."""
        return self.n_outputs * self.n_features

    @property
    def size(self) -> int:
        """The number of parameters."""
        return self.n_weights + (self.n_outputs if self.fit_intercept else 0)

    def split(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Give views of the weights (outputs, features) and intercepts (outputs,), if there are any."""
        weights = parameters[: self.n_weights].reshape(self.n_outputs, self.n_features)
        return weights, parameters[self.n_weights :] if self.fit_intercept else None

    def reads_once(self, X: Any) -> bool:
        """Whether compiled kernels make loss and gradient in one pass over these samples."""
        return (
            isinstance(X, np.ndarray)
            and X.dtype == self.dtype
            and X.flags.c_contiguous
            and has_own_products(self.n_features, self.n_outputs)
        )

    def penalty(self, parameters: FloatArray) -> float:
        """Return the prior's share of the objective."""
        weights = parameters[: self.n_weights]
        xp = machine_of(weights).xp
        value = 0.5 * self.l2 * float(xp.vdot(weights, weights)) if self.l2 else 0.0
        return value + self.l1 * float(xp.abs(weights).sum(dtype=np.float64)) if self.l1 else value

    def loss_and_gradient(
        self,
        parameters: FloatArray,
        X: Any,
        y: IntArray,
        sample_weight: FloatArray | None,
        total_weight: float,
        gradient: FloatArray,
    ) -> Any:
        """Write the gradient of the loss of samples, without the prior; return the loss, a number of the machine.

        Parameters
        ----------
        parameters : ndarray, shape (size,)
            The machine's or the host's.
        X : ndarray or CSR array, shape (samples, features)
        y : ndarray of int64, shape (samples,)
            Class indices.
        sample_weight : ndarray, shape (samples,), or None
        total_weight : float
            What the sum over the samples is divided by.
        gradient : ndarray, shape (size,)
            The machine's; is overwritten.
        """
        weights, intercepts = self._converted(parameters)
        if self.reads_once(X):
            into = gradient if gradient.dtype == self.dtype else np.empty(self.size, self.dtype)
            scale = 1 / total_weight
            loss: Any = _core.linear_loss(X, weights, intercepts, y, sample_weight, scale, *self.split(into))
            if into is not gradient:
                gradient[...] = into
            return loss / total_weight
        coef_gradient, intercept_gradient = self.split(gradient)
        loss = 0.0
        machine = self.machine
        for some in self._pieces(X.shape[0]):
            samples = rows_of(X, some)
            logits = linear_logits(samples, weights, intercepts, self._logits_for(len(y[some])), machine)
            factor = 1 / total_weight if sample_weight is None else sample_weight[some] / total_weight
            # Losses are rounded one by one and added in float64: the sum of many would be known to 7 digits only.
            losses, _ = cross_entropy_and_grad(logits, y[some], reduction="none", upstream=factor, out=logits)
            loss += machine.total(losses, None if sample_weight is None else sample_weight[some])
            self._back(logits, samples, some.start == 0, coef_gradient, intercept_gradient)
        return loss / total_weight

    def curvature(
        self, parameters: FloatArray, X: Any, sample_weight: FloatArray | None, total_weight: float
    ) -> Curvature:
        """Return the loss's Hessian at some parameters, for products with vectors."""
        return Curvature(self, np.array(parameters), X, sample_weight, total_weight)

    def _converted(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        return self.split(self.machine.asarray(parameters.astype(self.dtype, copy=False)))

    def _pieces(self, n_samples: int) -> Iterator[slice]:
        rows = max(1, _LOGITS // self.n_classes)
        return (slice(start, min(n_samples, start + rows)) for start in range(0, n_samples, rows))

    def _logits_for(self, n_samples: int) -> FloatArray:
        if n_samples > len(self._logits):
            self._logits = self.machine.empty((n_samples, self.n_classes), self.dtype)
        return self._logits[:n_samples]

    def _back(
        self, errors: FloatArray, X: Any, first: bool, coef_gradient: FloatArray, intercept_gradient: FloatArray | None
    ) -> None:
        """Write (or add, after the first piece) what errors of the logits mean for the parameters."""
        errors = errors[:, 1:] if self.n_outputs == 1 else errors
        machine = self.machine
        if not isinstance(X, machine.xp.ndarray):
            kept = self._sparse is not None and self._sparse[0] is X
            transpose = self._sparse[1] if self._sparse is not None and kept else transpose_of(X)
            machine.product(transpose, errors, coef_gradient.T, add=not first)
        else:  # the larger factor first: a BLAS takes a quarter less time for it
            slope = machine.product(X.T, errors, self._product).T
            if first:
                coef_gradient[...] = slope
            else:
                coef_gradient += slope
        sums = machine.xp.sum(errors, axis=0, dtype=np.float64) if intercept_gradient is not None else None
        if intercept_gradient is not None and sums is not None:
            intercept_gradient[...] = sums if first else intercept_gradient + sums


class Curvature:
    """The Hessian of a linear objective's loss at one point."""

    def __init__(
        self,
        objective: LinearObjective,
        parameters: FloatArray,
        X: Any,
        sample_weight: FloatArray | None,
        total_weight: float,
    ) -> None:
        self._objective = objective
        self._parameters = parameters
        self._X = X
        self._weight = sample_weight
        self._total_weight = total_weight
        self._probabilities: FloatArray | None = None
        if X.shape[0] * objective.n_classes <= _PROBABILITIES:
            self._probabilities = objective.machine.empty((X.shape[0], objective.n_classes), objective.dtype)
            for some in objective._pieces(X.shape[0]):
                self._compute(some, self._probabilities[some])

    def _compute(self, some: slice, out: FloatArray | None = None) -> FloatArray:
        of = self._objective
        logits = linear_logits(rows_of(self._X, some), *of._converted(self._parameters), out, machine=of.machine)
        probabilities: FloatArray = softmax(logits, out=logits)
        return probabilities

    def times(self, vector: FloatArray) -> FloatArray:
        """Return the product with a vector in the shape of the parameters, in float64; both are the host's."""
        objective, X = self._objective, self._X
        weights, intercepts = objective._converted(vector)
        if objective.reads_once(X) and self._probabilities is not None:
            product = np.empty(objective.size, objective.dtype)
            scale, into = 1 / self._total_weight, objective.split(product)
            _core.linear_curvature(X, weights, intercepts, self._probabilities, self._weight, scale, *into)
            return product.astype(np.float64)
        result = objective.machine.empty(objective.size, np.float64)
        into = objective.split(result)
        for i, some in enumerate(objective._pieces(X.shape[0])):
            probabilities = self._compute(some) if self._probabilities is None else self._probabilities[some]
            buffer = objective._logits_for(len(probabilities))
            samples = rows_of(X, some)
            moved = linear_logits(samples, weights, intercepts, buffer, objective.machine)
            softmax_vjp(probabilities, moved, out=moved)
            moved *= 1 / self._total_weight if self._weight is None else self._weight[some, None] / self._total_weight
            objective._back(moved, samples, i == 0, *into)
        on_host: FloatArray = objective.machine.to_host(result)
        return on_host


def has_own_products(n_features: int, n_outputs: int) -> bool:
    """Whether :mod:`mlefast._core` multiplies by so few outputs faster than a BLAS; without vectors it does not."""
    return n_outputs <= _FEW_OUTPUTS and n_features <= _FEW_FEATURES and _core.isa() != "scalar"


def linear_logits(
    X: Any, coef: FloatArray, intercept: FloatArray | None, out: FloatArray | None = None, machine: Machine = HOST
) -> FloatArray:
    """Logits (samples, classes) of a linear model with (classes or 1, features) coefficients.

    With one row of coefficients it is the logit of the second class, and that of the first is 0.
    """
    n_outputs = coef.shape[0]
    if out is None:
        logits: FloatArray = machine.empty((X.shape[0], max(2, n_outputs)), coef.dtype)
        out = logits
    if n_outputs == 1:
        out[:, 0] = 0
    machine.product(X, coef.T, out[:, -n_outputs:])
    if intercept is not None:
        out[:, -n_outputs:] += intercept
    return out
